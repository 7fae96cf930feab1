namespace Holdfast;

/// <summary>Bounds of a <see cref="GroupCommit"/> layer. Checked by <see cref="Validate"/> when the layer is made.</summary>
public sealed class GroupCommitOptions
{
    /// <summary>
    /// Most commands that wait at once, for their turn or in doubt for their next try; past it callers are answered Busy at once. One caller's batch that is larger
    /// than the bound by itself is still taken when nothing else waits. Default 65,536.
    /// </summary>
    public int MaxQueuedCommands { get; set; } = 65_536;

    /// <summary>Most commands in one call of the inner engine, 1 to 65,536. Default 4,096.</summary>
    public int MaxBatchCommands { get; set; } = 4_096;

    /// <summary>Calls of the inner engine under way at once, 1 to 64; never two that share an id. Default 1; more pays only where the inner engine gains by it.</summary>
    public int MaxConcurrentBatches { get; set; } = 1;

    /// <summary>How long a command may wait for its first attempt; past it the answer is Busy (it was not attempted). Default 30 s.</summary>
    public TimeSpan QueueTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long one call of the inner engine may take; past it its commands are in doubt. Default 30 s.</summary>
    public TimeSpan CallTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long commands in doubt are tried again, with the same ids, before the caller is answered InDoubt. Zero never tries again. Default 10 s.</summary>
    public TimeSpan RetryTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>The pause before the second try again (the first comes at once); doubled each time up to one second. Default 20 ms.</summary>
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromMilliseconds(20);

    /// <summary>How long disposal waits for what was accepted; what is left then is answered Busy or InDoubt. Default 30 s.</summary>
    public TimeSpan ShutdownTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Checks every bound.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it.</exception>
    public void Validate()
    {
        Check(nameof(MaxQueuedCommands), MaxQueuedCommands is >= 1 and <= 16_777_216, "must be from 1 to 16777216");
        Check(nameof(MaxBatchCommands), MaxBatchCommands is >= 1 and <= 65_536, "must be from 1 to 65536");
        Check(nameof(MaxConcurrentBatches), MaxConcurrentBatches is >= 1 and <= 64, "must be from 1 to 64");
        Check(nameof(QueueTimeout), IsWait(QueueTimeout), "must be from 1 millisecond to 1 hour");
        Check(nameof(CallTimeout), IsWait(CallTimeout), "must be from 1 millisecond to 1 hour");
        Check(nameof(RetryTimeout), RetryTimeout == TimeSpan.Zero || IsWait(RetryTimeout), "must be from 0 to 1 hour");
        Check(nameof(RetryDelay), IsWait(RetryDelay), "must be from 1 millisecond to 1 hour");
        Check(nameof(ShutdownTimeout), IsWait(ShutdownTimeout), "must be from 1 millisecond to 1 hour");

        static bool IsWait(TimeSpan value) => value >= TimeSpan.FromMilliseconds(1) && value <= TimeSpan.FromHours(1);

        static void Check(string name, bool isValid, string rule)
        {
            if (!isValid)
            {
                throw new ArgumentException($"GroupCommit.{name} {rule}.", name);
            }
        }
    }
}
