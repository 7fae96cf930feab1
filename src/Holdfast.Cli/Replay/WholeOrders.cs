namespace Holdfast.Cli.Replay;

/// <summary>
/// Checks against the ledger that every order that was applied is there whole, each line once with its quantity, and
/// that no other order of the file left a trace.
/// </summary>
internal static class WholeOrders
{
    /// <summary>The first order that is not as it should be, in words, or <see langword="null"/>.</summary>
    public static async Task<string?> FindBrokenAsync(IStockEngine engine, OrderFile file, IReadOnlyDictionary<string, Invoice> applied, CancellationToken cancellationToken)
    {
        var ofFile = file.Invoices.Where(invoice => invoice.Kind == InvoiceKind.Order).Select(invoice => invoice.Number).ToHashSet(StringComparer.Ordinal);
        var taken = new Dictionary<string, List<StockLine>>(StringComparer.Ordinal);
        await foreach (var entry in engine.ReadFlowAsync(new(), cancellationToken).ConfigureAwait(false))
        {
            if (entry.Kind == FlowKind.Deduct && ofFile.Contains(entry.OperationId))
            {
                if (!taken.TryGetValue(entry.OperationId, out var lines))
                {
                    taken.Add(entry.OperationId, lines = []);
                }

                lines.Add(new(entry.Sku, -entry.AvailableChange));
            }
        }

        foreach (var (id, order) in applied)
        {
            var wanted = order.Command!.Lines;
            var found = taken.GetValueOrDefault(id) ?? [];
            taken.Remove(id);
            found.Sort((a, b) => StockKey.ByteOrder.Compare(a.Sku, b.Sku));
            if (!wanted.AsSpan().SequenceEqual(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(found)))
            {
                return $"order {id} is not whole: {wanted.Length} lines of {wanted.Sum(l => l.Quantity)} units were applied, the ledger has {found.Count} of {found.Sum(l => l.Quantity)}";
            }
        }

        return taken.Count == 0 ? null : $"order {taken.Keys.First()} was not answered as applied, but the ledger has {taken.Values.First().Count} lines of it";
    }
}
