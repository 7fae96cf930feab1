namespace Holdfast.Cli.Bench;

/// <summary>What must hold after a load, or its figures are worth nothing.</summary>
internal static class LoadAudit
{
    /// <summary>Audits the ledger, and counts that it holds every acknowledged operation of the run and none that nobody asked for.</summary>
    /// <returns><c>pass</c>, or <c>fail: </c> and the first difference.</returns>
    public static Task<string> RunAsync(Terminal terminal, IStockEngine engine, Workload workload, LoadResult result, CancellationToken cancellationToken) =>
        RunAsync(terminal, engine, workload, result.AllAccepted, result.AllUnknown, cancellationToken);

    /// <summary>The same for a run of several processes, from their counts.</summary>
    public static Task<string> RunAsync(Terminal terminal, IStockEngine engine, Workload workload, long accepted, long unknown, CancellationToken cancellationToken) =>
        RunAsync(terminal, engine, [new(workload.Run, accepted, unknown)], cancellationToken);

    /// <summary>The same for several runs on one store, in one pass.</summary>
    public static async Task<string> RunAsync(Terminal terminal, IStockEngine engine, IReadOnlyList<LoadCount> runs, CancellationToken cancellationToken)
    {
        var counted = await terminal.WithProgressAsync("count", 0, async progress =>
        {
            var operations = new long[runs.Count];
            var all = 0L;
            await foreach (var operation in engine.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
            {
                for (var i = 0; operation.Verb == StockVerb.Deduct && i < operations.Length; i++)
                {
                    if (operation.Id.StartsWith(runs[i].Run, StringComparison.Ordinal))
                    {
                        operations[i]++;
                        progress(++all);
                        break;
                    }
                }
            }

            return operations;
        }).ConfigureAwait(false);
        for (var i = 0; i < counted.Length; i++)
        {
            var (_, accepted, unknown) = runs[i];
            if (counted[i] < accepted || counted[i] > accepted + unknown)
            {
                return $"fail: {accepted} deductions were acknowledged and {unknown} are unknown, but the ledger has {counted[i]}";
            }
        }

        return await LedgerAsync(terminal, engine, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Audits the ledger against the stock rows and the operations.</summary>
    /// <returns><c>pass</c>, or <c>fail: </c> and the first difference.</returns>
    public static async Task<string> LedgerAsync(Terminal terminal, IStockEngine engine, CancellationToken cancellationToken)
    {
        var report = await AuditCommand.AuditAsync(terminal, engine, cancellationToken).ConfigureAwait(false);
        return report.Passed ? "pass" : $"fail: {report.FirstDifference}";
    }
}

/// <summary>What a run says that it did.</summary>
/// <param name="Run">What its ids begin with.</param>
/// <param name="Accepted">Deductions that were acknowledged.</param>
/// <param name="Unknown">Those without a verdict.</param>
internal readonly record struct LoadCount(string Run, long Accepted, long Unknown);
