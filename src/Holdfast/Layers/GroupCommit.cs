using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>
/// Batches the commands of many callers into few calls of the inner engine, so that one commit serves them all. A loop
/// takes whatever waits, however few, executes it as one batch, answers the callers and repeats: no timer and no
/// minimum, since a batch grows by itself while the one before it commits. Thread-safe.
/// </summary>
/// <remarks>
/// <para>The queue is bounded (Busy past it), and so are the batch and every wait.</para>
/// <para>A caller that cancels stops waiting; a command that no batch has taken yet is then dropped, any other stays as decided.</para>
/// <para>When a call fails as a whole it is bisected, so that a poison command harms only itself. Commands in doubt are tried
/// again with the same ids, beside the batches that follow and not in their way, until <see cref="GroupCommitOptions.RetryTimeout"/>.
/// The answer to such a command may be Replayed although its caller sent it once.</para>
/// </remarks>
public sealed partial class GroupCommit : DelegatingStockEngine, IThreadPoolWorkItem
{
    /// <summary>
    /// Up to so many callers are answered by the loop itself. More are answered by another thread, so that the loop goes
    /// on with the next batch: with a thousand callers, waking them costs more than deciding.
    /// </summary>
    private const int AnsweredByTheLoop = 16;

    private static readonly TimeSpan s_longestRetryDelay = TimeSpan.FromSeconds(1);

    /// <summary>How much longer than its token's limit an engine may take to end a call in its own words.</summary>
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(1);

    private readonly GroupCommitOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private readonly Queue<GroupCommitRequest> _queue = new();
    private readonly HashSet<GroupCommitRequest> _delayed = [];
    private readonly HashSet<string>? _idsInFlight;
    private readonly Dispatcher _dispatcher = Dispatcher.Current;
    private readonly TaskCompletionSource _drained;
    private int _queuedCommands;
    private int _delayedCommands;
    private int _runningLoops;
    private int _pendingAnswers;
    private bool _isClosing;

    /// <summary>Wraps an engine.</summary>
    /// <param name="inner">The engine that executes the batches.</param>
    /// <param name="options">Bounds; the defaults when <see langword="null"/>. Not to be changed afterwards.</param>
    /// <param name="clock">The clock of every wait; the system's by default.</param>
    /// <param name="logger">Told of calls that failed as a whole; nobody by default.</param>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public GroupCommit(IStockEngine inner, GroupCommitOptions? options = null, TimeProvider? clock = null, ILogger? logger = null)
        : base(inner)
    {
        _options = options ?? new();
        _options.Validate();
        _clock = clock ?? TimeProvider.System;
        _logger = logger ?? NullLogger.Instance;
        _drained = new(_dispatcher.PromiseOptions);
        _idsInFlight = _options.MaxConcurrentBatches > 1 ? new(StringComparer.Ordinal) : null;
    }

    /// <inheritdoc/>
    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        if (commands.Count == 0)
        {
            return new([]);
        }

        var request = new GroupCommitRequest(Copy(commands), _clock.GetTimestamp(), _dispatcher.PromiseOptions);
        if (cancellationToken.CanBeCanceled)
        {
            // Before it is queued: once it is, its answer may be given at any time, and that ends the registration.
            request.CancelWith(cancellationToken);
        }

        var refusal = Enqueue(request, out var startsLoop);
        if (refusal is not null)
        {
            request.FinishUnattempted(refusal);
        }

        if (startsLoop)
        {
            _dispatcher.Queue(this);
        }

        return new(request.Answer);
    }

    /// <summary>Stops taking commands, waits for what was accepted, and disposes the inner engine.</summary>
    public override async ValueTask DisposeAsync()
    {
        GroupCommitRequest[] delayed;
        lock (_lock)
        {
            if (_isClosing)
            {
                return;
            }

            _isClosing = true;
            delayed = [.. _delayed];
            _delayed.Clear();
            _delayedCommands = 0;
            foreach (var request in delayed)
            {
                request.Delay?.Dispose();
            }

            SignalWhenDrained();
        }

        foreach (var request in delayed)
        {
            request.Finish();
        }

        try
        {
            await _drained.Task.WaitAsync(_options.ShutdownTimeout, _clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            GroupCommitRequest[] waiting;
            lock (_lock)
            {
                waiting = [.. _queue];
                _queue.Clear();
                HoldfastMeter.QueuedCommands.Add(-_queuedCommands);
                _queuedCommands = 0;
            }

            _logger.LogError("Shutting down took longer than {Timeout}: {Count} waiting calls are answered Busy or InDoubt.", _options.ShutdownTimeout, waiting.Length);
            foreach (var request in waiting)
            {
                request.FinishUnattempted("shutting down");
            }
        }

        await base.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Runs the loop; called by the dispatcher.</summary>
    void IThreadPoolWorkItem.Execute() => _ = RunAsync();

    /// <summary>
    /// The commands as they are now: a caller that gave up may change its list while a batch is under way, and the places
    /// of everybody's results hang on the numbers.
    /// </summary>
    private static StockCommand[] Copy(IReadOnlyList<StockCommand> commands)
    {
        var copy = new StockCommand[commands.Count];
        for (var i = 0; i < copy.Length; i++)
        {
            copy[i] = commands[i] ?? throw new ArgumentException($"commands[{i}] is null; leave it out.", nameof(commands));
        }

        return copy;
    }

    /// <summary>Puts a request into the queue, or says why not.</summary>
    private string? Enqueue(GroupCommitRequest request, out bool startsLoop)
    {
        startsLoop = false;
        var count = request.Commands.Length;
        lock (_lock)
        {
            if (_isClosing)
            {
                return "shutting down";
            }

            // Commands in doubt that pause before their next try wait too: without them a store that answers nothing but
            // InDoubt would gather callers without a bound.
            var waiting = _queuedCommands + _delayedCommands;
            if (waiting > 0 && waiting + count > _options.MaxQueuedCommands)
            {
                return $"{waiting} commands are waiting already, and at most {_options.MaxQueuedCommands} may";
            }

            startsLoop = Append(request);
        }

        HoldfastMeter.QueuedCommands.Add(count);
        return null;
    }

    /// <summary>Appends under the lock; whether a loop must be started.</summary>
    private bool Append(GroupCommitRequest request)
    {
        _queue.Enqueue(request);
        _queuedCommands += request.Commands.Length;
        if (_runningLoops < _options.MaxConcurrentBatches)
        {
            _runningLoops++;
            return true;
        }

        return false;
    }

    private async Task RunAsync()
    {
        while (true)
        {
            // A batch of its own each time: the answers to one are given while the next is executed.
            var batch = new List<GroupCommitRequest>();
            if (!TakeBatch(batch))
            {
                return;
            }

            try
            {
                await CommitAsync(batch).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                FailAll(batch, e);
            }

            if (batch.Count <= AnsweredByTheLoop)
            {
                // The callers go on in the queue of this thread, and others look into it only when they have nothing else
                // to do. An engine that works on its caller's thread would keep them there for as long as batches come.
                if (_dispatcher.IsThreadPool)
                {
                    await Task.Yield();
                }
                else
                {
                    await _dispatcher.YieldAsync().ConfigureAwait(false);
                }
            }
        }
    }

    /// <summary>Not the inner engine's failure (that is handled per call) but this layer's own: nobody may wait for ever.</summary>
    private void FailAll(List<GroupCommitRequest> batch, Exception e)
    {
        _logger.LogCritical(e, "A batch of {Count} calls could not be answered.", batch.Count);
        foreach (var request in batch)
        {
            request.Fail(e);
        }
    }

    /// <summary>Under the lock: lets <see cref="DisposeAsync"/> go on when nothing is left to do.</summary>
    private void SignalWhenDrained()
    {
        if (_isClosing && _runningLoops == 0 && _pendingAnswers == 0)
        {
            _drained.TrySetResult();
        }
    }

    /// <summary>Takes what waits, up to the bound; <see langword="false"/> ends this loop.</summary>
    private bool TakeBatch(List<GroupCommitRequest> batch)
    {
        var commands = 0;
        lock (_lock)
        {
            while (_queue.TryPeek(out var next)
                && (commands == 0 || (!next.IsSuspect && commands + next.Commands.Length <= _options.MaxBatchCommands))
                && TryClaimIds(next))
            {
                _queue.Dequeue();
                commands += next.Commands.Length;
                batch.Add(next);
                if (next.IsSuspect)
                {
                    break;
                }
            }

            _queuedCommands -= commands;
            if (batch.Count == 0)
            {
                // Either nothing waits, or what waits shares an id with a batch under way, whose loop comes back for it.
                _runningLoops--;
                SignalWhenDrained();
                return false;
            }

            if (_idsInFlight is not null && _queue.Count > 0 && _runningLoops < _options.MaxConcurrentBatches)
            {
                _runningLoops++;
                _dispatcher.Queue(this);
            }
        }

        HoldfastMeter.QueuedCommands.Add(-commands);
        HoldfastMeter.BatchCommands.Record(commands);
        return true;
    }

    /// <summary>With several batches at once: claims the ids of a request, unless a batch under way has one of them.</summary>
    private bool TryClaimIds(GroupCommitRequest request)
    {
        if (_idsInFlight is null)
        {
            return true;
        }

        // A request that shares an id with another of its own batch waits for the next one too: rare, and one rule is simpler.
        var claimed = new HashSet<string>(request.Commands.Length, StringComparer.Ordinal);
        foreach (var command in request.Commands)
        {
            if (_idsInFlight.Contains(command.Id) || (command.Target is { } target && _idsInFlight.Contains(target)))
            {
                return false;
            }

            claimed.Add(command.Id);
            if (command.Target is not null)
            {
                claimed.Add(command.Target);
            }
        }

        _idsInFlight.UnionWith(claimed);
        request.Claimed = claimed;
        return true;
    }

    private void ReleaseIds(List<GroupCommitRequest> batch)
    {
        if (_idsInFlight is null)
        {
            return;
        }

        lock (_lock)
        {
            foreach (var request in batch)
            {
                if (request.Claimed is { } claimed)
                {
                    _idsInFlight.ExceptWith(claimed);
                    request.Claimed = null;
                }
            }
        }
    }

    private async ValueTask CommitAsync(List<GroupCommitRequest> batch)
    {
        var now = _clock.GetTimestamp();
        var commands = 0;
        for (var i = batch.Count - 1; i >= 0; i--)
        {
            var request = batch[i];
            if (request.IsUnattempted && (request.IsAnswered || _clock.GetElapsedTime(request.EnqueuedAt, now) > _options.QueueTimeout))
            {
                request.FinishUnattempted("waited too long for its turn; the store is overloaded or stuck");
                ReleaseIds([request]);
                batch.RemoveAt(i);
                continue;
            }

            commands += request.Commands.Length;
        }

        if (commands == 0)
        {
            return;
        }

        var all = new StockCommand[commands];
        var at = 0;
        foreach (var request in batch)
        {
            request.Commands.CopyTo(all, at);
            at += request.Commands.Length;
        }

        IReadOnlyList<StockResult> results;
        try
        {
            results = await ExecuteOrBisectAsync(batch.ToArray(), all).ConfigureAwait(false);
        }
        finally
        {
            // Before anybody is answered or sent round again: from then on the requests belong to other batches.
            ReleaseIds(batch);
        }

        if (batch.Count <= AnsweredByTheLoop)
        {
            AnswerAll(batch, results);
            return;
        }

        lock (_lock)
        {
            _pendingAnswers++;
        }

        _dispatcher.Queue(
            static work =>
            {
                try
                {
                    work.Layer.AnswerAll(work.Batch, work.Results);
                }
                catch (Exception e)
                {
                    work.Layer.FailAll(work.Batch, e);
                }

                lock (work.Layer._lock)
                {
                    work.Layer._pendingAnswers--;
                    work.Layer.SignalWhenDrained();
                }
            },
            (Layer: this, Batch: batch, Results: results));
    }

    private void AnswerAll(List<GroupCommitRequest> batch, IReadOnlyList<StockResult> results)
    {
        var at = 0;
        foreach (var request in batch)
        {
            // Once answered, the request may be on its way again with fewer commands.
            var count = request.Commands.Length;
            Answer(request, results, at);
            at += count;
        }
    }

    /// <summary>Answers a request, or sends its commands in doubt round again.</summary>
    private void Answer(GroupCommitRequest request, IReadOnlyList<StockResult> results, int at)
    {
        request.Take(results, at);
        if (!request.IsUndecided)
        {
            request.Finish();
            return;
        }

        var first = request.Attempts == 1;
        if (request.IsAnswered || request.IsOverdue || request.IsLastRound)
        {
            request.Finish();
            return;
        }

        if (_clock.GetElapsedTime(request.EnqueuedAt) < _options.RetryTimeout)
        {
            request.NarrowToDoubt();
        }
        else if (request.NarrowToHeld())
        {
            // What stood in their way is not tried again, so they go round once, at once.
            first = true;
        }
        else
        {
            request.Finish();
            return;
        }

        HoldfastMeter.Retries.Add(request.Commands.Length);
        if (first)
        {
            Requeue(request);
            return;
        }

        var delay = _options.RetryDelay * Math.Pow(2, Math.Min(request.Attempts - 2, 16));
        var isClosing = false;
        lock (_lock)
        {
            isClosing = _isClosing;
            if (!isClosing)
            {
                _delayed.Add(request);
                _delayedCommands += request.Commands.Length;
                request.Delay = _clock.CreateTimer(_ => EndDelay(request), null, delay < s_longestRetryDelay ? delay : s_longestRetryDelay, Timeout.InfiniteTimeSpan);
            }
        }

        if (isClosing)
        {
            request.Finish();
        }
    }

    private void EndDelay(GroupCommitRequest request)
    {
        bool isOurs;
        lock (_lock)
        {
            isOurs = _delayed.Remove(request);
            _delayedCommands -= isOurs ? request.Commands.Length : 0;
            request.Delay?.Dispose();
        }

        if (isOurs)
        {
            Requeue(request);
        }
    }

    /// <summary>Puts commands in doubt back into the queue. They were let in once, so the bound does not stop them.</summary>
    private void Requeue(GroupCommitRequest request)
    {
        bool startsLoop;
        lock (_lock)
        {
            startsLoop = Append(request);
        }

        HoldfastMeter.QueuedCommands.Add(request.Commands.Length);
        if (startsLoop)
        {
            _dispatcher.Queue(this);
        }
    }
}
