using System.Data;
using System.Data.Common;
using Holdfast.PostgreSql;
using Npgsql;

namespace Holdfast;

// The shop's own transaction: insert my order row and deduct, one commit.
public sealed partial class PostgreSqlEngine
{
    private static readonly string[] s_savepoint = ["SAVEPOINT holdfast"];
    private static readonly string[] s_savepointAgain = ["ROLLBACK TO SAVEPOINT holdfast"];
    private static readonly string[] s_undo = ["ROLLBACK TO SAVEPOINT holdfast", "RELEASE SAVEPOINT holdfast"];

    /// <summary>
    /// Executes commands inside a transaction of the application's own, on its connection to the same database: what they
    /// change becomes visible, and counts, when the application commits, together with everything else it wrote.
    /// </summary>
    /// <param name="transaction">An open <see cref="NpgsqlTransaction"/> at READ COMMITTED.</param>
    /// <param name="commands">Decided in order, all in this transaction. A refused command changes nothing; whether to go on or to roll back is the application's choice.</param>
    /// <param name="cancellationToken">Stops the waiting; roll back then.</param>
    /// <returns>
    /// One result a command. Done means: done if the application commits. Busy means that nothing of this call was
    /// applied and the transaction is as it was before; roll it back, so that its locks go, and try again.
    /// </returns>
    /// <remarks>
    /// The stock rows stay locked until the application ends its transaction: call this last, commit right after it, and
    /// call nothing slow in between. One call with all commands, rather than several, keeps the locks in one order.
    /// After a lost connection the application does not know whether its commit counted; ask for the operation by id.
    /// </remarks>
    /// <exception cref="ArgumentException">The transaction is none of PostgreSQL, is over, or has another isolation level.</exception>
    /// <exception cref="PostgreSqlStoreException">The connection was lost, and the transaction with it; or rows were changed by other hands.</exception>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteInTransactionAsync(DbTransaction transaction, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(transaction);
        ArgumentNullException.ThrowIfNull(commands);
        if (transaction is not NpgsqlTransaction callers)
        {
            throw new ArgumentException($"The transaction is a {transaction.GetType().Name}: give one of Npgsql, on the database of the store.", nameof(transaction));
        }

        var connection = ConnectionOf(callers) ?? throw new ArgumentException("The transaction is over: give one that is open.", nameof(transaction));

        if (callers.IsolationLevel != IsolationLevel.ReadCommitted)
        {
            throw new ArgumentException($"The transaction's isolation level is {callers.IsolationLevel}: begin it with ReadCommitted, so that what a lock waited for can be seen.", nameof(transaction));
        }

        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"{Server} was opened read-only: it answers reads only.");
        }

        StockCommand[] all = [.. commands];
        var results = new StockResult[all.Length];
        if (all.Length == 0)
        {
            return results;
        }

        var began = _clock.GetTimestamp();
        var trouble = $"{Server}: the rows changed faster than they could be locked; try again later.";
        for (var attempt = 1; attempt <= _options.MaxAttempts && _clock.GetElapsedTime(began) < _options.StatementTimeout; attempt++)
        {
            try
            {
                var inside = new Transaction(_sql, connection, callers, _timeoutSeconds, all);
                if (await LoadLockedAsync(inside, all, s_savepoint, s_savepointAgain, cancellationToken).ConfigureAwait(false) is { } state)
                {
                    Decide(state, all, results);
                    if (state.HasChanges)
                    {
                        await inside.WriteAsync(state, "RELEASE SAVEPOINT holdfast").ConfigureAwait(false);
                    }
                    else
                    {
                        // Nothing but refusals and replays: their locks are let go.
                        await inside.RunAsync(s_undo, cancellationToken).ConfigureAwait(false);
                    }

                    return results;
                }

                await inside.RunAsync(s_undo, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (Failure.IsOfStore(e) && !cancellationToken.IsCancellationRequested)
            {
                trouble = Failure.Describe(e, Server);
                if (connection.FullState != ConnectionState.Open)
                {
                    throw new PostgreSqlStoreException($"The transaction is lost with its connection; begin anew. {trouble}", mayPass: true, (e as PostgresException)?.SqlState, e);
                }

                await new Transaction(_sql, connection, callers, _timeoutSeconds, all).RunAsync(s_undo, CancellationToken.None).ConfigureAwait(false);
                switch (Failure.RemedyFor(e, Stage.Working))
                {
                    case Remedy.Fail:
                        throw e as PostgreSqlStoreException ?? new PostgreSqlStoreException(trouble, sqlState: (e as PostgresException)?.SqlState, innerException: e);
                    case Remedy.Busy:
                        Fill(results, StockStatus.Busy, trouble);
                        return results;
                }
            }
        }

        Fill(results, StockStatus.Busy, trouble);
        return results;
    }

    private static NpgsqlConnection? ConnectionOf(NpgsqlTransaction transaction)
    {
        try
        {
            _ = transaction.IsolationLevel;
            return transaction.Connection;
        }
        catch (InvalidOperationException)
        {
            // The driver's way to say that it was committed or rolled back.
            return null;
        }
    }
}
