namespace Holdfast.Redis;

/// <summary>
/// Puts the reads that wait at one moment into one call. No timer and no minimum: a lone read goes at once, and what comes
/// while calls are under way goes with the next. Equal SKUs are not merged. Thread-safe.
/// </summary>
/// <typeparam name="T">What is read of a SKU.</typeparam>
/// <param name="read">Reads one call's SKUs.</param>
/// <param name="timeout">Longest wait of one read.</param>
/// <param name="clock">The clock of the waits.</param>
internal sealed class StockReads<T>(Func<IReadOnlyList<string>, CancellationToken, Task<T[]>> read, TimeSpan timeout, TimeProvider clock)
{
    private readonly Lock _lock = new();
    private readonly Queue<Waiting> _waiting = new();
    private int _waitingSkus;
    private int _underWay;

    public async Task<IReadOnlyList<T>> ReadAsync(IReadOnlyList<string> skus, CancellationToken cancellationToken)
    {
        if (skus.Count > Tuning.SkusPerCall)
        {
            return await ReadManyAsync(skus, cancellationToken).ConfigureAwait(false);
        }

        var waiting = new Waiting(skus);
        var isFirst = false;
        lock (_lock)
        {
            if (_waitingSkus + skus.Count > Tuning.MaxWaitingReads)
            {
                throw new RedisStoreException("Too many reads of stock are waiting already; try again later.", CallFailure.NotSent);
            }

            _waiting.Enqueue(waiting);
            _waitingSkus += skus.Count;
            if (_underWay < Tuning.ReadsInFlight)
            {
                _underWay++;
                isFirst = true;
            }
        }

        if (isFirst)
        {
            _ = SendAsync();
        }

        try
        {
            // A caller that stops waiting leaves its read behind, which harms nobody.
            return await waiting.Task.WaitAsync(timeout, clock, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            throw new RedisStoreException($"The stock could not be read within {timeout.TotalSeconds:0.###} s; try again later.", CallFailure.NotSent, e);
        }
    }

    private async Task<IReadOnlyList<T>> ReadManyAsync(IReadOnlyList<string> skus, CancellationToken cancellationToken)
    {
        var levels = new List<T>(skus.Count);
        foreach (var some in skus.Chunk(Tuning.SkusPerCall))
        {
            levels.AddRange(await read(some, cancellationToken).ConfigureAwait(false));
        }

        return levels;
    }

    /// <summary>Sends what waits until nothing does. Never throws: what fails, fails at those who wait.</summary>
    private async Task SendAsync()
    {
        var batch = new List<Waiting>();
        var skus = new List<string>();
        while (true)
        {
            batch.Clear();
            skus.Clear();
            lock (_lock)
            {
                while (_waiting.TryPeek(out var next) && skus.Count + next.Skus.Count <= Tuning.SkusPerCall)
                {
                    _waiting.Dequeue();
                    batch.Add(next);
                    skus.AddRange(next.Skus);
                }

                _waitingSkus -= skus.Count;
                if (batch.Count == 0)
                {
                    _underWay--;
                    return;
                }
            }

            try
            {
                var levels = await read(skus, CancellationToken.None).ConfigureAwait(false);
                var at = 0;
                foreach (var each in batch)
                {
                    each.SetResult(new ArraySegment<T>(levels, at, each.Skus.Count));
                    at += each.Skus.Count;
                }
            }
            catch (Exception e)
            {
                foreach (var each in batch)
                {
                    // Each caller throws an exception of its own: one that many throw would mix their stack traces.
                    each.TrySetException(e is RedisStoreException store ? new RedisStoreException(store.Message, store.Failure, e) : e);
                }
            }
        }
    }

    private sealed class Waiting(IReadOnlyList<string> skus) : TaskCompletionSource<IReadOnlyList<T>>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public IReadOnlyList<string> Skus { get; } = skus;
    }
}
