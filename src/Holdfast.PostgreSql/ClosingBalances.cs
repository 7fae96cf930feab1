namespace Holdfast.PostgreSql;

/// <summary>
/// What the ledger's entries up to an archive come to, SKU by SKU: added up from the entries as they are written to the
/// file, so that opening and file can't disagree. Memory: the SKUs and their live holds. Not thread-safe.
/// </summary>
internal sealed class ClosingBalances
{
    private readonly Dictionary<string, Balance> _skus = new(StringComparer.Ordinal);

    /// <summary>Entries that were added, openings not counted.</summary>
    public long Entries { get; private set; }

    /// <summary>SKUs of which entries were added.</summary>
    public int ChangedSkus { get; private set; }

    public DateTimeOffset FirstAt { get; private set; }

    public DateTimeOffset LastAt { get; private set; }

    /// <summary>Adds an entry, or what an earlier archive left.</summary>
    /// <exception cref="PostgreSqlStoreException">The entry does not follow the one before: such a ledger is not archived.</exception>
    public void Add(in FlowEntry entry, long position)
    {
        if (!_skus.TryGetValue(entry.Sku, out var balance))
        {
            _skus.Add(entry.Sku, balance = new() { Sku = entry.Sku });
        }

        if (entry.Opening is { } opening)
        {
            (balance.Restocked, balance.Adjusted, balance.Supplied) = (opening.Restocked, opening.Adjusted, opening.Supplied);
            foreach (var (id, units) in opening.Holds)
            {
                balance.Holds.Add(id, units);
            }
        }
        else
        {
            if (entry.Version != balance.Version + 1 || entry.Available != balance.Available + entry.AvailableChange || entry.Reserved != balance.Reserved + entry.ReservedChange)
            {
                throw new PostgreSqlStoreException(
                    $"The ledger of SKU '{entry.Sku}' does not add up between version {balance.Version} and version {entry.Version}, so it is not archived: run the audit. (If it passes, the clock was set back around this instant: take another.)");
            }

            Count(balance, entry);
        }

        (balance.Version, balance.Available, balance.Reserved, balance.OperationId, balance.Position) = (entry.Version, entry.Available, entry.Reserved, entry.OperationId, position);
    }

    /// <summary>The SKUs of which entries were added, each with what it comes to.</summary>
    public IEnumerable<Balance> Changed() => _skus.Values.Where(balance => balance.IsChanged).OrderBy(balance => balance.Sku, StockKey.ByteOrder);

    private void Count(Balance balance, in FlowEntry entry)
    {
        FirstAt = Entries++ == 0 || entry.At < FirstAt ? entry.At : FirstAt;
        LastAt = entry.At > LastAt ? entry.At : LastAt;
        if (!balance.IsChanged)
        {
            balance.IsChanged = true;
            ChangedSkus++;
        }

        switch (entry.Kind)
        {
            case FlowKind.Restock:
                balance.Restocked += entry.AvailableChange;
                balance.Supplied += entry.AvailableChange;
                break;
            case FlowKind.Adjust:
                balance.Adjusted += entry.AvailableChange;
                balance.Supplied += Math.Max(0, entry.AvailableChange);
                break;
        }

        if (entry.ReservedChange != 0)
        {
            var held = balance.Holds.GetValueOrDefault(entry.OperationId) + entry.ReservedChange;
            if (held == 0)
            {
                balance.Holds.Remove(entry.OperationId);
            }
            else
            {
                balance.Holds[entry.OperationId] = held;
            }
        }
    }

    internal sealed class Balance
    {
        public required string Sku { get; init; }

        public bool IsChanged { get; set; }

        public long Position { get; set; }

        public long Version { get; set; }

        public long Available { get; set; }

        public long Reserved { get; set; }

        public long Restocked { get; set; }

        public long Adjusted { get; set; }

        public long Supplied { get; set; }

        public string OperationId { get; set; } = "";

        public Dictionary<string, long> Holds { get; } = new(StringComparer.Ordinal);
    }
}
