using Holdfast.Wire;
using Microsoft.Extensions.Logging;

namespace Holdfast.Queueing;

/// <summary>How far a consumer has come with a batch. After any of these its process may end, and the batch comes again.</summary>
internal enum ConsumerStep
{
    /// <summary>It has a batch.</summary>
    Received = 1,

    /// <summary>The engine has executed it.</summary>
    Executed = 2,

    /// <summary>Refused ids are closed.</summary>
    Closed = 3,

    /// <summary>Verdicts are recorded.</summary>
    Recorded = 4,

    /// <summary>The batch is acknowledged.</summary>
    Settled = 5,
}

/// <summary>
/// The consumer of one queue: takes what is there, executes it as a batch, closes the ids of what was refused, records the
/// verdicts, and only then acknowledges. Everything it does may be done again, by it or by another, so it may end anywhere.
/// </summary>
internal sealed partial class QueueConsumer(CommandQueue owner, int queue)
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(5);

    private readonly CommandQueueOptions _options = owner.Options;
    private readonly TimeProvider _clock = owner.Clock;
    private readonly ILogger _logger = owner.Logger;

    public async Task RunAsync(CancellationToken stoppingToken)
    {
        // Not on the thread of whoever starts it.
        await Task.Yield();
        for (var failures = 0; !stoppingToken.IsCancellationRequested;)
        {
            try
            {
                var deliveries = await owner.Transport.ReceiveAsync(queue, _options.MaxBatchCommands, stoppingToken).ConfigureAwait(false);
                owner.CountInFlight(deliveries.Count);
                try
                {
                    await ReachAsync(ConsumerStep.Received).ConfigureAwait(false);
                    await ProcessAsync([.. deliveries.Select(Item.Of)], stoppingToken).ConfigureAwait(false);
                    await ReachAsync(ConsumerStep.Settled).ConfigureAwait(false);
                }
                finally
                {
                    owner.CountInFlight(-deliveries.Count);
                }

                failures = 0;
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                // Nothing is lost: what was not settled comes again.
                _logger.LogError(e, "The consumer of queue {Queue} at {Location} failed; it begins again.", queue, owner.Transport.Location);
                await BeginAgainAsync(failures++, stoppingToken).ConfigureAwait(false);
            }
        }
    }

    private async Task BeginAgainAsync(int failures, CancellationToken stoppingToken)
    {
        try
        {
            await owner.Transport.ReleaseAsync(queue).ConfigureAwait(false);
            await PauseAsync(failures, stoppingToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // It stops.
        }
        catch (CommandTransportException e)
        {
            _logger.LogWarning(e, "Queue {Queue} at {Location} could not be given back; it goes with its connection.", queue, owner.Transport.Location);
        }
    }

    private async Task ProcessAsync(Item[] items, CancellationToken stoppingToken)
    {
        foreach (var part in InParts(items))
        {
            await DecideAsync(await SortOutAsync(part, stoppingToken).ConfigureAwait(false), stoppingToken).ConfigureAwait(false);
            await ReachAsync(ConsumerStep.Executed).ConfigureAwait(false);
            await CloseAsync(part.FindAll(static item => item.Closing is not null), stoppingToken).ConfigureAwait(false);
            await ReachAsync(ConsumerStep.Closed).ConfigureAwait(false);
        }

        var verdicts = await VerdictsAsync(items, stoppingToken).ConfigureAwait(false);
        await RecordAsync(verdicts, stoppingToken).ConfigureAwait(false);
        await ReachAsync(ConsumerStep.Recorded).ConfigureAwait(false);
        await owner.Transport.SettleAsync(queue, [.. items.Select(item => item.Settlement())], CancellationToken.None).ConfigureAwait(false);
        owner.CountSettled(items.Count(item => item.IsDeferred), items.Count(item => item.DeadReason is not null));
        foreach (var item in items)
        {
            if (item.DeadReason is { } reason)
            {
                _logger.LogError("A message in queue {Queue} at {Location} goes to the dead letters ({Command}): {Reason}", queue, owner.Transport.Location, item.Queued?.Command.ToString() ?? "unreadable", reason);
            }
        }

        foreach (var (verdict, _) in verdicts)
        {
            HoldfastMeter.IntakeVerdicts.Add(1, new("verb", StockJson.VerbName(verdict.Verb)), new("outcome", StockJson.StatusName(verdict.Result.Status)));
            owner.Board.Tell(verdict);
        }
    }

    /// <summary>
    /// Commands that share an id are not executed as one batch: the refused one's id is closed before the next is decided,
    /// as if they had come one after the other. Nearly always it is one part.
    /// </summary>
    private static List<List<Item>> InParts(Item[] items)
    {
        var parts = new List<List<Item>> { new(items.Length) };
        var ids = new HashSet<string>(items.Length, StringComparer.Ordinal);
        foreach (var item in items)
        {
            if (item.Queued is { Command: var command })
            {
                var isShared = ids.Contains(command.Id) || (command.Target is not null && ids.Contains(command.Target));
                if (isShared)
                {
                    parts.Add([]);
                    ids.Clear();
                }

                ids.Add(command.Id);
                if (command.Target is not null)
                {
                    ids.Add(command.Target);
                }
            }

            parts[^1].Add(item);
        }

        return parts;
    }

    /// <summary>What of a part is to be executed; the rest is unreadable, given up or too late.</summary>
    private async ValueTask<List<Item>> SortOutAsync(List<Item> part, CancellationToken stoppingToken)
    {
        var now = _clock.GetUtcNow();
        var work = new List<Item>(part.Count);
        foreach (var item in part)
        {
            if (item.Queued is not { } queued)
            {
                continue;
            }

            if (item.Delivery.Deliveries > _options.MaxDeliveries)
            {
                item.Poison($"it was handed out {item.Delivery.Deliveries} times and never finished");
                if (queued.Command.IsTransition && (await EarlierOutcomeAsync(queued.Command, stoppingToken).ConfigureAwait(false)).Earlier is { } earlier)
                {
                    // It was finished, but for its acknowledgement.
                    item.DeadReason = null;
                    item.Result = earlier;
                }
            }
            else if (queued.Deadline <= now && queued.Command.Verb != StockVerb.Abandon)
            {
                await MissDeadlineAsync(item, queued, stoppingToken).ConfigureAwait(false);
            }
            else
            {
                work.Add(item);
            }
        }

        return work;
    }

    /// <summary>
    /// Too late to be executed, but it may have been executed before: its acknowledgement was lost. A command with an id is
    /// settled by closing the id, which leaves an applied one as it is; for a Confirm or Cancel the target tells. A target
    /// that never came is the reason that is told.
    /// </summary>
    private async ValueTask MissDeadlineAsync(Item item, QueuedCommand queued, CancellationToken stoppingToken)
    {
        var late = StockResult.Of(StockStatus.Cancelled, $"its deadline, {queued.Deadline:O}, had passed before it was decided");
        if (queued.Command is { IsTransition: false, Target: null })
        {
            item.Closing = late;
            return;
        }

        var (target, earlier) = await EarlierOutcomeAsync(queued.Command, stoppingToken).ConfigureAwait(false);
        if (queued.Command.IsTransition)
        {
            item.Result = earlier ?? (target is null && queued.Command.Verb == StockVerb.Confirm ? StockResult.Of(StockStatus.UnknownTarget) : late);
            return;
        }

        item.Closing = target switch
        {
            null => StockResult.Of(StockStatus.UnknownTarget),
            { State: OperationState.Reserved } => StockResult.Of(StockStatus.InvalidTargetState),
            _ => late,
        };
    }

    /// <summary>The target of a command; and for a Confirm or Cancel that is to be seen in its target, the answer that it would be given now.</summary>
    private async ValueTask<(OperationView? Target, StockResult? Earlier)> EarlierOutcomeAsync(StockCommand command, CancellationToken stoppingToken)
    {
        var target = await PatientlyAsync(() => owner.Decider.GetOperationAsync(command.Target!, stoppingToken), stoppingToken).ConfigureAwait(false);
        StockResult? earlier = (command.Verb, target?.State) switch
        {
            (StockVerb.Confirm, OperationState.Confirmed) => new() { Status = StockStatus.Replayed, Original = StockStatus.Done, AcknowledgedBy = Acknowledgement.Store },
            (StockVerb.Cancel, OperationState.Cancelled) => new() { Status = StockStatus.Replayed, Original = StockStatus.Cancelled, AcknowledgedBy = Acknowledgement.Store },
            _ => null,
        };
        return (target, earlier);
    }

    /// <summary>Executes commands until each has a result, is put aside, or is given up.</summary>
    private async Task DecideAsync(List<Item> work, CancellationToken stoppingToken)
    {
        for (var failures = 0; work.Count > 0;)
        {
            await ExecuteAsync(work, work.ConvertAll(static item => item.Queued!.Command)).ConfigureAwait(false);
            var isStuck = work.TrueForAll(static item => item.Failure is not null || item.Result.IsRetryable);
            if (isStuck && !await EngineAnswersAsync().ConfigureAwait(false))
            {
                // Not these commands' fault: nothing gets through, so there is no hurry to hand out more. Their deadlines may
                // pass meanwhile.
                stoppingToken.ThrowIfCancellationRequested();
                await PauseAsync(failures++, stoppingToken).ConfigureAwait(false);
                work = await SortOutAsync(work, stoppingToken).ConfigureAwait(false);
                continue;
            }

            await MeetTargetsAsync(work, stoppingToken).ConfigureAwait(false);
            work.ForEach(Judge);
            return;
        }
    }

    /// <summary>
    /// A refund of a reservation that is not confirmed yet may only be early: its Confirm was put aside for a moment, or is
    /// still to come. Like an unknown target it is tried again, and not refused for good.
    /// </summary>
    private async ValueTask MeetTargetsAsync(List<Item> work, CancellationToken stoppingToken)
    {
        foreach (var item in work)
        {
            if (item.Failure is null && item.Result.Status == StockStatus.InvalidTargetState && item.Queued!.Command is { Verb: StockVerb.Refund, Target: { } target })
            {
                item.IsEarly = await PatientlyAsync(() => owner.Decider.GetOperationAsync(target, stoppingToken), stoppingToken).ConfigureAwait(false) is { State: OperationState.Reserved };
            }
        }
    }

    private void Judge(Item item)
    {
        var queued = item.Queued!;
        var now = _clock.GetUtcNow();
        if (item.Failure is { } failure)
        {
            if (queued.Tries + 1 < _options.MaxTries)
            {
                item.PutAside(queued with { Tries = queued.Tries + 1 }, _options.RetryDelay);
            }
            else
            {
                item.Poison($"it made the engine fail {queued.Tries + 1} times, the last time by {failure.GetType().Name}: {failure.Message}");
            }
        }
        else if (item.Result.IsRetryable)
        {
            item.PutAside(queued, _options.RetryDelay);
        }
        else if ((item.Result.Status == StockStatus.UnknownTarget || item.IsEarly) && now < Earlier(queued.Deadline, queued.AcceptedAt, _options.TargetPatience))
        {
            item.PutAside(queued, _options.RetryDelay);
        }
        else if (IsForgotten(item.Result.Status) && !queued.Command.IsTransition)
        {
            item.Closing = item.Result;
        }
    }

    private static DateTimeOffset Earlier(DateTimeOffset deadline, DateTimeOffset acceptedAt, TimeSpan? patience) =>
        patience is { } time && acceptedAt + time < deadline ? acceptedAt + time : deadline;

    /// <summary>Refusals that a store does not remember, so that the same id could be tried again.</summary>
    private static bool IsForgotten(StockStatus status) => status is StockStatus.UnknownTarget or StockStatus.InvalidTargetState or StockStatus.UnknownSku
        or StockStatus.ExceedsLimit or StockStatus.ExceedsDeducted or StockStatus.Insufficient;

    /// <summary>Asks the store until it answers.</summary>
    private async ValueTask<T> PatientlyAsync<T>(Func<ValueTask<T>> ask, CancellationToken stoppingToken)
    {
        for (var failures = 0; ; failures++)
        {
            try
            {
                return await ask().ConfigureAwait(false);
            }
            catch (IOException e) when (!stoppingToken.IsCancellationRequested)
            {
                _logger.LogWarning(e, "The store did not answer a consumer of {Location}; it is asked again.", owner.Transport.Location);
                await PauseAsync(failures, stoppingToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Executes commands as one batch; where that fails, in halves, so that each failure is one command's own.</summary>
    private async ValueTask ExecuteAsync(ArraySegment<Item> items, ArraySegment<StockCommand> commands)
    {
        if (items.Count == 0)
        {
            return;
        }

        using var limit = new CancellationTokenSource(_options.CallTimeout, _clock);
        try
        {
            var results = await owner.Decider.ExecuteAsync(commands, limit.Token).ConfigureAwait(false);
            for (var i = 0; i < items.Count; i++)
            {
                items[i].Failure = null;
                items[i].Result = results[i];
            }
        }
        catch (OperationCanceledException) when (limit.IsCancellationRequested)
        {
            foreach (var item in items)
            {
                item.Failure = null;
                item.Result = StockResult.Of(StockStatus.InDoubt, $"the engine did not answer within {_options.CallTimeout}");
            }
        }
        catch (Exception e) when (items.Count == 1)
        {
            _logger.LogWarning(e, "{Command} made the engine fail.", commands[0]);
            items[0].Failure = e;
        }
        catch (Exception e)
        {
            _logger.LogDebug(e, "A batch of {Count} commands failed as a whole; trying its halves.", items.Count);
            var half = items.Count / 2;
            await ExecuteAsync(items[..half], commands[..half]).ConfigureAwait(false);
            await ExecuteAsync(items[half..], commands[half..]).ConfigureAwait(false);
        }
    }

    private ValueTask ExecuteAsync(List<Item> items, List<StockCommand> commands) => ExecuteAsync((Item[])[.. items], (StockCommand[])[.. commands]);

    /// <summary>Whether the engine decides anything at all: asked by a command that changes nothing.</summary>
    private async ValueTask<bool> EngineAnswersAsync()
    {
        using var limit = new CancellationTokenSource(_options.CallTimeout, _clock);
        try
        {
            var probe = await owner.Decider.ExecuteAsync([StockCommand.Confirm($"queue-probe-{Guid.NewGuid():N}")], limit.Token).ConfigureAwait(false);
            return !probe[0].IsRetryable;
        }
        catch (Exception e)
        {
            _logger.LogWarning(e, "The engine behind queue {Queue} at {Location} fails; its commands wait.", queue, owner.Transport.Location);
            return false;
        }
    }

    private Task PauseAsync(int failures, CancellationToken stoppingToken)
    {
        var pause = TimeSpan.FromMilliseconds(20 << Math.Min(failures, 8));
        return Task.Delay(pause < s_longestPause ? pause : s_longestPause, _clock, stoppingToken);
    }

    private ValueTask ReachAsync(ConsumerStep step) => owner.Failpoint?.Invoke(step) ?? ValueTask.CompletedTask;

    /// <summary>A delivery on its way through a batch.</summary>
    private sealed class Item
    {
        private QueuedCommand? _again;
        private TimeSpan _delay;

        public required QueueDelivery Delivery { get; init; }

        /// <summary>The command; <see langword="null"/> when it could not be read.</summary>
        public QueuedCommand? Queued { get; private init; }

        /// <summary>What the engine answered last, in the end the verdict.</summary>
        public StockResult Result { get; set; }

        /// <summary>What the engine threw instead.</summary>
        public Exception? Failure { get; set; }

        /// <summary>The refusal that its id is to be closed with.</summary>
        public StockResult? Closing { get; set; }

        /// <summary>Why it goes to the dead letters, if it does.</summary>
        public string? DeadReason { get; set; }

        /// <summary>Whether its target is still to come into the state that it needs.</summary>
        public bool IsEarly { get; set; }

        public bool IsDeferred => _again is not null;

        /// <summary>Whether there is a verdict.</summary>
        public bool IsDecided => !IsDeferred && Result.Status != StockStatus.None;

        public static Item Of(QueueDelivery delivery)
        {
            try
            {
                return new() { Delivery = delivery, Queued = QueuedCommandJson.Read(delivery.Body.Span) };
            }
            catch (InvalidCommandException e)
            {
                // No later version of this message will read better.
                return new() { Delivery = delivery, DeadReason = $"it is no command: {e.Message}" };
            }
        }

        /// <summary>Gives it up; where it has an id of its own, that is closed.</summary>
        public void Poison(string reason)
        {
            DeadReason = reason;
            var given = StockResult.Of(StockStatus.Cancelled, $"it was given up: {reason}");
            if (Queued!.Command.IsTransition)
            {
                Result = given;
            }
            else
            {
                Closing = given;
            }
        }

        public void PutAside(QueuedCommand again, TimeSpan delay)
        {
            _again = again;
            _delay = delay;
        }

        public QueueSettlement Settlement() =>
            _again is not null ? new(Delivery, SettlementKind.Later) { Body = QueuedCommandJson.Write(_again), Delay = _delay }
            : DeadReason is not null ? new(Delivery, SettlementKind.Dead) { Reason = DeadReason }
            : new(Delivery, SettlementKind.Done);
    }
}
