namespace Holdfast.Testing;

/// <summary>
/// A caller's batch is decided in the order given. Two of its commands that were both done, and changed the same SKU,
/// did so in that order.
/// </summary>
internal static class BatchOrderAudit
{
    public static async Task<string?> FindDisorderAsync(IStockEngine engine, IEnumerable<SimulatedCaller> callers, IEnumerable<string> skus)
    {
        var versions = new Dictionary<(string Id, FlowKind Kind, string Sku, int Partition), long>();
        foreach (var sku in skus)
        {
            await foreach (var entry in engine.ReadFlowAsync(new() { Sku = sku }).ConfigureAwait(false))
            {
                versions[(entry.OperationId, entry.Kind, sku, entry.Partition)] = entry.Version;
            }
        }

        var written = versions.ToLookup(pair => (pair.Key.Id, pair.Key.Kind), pair => (pair.Key.Sku, pair.Key.Partition, Version: pair.Value));
        foreach (var (commands, results) in callers.SelectMany(caller => caller.Calls))
        {
            for (var later = 1; later < commands.Count; later++)
            {
                for (var earlier = 0; earlier < later; earlier++)
                {
                    if (results[earlier].Status == StockStatus.Done && results[later].Status == StockStatus.Done
                        && written[KeyOf(commands[earlier])].Any(one => written[KeyOf(commands[later])].Any(other => one.Sku == other.Sku && one.Partition == other.Partition && one.Version > other.Version)))
                    {
                        return $"{commands[earlier]} came before {commands[later]} in one batch, but after it in the ledger.";
                    }
                }
            }
        }

        return null;
    }

    private static (string Id, FlowKind Kind) KeyOf(StockCommand command) => (command.Id, HistoryAuditRun.KindOf(command.Verb));
}
