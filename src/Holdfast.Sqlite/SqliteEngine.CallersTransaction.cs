using System.Data.Common;
using Holdfast.Rules;
using Holdfast.Sqlite;
using Microsoft.Data.Sqlite;

namespace Holdfast;

// The shop's own transaction: insert my order row and deduct, one commit.
public sealed partial class SqliteEngine
{
    /// <summary>
    /// Executes commands inside a transaction of the application's own, on its connection to this store's file: what they
    /// change becomes visible, and counts, when the application commits, together with everything else it wrote.
    /// </summary>
    /// <param name="transaction">An open <see cref="SqliteTransaction"/> of this process, on a connection to this file.</param>
    /// <param name="commands">Decided in order, all in this transaction. A refused command changes nothing; whether to go on or to roll back is the application's choice.</param>
    /// <param name="cancellationToken">Looked at before the work begins.</param>
    /// <returns>
    /// One result a command. Done means: done if the application commits, as durably as its connection is set. Busy means
    /// that nothing of this call was applied; roll back and try again.
    /// </returns>
    /// <remarks>
    /// The file has one writer at a time: until the application ends its transaction, everybody else waits. Call this
    /// last, commit right after it, and call nothing slow in between.
    /// </remarks>
    /// <exception cref="ArgumentException">The transaction is none of SQLite, is over, or is on another file.</exception>
    /// <exception cref="SqliteStoreException">A retry can't help: the file is damaged, or was changed by other hands.</exception>
    public ValueTask<IReadOnlyList<StockResult>> ExecuteInTransactionAsync(DbTransaction transaction, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(transaction);
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        if (transaction is not SqliteTransaction { Connection: { } connection })
        {
            throw new ArgumentException(
                transaction is SqliteTransaction ? "The transaction is over: give one that is open." : $"The transaction is a {transaction.GetType().Name}: give one of Microsoft.Data.Sqlite, on the file of the store.",
                nameof(transaction));
        }

        var file = Path.GetFullPath(connection.DataSource);
        if (file != _path && File.ResolveLinkTarget(file, returnFinalTarget: true)?.FullName != _path)
        {
            throw new ArgumentException($"The transaction is on '{file}', and the stock is in '{_path}': give one on the same file.", nameof(transaction));
        }

        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"The stock file '{_path}' was opened read-only: it answers reads only.");
        }

        var results = new StockResult[commands.Count];
        using var writer = Writer.Inside(connection, _path, _options);
        try
        {
            Decide(writer, commands, results);
        }
        catch (SqliteStoreException e) when (e.MayPass)
        {
            Array.Fill(results, StockResult.Of(StockStatus.Busy, e.Message));
        }

        return new(results);
    }

    private void Decide(Writer writer, IReadOnlyList<StockCommand> commands, StockResult[] results)
    {
        writer.Join();
        try
        {
            var now = Now();
            for (var i = 0; i < results.Length; i++)
            {
                var result = StockRules.Decide(writer, commands[i], now);
                results[i] = result.IsApplied ? result with { AcknowledgedBy = Acknowledgement.Store } : result;
            }

            if (writer.HasChanges)
            {
                writer.Write(now);
            }

            writer.KeepJoined();
        }
        catch
        {
            writer.UndoJoined();
            throw;
        }
    }
}
