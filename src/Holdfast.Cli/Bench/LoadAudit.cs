namespace Holdfast.Cli.Bench;

/// <summary>What must hold after a load, or its figures are worth nothing.</summary>
internal static class LoadAudit
{
    /// <summary>Audits the ledger, and counts that it holds every acknowledged operation of the run and none that nobody asked for.</summary>
    /// <returns><c>pass</c>, or <c>fail: </c> and the first difference.</returns>
    public static Task<string> RunAsync(Terminal terminal, IStockEngine engine, Workload workload, LoadResult result, CancellationToken cancellationToken) =>
        RunAsync(terminal, engine, workload, result.AllAccepted, result.AllUnknown, cancellationToken);

    /// <summary>The same for a run of several processes, from their counts.</summary>
    public static async Task<string> RunAsync(Terminal terminal, IStockEngine engine, Workload workload, long accepted, long unknown, CancellationToken cancellationToken)
    {
        var counted = await terminal.WithProgressAsync("count", 0, async progress =>
        {
            long operations = 0;
            await foreach (var operation in engine.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
            {
                if (operation.Verb == StockVerb.Deduct && operation.Id.StartsWith(workload.Run, StringComparison.Ordinal))
                {
                    progress(++operations);
                }
            }

            return operations;
        }).ConfigureAwait(false);
        if (counted < accepted || counted > accepted + unknown)
        {
            return $"fail: {accepted} deductions were acknowledged and {unknown} are unknown, but the ledger has {counted}";
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
