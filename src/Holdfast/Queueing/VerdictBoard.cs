using Microsoft.Extensions.Logging;

namespace Holdfast.Queueing;

/// <summary>
/// Those who wait for verdicts. A verdict given in this process wakes its waiters at once. One loop asks the store: soon
/// for all who came since its last question, and in a while for all who wait, since another process may have decided.
/// Bounded in number and in time. Thread-safe.
/// </summary>
internal sealed class VerdictBoard(IVerdictStore store, CommandQueueOptions options, TimeProvider clock, ILogger logger)
{
    private const int MostAskedAtOnce = 1_000;

    /// <summary>Who has just ordered is mostly told by this process before the question is worth asking; and under load many share one.</summary>
    private static readonly TimeSpan s_gather = TimeSpan.FromMilliseconds(20);

    private readonly Lock _lock = new();
    private readonly Dictionary<string, List<TaskCompletionSource<Verdict>>> _waiting = new(StringComparer.Ordinal);
    private readonly QueueSignal _arrival = new();
    private List<string> _fresh = [];
    private int _count;
    private bool _isAsking;

    /// <summary>Waits for a verdict; <see langword="null"/> when the patience ends first, or too many wait already.</summary>
    public async ValueTask<Verdict?> WaitAsync(string id, TimeSpan patience, CancellationToken cancellationToken)
    {
        // Whose patience may end before the common question is answered asks alone.
        if (patience < options.VerdictInterval && await FindAsync(id, cancellationToken).ConfigureAwait(false) is { } known)
        {
            return known;
        }

        if (patience <= TimeSpan.Zero)
        {
            return null;
        }

        if (Register(id) is not { } waiter)
        {
            return patience < options.VerdictInterval ? null : await FindAsync(id, cancellationToken).ConfigureAwait(false);
        }

        try
        {
            return await waiter.Task.WaitAsync(patience, clock, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            return null;
        }
        finally
        {
            Remove(id, waiter);
        }
    }

    /// <summary>Wakes those who wait for a verdict.</summary>
    public void Tell(Verdict verdict)
    {
        TaskCompletionSource<Verdict>[] woken;
        lock (_lock)
        {
            if (!_waiting.TryGetValue(verdict.Id, out var waiters))
            {
                return;
            }

            woken = [.. waiters];
        }

        foreach (var waiter in woken)
        {
            waiter.TrySetResult(verdict);
        }
    }

    private async ValueTask<Verdict?> FindAsync(string id, CancellationToken cancellationToken) => (await store.FindAsync([id], cancellationToken).ConfigureAwait(false))[0];

    private TaskCompletionSource<Verdict>? Register(string id)
    {
        var waiter = new TaskCompletionSource<Verdict>(TaskCreationOptions.RunContinuationsAsynchronously);
        bool startsLoop;
        lock (_lock)
        {
            if (_count >= options.MaxVerdictWaiters)
            {
                return null;
            }

            _count++;
            if (!_waiting.TryGetValue(id, out var waiters))
            {
                _waiting.Add(id, waiters = new(1));
            }

            waiters.Add(waiter);
            _fresh.Add(id);
            startsLoop = !_isAsking;
            _isAsking = true;
        }

        _arrival.Set();
        if (startsLoop)
        {
            _ = AskAsync();
        }

        return waiter;
    }

    private void Remove(string id, TaskCompletionSource<Verdict> waiter)
    {
        lock (_lock)
        {
            _count--;
            var waiters = _waiting[id];
            waiters.Remove(waiter);
            if (waiters.Count == 0)
            {
                _waiting.Remove(id);
            }
        }
    }

    /// <summary>Asks for as long as somebody waits.</summary>
    private async Task AskAsync()
    {
        await Task.Yield();
        var askedAll = clock.GetTimestamp();
        while (true)
        {
            await _arrival.WaitAsync(options.VerdictInterval, clock, CancellationToken.None).ConfigureAwait(false);
            await Task.Delay(s_gather, clock).ConfigureAwait(false);
            List<string> ids;
            lock (_lock)
            {
                if (_count == 0)
                {
                    _fresh.Clear();
                    _isAsking = false;
                    return;
                }

                (ids, _fresh) = (_fresh, []);
                if (clock.GetElapsedTime(askedAll) >= options.VerdictInterval)
                {
                    askedAll = clock.GetTimestamp();
                    ids = [.. _waiting.Keys];
                }
                else
                {
                    // A verdict may have come before the question.
                    ids.RemoveAll(id => !_waiting.ContainsKey(id));
                }
            }

            await AskAsync(ids).ConfigureAwait(false);
        }
    }

    private async Task AskAsync(List<string> ids)
    {
        try
        {
            foreach (var part in ids.Chunk(MostAskedAtOnce))
            {
                foreach (var verdict in await store.FindAsync(part).ConfigureAwait(false))
                {
                    if (verdict is not null)
                    {
                        Tell(verdict);
                    }
                }
            }
        }
        catch (Exception e)
        {
            // Those who wait go on waiting; the next question for all may go better.
            logger.LogWarning(e, "Verdicts could not be asked for.");
        }
    }
}
