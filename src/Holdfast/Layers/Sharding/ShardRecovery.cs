using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <summary>
/// Settles what coordinators have left behind: whatever a shard has had prepared for too long is committed where its home
/// has committed it, and let go otherwise, at the home first. Any number of processes may do so at once, beside the
/// coordinators that are alive. One round at a time.
/// </summary>
internal sealed class ShardRecovery(ShardCalls calls)
{
    private Dictionary<Sighting, long> _seen = [];

    /// <summary>One round; how many parts were settled.</summary>
    public async ValueTask<int> RunAsync(CancellationToken cancellationToken)
    {
        var seen = new Dictionary<Sighting, long>();
        var settled = 0;
        for (var shard = 0; shard < calls.Shards.Count; shard++)
        {
            try
            {
                settled += await RunAsync(shard, seen, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
            {
                // The other shards are not to wait for this one. What was seen here keeps its age.
                calls.Logger.LogWarning(e, "Shard {Shard} could not be asked for what is undecided; the next round tries again.", shard);
                foreach (var (sighting, since) in _seen.Where(known => known.Key.Shard == shard))
                {
                    seen.TryAdd(sighting, since);
                }
            }
        }

        _seen = seen;
        return settled;
    }

    private async ValueTask<int> RunAsync(int shard, Dictionary<Sighting, long> seen, CancellationToken cancellationToken)
    {
        var old = new List<OperationView>();
        await foreach (var view in calls.Shards[shard].ListOperationsAsync(new() { UndecidedOnly = true }, cancellationToken).ConfigureAwait(false))
        {
            var sighting = new Sighting(shard, view.Id, view.Pending?.Attempt ?? view.Cart!.Attempt);
            var since = _seen.GetValueOrDefault(sighting, calls.Clock.GetTimestamp());
            seen[sighting] = since;

            // An order that waits for a refund is freed together with the refund, which is listed itself.
            if (view.Pending?.Verb != StockVerb.Refund && calls.Clock.GetElapsedTime(since) >= calls.Options.RecoverAfter)
            {
                old.Add(view);
            }
        }

        var settled = 0;
        foreach (var view in old)
        {
            cancellationToken.ThrowIfCancellationRequested();
            settled += await SettleAsync(shard, view).ConfigureAwait(false) ? 1 : 0;
        }

        return settled;
    }

    private async ValueTask<bool> SettleAsync(int shard, OperationView view)
    {
        var abort = Step(view);
        var cart = abort.Branch!.Cart;
        await calls.ReachAsync("recover").ConfigureAwait(false);
        if (await IsCommittedAsync(shard, view, abort).ConfigureAwait(false) is not { } isCommitted)
        {
            return false;
        }

        await calls.ReachAsync("home has told").ConfigureAwait(false);
        var result = await calls.ExecuteAsync(shard, isCommitted ? abort.InPhase(BranchPhase.Commit) : abort).ConfigureAwait(false);
        calls.Logger.LogInformation(
            "{Id}, prepared on shard {Shard} by attempt {Attempt}, was {End} by recovery: {Result}.", view.Id, shard, cart.Attempt, isCommitted ? "committed" : "let go", result);
        return !result.IsRetryable;
    }

    /// <summary>What the home has decided; where it has not, it lets go now. <see langword="null"/> when it does not say.</summary>
    private async ValueTask<bool?> IsCommittedAsync(int shard, OperationView view, StockCommand abort)
    {
        var cart = abort.Branch!.Cart;
        if (shard != cart.Home)
        {
            // The home had it prepared before any other shard. Where it has not any more, it has decided.
            var home = await calls.FindAsync(cart.Home, view.Id).ConfigureAwait(false);
            if (home is null)
            {
                return false;
            }

            if (abort.IsTransition)
            {
                if (home.Pending != view.Pending)
                {
                    return home.State == (abort.Verb == StockVerb.Confirm ? OperationState.Confirmed : OperationState.Cancelled);
                }
            }
            else if (home.Cart?.Attempt != cart.Attempt || home.State != OperationState.Undecided)
            {
                return home.Cart?.Attempt == cart.Attempt;
            }

            abort = Step(home);
        }

        var answer = await calls.ExecuteAsync(cart.Home, abort).ConfigureAwait(false);
        return answer.IsRetryable ? null : answer.Status == StockStatus.Replayed;
    }

    /// <summary>The command that lets go of what a view shows as prepared.</summary>
    private static StockCommand Step(OperationView view)
    {
        StockLine[] lines = [.. view.Lines.Select(line => new StockLine(line.Sku, line.Quantity))];
        if (view.Pending is { } pending)
        {
            var transition = pending.Verb == StockVerb.Confirm ? StockCommand.Confirm(view.Id) : StockCommand.Cancel(view.Id);
            return transition.OnShard(BranchPhase.Abort, new(pending.Attempt, view.Cart!.Shards), []);
        }

        var command = view.Verb switch
        {
            StockVerb.Deduct => StockCommand.Deduct(view.Id, lines, view.Note),
            StockVerb.Reserve => StockCommand.Reserve(view.Id, lines, view.ExpiresAt!.Value - view.CreatedAt, view.Note),
            StockVerb.Refund => StockCommand.Refund(view.Id, view.Target!, lines, view.Note),
            StockVerb.Restock => StockCommand.Restock(view.Id, lines, view.Note),
            StockVerb.Adjust => StockCommand.Adjust(view.Id, lines, view.Note),
            _ => throw new InvalidOperationException($"Operation '{view.Id}' is undecided, which a {view.Verb} cannot be; run the audit."),
        };
        return command.OnShard(BranchPhase.Abort, view.Cart!, command.Lines);
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Sighting(int Shard, string Id, string Attempt);
}
