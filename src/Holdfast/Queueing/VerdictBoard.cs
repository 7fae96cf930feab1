using Microsoft.Extensions.Logging;

namespace Holdfast.Queueing;

/// <summary>
/// Those who wait for verdicts. A verdict given in this process wakes its waiters at once; for those given elsewhere one
/// question in a while asks for all who wait. Bounded in number and in time. Thread-safe.
/// </summary>
internal sealed class VerdictBoard(IVerdictStore store, CommandQueueOptions options, TimeProvider clock, ILogger logger)
{
    private const int MostAskedAtOnce = 1_000;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, List<TaskCompletionSource<Verdict>>> _waiting = new(StringComparer.Ordinal);
    private int _count;
    private bool _isAsking;

    /// <summary>Waits for a verdict; <see langword="null"/> when the patience ends first, or too many wait already.</summary>
    public async ValueTask<Verdict?> WaitAsync(string id, TimeSpan patience, CancellationToken cancellationToken)
    {
        if (patience <= TimeSpan.Zero)
        {
            return (await store.FindAsync([id], cancellationToken).ConfigureAwait(false))[0];
        }

        // Registered before the look, so that a verdict in between is not missed.
        var waiter = Register(id);
        try
        {
            var known = (await store.FindAsync([id], cancellationToken).ConfigureAwait(false))[0];
            if (known is not null || waiter is null)
            {
                return known;
            }

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

    private TaskCompletionSource<Verdict>? Register(string id)
    {
        var waiter = new TaskCompletionSource<Verdict>(TaskCreationOptions.RunContinuationsAsynchronously);
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
            if (_isAsking)
            {
                return waiter;
            }

            _isAsking = true;
        }

        _ = AskAsync();
        return waiter;
    }

    private void Remove(string id, TaskCompletionSource<Verdict>? waiter)
    {
        if (waiter is null)
        {
            return;
        }

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

    /// <summary>Asks for all who wait, for as long as somebody does.</summary>
    private async Task AskAsync()
    {
        while (true)
        {
            await Task.Delay(options.VerdictInterval, clock).ConfigureAwait(false);
            string[] ids;
            lock (_lock)
            {
                if (_count == 0)
                {
                    _isAsking = false;
                    return;
                }

                ids = [.. _waiting.Keys];
            }

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
                // Those who wait go on waiting; the next question may go better.
                logger.LogWarning(e, "Verdicts could not be asked for.");
            }
        }
    }
}
