using System.Runtime.InteropServices;
using Holdfast.PostgreSql;
using Npgsql;

namespace Holdfast;

// The plain database schemes: one transaction a command.
public sealed partial class PostgreSqlEngine
{
    /// <summary>
    /// The article's transaction: take units of each line if they are there, write ledger and operation, commit. Whatever
    /// does not simply succeed (a duplicate, a shortage, units in reservations) is rolled back and left to the rules.
    /// </summary>
    private async Task<bool> TryConditionalAsync(NpgsqlConnection connection, Work work, CancellationToken cancellationToken)
    {
        var command = work.Commands[0];
        var transaction = new Transaction(_sql, connection, null, _timeoutSeconds, work.Commands);
        try
        {
            if (await TakeAsync(transaction, command, cancellationToken).ConfigureAwait(false) is { } taken)
            {
                work.Stage = Stage.Committing;
                await transaction.WriteAsync(taken, Statements.Commit, rowsAreWritten: true).ConfigureAwait(false);
                NoteTime(taken.Now);
                var results = work.Results;
                results[0] = new() { Status = StockStatus.Done, Left = taken.TouchedOperations[0].Operation.Left, AcknowledgedBy = Acknowledgement.Store };
                return true;
            }
        }
        catch (PostgresException e) when (e is { SqlState: PostgresErrorCodes.UniqueViolation, InvariantSeverity: "ERROR" })
        {
            // The id is taken: the rules say what that means.
            work.Stage = Stage.Working;
        }

        return await TryLockedAsync(connection, work, s_beginAgain, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Takes the units of each line, ascending by SKU; <see langword="null"/> when a line reports no row.</summary>
    private async Task<LoadedState?> TakeAsync(Transaction transaction, StockCommand command, CancellationToken cancellationToken)
    {
        var reserves = command.Verb == StockVerb.Reserve;
        var lines = command.Lines;
        var batch = transaction.NewBatch();
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(Statements.Begin);
        foreach (var (sku, quantity) in lines)
        {
            batch.Add(_sql.TakeIfThere).With(Highest).With(TestTime).With(sku).With(quantity).With(reserves ? quantity : 0L);
        }

        batch.Add(_sql.PlaceBookmark);
        batch.Add(_sql.TakeBlock);

        var state = new LoadedState([]);
        var left = new LineBalance[lines.Length];
        var reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingToo = reader.ConfigureAwait(false);
        for (var i = 0; i < left.Length; i++)
        {
            if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                return null;
            }

            var (sku, quantity) = lines[i];
            left[i] = new(sku, reader.GetInt64(0));
            state.Now = Math.Max(state.Now, reader.GetInt64(2));
            var held = reserves ? quantity : 0;
            state.Flow.Add(new(sku, command.Id, reserves ? FlowKind.Reserve : FlowKind.Deduct, reader.GetInt64(1), -quantity, held, left[i].Available, held));
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        }

        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        state.Block = reader.GetInt64(0);
        state.TouchedOperations.Add(new(
            new()
            {
                Id = command.Id,
                Verb = command.Verb,
                Lines = lines,
                TimeToLive = command.TimeToLiveMilliseconds,
                Note = command.Note,
                CreatedAt = state.Now,
                State = reserves ? OperationState.Reserved : OperationState.Applied,
                Left = ImmutableCollectionsMarshal.AsImmutableArray(left),
            },
            isNew: true));
        return state;
    }

    /// <summary>
    /// The optimistic lock: read without locks, decide, and write only where every row is still of the version that was read.
    /// </summary>
    private async Task<bool> TryVersionAsync(NpgsqlConnection connection, Work work, CancellationToken cancellationToken)
    {
        var transaction = new Transaction(_sql, connection, null, _timeoutSeconds, work.Commands);
        HashSet<string> extra = [];
        LoadedState state;
        while (true)
        {
            state = await transaction.LoadAsync(default, locks: false, extra, Highest, TestTime, cancellationToken).ConfigureAwait(false);
            var timely = IsTimely(state);
            var missing = state.FindMissing(work.Commands);
            if (timely && missing.Count == 0)
            {
                break;
            }

            if (extra.IsSupersetOf(missing) && timely)
            {
                return false;
            }

            extra.UnionWith(missing);
        }

        Decide(state, work.Commands, work.Results);
        if (!state.HasChanges)
        {
            if (work.HasReplay)
            {
                work.IsCommitting = true;
                await transaction.RunAsync(s_beginAndConfirm, CancellationToken.None).ConfigureAwait(false);
            }

            return true;
        }

        if (!await transaction.TryWriteVersionsAsync(state, cancellationToken).ConfigureAwait(false))
        {
            await transaction.RunAsync(s_rollBack, cancellationToken).ConfigureAwait(false);
            return false;
        }

        work.Stage = Stage.Committing;
        await transaction.WriteAsync(state, Statements.Commit, rowsAreWritten: true).ConfigureAwait(false);
        return true;
    }
}
