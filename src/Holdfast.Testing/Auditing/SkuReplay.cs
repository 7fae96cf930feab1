using System.Collections.Immutable;

namespace Holdfast.Testing;

/// <summary>Replays the ledger of one SKU: versions, balances, sums and open holds. Memory: the SKU's partitions and live holds, not its history.</summary>
internal sealed class SkuReplay(string sku, DifferenceList differences)
{
    private readonly SortedDictionary<int, (long Version, long Available, long Reserved)> _partitions = [];
    private Dictionary<string, long>? _holds;

    /// <summary>The opening that the ledger was read from, if it did not begin with its first entry.</summary>
    public SkuOpening? Opening { get; private set; }

    /// <summary>Whether an opening stood for entries that had not been read: they were archived while the ledger was read.</summary>
    public bool WasOvertaken { get; private set; }

    public string Sku { get; } = sku;

    /// <summary>The row as it was read before the ledger.</summary>
    public StockLevel? Row { get; set; }

    /// <summary>Whether the ledger has met the version that the row was read at.</summary>
    public bool IsCompared { get; private set; }

    public long Version { get; private set; }

    public long Available { get; private set; }

    public long Reserved { get; private set; }

    public long Restocked { get; private set; }

    public long Adjusted { get; private set; }

    public long Supplied { get; private set; }

    public IReadOnlyDictionary<string, long> OpenHolds => _holds ?? [];

    /// <summary>Whether this entry brings a SKU of one partition to the version that its row was read at; then the row can be compared although the store goes on.</summary>
    public bool MeetsRow => !IsCompared && _partitions.Count == 1 && Row is { } row && row.Version == Version;

    public void Replay(in FlowEntry entry)
    {
        _partitions.TryGetValue(entry.Partition, out var before);
        var where = entry.Partition == 0 ? Sku : $"{Sku} (partition {entry.Partition})";
        if (entry is { Kind: FlowKind.Opening, Opening: { } opening })
        {
            Open(entry, opening, before, where);
            return;
        }

        if (entry.Version != before.Version + 1)
        {
            differences.Add($"{where}: version {before.Version} is followed by version {entry.Version} ({entry.Kind} of {entry.OperationId}).");
        }
        else if (entry.Available != before.Available + entry.AvailableChange || entry.Reserved != before.Reserved + entry.ReservedChange)
        {
            differences.Add(
                $"{where}: version {entry.Version} ({entry.Kind} of {entry.OperationId}) changes available {before.Available} by {entry.AvailableChange} and reserved {before.Reserved} by {entry.ReservedChange}, but says {entry.Available} and {entry.Reserved}.");
        }

        if (entry.Available < 0 || entry.Reserved < 0)
        {
            differences.Add($"{where}: version {entry.Version} ({entry.Kind} of {entry.OperationId}) leaves available {entry.Available} and reserved {entry.Reserved}.");
        }

        if (!HasShape(entry))
        {
            differences.Add($"{where}: version {entry.Version} is a {entry.Kind} of {entry.OperationId} that changes available by {entry.AvailableChange} and reserved by {entry.ReservedChange}.");
        }

        // From here on the entry's own balances count, so that one bad entry is one difference.
        MoveTo(entry, before);
        if (entry.Kind == FlowKind.Restock)
        {
            Restocked += entry.AvailableChange;
            Supplied += entry.AvailableChange;
        }
        else if (entry.Kind == FlowKind.Adjust)
        {
            Adjusted += entry.AvailableChange;
            Supplied += Math.Max(0, entry.AvailableChange);
        }

        if (entry.ReservedChange != 0)
        {
            ChangeHold(entry, where);
        }

        if (Supplied > StockLimits.MaxSupplied)
        {
            differences.Add($"{where}: version {entry.Version} brings the units ever supplied to {Supplied}, over the limit of {StockLimits.MaxSupplied}.");
        }
    }

    /// <summary>Compares a row with the ledger at the same version.</summary>
    /// <returns>Units that the row counts as available and the ledger still as reserved: they must be those of holds whose time has passed.</returns>
    public long CompareWith(in StockLevel row)
    {
        IsCompared = true;
        if (row.Restocked != Restocked || row.Adjusted != Adjusted)
        {
            differences.Add($"{Sku}: the stock row says restocked {row.Restocked} and adjusted {row.Adjusted}, its ledger {Restocked} and {Adjusted} (version {Version}).");
        }

        var due = row.Available - Available;
        if (due < 0 || row.Reserved != Reserved - due || row.Reserved < 0)
        {
            differences.Add($"{Sku}: the stock row says available {row.Available} and reserved {row.Reserved}, its ledger {Available} and {Reserved} (version {Version}).");
            return 0;
        }

        return due;
    }

    /// <summary>Begins with an opening; or, where its entries were read from an archive, compares what they came to.</summary>
    private void Open(in FlowEntry entry, FlowOpening opening, (long Version, long Available, long Reserved) before, string where)
    {
        if (before.Version == 0)
        {
            // Sums and holds are those of the SKU; with several partitions each brings its part.
            Restocked += opening.Restocked;
            Adjusted += opening.Adjusted;
            Supplied += opening.Supplied;
            _holds ??= new(StringComparer.Ordinal);
            foreach (var (id, units) in opening.Holds)
            {
                _holds[id] = _holds.GetValueOrDefault(id) + units;
            }

            Opening = new(entry.At, entry.Version, new Dictionary<string, long>(_holds, StringComparer.Ordinal));
            MoveTo(entry, before);
            if (entry.Available < 0 || entry.Reserved < 0 || entry.Version < 1 || opening.Holds.Sum(hold => hold.Units) != entry.Reserved)
            {
                differences.Add($"{where}: its opening at version {entry.Version} says available {entry.Available} and reserved {entry.Reserved}, of which its holds name {opening.Holds.Sum(hold => hold.Units)}.");
            }

            return;
        }

        if (entry.Version != before.Version)
        {
            WasOvertaken |= entry.Version > before.Version;
            differences.Add($"{where}: version {before.Version} is followed by an opening that stands for everything up to version {entry.Version}.");
        }
        else if ((entry.Available, entry.Reserved) != (before.Available, before.Reserved)
            || (_partitions.Count == 1 && ((opening.Restocked, opening.Adjusted, opening.Supplied) != (Restocked, Adjusted, Supplied)
                || !AreSame(opening.Holds, OpenHolds))))
        {
            differences.Add(
                $"{where}: its opening at version {entry.Version} says available {entry.Available}, reserved {entry.Reserved} in {opening.Holds.Length} holds, restocked {opening.Restocked}, adjusted {opening.Adjusted} and supplied {opening.Supplied}; the archive comes to {before.Available}, {before.Reserved} in {OpenHolds.Count}, {Restocked}, {Adjusted} and {Supplied}.");
        }

        MoveTo(entry, before);
    }

    private static bool AreSame(ImmutableArray<FlowHold> holds, IReadOnlyDictionary<string, long> open) =>
        holds.Length == open.Count && holds.All(hold => open.GetValueOrDefault(hold.OperationId) == hold.Units);

    private void MoveTo(in FlowEntry entry, (long Version, long Available, long Reserved) before)
    {
        _partitions[entry.Partition] = (entry.Version, entry.Available, entry.Reserved);
        Version += entry.Version - before.Version;
        Available += entry.Available - before.Available;
        Reserved += entry.Reserved - before.Reserved;
    }

    private void ChangeHold(in FlowEntry entry, string where)
    {
        _holds ??= new(StringComparer.Ordinal);
        var held = _holds.GetValueOrDefault(entry.OperationId) + entry.ReservedChange;
        if (held < 0)
        {
            differences.Add($"{where}: version {entry.Version} ends {-entry.ReservedChange} units of reservation {entry.OperationId}, {-held} more than it holds: a reservation ends once.");
        }

        if (held <= 0)
        {
            _holds.Remove(entry.OperationId);
        }
        else
        {
            _holds[entry.OperationId] = held;
        }
    }

    private static bool HasShape(in FlowEntry entry) => entry.Kind switch
    {
        FlowKind.Deduct => entry.AvailableChange < 0 && entry.ReservedChange == 0,
        FlowKind.Reserve => entry.AvailableChange < 0 && entry.ReservedChange == -entry.AvailableChange,
        FlowKind.Confirm => entry.AvailableChange == 0 && entry.ReservedChange < 0,
        FlowKind.Cancel => entry.AvailableChange > 0 && (entry.ReservedChange == 0 || entry.ReservedChange == -entry.AvailableChange),
        FlowKind.Expire => entry.AvailableChange > 0 && entry.ReservedChange == -entry.AvailableChange,
        FlowKind.Refund => entry.AvailableChange > 0 && entry.ReservedChange == 0,
        FlowKind.Restock => entry.AvailableChange >= 0 && entry.ReservedChange == 0,
        FlowKind.Adjust => entry.AvailableChange != 0 && entry.ReservedChange == 0,
        _ => false,
    };
}

/// <summary>Where the ledger of a SKU begins when older entries were archived.</summary>
/// <param name="At">The instant before which everything was archived.</param>
/// <param name="Version">The latest archived version.</param>
/// <param name="Holds">The reservations that held units then.</param>
internal sealed record SkuOpening(DateTimeOffset At, long Version, IReadOnlyDictionary<string, long> Holds);
