namespace Holdfast.Sqlite;

/// <summary>How a request for a turn ended.</summary>
internal enum Turn
{
    /// <summary>The caller has the turn and gives it back by <see cref="Turns.End"/>.</summary>
    Granted,

    /// <summary>So many wait already that waiting too makes no sense.</summary>
    Crowded,

    /// <summary>The wait took too long.</summary>
    TimedOut,
}

/// <summary>
/// Lets so many callers in at once; the others wait in order, without a thread, bounded in number and in time. The time
/// is the real one, not the store's clock: it bounds how long a caller hangs, whatever time a test pretends.
/// </summary>
#pragma warning disable CA1001 // A semaphore whose wait handle nobody asks for has nothing to dispose; late callers still find it.
internal sealed class Turns(int atOnce, int maxWaiting, TimeSpan timeout)
#pragma warning restore CA1001
{
    private readonly SemaphoreSlim _free = new(atOnce, atOnce);
    private int _waiting;

    /// <summary>How many wait.</summary>
    public int Waiting => Volatile.Read(ref _waiting);

    /// <summary>Takes a turn if one is free now.</summary>
    public bool TryBegin() => _free.Wait(0);

    public ValueTask<Turn> BeginAsync(CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return TryBegin() ? new(Turn.Granted) : WaitAsync(cancellationToken);
    }

    /// <summary>Takes a turn after everybody who waits already, whatever their number: for closing.</summary>
    public async Task<bool> BeginLastAsync()
    {
        Interlocked.Increment(ref _waiting);
        try
        {
            return await _free.WaitAsync(timeout).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
        }
    }

    /// <summary>Gives a turn back.</summary>
    public void End()
    {
        if (Waiting == 0)
        {
            _free.Release();
            return;
        }

        // Whoever gets the turn goes on in the queue of the thread that gives it away, and other threads look into that
        // queue only when they have nothing else to do. The thread here may go on with file work for long: the turn would
        // be stranded, and those behind it would time out. So one that is about to look into its own queue gives it away.
        ThreadPool.UnsafeQueueUserWorkItem(static free => free.Release(), _free, preferLocal: false);
    }

    private async ValueTask<Turn> WaitAsync(CancellationToken cancellationToken)
    {
        if (Interlocked.Increment(ref _waiting) > maxWaiting)
        {
            Interlocked.Decrement(ref _waiting);
            return Turn.Crowded;
        }

        try
        {
            return await _free.WaitAsync(timeout, cancellationToken).ConfigureAwait(false) ? Turn.Granted : Turn.TimedOut;
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
        }
    }
}
