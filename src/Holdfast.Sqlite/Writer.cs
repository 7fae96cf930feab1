using System.Runtime.InteropServices;
using System.Text;
using Holdfast.Rules;
using Holdfast.Wire;
using Microsoft.Data.Sqlite;

namespace Holdfast.Sqlite;

/// <summary>
/// The connection that writes, and the state that the rules decide on inside one of its transactions: rows and
/// operations are read when a decision asks for them, and what changed is written in one go at the end. Nothing is kept
/// from one transaction to the next, so no error can leave behind what was not committed. Used by one caller at a time.
/// </summary>
internal sealed class Writer : IStockState, IDisposable
{
    private readonly Database _database;
    private readonly OperationText _text = new();
    private readonly Statement _begin, _commit, _lastNumbers;
    private readonly Statement _findRow, _findOperation, _findDue;
    private readonly Statement _insertRow, _updateRow, _insertOperation, _updateOperation, _insertFlow, _insertHold, _deleteHold, _deleteOperation, _setTime;

    private readonly Dictionary<string, Row> _rows = new(StringComparer.Ordinal);
    private readonly Dictionary<string, StoredOperation> _operations = new(StringComparer.Ordinal);
    private readonly List<Row> _touchedRows = [];
    private readonly List<StoredOperation> _touchedOperations = [];
    private readonly Dictionary<string, long> _removed = new(StringComparer.Ordinal);
    private readonly List<Flow> _flow = [];
    private readonly string _logPath;
    private readonly SqliteOptions _options;
    private long _longLog;
    private long _lastStock, _lastOperation, _lastPosition;

    private Writer(Database database, SqliteOptions options)
    {
        _database = database;
        _options = options;
        _longLog = options.LongLog;
        _logPath = database.Path + "-wal";
        _begin = database.Prepare("BEGIN IMMEDIATE");
        _commit = database.Prepare("COMMIT");
        _lastNumbers = database.Prepare("SELECT (SELECT max(id) FROM stock), (SELECT max(seq) FROM operation), (SELECT max(position) FROM flow)");
        _findRow = database.Prepare("SELECT id, available, reserved, restocked, adjusted, supplied, version, held FROM stock WHERE sku = ?1");
        _findOperation = database.Prepare($"SELECT {StoredOperation.Columns} FROM operation o WHERE o.id = ?1");
        // Ties by id, as in every engine, so that one history gives one ledger everywhere.
        _findDue = database.Prepare(
            $"""
            SELECT {StoredOperation.Columns} FROM hold h CROSS JOIN operation o ON o.seq = h.operation
            WHERE h.stock = ?1 AND h.expires_at <= ?2 ORDER BY h.expires_at, o.id
            """);
        _insertRow = database.Prepare("INSERT INTO stock(id, sku, available, reserved, restocked, adjusted, supplied, version, held) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
        _updateRow = database.Prepare("UPDATE stock SET available = ?2, reserved = ?3, restocked = ?4, adjusted = ?5, supplied = ?6, version = ?7, held = ?8 WHERE id = ?1");
        _insertOperation = database.Prepare(
            "INSERT INTO operation(seq, id, verb, state, target, lines, note, created_at, expires_at, ended_at, end_left, refunded, cart, pending) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)");
        _updateOperation = database.Prepare("UPDATE operation SET state = ?2, ended_at = ?3, end_left = ?4, refunded = ?5, pending = ?6 WHERE seq = ?1");
        _insertFlow = database.Prepare(
            "INSERT INTO flow(position, stock, version, operation, kind, available_change, reserved_change, available, reserved, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
        _insertHold = database.Prepare("INSERT INTO hold(stock, expires_at, operation, quantity) VALUES (?1, ?2, ?3, ?4)");
        _deleteHold = database.Prepare("DELETE FROM hold WHERE stock = ?1 AND expires_at = ?2 AND operation = ?3");
        _deleteOperation = database.Prepare("DELETE FROM operation WHERE seq = ?1");
        _setTime = database.Prepare("UPDATE store SET highest_time = ?1");
    }

    /// <summary>Whether the decisions so far have changed anything.</summary>
    public bool HasChanges => _touchedOperations.Count > 0 || _removed.Count > 0;

    /// <summary>Opens the connection, sets and verifies how it commits, and brings the schema up to date.</summary>
    public static Writer Open(string path, SqliteOptions options)
    {
        var database = Database.Open(path, SqliteOpenMode.ReadWriteCreate, options.BusyTimeout);
        try
        {
            // First, because the next line would already change somebody else's file.
            Schema.Examine(database, Schema.Migrations);
            var mode = database.Text("PRAGMA journal_mode = WAL");
            if (mode != "wal")
            {
                throw new SqliteStoreException(
                    $"The stock file '{path}' can't use SQLite's write-ahead log (journal mode '{mode}'): put it on a local disk whose files this user may write.");
            }

            database.Run($"PRAGMA synchronous = {(int)options.Synchronous}");
            var synchronous = database.Number("PRAGMA synchronous");
            if (synchronous != (int)options.Synchronous)
            {
                throw new SqliteStoreException($"The stock file '{path}': SQLite answered synchronous = {synchronous} where {(int)options.Synchronous} was set, so commits would not be as durable as promised.");
            }

            database.Run($"PRAGMA wal_autocheckpoint = {Tuning.CheckpointPages}; PRAGMA cache_size = -{Tuning.WriterCacheKiB}");
            if (options.MaxPages is { } pages)
            {
                database.Run($"PRAGMA max_page_count = {pages}");
            }

            Schema.Migrate(database, Schema.Migrations);
            return new(database, options);
        }
        catch
        {
            database.Dispose();
            throw;
        }
    }

    /// <summary>Writes inside a transaction that the application has begun on a connection of its own.</summary>
    public static Writer Inside(SqliteConnection connection, string path, SqliteOptions options) => new(Database.Over(connection, path), options);

    /// <summary>The highest time that the file holds.</summary>
    public long HighestTime() => _database.Number("SELECT highest_time FROM store");

    /// <summary>How the connection commits; the number is that of <see cref="SqliteSynchronous"/>.</summary>
    public long Synchronous() => _database.Number("PRAGMA synchronous");

    /// <summary>Leaves word of who writes, for whoever tries to write beside us.</summary>
    public void SignAs(string writer)
    {
        using var sign = new Statement(_database, "UPDATE store SET writer = ?1");
        sign.Bind(1, writer).Run();
    }

    /// <summary>The epoch of a gate; 0 before the first.</summary>
    public long GateEpoch(string gate)
    {
        using var find = new Statement(_database, "SELECT epoch FROM gate WHERE name = ?1");
        return find.Bind(1, gate).Step() ? find.Int(0) : 0;
    }

    /// <summary>Whether a gate is in an epoch and a turn.</summary>
    public bool IsGateAt(string gate, long epoch, long turn)
    {
        using var find = new Statement(_database, "SELECT 1 FROM gate WHERE name = ?1 AND epoch = ?2 AND turn = ?3");
        return find.Bind(1, gate).Bind(2, epoch).Bind(3, turn).Step();
    }

    public long TakeGateTurn(string gate, long epoch)
    {
        using var take = new Statement(_database, "UPDATE gate SET turn = turn + 1 WHERE name = ?1 AND epoch = ?2 RETURNING turn");
        return take.Bind(1, gate).Bind(2, epoch).Step() ? take.Int(0) : 0;
    }

    public long AdvanceGate(string gate, long atLeast)
    {
        using var advance = new Statement(_database, "INSERT INTO gate(name, epoch, turn) VALUES (?1, ?2, 0) ON CONFLICT (name) DO UPDATE SET epoch = max(epoch + 1, excluded.epoch), turn = 0");
        advance.Bind(1, gate).Bind(2, atLeast).Run();
        return GateEpoch(gate);
    }

    public void KeepGateNode(string gate, string node, long carried, long until)
    {
        using var keep = new Statement(_database, "INSERT INTO gate_node(gate, node, carried, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (gate, node) DO UPDATE SET carried = excluded.carried, until = excluded.until");
        keep.Bind(1, gate).Bind(2, node).Bind(3, carried).Bind(4, until).Run();
    }

    public List<GateMember> GateNodes(string gate, long now)
    {
        using var list = new Statement(_database, "SELECT node, carried, until FROM gate_node WHERE gate = ?1 ORDER BY node");
        list.Bind(1, gate);
        var members = new List<GateMember>();
        while (list.Step())
        {
            members.Add(new(list.TextOrNull(0)!, list.Int(1), list.Int(2) > now));
        }

        return members;
    }

    public void ForgetGateNode(string gate, string node)
    {
        using var forget = new Statement(_database, "DELETE FROM gate_node WHERE gate = ?1 AND node = ?2");
        forget.Bind(1, gate).Bind(2, node).Run();
    }

    public void ForgetGateNodes() => _database.Run("DELETE FROM gate_node");

    public void AddIncident(GateIncident incident)
    {
        using var add = new Statement(_database, "INSERT INTO gate_incident(gate, entry, epoch, at, outcome, command) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (gate, entry) DO NOTHING");
        add.Bind(1, incident.Gate).Bind(2, incident.Entry).Bind(3, incident.Epoch).Bind(4, incident.At.ToUnixTimeMilliseconds())
            .Bind(5, StockJson.StatusName(incident.Outcome)).Bind(6, Encoding.UTF8.GetString(StockJson.WriteCommand(incident.Command))).Run();
    }

    /// <summary>Begins a transaction, forgetting whatever an earlier one left in memory.</summary>
    public void Begin()
    {
        Forget();
        _begin.Run();
        ReadLastNumbers();
    }

    /// <summary>Joins the transaction that is open, at a place that <see cref="UndoJoined"/> goes back to.</summary>
    public void Join()
    {
        Forget();
        _database.Run("SAVEPOINT holdfast");
        ReadLastNumbers();
    }

    /// <summary>Keeps what was written since <see cref="Join"/>; whether it counts is up to the application's commit.</summary>
    public void KeepJoined() => _database.Run("RELEASE holdfast");

    /// <summary>Undoes what was written since <see cref="Join"/>.</summary>
    public void UndoJoined()
    {
        // Some errors roll the whole transaction back; then there is no such place any more.
        if (_database.InTransaction)
        {
            _database.Run("ROLLBACK TO holdfast; RELEASE holdfast");
        }
    }

    private void ReadLastNumbers()
    {
        try
        {
            _lastNumbers.Step();
            _lastStock = _lastNumbers.Int(0);
            _lastOperation = _lastNumbers.Int(1);
            _lastPosition = _lastNumbers.Int(2);
        }
        finally
        {
            _lastNumbers.Reset();
        }
    }

    /// <summary>Writes what the decisions changed. Not committed yet.</summary>
    public void Write(long now)
    {
        foreach (var removed in _removed.Values)
        {
            _deleteOperation.Bind(1, removed).Run();
        }

        foreach (var row in _touchedRows)
        {
            if (row.IsNew)
            {
                _insertRow.Bind(1, row.Id).Bind(2, row.Sku).Bind(3, row.Available).Bind(4, row.Reserved)
                    .Bind(5, row.Restocked).Bind(6, row.Adjusted).Bind(7, row.Supplied).Bind(8, row.Version).Bind(9, row.Held).Run();
            }
            else
            {
                _updateRow.Bind(1, row.Id).Bind(2, row.Available).Bind(3, row.Reserved)
                    .Bind(4, row.Restocked).Bind(5, row.Adjusted).Bind(6, row.Supplied).Bind(7, row.Version).Bind(8, row.Held).Run();
            }
        }

        foreach (var stored in _touchedOperations)
        {
            var operation = stored.Operation;
            if (stored.IsNew)
            {
                Insert(stored.Seq, operation);
            }
            else
            {
                _updateOperation.Bind(1, stored.Seq).Bind(2, (long)operation.State).Bind(3, operation.EndedAt == 0 ? null : operation.EndedAt)
                    .BindUtf8(4, _text.Balances(operation.EndLeft));
                _updateOperation.BindUtf8(5, _text.Numbers(operation.Refunded)).Bind(6, operation.Pending?.ToString()).Run();
            }

            WriteHolds(stored);
        }

        // The entries of one operation stand together, so its number is looked up once.
        string? id = null;
        long seq = 0;
        foreach (ref readonly var entry in CollectionsMarshal.AsSpan(_flow))
        {
            if (!ReferenceEquals(entry.OperationId, id))
            {
                id = entry.OperationId;
                seq = _operations[id].Seq;
            }

            _insertFlow.Bind(1, ++_lastPosition).Bind(2, entry.Row.Id).Bind(3, entry.Version).Bind(4, seq).Bind(5, (long)entry.Kind)
                .Bind(6, entry.AvailableChange).Bind(7, entry.ReservedChange).Bind(8, entry.Available).Bind(9, entry.Reserved).Bind(10, now).Run();
        }

        _setTime.Bind(1, now).Run();
    }

    /// <summary>Commits; when it returns, the changes are as durable as the options ask for.</summary>
    public void Commit() => _commit.Run();

    /// <summary>Undoes the transaction, unless SQLite has already.</summary>
    public void RollBack()
    {
        Forget();
        if (_database.InTransaction)
        {
            _database.Run("ROLLBACK");
        }
    }

    /// <summary>Runs work of another kind in a transaction of its own, on the same connection; commits unless it fails.</summary>
    public T Transact<T>(Func<Database, T> work)
    {
        Forget();
        _begin.Run();
        var result = work(_database);
        _commit.Run();
        return result;
    }

    /// <summary>Whether the log has grown past what SQLite's own checkpoints, which wait for nobody, can keep short.</summary>
    public bool LogIsLong => new FileInfo(_logPath) is { Exists: true } log && log.Length > _longLog;

    /// <summary>Moves the log into the file and empties it. Readers of this process must be held up; those of others are waited for shortly.</summary>
    /// <returns>Whether it was emptied.</returns>
    public bool ShortenLog()
    {
        bool isEmptied;
        _database.SetBusyTimeout(Tuning.CheckpointTimeout);
        try
        {
            isEmptied = _database.Number("PRAGMA wal_checkpoint(TRUNCATE)") == 0;
        }
        finally
        {
            _database.SetBusyTimeout(_options.BusyTimeout);
        }

        // Not at every commit again, when somebody else's reader is in the way.
        _longLog = isEmptied ? _options.LongLog : new FileInfo(_logPath).Length + _options.LongLog;
        return isEmptied;
    }

    public void Dispose()
    {
        _text.Dispose();
        _database.Dispose();
    }

    StockRow? IStockState.FindRow(string sku)
    {
        if (_rows.TryGetValue(sku, out var row))
        {
            return row;
        }

        try
        {
            if (!_findRow.Bind(1, sku).Step())
            {
                return null;
            }

            row = new(sku, _findRow.Int(0), isNew: false)
            {
                Available = _findRow.Int(1),
                Reserved = _findRow.Int(2),
                Restocked = _findRow.Int(3),
                Adjusted = _findRow.Int(4),
                Supplied = _findRow.Int(5),
                Version = _findRow.Int(6),
                Held = _findRow.Int(7),
            };
        }
        finally
        {
            _findRow.Reset();
        }

        _rows.Add(sku, row);
        return row;
    }

    StockRow IStockState.AddRow(string sku)
    {
        var row = new Row(sku, ++_lastStock, isNew: true);
        _rows.Add(sku, row);
        return row;
    }

    Operation? IStockState.FindOperation(string id)
    {
        if (_operations.TryGetValue(id, out var stored))
        {
            return stored.Operation;
        }

        if (_removed.ContainsKey(id))
        {
            return null;
        }

        try
        {
            return _findOperation.Bind(1, id).Step() ? Loaded(_findOperation).Operation : null;
        }
        finally
        {
            _findOperation.Reset();
        }
    }

    void IStockState.AddOperation(Operation operation)
    {
        var stored = new StoredOperation(++_lastOperation, operation, isNew: true);
        _operations.Add(operation.Id, stored);
        _touchedOperations.Add(stored);
    }

    void IStockState.OperationChanged(Operation operation)
    {
        var stored = _operations[operation.Id];
        if (stored is { IsNew: false, IsChanged: false })
        {
            stored.IsChanged = true;
            _touchedOperations.Add(stored);
        }
    }

    void IStockState.RemoveOperation(Operation operation)
    {
        _operations.Remove(operation.Id, out var stored);
        _touchedOperations.Remove(stored!);
        if (!stored!.IsNew)
        {
            _removed.Add(operation.Id, stored.Seq);
        }
    }

    void IStockState.RowChanged(StockRow row) => Touch((Row)row);

    Operation? IStockState.FindDue(StockRow row, long now)
    {
        // Only holds in the file can be due: a reservation of this transaction lives for a second at least. Asked once
        // a row and transaction; those that were ended since are passed over.
        var due = ((Row)row).Due ??= LoadDue((Row)row, now);
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
        _flow.Add(new(changed, entry.OperationId, entry.Kind, entry.Version, entry.AvailableChange, entry.ReservedChange, entry.Available, entry.Reserved));
    }

    private void Touch(Row row)
    {
        if (!row.IsTouched)
        {
            row.IsTouched = true;
            _touchedRows.Add(row);
        }
    }

    private void Forget()
    {
        _removed.Clear();
        _rows.Clear();
        _operations.Clear();
        _touchedRows.Clear();
        _touchedOperations.Clear();
        _flow.Clear();
    }

    /// <summary>The operation of the row that a statement stands on: the same object for the whole transaction.</summary>
    private StoredOperation Loaded(Statement row)
    {
        var read = StoredOperation.Read(row);
        ref var known = ref CollectionsMarshal.GetValueRefOrAddDefault(_operations, read.Operation.Id, out _);
        return known ??= read;
    }

    private Queue<Operation> LoadDue(Row row, long now)
    {
        var due = new Queue<Operation>();
        try
        {
            _findDue.Bind(1, row.Id).Bind(2, now);
            while (_findDue.Step())
            {
                due.Enqueue(Loaded(_findDue).Operation);
            }
        }
        finally
        {
            _findDue.Reset();
        }

        return due;
    }

    private void Insert(long seq, Operation operation)
    {
        _insertOperation.Bind(1, seq).Bind(2, operation.Id).Bind(3, (long)operation.Verb).Bind(4, (long)operation.State).Bind(5, operation.Target)
            .BindUtf8(6, _text.Lines(operation.Lines, operation.Left));
        _insertOperation.Bind(7, operation.Note).Bind(8, operation.CreatedAt)
            .Bind(9, operation.Verb == StockVerb.Reserve ? operation.ExpiresAt : null)
            .Bind(10, operation.EndedAt == 0 ? null : operation.EndedAt)
            .BindUtf8(11, _text.Balances(operation.EndLeft));
        _insertOperation.BindUtf8(12, _text.Numbers(operation.Refunded)).Bind(13, operation.Cart?.ToString()).Bind(14, operation.Pending?.ToString()).Run();
    }

    private void WriteHolds(StoredOperation stored)
    {
        var operation = stored.Operation;
        var holds = operation.MayExpire;
        if (holds == stored.HasHolds)
        {
            return;
        }

        foreach (var (sku, quantity) in operation.Lines)
        {
            // What only prepares the end of a reservation asks for none of its rows.
            var row = (Row)((IStockState)this).FindRow(sku)!;
            var hold = (holds ? _insertHold : _deleteHold).Bind(1, row.Id).Bind(2, operation.ExpiresAt).Bind(3, stored.Seq);
            if (holds)
            {
                hold.Bind(4, quantity);
            }

            hold.Run();
        }
    }

    /// <summary>A stock row with its number in the file.</summary>
    private sealed class Row(string sku, long id, bool isNew) : StockRow(sku)
    {
        public long Id { get; } = id;

        public bool IsNew { get; } = isNew;

        public bool IsTouched { get; set; }

        /// <summary>The reservations that were due when this transaction first asked, the earliest first.</summary>
        public Queue<Operation>? Due { get; set; }
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Flow(
        Row Row, string OperationId, FlowKind Kind, long Version, long AvailableChange, long ReservedChange, long Available, long Reserved);
}
