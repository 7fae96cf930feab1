namespace Holdfast.Rules;

/// <summary>
/// Store time: the later of the clock and the highest time already stored, so that a clock that jumps back does no harm.
/// Not thread-safe: the owner of the truth asks it under its own lock.
/// </summary>
public sealed class StoreClock
{
    private readonly TimeProvider _clock;
    private long _highest;

    /// <summary>Makes the clock of a store.</summary>
    /// <param name="clock">The clock to follow.</param>
    /// <param name="highestStored">The highest time that the store holds, in milliseconds since 1970-01-01 UTC; 0 for an empty store.</param>
    public StoreClock(TimeProvider clock, long highestStored = 0)
    {
        ArgumentNullException.ThrowIfNull(clock);
        _clock = clock;
        _highest = highestStored;
    }

    /// <summary>The store's time in milliseconds since 1970-01-01 UTC; never lower than what it said before.</summary>
    public long Now() => _highest = Math.Max(_highest, _clock.GetUtcNow().ToUnixTimeMilliseconds());
}
