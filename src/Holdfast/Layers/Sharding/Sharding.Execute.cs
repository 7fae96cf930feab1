using System.Collections.Immutable;

namespace Holdfast;

/// <summary>Where commands go.</summary>
public sealed partial class Sharding
{
    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        if (commands.Count == 0)
        {
            return new([]);
        }

        var shard = OneShardOf(commands);
        return shard >= 0 && (_shards.Length == 1 || !MayNeedOrder(commands)) ? ExecuteOnAsync(shard, commands, cancellationToken)
            : commands.Count == 1 ? ExecuteOneAsync(commands[0], cancellationToken)
            : ExecuteInWavesAsync([.. commands], cancellationToken);
    }

    /// <summary>The shard that all of these concern and no other, or −1.</summary>
    private int OneShardOf(IReadOnlyList<StockCommand> commands)
    {
        if (_shards.Length == 1)
        {
            return 0;
        }

        var shard = -1;
        for (var i = 0; i < commands.Count; i++)
        {
            var lines = (commands[i] ?? throw new ArgumentException($"commands[{i}] is null; leave it out.", nameof(commands))).Lines;
            if (lines.IsEmpty)
            {
                return -1;
            }

            foreach (var line in lines)
            {
                var its = _map.ShardOf(line.Sku);
                if (shard >= 0 && its != shard)
                {
                    return -1;
                }

                shard = its;
            }
        }

        return shard;
    }

    /// <summary>Whether a batch refunds an order that it makes or ends itself: when its shard does not know the order, the others must not be asked later than that.</summary>
    private static bool MayNeedOrder(IReadOnlyList<StockCommand> commands)
    {
        if (commands.Count == 1 || !commands.Any(command => command.Verb == StockVerb.Refund))
        {
            return false;
        }

        var targets = commands.Where(command => command.Verb == StockVerb.Refund).Select(command => command.Target!).ToHashSet(StringComparer.Ordinal);
        return commands.Any(command => targets.Contains(command.Id));
    }

    private async ValueTask<IReadOnlyList<StockResult>> ExecuteOneAsync(StockCommand command, CancellationToken cancellationToken) =>
        [await ExecuteAcrossAsync(command).AsTask().WaitAsync(cancellationToken).ConfigureAwait(false)];

    /// <summary>A batch over several shards, or with commands over several: those that have nothing to do with each other at once, the others in the caller's order.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteInWavesAsync(StockCommand[] commands, CancellationToken cancellationToken)
    {
        var views = await FindTargetsAsync(commands, cancellationToken).ConfigureAwait(false);
        var results = new StockResult[commands.Length];
        foreach (var wave in new ShardWaves(_map, commands, views).Waves)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var running = new List<Task>();
            foreach (var (shard, places) in wave.ByShard)
            {
                running.Add(OnShardAsync(shard, places));
            }

            foreach (var place in wave.Across)
            {
                running.Add(AcrossAsync(place));
            }

            await Task.WhenAll(running).WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        return results;

        async Task OnShardAsync(int shard, List<int> places)
        {
            var answers = await ExecuteOnAsync(shard, places.ConvertAll(place => commands[place]), cancellationToken, orDoubt: true).ConfigureAwait(false);
            for (var i = 0; i < answers.Count; i++)
            {
                results[places[i]] = answers[i];
            }
        }

        async Task AcrossAsync(int place) => results[place] = await ExecuteAcrossAsync(commands[place]).ConfigureAwait(false);
    }

    /// <summary>The operations that a batch confirms, cancels or abandons, which tell what it touches; by id.</summary>
    private async ValueTask<Dictionary<string, OperationView>> FindTargetsAsync(StockCommand[] commands, CancellationToken cancellationToken)
    {
        var views = new Dictionary<string, OperationView>(StringComparer.Ordinal);
        string[] ids = [.. commands.Where(command => command.IsTransition).Select(command => command.Id).Distinct(StringComparer.Ordinal)];
        foreach (var some in ids.Chunk(64))
        {
            var found = await ShardCalls.AllAsync(some.Length, i => FindOrNullAsync(some[i], cancellationToken)).ConfigureAwait(false);
            foreach (var view in found)
            {
                if (view is not null)
                {
                    views.Add(view.Id, view);
                }
            }
        }

        return views;
    }

    private async ValueTask<OperationView?> FindOrNullAsync(string id, CancellationToken cancellationToken)
    {
        try
        {
            return await _reads.GetOperationAsync(id, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
        {
            // Only the order within the batch was asked for. Its command will say that the shard does not answer.
            return null;
        }
    }

    /// <summary>
    /// Commands of one shard, in one call. Those that meet what is undecided are tried again, together with what was
    /// refused behind them, as the order of the batch demands.
    /// </summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteOnAsync(int shard, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken, bool orDoubt = false)
    {
        var first = orDoubt
            ? await _calls.ExecuteAsync(shard, commands, cancellationToken).ConfigureAwait(false)
            : await _shards[shard].ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        if (_shards.Length == 1 || IsSettled(commands, first))
        {
            return first;
        }

        var began = _calls.Clock.GetTimestamp();
        StockResult[] results = [.. first];
        for (var tries = 0; _calls.Clock.GetElapsedTime(began) < _calls.Options.DecideTimeout; tries++)
        {
            var places = new List<int>();
            for (var i = 0; i < results.Length; i++)
            {
                if ((results[i].IsUndecided || (places.Count > 0 && results[i].Status is >= StockStatus.UnknownTarget and <= StockStatus.Insufficient))
                    && !IsOvertaken(commands, results, i))
                {
                    places.Add(i);
                }
            }

            if (places.Count == 0)
            {
                break;
            }

            await _calls.PauseAsync(tries).WaitAsync(cancellationToken).ConfigureAwait(false);
            var again = await _calls.ExecuteAsync(shard, places.ConvertAll(place => commands[place]), cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < again.Count; i++)
            {
                results[places[i]] = again[i];
            }
        }

        for (var i = 0; i < results.Length; i++)
        {
            if (results[i].Status == StockStatus.UnknownTarget && commands[i].Verb == StockVerb.Refund)
            {
                results[i] = await ExplainRefundAsync(commands[i]).ConfigureAwait(false);
            }
        }

        return results;
    }

    /// <summary>
    /// Whether what came later in the batch has changed one of a command's SKUs already: tried again it would stand behind that in
    /// the ledger, against the order of the batch.
    /// </summary>
    private static bool IsOvertaken(IReadOnlyList<StockCommand> commands, StockResult[] results, int place)
    {
        for (var later = place + 1; later < results.Length; later++)
        {
            if (results[later].Status == StockStatus.Done && commands[later].Lines.Any(line => commands[place].Lines.Any(own => own.Sku == line.Sku)))
            {
                return true;
            }
        }

        return false;
    }

    private static bool IsSettled(IReadOnlyList<StockCommand> commands, IReadOnlyList<StockResult> results)
    {
        for (var i = 0; i < results.Count; i++)
        {
            if (results[i].IsUndecided || (results[i].Status == StockStatus.UnknownTarget && commands[i].Verb == StockVerb.Refund))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>A command that concerns several shards, or of which it is not known which. Goes on to its end whatever its caller does.</summary>
    private async ValueTask<StockResult> ExecuteAcrossAsync(StockCommand command)
    {
        if (!TryEnter())
        {
            return StockResult.Of(StockStatus.Busy, "shutting down");
        }

        try
        {
            var began = _calls.Clock.GetTimestamp();
            if (command.IsTransition)
            {
                return await EndAsync(command, began).ConfigureAwait(false);
            }

            for (var tries = 0; ; tries++)
            {
                var result = await _coordinator.ExecuteAsync(command, _map.Split(command.Lines), began).ConfigureAwait(false);
                if (result.Status != StockStatus.UnknownTarget)
                {
                    return result;
                }

                result = await ExplainRefundAsync(command).ConfigureAwait(false);
                if (!result.IsUndecided || _calls.Clock.GetElapsedTime(began) >= _calls.Options.DecideTimeout)
                {
                    return result;
                }

                await _calls.PauseAsync(tries).ConfigureAwait(false);
            }
        }
        finally
        {
            Leave();
        }
    }

    /// <summary>
    /// The answer to a refund that a shard without a part of its order did not know what to do with: the order may be on
    /// other shards, and then the refund asks for what was not deducted there.
    /// </summary>
    private async ValueTask<StockResult> ExplainRefundAsync(StockCommand command)
    {
        try
        {
            var order = await _reads.GetOperationAsync(command.Target!, CancellationToken.None).ConfigureAwait(false);
            if (order is null)
            {
                return StockResult.Of(StockStatus.UnknownTarget);
            }

            if (order is not ({ Verb: StockVerb.Deduct, State: OperationState.Applied } or { Verb: StockVerb.Reserve, State: OperationState.Confirmed }))
            {
                // Unless the refund itself was done in between, sent by somebody else: then it is a replay.
                return await _reads.GetOperationAsync(command.Id, CancellationToken.None).ConfigureAwait(false) is null ? StockResult.Of(StockStatus.InvalidTargetState) : Moved();
            }

            var levels = await _reads.GetStockAsync([.. command.Lines.Select(line => line.Sku)], default, CancellationToken.None).ConfigureAwait(false);
            if (levels.FirstOrDefault(level => !level.IsKnown) is { Sku: { } unknown })
            {
                return StockResult.Refused(StockStatus.UnknownSku, unknown);
            }

            foreach (var (sku, quantity) in command.Lines)
            {
                var line = order.Lines.FirstOrDefault(line => line.Sku == sku);

                // What is left of it the shard that has it will say: this very refund may be among those that took from it.
                if (quantity > line.Quantity)
                {
                    return StockResult.Refused(StockStatus.ExceedsDeducted, sku, line.Quantity - line.Refunded);
                }
            }

            return Moved();
        }
        catch (Exception e)
        {
            return StockResult.Of(StockStatus.Busy, $"a shard could not be asked for the order: {e.Message}");
        }

        static StockResult Moved() => StockResult.Of(StockStatus.Busy, "its order was decided meanwhile") with { IsUndecided = true };
    }

    /// <summary>Confirms, cancels or abandons.</summary>
    private async ValueTask<StockResult> EndAsync(StockCommand command, long began)
    {
        for (var tries = 0; ; tries++)
        {
            var result = await TryEndAsync(command, began).ConfigureAwait(false);
            if (!result.IsUndecided || _calls.Clock.GetElapsedTime(began) >= _calls.Options.DecideTimeout)
            {
                return result;
            }

            await _calls.PauseAsync(tries).ConfigureAwait(false);
        }
    }

    private async ValueTask<StockResult> TryEndAsync(StockCommand command, long began)
    {
        OperationView?[] views;
        try
        {
            views = await _calls.FindEverywhereAsync(command.Id).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            return StockResult.Of(StockStatus.Busy, $"a shard could not be asked for the operation: {e.Message}");
        }

        if (Array.Exists(views, view => view?.State == OperationState.Undecided))
        {
            return StockResult.Of(StockStatus.Busy, "the operation is about to be decided") with { IsUndecided = true };
        }

        if (Array.Find(views, view => view?.Cart is not null) is { Cart: { } cart })
        {
            ShardPart[] parts = [.. cart.Shards.Select(shard => new ShardPart(shard, []))];
            return command.Verb == StockVerb.Abandon
                ? await AbandonAsync(command, cart.Shards).ConfigureAwait(false)
                : await _coordinator.ExecuteAsync(command, parts, began).ConfigureAwait(false);
        }

        var owner = Array.FindIndex(views, view => view is { Verb: not (StockVerb.Cancel or StockVerb.Abandon) });
        if (owner < 0 && (command.Verb == StockVerb.Confirm || !Array.Exists(views, view => view is null)))
        {
            // A confirmation leaves nothing behind: any shard that has the tombstone may answer it, or any that has not.
            owner = Math.Max(Array.FindLastIndex(views, view => view is not null), 0);
        }

        return owner >= 0
            ? await _calls.ExecuteAsync(owner, command).ConfigureAwait(false)
            : await CloseEverywhereAsync(command).ConfigureAwait(false);
    }

    /// <summary>Asks every part to let go if it is due, and answers how the whole stands.</summary>
    private async ValueTask<StockResult> AbandonAsync(StockCommand command, ImmutableArray<int> shards)
    {
        var answers = await ShardCalls.AllAsync(shards.Length, i => _calls.ExecuteAsync(shards[i], command)).ConfigureAwait(false);
        if (Array.Exists(answers, answer => answer.IsRetryable))
        {
            // Abandoning what was applied changes nothing but what time has changed already.
            return Array.Find(answers, answer => answer.IsRetryable) with { Status = StockStatus.Busy };
        }

        // Expired comes before Cancelled, and both before how it was applied.
        var worst = answers.MaxBy(answer => (int)answer.Original);
        return worst.Original == StockStatus.Done ? worst with { Left = CartCoordinator.Joined(answers) } : worst;
    }

    /// <summary>
    /// Leaves a tombstone on every shard. The last shard is asked last, so that of several who do the same at once exactly
    /// one completes it.
    /// </summary>
    private async ValueTask<StockResult> CloseEverywhereAsync(StockCommand command)
    {
        var last = _shards.Length - 1;
        var others = await ShardCalls.AllAsync(last, shard => _calls.ExecuteAsync(shard, command)).ConfigureAwait(false);
        await _calls.ReachAsync("closing").ConfigureAwait(false);
        StockResult[] answers = [.. others, Array.Exists(others, answer => answer.IsRetryable) ? StockResult.Of(StockStatus.None) : await _calls.ExecuteAsync(last, command).ConfigureAwait(false)];

        // Its operation may have come in the meantime, on one shard: that one has answered for it.
        foreach (var answer in answers)
        {
            if (answer.Status == StockStatus.InvalidTargetState || !answer.Left.IsEmpty || answer.Original is StockStatus.Done or StockStatus.Expired)
            {
                return answer;
            }
        }

        var trouble = Array.Find(answers, answer => answer.IsRetryable);
        return trouble.IsRetryable ? trouble with { Status = StockStatus.Busy } : answers[^1];
    }
}
