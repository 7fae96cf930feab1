using System.Runtime.InteropServices;

namespace Holdfast.Rules;

/// <summary>
/// One shard's part of a command over several shards. What is prepared is set aside beside the balances, so nothing of it
/// is in the ledger until it is committed, and a part that is let go leaves no trace. Once prepared, a commit can't be refused.
/// </summary>
public static partial class StockRules
{
    /// <summary>Marks a line of a prepared restock whose units count as supplied already; one of a SKU that is new does not.</summary>
    private const long IsCounted = 1;

    /// <summary>
    /// The answer where an attempt has the command's operation in hand, or where it has prepared this very part before;
    /// otherwise <see langword="null"/>.
    /// </summary>
    private static StockResult? MeetUndecided(StockCommand command, Operation known)
    {
        var isOurs = command.Branch is { Phase: BranchPhase.Prepare } branch
            && (known.State == OperationState.Undecided ? known.Cart! : null)?.Attempt == branch.Cart.Attempt;
        if (known.State == OperationState.Undecided)
        {
            return isOurs ? StockResult.Of(StockStatus.Done) : Undecided();
        }

        if (command.Verb is not (StockVerb.Confirm or StockVerb.Cancel))
        {
            return null;
        }

        if (known.Pending is { } pending)
        {
            return command.Branch is { Phase: BranchPhase.Prepare } && pending == new PendingBranch(command.Verb, command.Branch.Cart.Attempt)
                ? StockResult.Of(StockStatus.Done)
                : Undecided();
        }

        // A part is not ended by itself; whoever asks has not seen yet that it is one.
        return known.Cart is not null && command.Branch is null ? Undecided() : null;
    }

    /// <summary>Commits or aborts what an attempt has prepared.</summary>
    private static StockResult Resolve(IStockState state, StockCommand command, Operation? known, long now)
    {
        var (phase, cart) = command.Branch!;
        if (command.IsTransition)
        {
            if (known?.Pending != new PendingBranch(command.Verb, cart.Attempt))
            {
                // Nothing else could end the operation while this was pending: where it has ended, this attempt did it.
                var end = command.Verb == StockVerb.Confirm ? OperationState.Confirmed : OperationState.Cancelled;
                return known is not null && known.State == end ? Replayed(end == OperationState.Confirmed ? StockStatus.Done : StockStatus.Cancelled, known.EndLeft) : Nothing();
            }

            if (phase == BranchPhase.Commit)
            {
                return command.Verb == StockVerb.Confirm ? Confirm(state, command, known, now) : Cancel(state, command, known, now);
            }

            known.Pending = null;
            state.OperationChanged(known);
            return StockResult.Of(StockStatus.Done);
        }

        if (known?.Cart?.Attempt != cart.Attempt)
        {
            return Nothing();
        }

        if (known.State != OperationState.Undecided)
        {
            return Replayed(StockStatus.Done, known.Left);
        }

        LetGo(state, known);
        if (phase == BranchPhase.Abort)
        {
            return StockResult.Of(StockStatus.Done);
        }

        var result = Apply(state, command, now);
        return result.Status == StockStatus.Done
            ? result
            : throw new InvalidOperationException($"{command} was prepared, but its commit was refused ({result}); run the audit.");

        StockResult Nothing() => StockResult.Of(phase == BranchPhase.Commit ? StockStatus.UnknownTarget : StockStatus.Done);
    }

    /// <summary>After the checks: whether the command is only to be checked or prepared, which is done then.</summary>
    private static bool IsHeld(IStockState state, StockCommand command, ReadOnlySpan<StockRow?> rows, Operation? target, long now)
    {
        if (command.Branch is not { Phase: BranchPhase.Check or BranchPhase.Prepare } branch)
        {
            return false;
        }

        if (branch.Phase == BranchPhase.Check)
        {
            return true;
        }

        if (target is not null)
        {
            target.Pending = new(command.Verb, branch.Cart.Attempt);
            state.OperationChanged(target);
        }

        if (command.IsTransition)
        {
            return true;
        }

        var lines = command.Lines;
        var counted = new LineBalance[lines.Length];
        for (var i = 0; i < counted.Length; i++)
        {
            counted[i] = new(lines[i].Sku, SetAside(state, rows[i], command.Verb, lines[i].Quantity) ? IsCounted : 0);
        }

        state.AddOperation(new()
        {
            Id = command.Id,
            Verb = command.Verb,
            Target = command.Target,
            Lines = lines,
            TimeToLive = command.TimeToLiveMilliseconds,
            Note = command.Note,
            CreatedAt = now,
            State = OperationState.Undecided,
            Cart = branch.Cart,
            Left = ImmutableCollectionsMarshal.AsImmutableArray(counted),
        });
        return true;
    }

    /// <summary>Sets one line aside, or, with the quantity's sign turned, takes it back; whether there was something to set aside.</summary>
    private static bool SetAside(IStockState state, StockRow? row, StockVerb verb, long quantity, bool back = false)
    {
        var sign = back ? -1 : 1;
        switch (verb)
        {
            case StockVerb.Deduct or StockVerb.Reserve:
                row!.Held += sign * quantity;
                break;
            case StockVerb.Adjust when quantity < 0:
                row!.Held -= sign * quantity;
                break;
            case StockVerb.Adjust or StockVerb.Restock when row is not null:
                row.Supplied += sign * quantity;
                break;
            default:
                // A refund holds nothing of a row; its order is what waits for it.
                return false;
        }

        state.RowChanged(row!);
        return true;
    }

    private static void LetGo(IStockState state, Operation prepared)
    {
        for (var i = 0; i < prepared.Lines.Length; i++)
        {
            if (prepared.Left[i].Available == IsCounted)
            {
                SetAside(state, HeldRow(state, prepared.Lines[i].Sku), prepared.Verb, prepared.Lines[i].Quantity, back: true);
            }
        }

        if (prepared.Verb == StockVerb.Refund && state.FindOperation(prepared.Target!) is { } order)
        {
            order.Pending = null;
            state.OperationChanged(order);
        }

        state.RemoveOperation(prepared);
    }

    private static StockResult Undecided(string? sku = null) => new()
    {
        Status = StockStatus.Busy,
        IsUndecided = true,
        Sku = sku,
        Detail = sku is null
            ? "a command over several shards that is not decided yet has this operation in hand"
            : $"units of SKU '{sku}' are in the hands of a command over several shards that is not decided yet",
    };
}
