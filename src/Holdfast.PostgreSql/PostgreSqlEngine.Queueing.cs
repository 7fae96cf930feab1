using Holdfast.PostgreSql;
using Holdfast.Queueing;
using Npgsql;

namespace Holdfast;

// The database as a queue of commands, and as the place of their verdicts.
public sealed partial class PostgreSqlEngine
{
    /// <summary>Opens the queues that lie in this store's schema, making them where they are missing. Any number of processes may send and consume.</summary>
    /// <param name="queues">How many, 1 to 1,024: the same in every process, and not to be changed while commands wait in them. At most half as many as the pool has connections are decided at once.</param>
    /// <param name="maxMessages">Most messages in all of them, counted about once a second; past it they are full.</param>
    /// <param name="clock">The clock of pauses; the system's by default. (What is put aside goes by the database's.)</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="PostgreSqlStoreException">The database can't be used now.</exception>
    public async ValueTask<ICommandTransport> OpenQueueAsync(int queues = 4, long maxMessages = 1_000_000, TimeProvider? clock = null, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(queues, 1_024);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxMessages, 1);
        if (MaxConnections < 2)
        {
            throw new PostgreSqlStoreException("A queue holds one connection while the engine uses another: Maximum Pool Size must be at least 2.");
        }

        await MakeQueueTablesAsync(cancellationToken).ConfigureAwait(false);
        await QueryAsync(
            $"INSERT INTO {Schema.Quote(_options.Schema)}.queue_partition(queue) SELECT generate_series(0, $1::bigint - 1) ON CONFLICT DO NOTHING",
            command => command.With((long)queues),
            static row => row.GetInt64(0),
            cancellationToken).ConfigureAwait(false);
        return new PostgreSqlQueue(this, queues, maxMessages, clock ?? TimeProvider.System);
    }

    /// <summary>Opens the verdicts that lie in this store's schema.</summary>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="PostgreSqlStoreException">The database can't be used now.</exception>
    public async ValueTask<IVerdictStore> OpenVerdictsAsync(CancellationToken cancellationToken = default)
    {
        await MakeQueueTablesAsync(cancellationToken).ConfigureAwait(false);
        return new PostgreSqlVerdicts(this, _sql);
    }

    internal NpgsqlDataSource Source => _source;

    internal int TimeoutSeconds => _timeoutSeconds;

    /// <summary>Most connections that the pool makes.</summary>
    internal int MaxConnections => new NpgsqlConnectionStringBuilder(_source.ConnectionString).MaxPoolSize;

    /// <summary>A connection that is open.</summary>
    internal ValueTask<NpgsqlConnection> ConnectAsync(CancellationToken cancellationToken)
    {
        return Volatile.Read(ref _closing) == 1 ? throw new PostgreSqlStoreException("The store is shutting down; try again when it is back.", mayPass: true) : _source.OpenConnectionAsync(cancellationToken);
    }

    /// <summary>Runs one statement by itself and reads its rows. It may have been executed even where it fails.</summary>
    /// <exception cref="PostgreSqlStoreException">The database could not do it now.</exception>
    internal async ValueTask<List<T>> QueryAsync<T>(string sql, Action<NpgsqlBatchCommand> bind, Func<NpgsqlDataReader, T> read, CancellationToken cancellationToken)
    {
        try
        {
            var connection = await ConnectAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = connection.ConfigureAwait(false);
            var batch = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
            await using var disposingToo = batch.ConfigureAwait(false);
            bind(batch.Add(sql));
            var rows = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await using var disposingThree = rows.ConfigureAwait(false);
            var found = new List<T>();
            while (await rows.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                found.Add(read(rows));
            }

            return found;
        }
        catch (Exception e) when (Failure.IsOfStore(e) && e is not PostgreSqlStoreException && !cancellationToken.IsCancellationRequested)
        {
            throw Described(e);
        }
    }

    /// <summary>A failure in words; what may be dead among the pool's connections is forgotten.</summary>
    internal PostgreSqlStoreException Described(Exception e)
    {
        if (Failure.IsLoss(e))
        {
            ForgetConnections();
        }

        return e as PostgreSqlStoreException ?? new PostgreSqlStoreException(Failure.Describe(e, Server), Failure.RemedyFor(e, Stage.Working) != Remedy.Fail, (e as PostgresException)?.SqlState, e);
    }

    private async Task MakeQueueTablesAsync(CancellationToken cancellationToken)
    {
        try
        {
            var connection = await ConnectAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = connection.ConfigureAwait(false);
            await QueueSchema.MakeAsync(connection, _options.Schema, Server, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e) && e is not PostgreSqlStoreException && !cancellationToken.IsCancellationRequested)
        {
            throw Described(e);
        }
    }
}
