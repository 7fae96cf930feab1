namespace Holdfast;

/// <summary>Bounds of a <see cref="Sharding"/> layer. Checked by <see cref="Validate"/> when the layer is made.</summary>
public sealed class ShardingOptions
{
    /// <summary>
    /// How long a command is tried that meets units or orders in the hands of commands not decided yet, or a shard that
    /// does not answer; past it the answer is Busy. As long again once it is decided and a shard does not take it yet;
    /// past that the answer is InDoubt. Default 10 s.
    /// </summary>
    public TimeSpan DecideTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one call of a shard may take; past it its commands are in doubt. Default 10 s.</summary>
    public TimeSpan CallTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>The pause before the second try, of which a random part is taken; doubled each time up to 100 ms. Default 2 ms.</summary>
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromMilliseconds(2);

    /// <summary>
    /// Whether this process settles what others have left undecided, and releases everywhere what it sees expired on one
    /// shard. Several may; one must. Without it, a layer that is only read from changes nothing. Default true.
    /// </summary>
    public bool Recovery { get; set; } = true;

    /// <summary>How long something must have been seen undecided before it is settled. Default 3 s.</summary>
    public TimeSpan RecoverAfter { get; set; } = TimeSpan.FromSeconds(3);

    /// <summary>The pause between two looks for what is undecided. Default 1 s.</summary>
    public TimeSpan RecoverInterval { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>How long disposal waits for commands under way; what is left then is settled by recovery. Default 30 s.</summary>
    public TimeSpan ShutdownTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Checks every bound.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it.</exception>
    public void Validate()
    {
        Check(nameof(DecideTimeout), DecideTimeout);
        Check(nameof(CallTimeout), CallTimeout);
        Check(nameof(RetryDelay), RetryDelay);
        Check(nameof(RecoverAfter), RecoverAfter);
        Check(nameof(RecoverInterval), RecoverInterval);
        Check(nameof(ShutdownTimeout), ShutdownTimeout);

        static void Check(string name, TimeSpan value)
        {
            if (value < TimeSpan.FromMilliseconds(1) || value > TimeSpan.FromHours(1))
            {
                throw new ArgumentException($"Sharding.{name} must be from 1 millisecond to 1 hour.", name);
            }
        }
    }
}
