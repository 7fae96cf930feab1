using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <content>Calls of the inner engine: bounded in time, and in smaller parts where one fails as a whole.</content>
public sealed partial class GroupCommit
{
    /// <summary>Executes the commands of several callers in one call; when it fails as a whole, those of half of the callers at a time.</summary>
    /// <param name="requests">The callers'.</param>
    /// <param name="commands">Their commands, one caller's behind the other's.</param>
    /// <param name="bisectingSince">When a call with these commands failed first.</param>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteOrBisectAsync(ArraySegment<GroupCommitRequest> requests, ArraySegment<StockCommand> commands, long? bisectingSince = null)
    {
        if (requests.Count == 1)
        {
            return await ExecuteInPartsAsync(requests[0], commands, bisectingSince).ConfigureAwait(false);
        }

        if (HasBisectedForLong(commands.Count, bisectingSince, out var inDoubt))
        {
            return inDoubt;
        }

        try
        {
            return await CallAsync(requests, commands).ConfigureAwait(false);
        }
        catch (CallTimeoutException e)
        {
            return e.InDoubt(commands.Count);
        }
        catch (Exception e)
        {
            var since = bisectingSince ?? _clock.GetTimestamp();
            _logger.LogWarning(e, "A batch of {Count} commands failed as a whole; trying its halves.", commands.Count);
            var half = requests.Count / 2;
            var firstCommands = requests[..half].Sum(static request => request.Commands.Length);
            var first = await ExecuteOrBisectAsync(requests[..half], commands[..firstCommands], since).ConfigureAwait(false);
            var second = await ExecuteOrBisectAsync(requests[half..], commands[firstCommands..], since).ConfigureAwait(false);
            return [.. first, .. second];
        }
    }

    /// <summary>Only a single caller's batch can be larger than the bound: its parts are executed one after the other.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteInPartsAsync(GroupCommitRequest request, ArraySegment<StockCommand> commands, long? bisectingSince)
    {
        if (commands.Count <= _options.MaxBatchCommands)
        {
            return await ExecuteOrHalveAsync(request, commands, bisectingSince).ConfigureAwait(false);
        }

        var results = new List<StockResult>(commands.Count);
        while (results.Count < commands.Count)
        {
            var part = commands.Slice(results.Count, Math.Min(_options.MaxBatchCommands, commands.Count - results.Count));
            results.AddRange(request.Holds(results)
                ? request.Hold(part, StockStatus.Busy)
                : await ExecuteOrHalveAsync(request, part, bisectingSince).ConfigureAwait(false));
        }

        return results;
    }

    /// <summary>
    /// Executes commands of one caller in one call; when it fails as a whole, in two halves, for as long as one call may take: an engine
    /// that fails slowly must not hold the queue up for each of thousands of commands in turn.
    /// </summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteOrHalveAsync(GroupCommitRequest request, ArraySegment<StockCommand> commands, long? bisectingSince)
    {
        if (HasBisectedForLong(commands.Count, bisectingSince, out var inDoubt))
        {
            return inDoubt;
        }

        try
        {
            return await CallAsync(new[] { request }, commands).ConfigureAwait(false);
        }
        catch (CallTimeoutException e)
        {
            return e.InDoubt(commands.Count);
        }
        catch (Exception e) when (commands.Count == 1)
        {
            _logger.LogError(e, "{Command} made the engine fail; it is tried again by itself for at most {Timeout}.", commands[0], _options.RetryTimeout);
            return [StockResult.Of(StockStatus.InDoubt, $"the engine failed: {e.GetType().Name}: {e.Message}")];
        }
        catch (Exception e)
        {
            var since = bisectingSince ?? _clock.GetTimestamp();
            _logger.LogWarning(e, "A batch of {Count} commands failed as a whole; trying its halves.", commands.Count);
            var half = commands.Count / 2;
            var first = await ExecuteOrHalveAsync(request, commands[..half], since).ConfigureAwait(false);
            var second = request.Holds(first)
                ? request.Hold(commands[half..], StockStatus.InDoubt)
                : await ExecuteOrHalveAsync(request, commands[half..], since).ConfigureAwait(false);
            return [.. first, .. second];
        }
    }

    private bool HasBisectedForLong(int commands, long? since, out StockResult[] inDoubt)
    {
        if (since is not { } began || _clock.GetElapsedTime(began) < _options.CallTimeout)
        {
            inDoubt = [];
            return false;
        }

        _logger.LogError("{Count} commands of a batch that failed as a whole are not tried in smaller parts: calls have failed for {Timeout}.", commands, _options.CallTimeout);
        inDoubt = GroupCommitRequest.Filled(commands, StockStatus.InDoubt, $"the engine failed for {_options.CallTimeout}");
        return true;
    }

    /// <summary>One call of the inner engine, bounded in time even when the engine ignores its token.</summary>
    /// <exception cref="CallTimeoutException">It took too long: halving would only wait again.</exception>
    private async ValueTask<IReadOnlyList<StockResult>> CallAsync(ArraySegment<GroupCommitRequest> requests, ArraySegment<StockCommand> commands)
    {
        using var limit = new CancellationTokenSource(_options.CallTimeout, _clock);
        Task<IReadOnlyList<StockResult>>? call = null;
        try
        {
            var pending = Inner.ExecuteAsync(commands, limit.Token);
            IReadOnlyList<StockResult> results;
            if (pending.IsCompletedSuccessfully)
            {
                results = pending.Result;
            }
            else
            {
                call = pending.AsTask();
                results = await call.WaitAsync(_options.CallTimeout + s_grace, _clock).ConfigureAwait(false);
            }

            return results.Count == commands.Count
                ? results
                : throw new InvalidOperationException($"{Inner.GetType().Name} answered {results.Count} of {commands.Count} commands.");
        }
        catch (Exception e) when (e is TimeoutException || (e is OperationCanceledException && limit.IsCancellationRequested))
        {
            _logger.LogError("A batch of {Count} commands took longer than {Timeout}.", commands.Count, _options.CallTimeout);
            if (call?.IsCompleted == false)
            {
                // Where timers come late, the longer one may come first.
                limit.Cancel();

                // It may still apply at any time: a try beside it could be refused, and this one be done after all.
                foreach (var request in requests)
                {
                    request.IsOverdue = true;
                }
            }

            throw new CallTimeoutException($"the store did not answer within {_options.CallTimeout}");
        }
    }

    /// <summary>A call of the inner engine took too long.</summary>
    private sealed class CallTimeoutException(string message) : TimeoutException(message)
    {
        public StockResult[] InDoubt(int commands) => GroupCommitRequest.Filled(commands, StockStatus.InDoubt, Message);
    }
}
