namespace Holdfast;

/// <summary>Bounds of a <see cref="CommandQueue"/>. Checked by <see cref="Validate"/> when the queue is made.</summary>
public sealed class CommandQueueOptions
{
    /// <summary>How long a command may be on its way when its sender sets no deadline; past it it is abandoned. 1 second to 30 days. Default 10 minutes.</summary>
    public TimeSpan Deadline { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>How long a Confirm or Refund of an unknown target, and a Refund of a reservation that is not confirmed yet, is tried again, in case that is still to come; until the command's deadline when <see langword="null"/>, the default.</summary>
    public TimeSpan? TargetPatience { get; set; }

    /// <summary>How often a command may make the engine fail before it goes to the dead letters, 1 to 1,000. Default 5.</summary>
    public int MaxTries { get; set; } = 5;

    /// <summary>How often a message may be handed out, where the transport counts, before it goes to the dead letters unexecuted: one that ends the process is handed out again and again. 2 to 1,000. Default 20.</summary>
    public int MaxDeliveries { get; set; } = 20;

    /// <summary>Most commands that a consumer takes at once, 1 to 65,536. Default 1,000.</summary>
    public int MaxBatchCommands { get; set; } = 1_000;

    /// <summary>The pause before something is tried again. 1 millisecond to 1 hour. Default 1 s.</summary>
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>Most commands of this process that wait to be accepted; past it callers are answered Busy at once. Default 65,536.</summary>
    public int MaxWaitingCommands { get; set; } = 65_536;

    /// <summary>Most messages that are sent to a queue at once, 1 to 65,536. Default 500.</summary>
    public int MaxSendCommands { get; set; } = 500;

    /// <summary>How long an acceptance may take; past it the answer is InDoubt. 1 millisecond to 1 hour. Default 10 s.</summary>
    public TimeSpan SendTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one call of the engine may take in a consumer; past it its commands are tried again. 1 millisecond to 1 hour. Default 30 s.</summary>
    public TimeSpan CallTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long a stop waits for the batches under way. 1 millisecond to 1 hour. Default 30 s.</summary>
    public TimeSpan ShutdownTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How often those who wait for verdicts that another process gives are looked after, all by one question. A verdict of this process wakes them at once. 10 milliseconds to 1 hour. Default 250 ms.</summary>
    public TimeSpan VerdictInterval { get; set; } = TimeSpan.FromMilliseconds(250);

    /// <summary>Most callers that wait for a verdict at once; the next does not wait. Default 10,000.</summary>
    public int MaxVerdictWaiters { get; set; } = 10_000;

    /// <summary>How long verdicts asked for by a request id are kept, 1 minute to 3,650 days. (Those of orders are kept as long as their operations.) Default 7 days.</summary>
    public TimeSpan KeepVerdicts { get; set; } = TimeSpan.FromDays(7);

    /// <summary>Whether every verdict is recorded to be announced: for a webhook. Default false.</summary>
    public bool Announce { get; set; }

    /// <summary>Checks every bound.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it.</exception>
    public void Validate()
    {
        Time(nameof(Deadline), Deadline, TimeSpan.FromSeconds(1), TimeSpan.FromDays(30));
        Time(nameof(TargetPatience), TargetPatience ?? TimeSpan.Zero, TimeSpan.Zero, TimeSpan.FromDays(30));
        Number(nameof(MaxTries), MaxTries, 1, 1_000);
        Number(nameof(MaxDeliveries), MaxDeliveries, 2, 1_000);
        Number(nameof(MaxBatchCommands), MaxBatchCommands, 1, 65_536);
        Wait(nameof(RetryDelay), RetryDelay);
        Number(nameof(MaxWaitingCommands), MaxWaitingCommands, 1, 16_777_216);
        Number(nameof(MaxSendCommands), MaxSendCommands, 1, 65_536);
        Wait(nameof(SendTimeout), SendTimeout);
        Wait(nameof(CallTimeout), CallTimeout);
        Wait(nameof(ShutdownTimeout), ShutdownTimeout);
        Time(nameof(VerdictInterval), VerdictInterval, TimeSpan.FromMilliseconds(10), TimeSpan.FromHours(1));
        Number(nameof(MaxVerdictWaiters), MaxVerdictWaiters, 0, 1_000_000);
        Time(nameof(KeepVerdicts), KeepVerdicts, TimeSpan.FromMinutes(1), TimeSpan.FromDays(3_650));

        static void Wait(string name, TimeSpan value) => Time(name, value, TimeSpan.FromMilliseconds(1), TimeSpan.FromHours(1));

        static void Time(string name, TimeSpan value, TimeSpan least, TimeSpan most) =>
            Check(name, value >= least && value <= most, $"is {value}; it must be from {least} to {most}");

        static void Number(string name, int value, int least, int most) =>
            Check(name, value >= least && value <= most, $"is {value}; it must be from {least} to {most}");

        static void Check(string name, bool isValid, string problem)
        {
            if (!isValid)
            {
                throw new ArgumentException($"Queue.{name} {problem}.", name);
            }
        }
    }
}
