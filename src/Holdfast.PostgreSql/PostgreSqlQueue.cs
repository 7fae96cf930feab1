using System.Globalization;
using System.Runtime.InteropServices;
using Holdfast.Queueing;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// Queues in the store's schema. A consumer holds a batch by a transaction: it locks the queue's row, skipping it where
/// another consumer has it (<c>FOR UPDATE SKIP LOCKED</c>), reads, and at the end deletes what is settled and commits. When
/// it dies, its transaction dies with it, and the next consumer reads the same messages at once. No leases, no clock.
/// </summary>
internal sealed class PostgreSqlQueue : ICommandTransport
{
    /// <summary>How long an idle consumer waits before it looks for what other processes have sent, or for a queue that another one has.</summary>
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200);

    private static readonly TimeSpan s_recount = TimeSpan.FromSeconds(1);

    private readonly PostgreSqlEngine _engine;
    private readonly long _maxMessages;
    private readonly TimeProvider _clock;
    private readonly One[] _queues;

    /// <summary>A batch holds a connection while the engine executes it over another one: with one each, all of a pool would wait for each other. So half of them at most.</summary>
    private readonly SemaphoreSlim _holding;

    private readonly string _insert, _lock, _readDue, _readNew, _nextDue, _delete, _defer, _bury, _count, _measure, _peek, _drop;
    private long _estimate;
    private long _countedAt;
    private int _isClosed;

    public PostgreSqlQueue(PostgreSqlEngine engine, int queues, long maxMessages, TimeProvider clock)
    {
        _engine = engine;
        _maxMessages = maxMessages;
        _clock = clock;
        _queues = [.. Enumerable.Range(0, queues).Select(static _ => new One())];
        _holding = new(Math.Max(engine.MaxConnections / 2, 1));
        _countedAt = clock.GetTimestamp() - (2 * clock.TimestampFrequency);
        var s = Schema.Quote(engine.Options.Schema);
        const string now = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        _insert = $"INSERT INTO {s}.queue_message(not_before, at, queue, body) SELECT 0, {now}, m.queue, m.body FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY m(queue, body, place) ORDER BY m.place";
        _lock = $"SELECT 1 FROM {s}.queue_partition p WHERE p.queue = $1::smallint FOR UPDATE SKIP LOCKED";
        _readDue = $"SELECT m.not_before, m.seq, m.body FROM {s}.queue_message m WHERE m.queue = $1::smallint AND m.not_before BETWEEN 1 AND {now} ORDER BY m.not_before, m.seq LIMIT $2";
        _readNew = $"SELECT m.not_before, m.seq, m.body FROM {s}.queue_message m WHERE m.queue = $1::smallint AND m.not_before = 0 ORDER BY m.seq LIMIT $2";
        _nextDue = $"SELECT min(m.not_before) - {now} FROM {s}.queue_message m WHERE m.queue = $1::smallint AND m.not_before > 0";
        _delete = $"DELETE FROM {s}.queue_message m USING unnest($2::bigint[], $3::bigint[]) d(not_before, seq) WHERE m.queue = $1::smallint AND m.not_before = d.not_before AND m.seq = d.seq";
        _defer = $"INSERT INTO {s}.queue_message(not_before, at, queue, body) SELECT {now} + m.delay, {now}, $1::smallint, m.body FROM unnest($2::bigint[], $3::bytea[]) m(delay, body)";
        _bury = $"INSERT INTO {s}.queue_dead(at, queue, reason, body) SELECT {now}, $1::smallint, m.reason, m.body FROM unnest($2::text[], $3::bytea[]) m(reason, body)";
        _count = $"SELECT count(*) FROM {s}.queue_message";
        _measure = $"SELECT count(*) FILTER (WHERE m.not_before = 0), count(*) FILTER (WHERE m.not_before > 0), min(m.at) FILTER (WHERE m.not_before = 0), (SELECT count(*) FROM {s}.queue_dead) FROM {s}.queue_message m";
        _peek = $"SELECT d.letter, d.queue, d.at, d.reason, d.body FROM {s}.queue_dead d ORDER BY d.letter LIMIT $1";
        _drop = $"DELETE FROM {s}.queue_dead d WHERE d.letter = $1 RETURNING d.letter";
    }

    public int Queues => _queues.Length;

    public string Location => $"the queue in {_engine.Server}";

    public bool IsDurable => _engine.Traits.HasFlag(StockTraits.DurableAck);

    public async ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default)
    {
        var statuses = new SendStatus[messages.Count];
        NpgsqlConnection? connection = null;
        var isUnconfirmed = false;
        try
        {
            connection = await _engine.ConnectAsync(cancellationToken).ConfigureAwait(false);
            await RecountAsync(connection, cancellationToken).ConfigureAwait(false);
            var room = (int)Math.Clamp(_maxMessages - Interlocked.Read(ref _estimate), 0, messages.Count);
            Array.Fill(statuses, SendStatus.Full, room, statuses.Length - room);
            if (room > 0)
            {
                Array.Fill(statuses, SendStatus.InDoubt, 0, room);
                var batch = new NpgsqlBatch(connection) { Timeout = _engine.TimeoutSeconds };
                await using var disposing = batch.ConfigureAwait(false);
                batch.Add(_insert)
                    .With([.. messages.Take(room).Select(static message => (short)message.Queue)])
                    .With([.. messages.Take(room).Select(static message => Bytes(message.Body))]);

                // The server gave up waiting for its synchronous standby: a failover would lose what it calls accepted.
                NoticeEventHandler note = (_, e) => isUnconfirmed |= e.Notice is { InvariantSeverity: "WARNING", SqlState: PostgresErrorCodes.Warning };
                connection.Notice += note;

                // No token: once it is on its way, only its answer or the time-out ends the waiting.
                await batch.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
                connection.Notice -= note;
                Array.Fill(statuses, isUnconfirmed ? SendStatus.InDoubt : SendStatus.Accepted, 0, room);
                Interlocked.Add(ref _estimate, room);
            }
        }
        catch (Exception e) when (Failure.IsOfStore(e) || e is OperationCanceledException)
        {
            _ = e is OperationCanceledException ? null : _engine.Described(e);
            for (var i = 0; i < statuses.Length; i++)
            {
                // An ERROR of the server has undone it; without a connection it never left.
                statuses[i] = statuses[i] == SendStatus.InDoubt && e is not PostgresException { InvariantSeverity: "ERROR" } ? SendStatus.InDoubt : SendStatus.Unreachable;
            }
        }
        finally
        {
            if (connection is not null)
            {
                await connection.DisposeAsync().ConfigureAwait(false);
            }
        }

        foreach (var queue in messages.Select(static message => message.Queue).Distinct())
        {
            _queues[queue].Signal.Set();
        }

        return statuses;
    }

    public async ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default)
    {
        var one = _queues[queue];
        while (true)
        {
            await ReleaseAsync(queue).ConfigureAwait(false);
            if (Volatile.Read(ref _isClosed) == 1)
            {
                throw new CommandTransportException($"{Location} is closed.");
            }

            var pause = s_look;
            await _holding.WaitAsync(cancellationToken).ConfigureAwait(false);
            Volatile.Write(ref one.Holds, 1);
            try
            {
                one.Connection = await _engine.ConnectAsync(cancellationToken).ConfigureAwait(false);
                var (found, next) = await ReadAsync(one, one.Connection, queue, most, cancellationToken).ConfigureAwait(false);
                if (found.Count > 0)
                {
                    return found;
                }

                pause = next < pause ? next : pause;
            }
            catch (Exception e) when (Failure.IsOfStore(e) && !cancellationToken.IsCancellationRequested)
            {
                throw Failed(e);
            }

            await ReleaseAsync(queue).ConfigureAwait(false);
            await one.Signal.WaitAsync(pause, _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    public async ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default)
    {
        var one = _queues[queue];
        if (one.Connection is not { } connection)
        {
            throw new CommandTransportException($"{Location}: the connection that held the batch is gone.");
        }

        try
        {
            var held = settlements.Where(settlement => one.Held.ContainsKey(settlement.Delivery.Tag)).ToArray();
            var later = Array.FindAll(held, static settlement => settlement.Kind == SettlementKind.Later);
            var dead = Array.FindAll(held, static settlement => settlement.Kind == SettlementKind.Dead);
            var batch = new NpgsqlBatch(connection) { Timeout = _engine.TimeoutSeconds };
            await using var disposing = batch.ConfigureAwait(false);
            batch.Add(_delete).With((long)queue)
                .With(Array.ConvertAll(held, settlement => one.Held[settlement.Delivery.Tag]))
                .With(Array.ConvertAll(held, static settlement => settlement.Delivery.Tag));
            if (later.Length > 0)
            {
                batch.Add(_defer).With((long)queue)
                    .With(Array.ConvertAll(later, static settlement => (long)settlement.Delay.TotalMilliseconds))
                    .With(Array.ConvertAll(later, static settlement => Bytes(settlement.Body)));
            }

            if (dead.Length > 0)
            {
                batch.Add(_bury).With((long)queue)
                    .With(Array.ConvertAll(dead, static settlement => settlement.Reason ?? ""))
                    .With(Array.ConvertAll(dead, static settlement => Bytes(settlement.Delivery.Body)));
            }

            batch.Add(Statements.Commit);
            await batch.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            Interlocked.Add(ref _estimate, later.Length - held.Length);
            one.Held.Clear();
            one.Connection = null;
            await connection.DisposeAsync().ConfigureAwait(false);
            LetGo(one);
        }
        catch (Exception e) when (Failure.IsOfStore(e))
        {
            throw Failed(e);
        }
    }

    public async ValueTask ReleaseAsync(int queue)
    {
        var one = _queues[queue];
        one.Held.Clear();
        try
        {
            if (Interlocked.Exchange(ref one.Connection, null) is { } connection)
            {
                await RollBackAsync(connection).ConfigureAwait(false);
            }
        }
        finally
        {
            LetGo(one);
        }
    }

    public async ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default) => (await RunAsync(
        _measure,
        static _ => { },
        static row => new QueueDepth
        {
            Waiting = row.GetInt64(0),
            Deferred = row.GetInt64(1),
            OldestAcceptedAt = row.IsDBNull(2) ? null : DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(2)),
            Dead = row.GetInt64(3),
        },
        cancellationToken).ConfigureAwait(false))[0];

    public async ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default) => await RunAsync(
        _peek,
        command => command.With((long)most),
        static row => new DeadLetter
        {
            Letter = row.GetInt64(0).ToString(CultureInfo.InvariantCulture),
            Queue = row.GetInt16(1),
            At = DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(2)),
            Reason = row.GetString(3),
            Body = row.GetFieldValue<byte[]>(4),
        },
        cancellationToken).ConfigureAwait(false);

    public async ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default)
    {
        if (!TryParse(letter, out var number))
        {
            return SendStatus.None;
        }

        try
        {
            var connection = await _engine.ConnectAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = connection.ConfigureAwait(false);
            await RecountAsync(connection, cancellationToken).ConfigureAwait(false);
            if (Interlocked.Read(ref _estimate) >= _maxMessages)
            {
                return SendStatus.Full;
            }

            var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
            await using var disposingToo = transaction.ConfigureAwait(false);
            var batch = new NpgsqlBatch(connection, transaction) { Timeout = _engine.TimeoutSeconds };
            await using var disposingThree = batch.ConfigureAwait(false);
            batch.Add(_drop).With(number);
            if (await batch.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is null)
            {
                return SendStatus.None;
            }

            var insert = new NpgsqlBatch(connection, transaction) { Timeout = _engine.TimeoutSeconds };
            await using var disposingFour = insert.ConfigureAwait(false);
            insert.Add(_insert).With([(short)message.Queue]).With([Bytes(message.Body)]);
            await insert.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            await transaction.CommitAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e) && !cancellationToken.IsCancellationRequested)
        {
            throw Failed(e);
        }

        _queues[message.Queue].Signal.Set();
        return SendStatus.Accepted;
    }

    public async ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default) =>
        TryParse(letter, out var number) && (await RunAsync(_drop, command => command.With(number), static row => row.GetInt64(0), cancellationToken).ConfigureAwait(false)).Count > 0;

    /// <summary>Gives back what is held; the connections belong to the engine.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isClosed, 1) == 0)
        {
            for (var queue = 0; queue < _queues.Length; queue++)
            {
                await ReleaseAsync(queue).ConfigureAwait(false);
            }
        }
    }

    private void LetGo(One one)
    {
        if (Interlocked.Exchange(ref one.Holds, 0) == 1)
        {
            _holding.Release();
        }
    }

    /// <summary>Ends a transaction and gives its connection back.</summary>
    private async ValueTask RollBackAsync(NpgsqlConnection connection)
    {
        await using var disposing = connection.ConfigureAwait(false);
        if (connection.FullState != System.Data.ConnectionState.Open)
        {
            return;
        }

        try
        {
            var roll = new NpgsqlCommand(Statements.RollBack, connection) { CommandTimeout = _engine.TimeoutSeconds };
            await using var disposingToo = roll.ConfigureAwait(false);
            await roll.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e))
        {
            // The transaction goes with its connection.
            _ = _engine.Described(e);
        }
    }

    private static bool TryParse(string letter, out long number) => long.TryParse(letter, NumberStyles.None, CultureInfo.InvariantCulture, out number);

    private static byte[] Bytes(ReadOnlyMemory<byte> body) =>
        MemoryMarshal.TryGetArray(body, out var segment) && segment.Offset == 0 && segment.Count == segment.Array!.Length ? segment.Array : body.ToArray();

    /// <summary>Locks the queue and reads from it, each in a statement of its own: what is read was there after the lock was ours.</summary>
    private async Task<(List<QueueDelivery> Found, TimeSpan Next)> ReadAsync(One one, NpgsqlConnection connection, int queue, int most, CancellationToken cancellationToken)
    {
        var batch = new NpgsqlBatch(connection) { Timeout = _engine.TimeoutSeconds };
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(Statements.Begin);
        batch.Add("SET LOCAL idle_in_transaction_session_timeout = '60s'");
        batch.Add(_lock).With((long)queue);

        // What was put aside and is due comes first, or a long queue would keep it away.
        batch.Add(_readDue).With((long)queue).With((long)Math.Max(most / 4, 1));
        batch.Add(_readNew).With((long)queue).With((long)most);
        batch.Add(_nextDue).With((long)queue);
        var rows = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingToo = rows.ConfigureAwait(false);
        var found = new List<QueueDelivery>();
        var next = s_look;
        if (!await rows.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            return (found, next);
        }

        for (var read = 0; read < 2; read++)
        {
            await rows.NextResultAsync(cancellationToken).ConfigureAwait(false);
            while (found.Count < most && await rows.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                var seq = rows.GetInt64(1);
                one.Held[seq] = rows.GetInt64(0);
                found.Add(new(seq, rows.GetFieldValue<byte[]>(2)));
            }
        }

        await rows.NextResultAsync(cancellationToken).ConfigureAwait(false);
        if (await rows.ReadAsync(cancellationToken).ConfigureAwait(false) && !rows.IsDBNull(0))
        {
            next = TimeSpan.FromMilliseconds(Math.Clamp(rows.GetInt64(0), 1, 1_000));
        }

        return (found, next);
    }

    /// <summary>Counts now and then; in between the estimate goes by what this process sends and settles.</summary>
    private async ValueTask RecountAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (_clock.GetElapsedTime(Interlocked.Read(ref _countedAt)) < s_recount)
        {
            return;
        }

        Interlocked.Exchange(ref _countedAt, _clock.GetTimestamp());
        var batch = new NpgsqlBatch(connection) { Timeout = _engine.TimeoutSeconds };
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(_count);
        Interlocked.Exchange(ref _estimate, (long)(await batch.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!);
    }

    private async ValueTask<List<T>> RunAsync<T>(string sql, Action<NpgsqlBatchCommand> bind, Func<NpgsqlDataReader, T> read, CancellationToken cancellationToken)
    {
        try
        {
            return await _engine.QueryAsync(sql, bind, read, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgreSqlStoreException e)
        {
            throw Failed(e);
        }
    }

    private CommandTransportException Failed(Exception e)
    {
        var described = _engine.Described(e);
        return new(described.Message, described);
    }

    private sealed class One
    {
        /// <summary>Holds the transaction that holds the batch.</summary>
        public NpgsqlConnection? Connection;

        /// <summary>1 while it has one of the places of those who hold a batch.</summary>
        public int Holds;

        /// <summary>What the consumer holds: its number, and the other half of its key.</summary>
        public Dictionary<long, long> Held { get; } = [];

        public QueueSignal Signal { get; } = new();
    }
}
