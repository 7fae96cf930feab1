using System.Runtime.InteropServices;
using Holdfast.Rules;

namespace Holdfast.PostgreSql;

/// <summary>
/// What one transaction has loaded, decides over and changes. Everything that a decision may ask for was loaded before:
/// <see cref="FindMissing"/> says whether that is so. Not thread-safe.
/// </summary>
internal sealed class LoadedState : IStockState
{
    private readonly Dictionary<string, Row> _rows = new(StringComparer.Ordinal);
    private readonly Dictionary<string, StoredOperation> _operations = new(StringComparer.Ordinal);
    private readonly List<Operation> _due = [];

    /// <summary>The SKUs that were asked for by name; those that are missing among the rows are not stocked.</summary>
    private readonly HashSet<string> _asked;
    private Dictionary<string, Queue<Operation>>? _dueBySku;

    public LoadedState(HashSet<string> asked) => _asked = asked;

    /// <summary>The store's time of this transaction.</summary>
    public long Now { get; set; }

    /// <summary>The block of ledger positions that it has taken.</summary>
    public long Block { get; set; }

    public List<Row> TouchedRows { get; } = [];

    public List<StoredOperation> TouchedOperations { get; } = [];

    /// <summary>Operations that were there before and are to be taken out.</summary>
    public List<string> Removed { get; } = [];

    public List<Entry> Flow { get; } = [];

    public IEnumerable<Row> Rows => _rows.Values;

    /// <summary>Whether the decisions so far have changed anything.</summary>
    public bool HasChanges => TouchedOperations.Count > 0 || Removed.Count > 0;

    public void Load(Row row) => _rows.Add(row.Sku, row);

    /// <summary>Takes a loaded operation: the same object for the whole transaction, the latest read counts.</summary>
    public void Load(StoredOperation stored) => _operations[stored.Operation.Id] = stored;

    /// <summary>Notes that a loaded operation was due when the database was asked.</summary>
    public void LoadDue(StoredOperation stored)
    {
        if (_operations.TryAdd(stored.Operation.Id, stored))
        {
            _due.Add(stored.Operation);
        }
    }

    /// <summary>
    /// The SKUs that the decisions on these commands may touch beside those that were loaded: of targets that became
    /// known meanwhile, and of reservations that are due. Empty when the decisions can be made.
    /// </summary>
    public HashSet<string> FindMissing(ArraySegment<StockCommand> commands)
    {
        var missing = new HashSet<string>(StringComparer.Ordinal);
        foreach (var command in commands)
        {
            if (_operations.Count == 0)
            {
                break;
            }

            // A target's lines are touched by a refund or by what ends it; any known id's, when it is due.
            if (command.Target is { } target && _operations.TryGetValue(target, out var known))
            {
                Require(known.Operation);
            }

            if (_operations.TryGetValue(command.Id, out known) && known.Operation.State == OperationState.Reserved)
            {
                Require(known.Operation);
            }
        }

        foreach (var due in _due)
        {
            Require(due);
        }

        return missing;

        void Require(Operation operation)
        {
            foreach (var (sku, _) in operation.Lines)
            {
                if (!_rows.ContainsKey(sku))
                {
                    missing.Add(sku);
                }
            }
        }
    }

    StockRow? IStockState.FindRow(string sku)
    {
        if (_rows.TryGetValue(sku, out var row))
        {
            return row;
        }

        return _asked.Contains(sku) ? null : throw new InvalidOperationException($"A decision asked for the row of SKU '{sku}', which was not locked.");
    }

    StockRow IStockState.AddRow(string sku)
    {
        var row = new Row(sku, loadedVersion: 0);
        _rows.Add(sku, row);
        return row;
    }

    Operation? IStockState.FindOperation(string id) => _operations.TryGetValue(id, out var stored) ? stored.Operation : null;

    void IStockState.AddOperation(Operation operation)
    {
        var stored = new StoredOperation(operation, isNew: true);
        _operations.Add(operation.Id, stored);
        TouchedOperations.Add(stored);
    }

    void IStockState.OperationChanged(Operation operation)
    {
        var stored = _operations[operation.Id];
        if (stored is { IsNew: false, IsChanged: false })
        {
            stored.IsChanged = true;
            TouchedOperations.Add(stored);
        }
    }

    void IStockState.RemoveOperation(Operation operation)
    {
        _operations.Remove(operation.Id, out var stored);
        TouchedOperations.Remove(stored!);
        if (!stored!.IsNew)
        {
            Removed.Add(operation.Id);
        }
    }

    void IStockState.RowChanged(StockRow row) => Touch((Row)row);

    Operation? IStockState.FindDue(StockRow row, long now)
    {
        // Only holds in the database can be due: a reservation of this transaction lives for a second at least.
        if (_due.Count == 0)
        {
            return null;
        }

        _dueBySku ??= GroupDue();
        if (!_dueBySku.TryGetValue(row.Sku, out var due))
        {
            return null;
        }

        while (due.TryPeek(out var first))
        {
            if (first.IsDue(now))
            {
                return first;
            }

            due.Dequeue();
        }

        return null;
    }

    void IStockState.AddFlow(StockRow row, in FlowEntry entry)
    {
        var changed = (Row)row;
        Touch(changed);
        Flow.Add(new(changed.Sku, entry.OperationId, entry.Kind, entry.Version, entry.AvailableChange, entry.ReservedChange, entry.Available, entry.Reserved));
    }

    private void Touch(Row row)
    {
        if (!row.IsTouched)
        {
            row.IsTouched = true;
            TouchedRows.Add(row);
        }
    }

    private Dictionary<string, Queue<Operation>> GroupDue()
    {
        // The earliest first, ties by id, as in every engine, so that one history gives one ledger everywhere.
        _due.Sort(static (a, b) => a.ExpiresAt != b.ExpiresAt ? a.ExpiresAt.CompareTo(b.ExpiresAt) : StockKey.ByteOrder.Compare(a.Id, b.Id));
        var grouped = new Dictionary<string, Queue<Operation>>(StringComparer.Ordinal);
        foreach (var loaded in _due)
        {
            // The object that the decisions know: the look at the ids came after the look at what is due.
            var operation = _operations[loaded.Id].Operation;
            foreach (var (sku, _) in operation.Lines)
            {
                ref var queue = ref CollectionsMarshal.GetValueRefOrAddDefault(grouped, sku, out _);
                (queue ??= new()).Enqueue(operation);
            }
        }

        return grouped;
    }

    /// <summary>A stock row with what it was when it was loaded.</summary>
    internal sealed class Row(string sku, long loadedVersion) : StockRow(sku)
    {
        /// <summary>0 for a row that this transaction adds.</summary>
        public long LoadedVersion { get; } = loadedVersion;

        public long ChangedAt { get; init; }

        public long LoadedHeld { get; init; }

        public long LoadedSupplied { get; init; }

        public bool IsNew => LoadedVersion == 0;

        public bool IsTouched { get; set; }
    }

    [StructLayout(LayoutKind.Auto)]
    internal readonly record struct Entry(
        string Sku, string OperationId, FlowKind Kind, long Version, long AvailableChange, long ReservedChange, long Available, long Reserved);
}
