namespace Holdfast.Testing;

/// <summary>What goes wrong with one call over a <see cref="SimulatedConnection"/>.</summary>
internal enum SimulatedFault
{
    None = 0,

    /// <summary>It never arrives, and the caller is told so.</summary>
    Refused = 1,

    /// <summary>It never arrives, and the caller can't know.</summary>
    LostRequest = 2,

    /// <summary>It is executed, and the answer is lost.</summary>
    LostReply = 3,

    /// <summary>The caller is told that the connection broke, and the call arrives all the same, later.</summary>
    LateRequest = 4,

    /// <summary>Only the first half of the commands arrives; the connection breaks behind them.</summary>
    Halfway = 5,
}

/// <summary>How the connections of a simulated world go wrong: seeded, and switched off when the world is healed.</summary>
internal sealed class SimulatedFaults(Random random)
{
    /// <summary>How long messages take at most in a world that is healed: less than anybody's patience.</summary>
    private static readonly TimeSpan s_healthy = TimeSpan.FromMilliseconds(2);

    private static readonly SimulatedFault[] s_faults = Enum.GetValues<SimulatedFault>()[1..];

    /// <summary>How often a call goes wrong, as a part of all.</summary>
    public double Rate { get; init; }

    /// <summary>How long a message takes at most; a third of them arrive at once.</summary>
    public TimeSpan MaxDelay { get; init; } = TimeSpan.FromMilliseconds(20);

    /// <summary>How long a late request takes at most.</summary>
    public TimeSpan MaxLateness { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>How long a caller that hears nothing waits, before the connection is given up for it.</summary>
    public TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(40);

    public bool IsHealed { get; set; }

    public SimulatedFault Next() => !IsHealed && random.NextDouble() < Rate ? s_faults[random.Next(s_faults.Length)] : SimulatedFault.None;

    public TimeSpan NextDelay() => random.Next(3) == 0 ? TimeSpan.Zero : Part(IsHealed && MaxDelay > s_healthy ? s_healthy : MaxDelay);

    public TimeSpan NextLateness() => Part(MaxLateness);

    /// <summary>How the caller learns that its call was lost: in words, by an exception, or not at all.</summary>
    public CallLoss NextLoss() => (CallLoss)random.Next(3);

    private TimeSpan Part(TimeSpan most) => TimeSpan.FromTicks((long)(random.NextDouble() * most.Ticks));
}

/// <summary>How a caller learns that its call was lost.</summary>
internal enum CallLoss
{
    /// <summary>Every command is answered InDoubt; a read throws.</summary>
    InDoubt = 0,

    /// <summary>The call throws.</summary>
    Exception = 1,

    /// <summary>Not at all: it waits until its patience ends, or that of the connection.</summary>
    Silence = 2,
}
