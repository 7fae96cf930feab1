namespace Holdfast.Queueing;

/// <summary>Wakes the one consumer of a queue when something has arrived: for transports without a way of their own. Thread-safe.</summary>
public sealed class QueueSignal
{
    private readonly Lock _lock = new();
    private TaskCompletionSource? _waiter;
    private bool _isSet;

    /// <summary>Something has arrived: ends the wait under way, or the next one at once.</summary>
    public void Set()
    {
        TaskCompletionSource? woken;
        lock (_lock)
        {
            woken = _waiter;
            _waiter = null;
            _isSet = woken is null;
        }

        woken?.TrySetResult();
    }

    /// <summary>Waits until something has arrived since the last wait, or the time is over.</summary>
    /// <param name="atMost">How long; infinite is allowed.</param>
    /// <param name="clock">The clock of the wait.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    public async ValueTask WaitAsync(TimeSpan atMost, TimeProvider clock, CancellationToken cancellationToken)
    {
        TaskCompletionSource arrival;
        lock (_lock)
        {
            if (_isSet)
            {
                _isSet = false;
                return;
            }

            arrival = _waiter ??= new(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        try
        {
            await arrival.Task.WaitAsync(atMost, clock, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // The caller looks by itself.
        }
        finally
        {
            lock (_lock)
            {
                // Nobody waits any more: the next arrival is kept for the next wait.
                if (_waiter == arrival)
                {
                    _waiter = null;
                }
            }
        }
    }
}
