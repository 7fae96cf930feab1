using Holdfast.Rules;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// One transaction over a set of commands: what it asks the database for, and what it writes. Decides nothing by itself
/// about connections, retries or outcomes in doubt.
/// </summary>
internal sealed class Transaction
{
    private const int PositionsOfBlock = 1 << Tuning.BlockBits;

    private readonly Statements _sql;
    private readonly NpgsqlConnection _connection;
    private readonly NpgsqlTransaction? _callers;
    private readonly int _timeoutSeconds;
    private readonly ArraySegment<StockCommand> _commands;
    private readonly HashSet<string> _skus = new(StringComparer.Ordinal);
    private readonly string[] _askedSkus;
    private readonly string[] _ids;
    private readonly string[] _targets;

    public Transaction(Statements sql, NpgsqlConnection connection, NpgsqlTransaction? callers, int timeoutSeconds, ArraySegment<StockCommand> commands)
    {
        _sql = sql;
        _connection = connection;
        _callers = callers;
        _timeoutSeconds = timeoutSeconds;
        _commands = commands;
        var ids = new HashSet<string>(commands.Count, StringComparer.Ordinal);
        HashSet<string>? targets = null;
        foreach (var command in commands)
        {
            ids.Add(command.Id);
            if (command.Target is { } target)
            {
                ids.Add(target);
                (targets ??= new(StringComparer.Ordinal)).Add(target);
            }

            foreach (var (sku, _) in command.Lines)
            {
                _skus.Add(sku);
            }
        }

        _askedSkus = [.. _skus];
        _ids = [.. ids];
        _targets = targets is null ? [] : [.. targets];
    }

    /// <summary>
    /// Loads everything that the decisions need, in one round trip: locks the stock rows ascending by SKU, then, in later
    /// statements that see whatever those locks waited for, reads the time, what is due and the known operations.
    /// </summary>
    /// <param name="prologue">Statements to send first: ROLLBACK, BEGIN and such.</param>
    /// <param name="locks">Whether to lock the rows and take a block of ledger positions; otherwise it only reads.</param>
    /// <param name="extra">SKUs to lock beside those that the commands name.</param>
    /// <param name="highest">The highest store time that this process knows.</param>
    /// <param name="testTime">A time that takes the place of the database's clock.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <remarks>
    /// Operations are not locked. Whoever changes an operation holds the locks of all its SKUs: it can't change under
    /// another who does, which is what two refunds of one order over different SKUs need.
    /// </remarks>
    public async Task<LoadedState> LoadAsync(
        ReadOnlyMemory<string> prologue, bool locks, IReadOnlyCollection<string> extra, long highest, long? testTime, CancellationToken cancellationToken)
    {
        var batch = NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        foreach (var statement in prologue.Span)
        {
            batch.Add(statement);
        }

        string[] asked = extra.Count == 0 ? _askedSkus : [.. _askedSkus, .. extra];
        if (_targets.Length == 0)
        {
            batch.Add(locks ? _sql.LockRows : _sql.ReadRows).With(asked);
        }
        else
        {
            batch.Add(locks ? _sql.LockRowsWidened : _sql.ReadRowsWidened).With(asked).With(_targets).With(highest).With(testTime);
        }

        if (locks)
        {
            batch.Add(_sql.PlaceBookmark);
            batch.Add(_sql.TakeBlock);
        }

        var due = batch.Add(_targets.Length == 0 ? _sql.TimeAndDue : _sql.TimeAndDueWidened).With(highest).With(testTime).With(_askedSkus);
        if (_targets.Length > 0)
        {
            due.With(_targets);
        }

        batch.Add(_sql.FindOperations).With(_ids);

        var state = new LoadedState(_skus);
        var reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingToo = reader.ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            state.Load(new LoadedState.Row(reader.GetString(0), loadedVersion: reader.GetInt64(6))
            {
                Available = reader.GetInt64(1),
                Reserved = reader.GetInt64(2),
                Restocked = reader.GetInt64(3),
                Adjusted = reader.GetInt64(4),
                Supplied = reader.GetInt64(5),
                Version = reader.GetInt64(6),
                ChangedAt = reader.GetInt64(7),
                Held = reader.GetInt64(8),
                LoadedHeld = reader.GetInt64(8),
                LoadedSupplied = reader.GetInt64(5),
            });
        }

        if (locks)
        {
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            state.Block = reader.GetInt64(0);
        }

        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            state.Now = reader.GetInt64(0);
            if (!reader.IsDBNull(1))
            {
                state.LoadDue(StoredOperation.Read(reader, first: 1));
            }
        }

        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            state.Load(StoredOperation.Read(reader));
        }

        return state;
    }

    /// <summary>Sends what the decisions changed: stock ascending by SKU, operations inserted ascending by id, holds, ledger.</summary>
    /// <param name="state">The decided state.</param>
    /// <param name="epilogue">The last statement, COMMIT, or <see langword="null"/> to leave that to the caller.</param>
    /// <param name="rowsAreWritten">Whether the rows that were there before, and the operations, were updated already.</param>
    public async Task WriteAsync(LoadedState state, string? epilogue, bool rowsAreWritten = false)
    {
        var positions = await PositionsAsync(state).ConfigureAwait(false);
        var batch = NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        if (state.Removed.Count > 0)
        {
            batch.Add(_sql.RemoveOperations).With(state.Removed.ToArray());
        }

        AddRows(batch, state, rowsAreWritten);
        AddOperations(batch, state, rowsAreWritten);
        AddHolds(batch, state);
        AddFlow(batch, state, positions);
        if (epilogue is not null)
        {
            batch.Add(epilogue);
        }

        // No token: once a COMMIT may be on its way, only its answer or the time-out ends the waiting.
        await batch.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>
    /// Begins a transaction that writes the changed rows and operations, each only if it is still as it was read; takes a
    /// block of ledger positions.
    /// </summary>
    /// <returns>Whether all were; otherwise the transaction is to be rolled back.</returns>
    public async Task<bool> TryWriteVersionsAsync(LoadedState state, CancellationToken cancellationToken)
    {
        var batch = NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(Statements.Begin);
        var conditional = new List<NpgsqlBatchCommand>();
        foreach (var row in Sorted(state.TouchedRows, isNew: false))
        {
            conditional.Add(batch.Add(_sql.UpdateRowOfVersion).With(row.Sku).With(row.Available).With(row.Reserved).With(row.Restocked).With(row.Adjusted)
                .With(row.Supplied).With(row.Version).With(state.Now).With(row.LoadedVersion)
                .With(row.Held).With(row.LoadedHeld).With(row.LoadedSupplied));
        }

        foreach (var stored in state.TouchedOperations)
        {
            if (!stored.IsNew)
            {
                var operation = stored.Operation;
                conditional.Add(batch.Add(_sql.UpdateOperationAsRead).With(operation.Id).With((short)operation.State).With(EndedAt(operation))
                    .With(StoredText.Balances(operation.EndLeft)).With(StoredText.Numbers(operation.Refunded)).With((short)stored.LoadedState).With(stored.LoadedRefunded)
                    .With(operation.Pending?.ToString()).With(stored.LoadedPending));
            }
        }

        batch.Add(_sql.PlaceBookmark);
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        if (conditional.Exists(command => command.RecordsAffected != 1))
        {
            return false;
        }

        state.Block = await TakeBlockAsync(cancellationToken).ConfigureAwait(false);
        return true;
    }

    public async Task RunAsync(ReadOnlyMemory<string> statements, CancellationToken cancellationToken)
    {
        var batch = NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        foreach (var statement in statements.Span)
        {
            batch.Add(statement);
        }

        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    public NpgsqlBatch NewBatch() => new(_connection, _callers) { Timeout = _timeoutSeconds };

    public async Task<long> TakeBlockAsync(CancellationToken cancellationToken)
    {
        var batch = NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(_sql.TakeBlock);
        return (long)(await batch.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    private static long? EndedAt(Operation operation) => operation.EndedAt == 0 ? null : operation.EndedAt;

    private static LoadedState.Row[] Sorted(List<LoadedState.Row> rows, bool isNew)
    {
        var sorted = rows.FindAll(row => row.IsNew == isNew).ToArray();
        Array.Sort(sorted, static (a, b) => StockKey.ByteOrder.Compare(a.Sku, b.Sku));
        return sorted;
    }

    private async Task<long[]> PositionsAsync(LoadedState state)
    {
        var positions = new long[state.Flow.Count];
        var block = state.Block;
        for (var i = 0; i < positions.Length; i++)
        {
            if (i > 0 && i % PositionsOfBlock == 0)
            {
                block = await TakeBlockAsync(CancellationToken.None).ConfigureAwait(false);
            }

            positions[i] = (block << Tuning.BlockBits) + (i % PositionsOfBlock);
        }

        return positions;
    }

    private void AddRows(NpgsqlBatch batch, LoadedState state, bool onlyNew)
    {
        for (var isNew = 0; isNew < 2; isNew++)
        {
            var rows = isNew == 0 && onlyNew ? [] : Sorted(state.TouchedRows, isNew == 1);
            if (rows.Length == 0)
            {
                continue;
            }

            batch.Add(isNew == 1 ? _sql.InsertRows : _sql.UpdateRows)
                .With(Array.ConvertAll(rows, static row => row.Sku))
                .With(Array.ConvertAll(rows, static row => row.Available))
                .With(Array.ConvertAll(rows, static row => row.Reserved))
                .With(Array.ConvertAll(rows, static row => row.Restocked))
                .With(Array.ConvertAll(rows, static row => row.Adjusted))
                .With(Array.ConvertAll(rows, static row => row.Supplied))
                .With(Array.ConvertAll(rows, static row => row.Version))
                .With(Array.ConvertAll(rows, static row => row.Held))
                .With(state.Now);
        }
    }

    private void AddOperations(NpgsqlBatch batch, LoadedState state, bool onlyNew)
    {
        var added = new List<Operation>(state.TouchedOperations.Count);
        var plain = true;
        List<Operation>? changed = null;
        foreach (var stored in state.TouchedOperations)
        {
            var operation = stored.Operation;
            if (!stored.IsNew)
            {
                (changed ??= []).Add(operation);
                continue;
            }

            added.Add(operation);
            plain = plain && operation is { State: OperationState.Applied, Target: null, Note: null, Refunded: null, Cart: null, Pending: null };
        }

        if (changed is not null && !onlyNew)
        {
            Operation[] operations = [.. changed];
            batch.Add(_sql.UpdateOperations)
                .With(Array.ConvertAll(operations, static operation => operation.Id))
                .With(Array.ConvertAll(operations, static operation => (short)operation.State))
                .With(Array.ConvertAll(operations, EndedAt))
                .With(Array.ConvertAll(operations, static operation => StoredText.Balances(operation.EndLeft)))
                .With(Array.ConvertAll(operations, static operation => StoredText.Numbers(operation.Refunded)))
                .With(Array.ConvertAll(operations, static operation => operation.Pending?.ToString()));
        }

        if (added.Count == 0)
        {
            return;
        }

        // Ascending by id in one statement: unordered unique inserts of two transactions deadlock.
        added.Sort(static (a, b) => StockKey.ByteOrder.Compare(a.Id, b.Id));
        Operation[] sorted = [.. added];
        var ids = Array.ConvertAll(sorted, static operation => operation.Id);
        var verbs = Array.ConvertAll(sorted, static operation => (short)operation.Verb);
        var lines = Array.ConvertAll(sorted, static operation => StoredText.Lines(operation.Lines, operation.Left));
        if (plain)
        {
            batch.Add(_sql.InsertPlainOperations).With(ids).With(verbs).With(lines).With(state.Now);
            return;
        }

        batch.Add(_sql.InsertOperations).With(ids).With(verbs).With(lines)
            .With(Array.ConvertAll(sorted, static operation => (short)operation.State))
            .With(Array.ConvertAll(sorted, static operation => operation.Verb == StockVerb.Reserve ? operation.ExpiresAt : (long?)null))
            .With(Array.ConvertAll(sorted, EndedAt))
            .With(Array.ConvertAll(sorted, static operation => operation.Target))
            .With(Array.ConvertAll(sorted, static operation => operation.Note))
            .With(Array.ConvertAll(sorted, static operation => StoredText.Balances(operation.EndLeft)))
            .With(Array.ConvertAll(sorted, static operation => StoredText.Numbers(operation.Refunded)))
            .With(Array.ConvertAll(sorted, static operation => operation.Cart?.ToString()))
            .With(Array.ConvertAll(sorted, static operation => operation.Pending?.ToString()))
            .With(state.Now);
    }

    private void AddHolds(NpgsqlBatch batch, LoadedState state)
    {
        for (var adds = 0; adds < 2; adds++)
        {
            List<string>? skus = null;
            List<long> expiries = [], quantities = [];
            List<string> ids = [];
            foreach (var stored in state.TouchedOperations)
            {
                var operation = stored.Operation;
                var holds = operation.MayExpire;
                if (holds == stored.HasHolds || holds != (adds == 1))
                {
                    continue;
                }

                foreach (var (sku, quantity) in operation.Lines)
                {
                    (skus ??= []).Add(sku);
                    expiries.Add(operation.ExpiresAt);
                    ids.Add(operation.Id);
                    quantities.Add(quantity);
                }
            }

            if (skus is null)
            {
                continue;
            }

            var command = batch.Add(adds == 1 ? _sql.InsertHolds : _sql.DeleteHolds).With([.. skus]).With(expiries.ToArray()).With([.. ids]);
            if (adds == 1)
            {
                command.With(quantities.ToArray());
            }
        }
    }

    private void AddFlow(NpgsqlBatch batch, LoadedState state, long[] positions)
    {
        var flow = state.Flow;
        if (flow.Count == 0)
        {
            return;
        }

        var skus = new string[flow.Count];
        var operations = new string[flow.Count];
        var versions = new long[flow.Count];
        var availableChanges = new long[flow.Count];
        var available = new long[flow.Count];
        var kind = flow[0].Kind;
        var plain = flow.Count <= PositionsOfBlock;
        for (var i = 0; i < skus.Length; i++)
        {
            var entry = flow[i];
            skus[i] = entry.Sku;
            operations[i] = entry.OperationId;
            versions[i] = entry.Version;
            availableChanges[i] = entry.AvailableChange;
            available[i] = entry.Available;
            plain = plain && entry.Kind == kind && entry.ReservedChange == 0 && entry.Reserved == 0;
        }

        if (plain)
        {
            batch.Add(_sql.InsertPlainFlow).With(positions[0]).With(skus).With(versions).With(operations).With(availableChanges).With(available).With((short)kind).With(state.Now);
            return;
        }

        var kinds = new short[flow.Count];
        var reservedChanges = new long[flow.Count];
        var reserved = new long[flow.Count];
        for (var i = 0; i < kinds.Length; i++)
        {
            var entry = flow[i];
            kinds[i] = (short)entry.Kind;
            reservedChanges[i] = entry.ReservedChange;
            reserved[i] = entry.Reserved;
        }

        batch.Add(_sql.InsertFlow).With(positions).With(skus).With(versions).With(operations).With(kinds)
            .With(availableChanges).With(reservedChanges).With(available).With(reserved).With(state.Now);
    }
}
