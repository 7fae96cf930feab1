using Microsoft.Extensions.Logging;

namespace Holdfast.Queueing;

/// <summary>How what was decided is closed, told and recorded.</summary>
internal sealed partial class QueueConsumer
{
    /// <summary>
    /// Closes ids by a tombstone that tells why. The store decides between this and whoever else sends the same id: one that
    /// turns out to be applied stays as it is, and that is its verdict.
    /// </summary>
    private async Task CloseAsync(List<Item> closing, CancellationToken stoppingToken)
    {
        for (var failures = 0; closing.Count > 0;)
        {
            await ExecuteAsync(closing, closing.ConvertAll(static item => StockCommand.Abandon(item.Queued!.Command.Id, Verdict.NoteOf(item.Closing!.Value)))).ConfigureAwait(false);
            var isStuck = closing.TrueForAll(static item => item.Failure is not null || item.Result.IsRetryable);
            if (isStuck && !await EngineAnswersAsync().ConfigureAwait(false))
            {
                stoppingToken.ThrowIfCancellationRequested();
                await PauseAsync(failures++, stoppingToken).ConfigureAwait(false);
                continue;
            }

            var applied = closing.FindAll(static item => item.Failure is null && item.Result.IsApplied && item.Result.Status != StockStatus.Done);
            foreach (var item in closing)
            {
                if (item.Failure is { } failure && item.DeadReason is not null)
                {
                    item.DeadReason += $"; its id could not be closed: {failure.Message}";
                    item.Result = default;
                }
                else if (item.Failure is { } stumble && item.Queued!.Tries + 1 >= _options.MaxTries)
                {
                    item.DeadReason = $"it was refused ({item.Closing}), and its id could not be closed in {item.Queued.Tries + 1} tries, the last time because of {stumble.GetType().Name}: {stumble.Message}";
                    item.Result = default;
                }
                else if (item.Failure is not null || item.Result.IsRetryable)
                {
                    item.DeadReason = null;
                    item.PutAside(item.Queued! with { Tries = item.Failure is null ? item.Queued!.Tries : item.Queued!.Tries + 1 }, _options.RetryDelay);
                }
                else if (item.Result.Status == StockStatus.Done)
                {
                    item.Result = item.Closing!.Value;
                }
                else if (item.Result.IsApplied)
                {
                    // It was executed before, or on another way meanwhile: that stands.
                    item.DeadReason = null;
                }
                else
                {
                    // It was closed before; the tombstone tells why.
                    item.Result = StockResult.Of(StockStatus.Cancelled);
                }
            }

            await TellRepetitionsAsync(applied, stoppingToken).ConfigureAwait(false);
            return;
        }
    }

    /// <summary>
    /// The id was applied, but perhaps with other content. Asking again can't apply anything now, and tells: Replayed, or
    /// KeyConflict. Where the engine stumbles over the command itself, the word of its id stands.
    /// </summary>
    private async Task TellRepetitionsAsync(List<Item> applied, CancellationToken stoppingToken)
    {
        for (var failures = 0; applied.Count > 0; failures++)
        {
            var told = applied.ConvertAll(static item => item.Result);
            await ExecuteAsync(applied, applied.ConvertAll(static item => item.Queued!.Command)).ConfigureAwait(false);
            var again = new List<Item>();
            for (var i = 0; i < applied.Count; i++)
            {
                var item = applied[i];
                if (item.Failure is null && item.Result.IsRetryable)
                {
                    again.Add(item);
                }

                item.Result = item.Failure is not null || item.Result.IsRetryable ? told[i] : item.Result;
                item.Failure = null;
            }

            applied = again;
            if (applied.Count > 0)
            {
                await PauseAsync(failures, stoppingToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The verdicts of what is finished, and which are to be recorded.</summary>
    private async ValueTask<List<(Verdict Verdict, bool IsRecorded)>> VerdictsAsync(Item[] items, CancellationToken stoppingToken)
    {
        await RecallAsync([.. items.Where(static item => item.IsDecided && item.Result is { Status: StockStatus.Cancelled, Detail: null } or { Status: StockStatus.Expired })], stoppingToken).ConfigureAwait(false);
        var at = _clock.GetUtcNow();
        var verdicts = new List<(Verdict, bool)>(items.Length);
        foreach (var item in items)
        {
            if (!item.IsDecided || item.Queued is not { VerdictId: { } id } queued)
            {
                continue;
            }

            var hasRequest = queued.RequestId is not null;
            if (item.Result.Status == StockStatus.KeyConflict && !hasRequest)
            {
                // The id's verdict is that of the command which came first.
                _logger.LogError("{Command} was queued although its id was used before with other content; the first one stands.", queued.Command);
                continue;
            }

            // Under its own id a command has one verdict, however often it was delivered: what its operation tells.
            var result = hasRequest || !item.Result.IsApplied ? item.Result : item.Result with { Status = StockStatus.Done, Original = StockStatus.None };
            verdicts.Add((new() { Id = id, Verb = queued.Command.Verb, OperationId = queued.Command.Id, Result = result, At = at }, hasRequest || _options.Announce));
        }

        return verdicts;
    }

    /// <summary>
    /// What met a closed id is answered with what the tombstone tells. Under its own id a command that was applied before, and
    /// only afterwards cancelled or expired, keeps the verdict that whoever asked earlier was told.
    /// </summary>
    private async ValueTask RecallAsync(Item[] items, CancellationToken stoppingToken)
    {
        if (items.Length == 0)
        {
            return;
        }

        var ids = Array.ConvertAll(items, static item => item.Queued!.Command.Id);
        var found = await PatientlyAsync(() => owner.Verdicts.FindAsync(ids, stoppingToken), stoppingToken).ConfigureAwait(false);
        for (var i = 0; i < items.Length; i++)
        {
            var hasRequest = items[i].Queued!.RequestId is not null;
            if (found[i] is { Result: var told } && (told.Status != StockStatus.Done || !(hasRequest || items[i].Queued!.Command.IsTransition)))
            {
                var repeats = hasRequest && IsForgotten(told.Status);
                items[i].Result = repeats ? told with { Status = StockStatus.Replayed, Original = told.Status } : told;
            }
        }
    }

    private async ValueTask RecordAsync(List<(Verdict Verdict, bool IsRecorded)> verdicts, CancellationToken stoppingToken)
    {
        Verdict[] recorded = [.. verdicts.Where(static each => each.IsRecorded).Select(static each => each.Verdict)];
        if (recorded.Length > 0)
        {
            await PatientlyAsync(
                async () =>
                {
                    await owner.Verdicts.RecordAsync(recorded, _options.Announce, CancellationToken.None).ConfigureAwait(false);
                    return true;
                },
                stoppingToken).ConfigureAwait(false);
        }
    }
}
