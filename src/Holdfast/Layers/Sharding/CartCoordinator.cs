using System.Collections.Immutable;
using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <summary>
/// Carries a command over several shards through: prepared on its home, then on the others; committed on its home, which
/// decides it; then on the others; then answered. Whatever ends it in between, <see cref="ShardRecovery"/> finds what is
/// prepared and asks the home. Thread-safe.
/// </summary>
/// <remarks>
/// The home is the first of the command's shards in one global order, so taking the home first agrees with taking all in
/// order. A first try takes the others at once and waits for nobody; a later one takes them in order and waits at each
/// for what is about to be decided, so that carts that fight for the last units get through one after the other.
/// </remarks>
internal sealed class CartCoordinator(ShardCalls calls)
{
    /// <summary>How often a later try asks a shard again before it lets go of everything and begins anew.</summary>
    private const int TriesAtOneShard = 8;

    /// <summary>How often a shard that does not answer is asked to let go, before that is left to recovery.</summary>
    private const int TriesToAbort = 3;

    /// <summary>Executes a command over at least two shards.</summary>
    /// <param name="command">The command, without a branch.</param>
    /// <param name="parts">Its shards, ascending, each with its lines (none for Confirm and Cancel).</param>
    /// <param name="began">When the layer began with the command.</param>
    public async ValueTask<StockResult> ExecuteAsync(StockCommand command, IReadOnlyList<ShardPart> parts, long began)
    {
        ImmutableArray<int> shards = [.. parts.Select(part => part.Shard)];
        for (var tries = 0; ; tries++)
        {
            var attempt = new Attempt(calls.NewAttempt(), command, parts, shards);
            var result = await TryAsync(attempt, takesTurns: tries > 0, began).ConfigureAwait(false);
            if (result.Status != StockStatus.Busy || calls.Clock.GetElapsedTime(began) >= calls.Options.DecideTimeout)
            {
                return result;
            }

            await calls.PauseAsync(tries).ConfigureAwait(false);
        }
    }

    /// <summary>One attempt. Busy says that nothing of it is left but what could not be let go and recovery will.</summary>
    private async ValueTask<StockResult> TryAsync(Attempt attempt, bool takesTurns, long began)
    {
        var votes = attempt.Votes;
        HoldfastMeter.Attempts.Add(1);
        await calls.ReachAsync("prepare home").ConfigureAwait(false);
        votes[0] = await PrepareAsync(attempt, 0, takesTurns, began).ConfigureAwait(false);
        await calls.ReachAsync("home prepared").ConfigureAwait(false);
        if (votes[0].Status is not StockStatus.Done)
        {
            if (votes[0].Status is StockStatus.InDoubt)
            {
                await AbortAsync(attempt, 1).ConfigureAwait(false);
            }
            else if (votes[0].Status is not StockStatus.Busy && (votes[0].Status is StockStatus.Replayed || !attempt.Command.IsTransition))
            {
                // Another shard may have something weightier to say, or may not have heard yet of what is replayed.
                await CheckAsync(attempt, 1).ConfigureAwait(false);
            }

            return Combined(votes);
        }

        var asked = await PrepareOthersAsync(attempt, takesTurns, began).ConfigureAwait(false);
        await calls.ReachAsync("all prepared").ConfigureAwait(false);
        if (Array.TrueForAll(votes, vote => vote.Status == StockStatus.Done))
        {
            return await CommitAsync(attempt, began).ConfigureAwait(false);
        }

        await AbortAsync(attempt, asked).ConfigureAwait(false);
        await CheckAsync(attempt, asked).ConfigureAwait(false);
        return Combined(votes);
    }

    /// <summary>Prepares the parts behind the home; how many parts were asked, the home among them.</summary>
    private async ValueTask<int> PrepareOthersAsync(Attempt attempt, bool takesTurns, long began)
    {
        var votes = attempt.Votes;
        if (!takesTurns)
        {
            (await ShardCalls.AllAsync(votes.Length - 1, i => PrepareAsync(attempt, i + 1, waits: false, began)).ConfigureAwait(false)).CopyTo(votes, 1);
            return votes.Length;
        }

        for (var i = 1; i < votes.Length; i++)
        {
            votes[i] = await PrepareAsync(attempt, i, waits: true, began).ConfigureAwait(false);
            await calls.ReachAsync("another prepared").ConfigureAwait(false);
            if (votes[i].Status != StockStatus.Done)
            {
                return i + 1;
            }
        }

        return votes.Length;
    }

    private async ValueTask<StockResult> PrepareAsync(Attempt attempt, int part, bool waits, long began)
    {
        for (var tries = 1; ; tries++)
        {
            var vote = await calls.ExecuteAsync(attempt.Shards[part], attempt.Step(BranchPhase.Prepare, part)).ConfigureAwait(false);
            if (!vote.IsUndecided || !waits || tries == TriesAtOneShard || calls.Clock.GetElapsedTime(began) >= calls.Options.DecideTimeout)
            {
                return vote;
            }

            await calls.PauseAsync(tries).ConfigureAwait(false);
        }
    }

    /// <summary>Asks the parts from <paramref name="first"/> on what they would answer.</summary>
    private async ValueTask CheckAsync(Attempt attempt, int first)
    {
        var votes = await ShardCalls.AllAsync(
            attempt.Votes.Length - first, i => calls.ExecuteAsync(attempt.Shards[first + i], attempt.Step(BranchPhase.Check, first + i))).ConfigureAwait(false);
        votes.CopyTo(attempt.Votes, first);
    }

    /// <summary>
    /// Lets go of what was prepared on the first parts. Nobody but this coordinator commits the attempt, and it does not,
    /// so the order is of no importance and a part that can't be reached is no danger: recovery lets go of it.
    /// </summary>
    /// <returns>The home's answer: Replayed where the attempt had been committed after all.</returns>
    private async ValueTask<StockResult> AbortAsync(Attempt attempt, int parts)
    {
        HoldfastMeter.Aborts.Add(1);
        await calls.ReachAsync("abort").ConfigureAwait(false);
        var answers = await ShardCalls.AllAsync(parts, UntilAnsweredAsync).ConfigureAwait(false);
        await calls.ReachAsync("aborted").ConfigureAwait(false);
        return answers[0];

        async ValueTask<StockResult> UntilAnsweredAsync(int part)
        {
            for (var tries = 1; ; tries++)
            {
                var answer = await calls.ExecuteAsync(attempt.Shards[part], attempt.Step(BranchPhase.Abort, part)).ConfigureAwait(false);
                if (!answer.IsRetryable || tries == TriesToAbort)
                {
                    return answer;
                }

                await calls.PauseAsync(tries).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Decides at the home, then tells the others.</summary>
    private async ValueTask<StockResult> CommitAsync(Attempt attempt, long began)
    {
        StockResult home;
        var isInDoubt = false;
        for (var tries = 0; ; tries++)
        {
            await calls.ReachAsync("commit home").ConfigureAwait(false);
            home = await calls.ExecuteAsync(attempt.Shards[0], attempt.Step(BranchPhase.Commit, 0)).ConfigureAwait(false);
            await calls.ReachAsync("home committed").ConfigureAwait(false);
            if (home.Status is StockStatus.Done or StockStatus.Replayed)
            {
                break;
            }

            if (home.Status == StockStatus.UnknownTarget)
            {
                // Recovery took us for dead, and the home has let go. In doubt before or not, it was not committed.
                await AbortAsync(attempt, attempt.Votes.Length).ConfigureAwait(false);
                return StockResult.Of(StockStatus.Busy, "took too long to decide; let go by recovery");
            }

            isInDoubt |= home.Status == StockStatus.InDoubt;
            if (calls.Clock.GetElapsedTime(began) >= calls.Options.DecideTimeout)
            {
                if (isInDoubt)
                {
                    return StockResult.Of(StockStatus.InDoubt, $"shard {attempt.Shards[0]} did not say whether it decided: {home.Detail}");
                }

                home = await AbortAsync(attempt, attempt.Votes.Length).ConfigureAwait(false);
                if (home.Status == StockStatus.Replayed)
                {
                    break;
                }

                return StockResult.Of(StockStatus.Busy, $"shard {attempt.Shards[0]} did not decide: {home.Detail}");
            }

            await calls.PauseAsync(tries).ConfigureAwait(false);
        }

        return await FinishAsync(attempt, home).ConfigureAwait(false);
    }

    /// <summary>
    /// What is decided is applied on the other shards before the caller is told, so that whoever comes after the answer
    /// finds it everywhere.
    /// </summary>
    private async ValueTask<StockResult> FinishAsync(Attempt attempt, StockResult home)
    {
        var decided = calls.Clock.GetTimestamp();
        StockResult[] results = [home, .. await ShardCalls.AllAsync(attempt.Votes.Length - 1, i => UntilAppliedAsync(i + 1)).ConfigureAwait(false)];
        await calls.ReachAsync("all committed").ConfigureAwait(false);
        foreach (var result in results)
        {
            if (result.IsRetryable)
            {
                return StockResult.Of(StockStatus.InDoubt, $"it is decided, but not applied on every shard yet: {result.Detail}");
            }

            if (result.Status is not (StockStatus.Done or StockStatus.Replayed) && !attempt.Command.IsTransition)
            {
                // What a shard has acknowledged as prepared is gone: it has lost data.
                calls.Logger.LogCritical("{Command} is decided, and a shard that had prepared it answers {Result}; run the audit.", attempt.Command, result);
                return StockResult.Of(StockStatus.InDoubt, "a shard has lost what it had prepared; run the audit");
            }
        }

        return new()
        {
            Status = StockStatus.Done,
            AcknowledgedBy = results.Min(result => result.AcknowledgedBy),
            Left = Joined(results),
        };

        async ValueTask<StockResult> UntilAppliedAsync(int part)
        {
            for (var tries = 0; ; tries++)
            {
                await calls.ReachAsync("commit another").ConfigureAwait(false);
                var result = await calls.ExecuteAsync(attempt.Shards[part], attempt.Step(BranchPhase.Commit, part)).ConfigureAwait(false);
                await calls.ReachAsync("another committed").ConfigureAwait(false);
                if (!result.IsRetryable || calls.Clock.GetElapsedTime(decided) >= calls.Options.DecideTimeout)
                {
                    return result;
                }

                await calls.PauseAsync(tries).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The answer that follows from votes that are not all for it.</summary>
    private static StockResult Combined(StockResult[] votes)
    {
        var first = votes.Where(vote => vote.Status is not (StockStatus.Done or StockStatus.None)).MinBy(vote => (int)vote.Status);
        if (first.Status == StockStatus.Replayed && first.Original != StockStatus.Expired)
        {
            // Applied on every shard, or on its way to some: then it is about to be.
            return Array.TrueForAll(votes, vote => vote.Status == StockStatus.Replayed && vote.Original == first.Original)
                ? first with { Left = Joined(votes) }
                : StockResult.Of(StockStatus.Busy, "it is applied on some of its shards, and about to be on the others") with { IsUndecided = true };
        }

        // A vote in doubt has nothing to do with the answer: what was only prepared is let go.
        return first.Status == StockStatus.InDoubt ? StockResult.Of(StockStatus.Busy, first.Detail) : first;
    }

    internal static ImmutableArray<LineBalance> Joined(IEnumerable<StockResult> results) =>
        [.. results.SelectMany(result => result.Left).OrderBy(left => left.Sku, StockKey.ByteOrder)];

    /// <summary>One attempt at a command.</summary>
    private sealed class Attempt(string name, StockCommand command, IReadOnlyList<ShardPart> parts, ImmutableArray<int> shards)
    {
        private readonly ShardedCart _cart = new(name, shards);

        public StockCommand Command => command;

        public ImmutableArray<int> Shards => shards;

        public StockResult[] Votes { get; } = new StockResult[parts.Count];

        public StockCommand Step(BranchPhase phase, int part) => command.OnShard(phase, _cart, parts[part].Lines);
    }
}
