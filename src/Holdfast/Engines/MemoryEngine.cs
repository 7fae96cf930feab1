using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.Rules;

namespace Holdfast;

/// <summary>
/// The whole contract in the memory of one process: for tests, for rehearsals, and as the top rung of the benchmark
/// ladder. Exact, and gone with the process; operations and ledger are kept for ever, so memory grows with use.
/// Thread-safe by one lock, held for the decisions of one call.
/// </summary>
public sealed class MemoryEngine : IStockEngine, IFlowEnd
{
    private const int PageSize = 512;

    private readonly Lock _lock = new();
    private readonly State _state = new();
    private readonly StoreClock _clock;

    /// <summary>Makes an empty store.</summary>
    /// <param name="clock">The clock that decides expiry; the system's by default.</param>
    public MemoryEngine(TimeProvider? clock = null) => _clock = new(clock ?? TimeProvider.System);

    /// <inheritdoc/>
    public StockTraits Traits => StockTraits.Exact;

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        var results = new StockResult[commands.Count];
        lock (_lock)
        {
            var now = _clock.Now();
            for (var i = 0; i < results.Length; i++)
            {
                var result = StockRules.Decide(_state, commands[i], now);
                results[i] = result.IsApplied ? result with { AcknowledgedBy = Acknowledgement.Memory } : result;
            }
        }

        return new(results);
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        cancellationToken.ThrowIfCancellationRequested();
        var levels = new StockLevel[skus.Count];
        lock (_lock)
        {
            var now = _clock.Now();
            for (var i = 0; i < levels.Length; i++)
            {
                levels[i] = _state.Level(skus[i], now);
            }
        }

        return new(levels);
    }

    /// <inheritdoc/>
    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            return new(_state.FindOperation(id)?.ToView(_clock.Now()));
        }
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        string[] skus;
        lock (_lock)
        {
            skus = [.. _state.Skus.Where(sku => prefix is null || sku.StartsWith(prefix, StringComparison.Ordinal))
                .Where(sku => after is null || StockKey.ByteOrder.Compare(sku, after) > 0).Order(StockKey.ByteOrder)];
        }

        foreach (var page in skus.Chunk(PageSize))
        {
            foreach (var level in await GetStockAsync(page, default, cancellationToken).ConfigureAwait(false))
            {
                yield return level;
            }
        }
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var after = query.DueOnly ? 0 : ParseCursor(query.After);
        for (var left = query.Limit ?? int.MaxValue; left > 0;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            List<OperationView> page;
            lock (_lock)
            {
                page = query.UndecidedOnly ? _state.UndecidedPage(query, _clock.Now(), left)
                    : query.DueOnly ? _state.DuePage(query, _clock.Now(), left)
                    : OperationsPage(query, ref after, Math.Min(left, PageSize));
            }

            foreach (var view in page)
            {
                yield return view;
            }

            left -= page.Count;
            if (query.DueOnly || query.UndecidedOnly || page.Count == 0)
            {
                break;
            }
        }

        await ValueTask.CompletedTask.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            var end = _state.FlowCount(null);
            return new(end == 0 ? null : end.ToString(CultureInfo.InvariantCulture));
        }
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var after = ParseCursor(query.After);
        int end;
        lock (_lock)
        {
            end = _state.FlowCount(query.Sku);
        }

        end = (int)Math.Min(end, after + (long)(query.Limit ?? int.MaxValue));
        while (after < end)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var page = new FlowEntry[Math.Min(PageSize, end - after)];
            lock (_lock)
            {
                for (var i = 0; i < page.Length; i++)
                {
                    page[i] = _state.FlowAt(query.Sku, after + i);
                }
            }

            foreach (var entry in page)
            {
                yield return entry with { Cursor = (++after).ToString(CultureInfo.InvariantCulture) };
            }
        }

        await ValueTask.CompletedTask.ConfigureAwait(false);
    }

    /// <summary>Nothing to release: the store goes with the last reference.</summary>
    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private List<OperationView> OperationsPage(OperationQuery query, ref int after, int size)
    {
        var now = _clock.Now();
        var page = new List<OperationView>();
        while (after < _state.OperationCount && page.Count < size)
        {
            var view = _state.OperationAt(after++).ToView(now, after.ToString(CultureInfo.InvariantCulture));
            if (view.State != OperationState.Undecided && Matches(view, query))
            {
                page.Add(view);
            }
        }

        return page;
    }

    private static bool Matches(OperationView view, OperationQuery query) =>
        (query.State is null || view.State == query.State)
        && (query.CreatedBefore is null || view.CreatedAt < query.CreatedBefore)
        && (query.Target is null || view.Target == query.Target);

    private static int ParseCursor(string? cursor) =>
        cursor is null ? 0
        : int.TryParse(cursor, NumberStyles.None, CultureInfo.InvariantCulture, out var position) ? position
        : throw new ArgumentException($"'{cursor}' is no cursor of this store.", nameof(cursor));

    /// <summary>A row with its own flow and the reservations that hold its units, the next to expire first.</summary>
    private sealed class MemoryRow(string sku, int number) : StockRow(sku)
    {
        public int Number { get; } = number;

        private readonly SortedSet<Operation> _holds = new(ByExpiry.Instance);

        /// <summary>Where the row's entries stand in the ledger.</summary>
        public ChunkedList<int> Flow { get; } = new();

        public void Hold(Operation reservation) => _holds.Add(reservation);

        public void Release(Operation reservation) => _holds.Remove(reservation);

        public Operation? FirstDue(long now) => _holds.Min is { } first && first.IsDue(now) ? first : null;

        public long DueUnits(long now)
        {
            long units = 0;
            foreach (var reservation in _holds)
            {
                if (!reservation.IsDue(now))
                {
                    break;
                }

                foreach (var line in reservation.Lines)
                {
                    units += line.Sku == Sku ? line.Quantity : 0;
                }
            }

            return units;
        }
    }

    private sealed class ByExpiry : IComparer<Operation>
    {
        public static readonly ByExpiry Instance = new();

        public int Compare(Operation? x, Operation? y) =>
            x!.ExpiresAt != y!.ExpiresAt ? x.ExpiresAt.CompareTo(y.ExpiresAt) : string.CompareOrdinal(x.Id, y.Id);
    }

    private sealed class State : IStockState
    {
        private readonly List<MemoryRow> _rows = [];
        private readonly Dictionary<string, MemoryRow> _rowBySku = new(StringComparer.Ordinal);
        private readonly IdTable _ids = new();
        private readonly ChunkedList<OperationRecord> _operations = new();
        private readonly ChunkedList<LedgerRecord> _flow = new();
        private readonly SortedSet<Operation> _live = new(ByExpiry.Instance);
        private readonly HashSet<Operation> _undecided = [];
        private string? _newId;

        public int OperationCount => _operations.Count;

        public IEnumerable<string> Skus => _rowBySku.Keys;

        public StockRow? FindRow(string sku) => _rowBySku.GetValueOrDefault(sku);

        public StockLevel Level(string sku, long now) =>
            _rowBySku.TryGetValue(sku, out var row) ? row.ToLevel(row.Reserved == 0 ? 0 : row.DueUnits(now)) : new() { Sku = sku };

        public StockRow AddRow(string sku)
        {
            var row = new MemoryRow(sku, _rows.Count);
            _rows.Add(row);
            _rowBySku.Add(sku, row);
            return row;
        }

        public Operation? FindOperation(string id)
        {
            var number = _ids.Find(id);
            if (number < 0)
            {
                _newId = id;
                return null;
            }

            return OperationAt(number);
        }

        public Operation OperationAt(int number)
        {
            ref readonly var record = ref _operations[number];
            return record.Full ?? new()
            {
                Id = _ids[number],
                Verb = StockVerb.Deduct,
                State = OperationState.Applied,
                Lines = [new(_rows[record.Row].Sku, record.Quantity)],
                Left = [new(_rows[record.Row].Sku, record.Left)],
                CreatedAt = record.CreatedAt,
            };
        }

        public void AddOperation(Operation operation)
        {
            _ids.Add(operation.Id);
            _newId = null;

            // Nearly all operations are plain deductions of one line that nobody asks for again. They are kept without
            // objects of their own, since what the garbage collector has to move and mark is what this engine costs.
            _operations.Add(operation is { Verb: StockVerb.Deduct, Note: null, Lines.Length: 1, Cart: null }
                ? new(null, _rowBySku[operation.Lines[0].Sku].Number, operation.Lines[0].Quantity, operation.Left[0].Available, operation.CreatedAt)
                : new(operation, 0, 0, 0, 0));
            if (operation.State == OperationState.Undecided)
            {
                _undecided.Add(operation);
            }

            Hold(operation);
        }

        public void RemoveOperation(Operation operation)
        {
            // Its record stays, in a state that no listing shows.
            _ids.Remove(operation.Id);
            _undecided.Remove(operation);
        }

        public void RowChanged(StockRow row)
        {
            // The row is the state.
        }

        public void OperationChanged(Operation operation)
        {
            _operations[_ids.Find(operation.Id)] = new(operation, 0, 0, 0, 0);
            if (operation.Pending is null)
            {
                _undecided.Remove(operation);
            }
            else
            {
                _undecided.Add(operation);
            }

            Hold(operation);
        }

        /// <summary>Lets the rows know whether a reservation holds units of theirs until it expires.</summary>
        private void Hold(Operation operation)
        {
            if (operation.Verb != StockVerb.Reserve)
            {
                return;
            }

            if (operation.MayExpire ? _live.Add(operation) : _live.Remove(operation))
            {
                foreach (var line in operation.Lines)
                {
                    var row = _rowBySku[line.Sku];
                    if (operation.MayExpire)
                    {
                        row.Hold(operation);
                    }
                    else
                    {
                        row.Release(operation);
                    }
                }
            }
        }

        public Operation? FindDue(StockRow row, long now) => ((MemoryRow)row).FirstDue(now);

        public void AddFlow(StockRow row, in FlowEntry entry)
        {
            // The entries of a new operation come before it: it gets the next number.
            var operation = ReferenceEquals(entry.OperationId, _newId) ? _operations.Count : _ids.Find(entry.OperationId);
            operation = operation < 0 ? _operations.Count : operation;
            var memoryRow = (MemoryRow)row;
            memoryRow.Flow.Add(_flow.Count);
            _flow.Add(new(
                memoryRow.Number,
                operation,
                entry.Kind,
                entry.Version,
                entry.AvailableChange,
                entry.ReservedChange,
                entry.Available,
                entry.Reserved,
                entry.At.ToUnixTimeMilliseconds()));
        }

        public int FlowCount(string? sku) => sku is null ? _flow.Count : _rowBySku.TryGetValue(sku, out var row) ? row.Flow.Count : 0;

        public FlowEntry FlowAt(string? sku, int index)
        {
            ref readonly var record = ref _flow[sku is null ? index : _rowBySku[sku].Flow[index]];
            return new()
            {
                Sku = _rows[record.Row].Sku,
                Version = record.Version,
                OperationId = _ids[record.Operation],
                Kind = record.Kind,
                AvailableChange = record.AvailableChange,
                ReservedChange = record.ReservedChange,
                Available = record.Available,
                Reserved = record.Reserved,
                At = DateTimeOffset.FromUnixTimeMilliseconds(record.At),
            };
        }

        public List<OperationView> UndecidedPage(OperationQuery query, long now, int limit) =>
            [.. _undecided.Select(operation => operation.ToView(now)).Where(view => Matches(view, query)).Take(limit)];

        public List<OperationView> DuePage(OperationQuery query, long now, int limit)
        {
            var page = new List<OperationView>();
            foreach (var reservation in _live)
            {
                if (!reservation.IsDue(now) || page.Count == limit)
                {
                    break;
                }

                if (query.After is not null && !IsBehind(reservation, query.After))
                {
                    continue;
                }

                var view = reservation.ToView(now, string.Create(CultureInfo.InvariantCulture, $"{reservation.ExpiresAt}.{reservation.Id}"));
                if (Matches(view, query))
                {
                    page.Add(view);
                }
            }

            return page;
        }

        /// <summary>Whether a reservation comes after the one whose cursor this is: its expiry, a dot and its id.</summary>
        private static bool IsBehind(Operation reservation, string cursor)
        {
            var dot = cursor.IndexOf('.', StringComparison.Ordinal);
            return dot > 0 && long.TryParse(cursor.AsSpan(0, dot), NumberStyles.None, CultureInfo.InvariantCulture, out var expiresAt)
                ? reservation.ExpiresAt > expiresAt || (reservation.ExpiresAt == expiresAt && string.CompareOrdinal(reservation.Id, cursor[(dot + 1)..]) > 0)
                : throw new ArgumentException($"'{cursor}' is no cursor of this listing.", nameof(cursor));
        }
    }

    /// <summary>An operation: whole, or the few numbers that a plain deduction of one line comes down to.</summary>
    private readonly record struct OperationRecord(Operation? Full, int Row, long Quantity, long Left, long CreatedAt);

    /// <summary>A ledger entry without objects; rows and operations by number.</summary>
    private readonly record struct LedgerRecord(
        int Row, int Operation, FlowKind Kind, long Version, long AvailableChange, long ReservedChange, long Available, long Reserved, long At);
}
