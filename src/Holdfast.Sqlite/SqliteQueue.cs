using System.Globalization;
using Holdfast.Queueing;

namespace Holdfast.Sqlite;

/// <summary>
/// Queues in the stock file: a send is a transaction, and so is a settlement. The file has one writing process, so who
/// holds what is known in memory; what was not settled is handed out again when the process starts anew.
/// </summary>
internal sealed class SqliteQueue : ICommandTransport
{
    private readonly SqliteEngine _engine;
    private readonly long _maxMessages;
    private readonly TimeProvider _clock;
    private readonly One[] _queues;
    private Statements? _statements;
    private long _lastSeq;
    private long _count;

    public SqliteQueue(SqliteEngine engine, int queues, long maxMessages, long lastSeq, long count, TimeProvider clock)
    {
        _engine = engine;
        _maxMessages = maxMessages;
        _lastSeq = lastSeq;
        _count = count;
        _clock = clock;
        _queues = [.. Enumerable.Range(0, queues).Select(static _ => new One())];
    }

    public int Queues => _queues.Length;

    public string Location => $"the queue in the stock file '{_engine.FilePath}'";

    public bool IsDurable => true;

    public async ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default)
    {
        var statuses = new SendStatus[messages.Count];
        try
        {
            await _engine.WriteAsync(
                database =>
                {
                    var sql = StatementsOf(database);
                    var now = Now();
                    var room = _maxMessages - Interlocked.Read(ref _count);
                    for (var i = 0; i < statuses.Length; i++)
                    {
                        statuses[i] = i < room ? SendStatus.Accepted : SendStatus.Full;
                        if (statuses[i] == SendStatus.Accepted)
                        {
                            sql.Insert.Bind(1, messages[i].Queue).Bind(2, 0).Bind(3, ++_lastSeq).Bind(4, now).BindBlob(5, messages[i].Body.Span).Run();
                        }
                    }

                    return true;
                },
                cancellationToken).ConfigureAwait(false);
        }
        catch (SqliteStoreException e)
        {
            // Without SQLite's own code it never came to the file; with one the commit may have been kept.
            Array.Fill(statuses, e.ResultCode == 0 ? SendStatus.Unreachable : SendStatus.InDoubt);
            await RecountAsync().ConfigureAwait(false);
            return statuses;
        }

        Interlocked.Add(ref _count, statuses.Count(static status => status == SendStatus.Accepted));
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
            one.Held.Clear();
            var (deliveries, next) = await RunAsync(
                database =>
                {
                    var sql = StatementsOf(database);
                    var now = Now();

                    // What was put aside and is due comes first, or a long queue would keep it away.
                    var found = new List<QueueDelivery>();
                    Read(sql.ReadDue.Bind(1, queue).Bind(2, now).Bind(3, Math.Max(most / 4, 1)), one, found);
                    Read(sql.ReadNew.Bind(1, queue).Bind(2, most - found.Count), one, found);
                    return (found, found.Count > 0 ? 0 : NextDue(sql.NextDue.Bind(1, queue)) - now);
                },
                cancellationToken).ConfigureAwait(false);
            if (deliveries.Count > 0)
            {
                return deliveries;
            }

            await one.Signal.WaitAsync(next < 0 || next > TimeSpan.FromDays(1).TotalMilliseconds ? Timeout.InfiniteTimeSpan : TimeSpan.FromMilliseconds(next + 1), _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    public async ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default)
    {
        var one = _queues[queue];
        var gone = await RunAsync(
            database =>
            {
                var sql = StatementsOf(database);
                var now = Now();
                var count = 0;
                foreach (var settlement in settlements)
                {
                    if (!one.Held.TryGetValue(settlement.Delivery.Tag, out var notBefore))
                    {
                        continue;
                    }

                    sql.Delete.Bind(1, queue).Bind(2, notBefore).Bind(3, settlement.Delivery.Tag).Run();
                    count++;
                    switch (settlement.Kind)
                    {
                        case SettlementKind.Later:
                            sql.Insert.Bind(1, queue).Bind(2, now + (long)settlement.Delay.TotalMilliseconds).Bind(3, ++_lastSeq).Bind(4, now).BindBlob(5, settlement.Body.Span).Run();
                            count--;
                            break;
                        case SettlementKind.Dead:
                            sql.Bury.Bind(1, queue).Bind(2, now).Bind(3, settlement.Reason ?? "").BindBlob(4, settlement.Delivery.Body.Span).Run();
                            break;
                    }
                }

                return count;
            },
            cancellationToken).ConfigureAwait(false);
        Interlocked.Add(ref _count, -gone);
        one.Held.Clear();
    }

    public ValueTask ReleaseAsync(int queue)
    {
        // The next receive reads anew whatever was not settled.
        _queues[queue].Signal.Set();
        return ValueTask.CompletedTask;
    }

    public ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default) => RunAsync(
        database =>
        {
            var at = database.Number("SELECT min(at) FROM queue_message WHERE not_before = 0");
            return new QueueDepth
            {
                Waiting = database.Number("SELECT count(*) FROM queue_message WHERE not_before = 0"),
                Deferred = database.Number("SELECT count(*) FROM queue_message WHERE not_before > 0"),
                Dead = database.Number("SELECT count(*) FROM queue_dead"),
                OldestAcceptedAt = at == 0 ? null : DateTimeOffset.FromUnixTimeMilliseconds(at),
            };
        },
        cancellationToken);

    public ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default) => RunAsync<IReadOnlyList<DeadLetter>>(
        database =>
        {
            using var read = new Statement(database, "SELECT letter, queue, at, reason, body FROM queue_dead ORDER BY letter LIMIT ?1");
            read.Bind(1, most);
            var letters = new List<DeadLetter>();
            while (read.Step())
            {
                letters.Add(new()
                {
                    Letter = read.Int(0).ToString(CultureInfo.InvariantCulture),
                    Queue = (int)read.Int(1),
                    At = DateTimeOffset.FromUnixTimeMilliseconds(read.Int(2)),
                    Reason = read.Text(3),
                    Body = read.Utf8(4).ToArray(),
                });
            }

            return letters;
        },
        cancellationToken);

    public async ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default)
    {
        var status = await RunAsync(
            database =>
            {
                if (Interlocked.Read(ref _count) >= _maxMessages)
                {
                    return SendStatus.Full;
                }

                if (!Drop(database, letter))
                {
                    return SendStatus.None;
                }

                StatementsOf(database).Insert.Bind(1, message.Queue).Bind(2, 0).Bind(3, ++_lastSeq).Bind(4, Now()).BindBlob(5, message.Body.Span).Run();
                return SendStatus.Accepted;
            },
            cancellationToken).ConfigureAwait(false);
        if (status == SendStatus.Accepted)
        {
            Interlocked.Increment(ref _count);
            _queues[message.Queue].Signal.Set();
        }

        return status;
    }

    public ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default) => RunAsync(database => Drop(database, letter), cancellationToken);

    /// <summary>The file belongs to the engine.</summary>
    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static bool Drop(Database database, string letter)
    {
        if (!long.TryParse(letter, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            return false;
        }

        using var delete = new Statement(database, "DELETE FROM queue_dead WHERE letter = ?1 RETURNING 1");
        return delete.Bind(1, number).Step();
    }

    private static void Read(Statement read, One one, List<QueueDelivery> found)
    {
        try
        {
            while (read.Step())
            {
                var seq = read.Int(1);
                one.Held[seq] = read.Int(0);
                found.Add(new(seq, read.Utf8(2).ToArray()));
            }
        }
        finally
        {
            read.Reset();
        }
    }

    private static long NextDue(Statement read)
    {
        try
        {
            return read.Step() && !read.IsNull(0) ? read.Int(0) : long.MaxValue / 2;
        }
        finally
        {
            read.Reset();
        }
    }

    private long Now() => _clock.GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Statements live as long as their connection, which the engine opens anew after a rollback that failed.</summary>
    private Statements StatementsOf(Database database) => _statements is { } known && known.Database == database ? known : _statements = new(database);

    private async ValueTask<T> RunAsync<T>(Func<Database, T> work, CancellationToken cancellationToken)
    {
        try
        {
            return await _engine.WriteAsync(work, cancellationToken).ConfigureAwait(false);
        }
        catch (SqliteStoreException e)
        {
            throw new CommandTransportException(e.Message, e);
        }
    }

    private async ValueTask RecountAsync()
    {
        try
        {
            Interlocked.Exchange(ref _count, await RunAsync(static database => database.Number("SELECT count(*) FROM queue_message"), CancellationToken.None).ConfigureAwait(false));
        }
        catch (CommandTransportException)
        {
            // Off by one batch at most, until the process starts anew: the bound is meant to bound, not to count.
        }
    }

    private sealed class One
    {
        /// <summary>What the consumer holds: its number, and the other half of its key.</summary>
        public Dictionary<long, long> Held { get; } = [];

        public QueueSignal Signal { get; } = new();
    }

    private sealed class Statements(Database database)
    {
        public Database Database { get; } = database;

        public Statement Insert { get; } = database.Prepare("INSERT INTO queue_message(queue, not_before, seq, at, body) VALUES (?1, ?2, ?3, ?4, ?5)");

        public Statement ReadDue { get; } = database.Prepare("SELECT not_before, seq, body FROM queue_message WHERE queue = ?1 AND not_before BETWEEN 1 AND ?2 ORDER BY not_before, seq LIMIT ?3");

        public Statement ReadNew { get; } = database.Prepare("SELECT not_before, seq, body FROM queue_message WHERE queue = ?1 AND not_before = 0 ORDER BY seq LIMIT ?2");

        public Statement NextDue { get; } = database.Prepare("SELECT min(not_before) FROM queue_message WHERE queue = ?1 AND not_before > 0");

        public Statement Delete { get; } = database.Prepare("DELETE FROM queue_message WHERE queue = ?1 AND not_before = ?2 AND seq = ?3");

        public Statement Bury { get; } = database.Prepare("INSERT INTO queue_dead(queue, at, reason, body) VALUES (?1, ?2, ?3, ?4)");
    }
}
