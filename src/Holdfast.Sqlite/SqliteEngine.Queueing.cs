using Holdfast.Queueing;
using Holdfast.Sqlite;

namespace Holdfast;

// The stock file as a queue of commands, and as the place of their verdicts.
public sealed partial class SqliteEngine
{
    /// <summary>Opens the queues that lie in this file, making them where they are missing. The file's one writing process is their one consumer.</summary>
    /// <param name="queues">How many, 1 to 1,024; not to be changed while commands wait in them.</param>
    /// <param name="maxMessages">Most messages in all of them; past it they are full.</param>
    /// <param name="clock">The clock of what is put aside; the system's by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="SqliteStoreException">The file can't be written now.</exception>
    public async ValueTask<ICommandTransport> OpenQueueAsync(int queues = 4, long maxMessages = 1_000_000, TimeProvider? clock = null, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(queues, 1_024);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxMessages, 1);
        var waiting = await WriteAsync(
            database =>
            {
                QueueSchema.Make(database);
                return (Last: database.Number("SELECT max(seq) FROM queue_message"), Count: database.Number("SELECT count(*) FROM queue_message"));
            },
            cancellationToken).ConfigureAwait(false);
        return new SqliteQueue(this, queues, maxMessages, waiting.Last, waiting.Count, clock ?? TimeProvider.System);
    }

    /// <summary>Opens the verdicts that lie in this file.</summary>
    /// <param name="clock">The clock of leases; the system's by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="SqliteStoreException">The file can't be written now.</exception>
    public async ValueTask<IVerdictStore> OpenVerdictsAsync(TimeProvider? clock = null, CancellationToken cancellationToken = default)
    {
        await WriteAsync(
            static database =>
            {
                QueueSchema.Make(database);
                return true;
            },
            cancellationToken).ConfigureAwait(false);
        return new SqliteVerdicts(this, clock ?? TimeProvider.System);
    }

    internal string FilePath => _path;

    /// <summary>Runs work in a write turn, in a transaction of its own.</summary>
    /// <exception cref="SqliteStoreException">No turn in time, or the file could not be written; what failed at its commit may have been kept.</exception>
    internal async ValueTask<T> WriteAsync<T>(Func<Database, T> work, CancellationToken cancellationToken)
    {
        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"The stock file '{_path}' was opened read-only: it answers reads only.");
        }

        switch (await _writeTurns.BeginAsync(cancellationToken).ConfigureAwait(false))
        {
            case Turn.Crowded:
                throw new SqliteStoreException($"More than {_options.MaxWaiting} calls wait for the stock file '{_path}' already; try again later.");
            case Turn.TimedOut:
                throw new SqliteStoreException($"Waited {_options.BusyTimeout.TotalSeconds:0.###} s for a turn to write the stock file '{_path}'; try again later.");
        }

        try
        {
            if (Volatile.Read(ref _closing) == 1)
            {
                throw new SqliteStoreException($"The stock file '{_path}' is shutting down; try again when it is back.");
            }

            T result;
            try
            {
                var writer = _writer ??= Writer.Open(_path, _options);
                result = writer.Transact(work);
            }
            catch
            {
                RollBack();
                throw;
            }

            if (_writer is { LogIsLong: true } toShorten)
            {
                await ShortenLogAsync(toShorten).ConfigureAwait(false);
            }

            return result;
        }
        finally
        {
            _writeTurns.End();
        }
    }

    /// <summary>Runs a short read.</summary>
    internal ValueTask<TResult> QueryAsync<TArgument, TResult>(TArgument argument, Func<Reader, TArgument, long, TResult> query, CancellationToken cancellationToken) =>
        ReadAsync((argument, query), static (engine, reader, ask) => ask.query(reader, ask.argument, engine.Now(reader)), cancellationToken);
}
