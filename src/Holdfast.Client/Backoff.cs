namespace Holdfast.Client;

/// <summary>The pauses between tries: doubled each time up to a bound, with up to half taken off at random. Thread-safe.</summary>
internal sealed class Backoff(HoldfastClientOptions options)
{
    private readonly Lock _lock = new();
    private readonly Random _jitter = options.Jitter ?? new Random(Environment.ProcessId ^ Environment.TickCount);

    /// <summary>The pause after so many tries that came to nothing, 1 or more.</summary>
    public TimeSpan After(int tries)
    {
        double takenOff;
        lock (_lock)
        {
            takenOff = _jitter.NextDouble() / 2;
        }

        var full = Math.Min(options.RetryDelay.TotalMilliseconds * Math.Pow(2, Math.Min(tries - 1, 30)), options.MaxRetryDelay.TotalMilliseconds);
        return TimeSpan.FromMilliseconds(full * (1 - takenOff));
    }
}
