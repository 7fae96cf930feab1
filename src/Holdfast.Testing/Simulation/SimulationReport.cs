using System.Globalization;

namespace Holdfast.Testing;

/// <summary>What became of one simulated run.</summary>
internal sealed record SimulationReport
{
    /// <summary>How many of the last steps a report keeps.</summary>
    public const int LongestTrace = 400;

    /// <summary>What was simulated.</summary>
    public required string Layer { get; init; }

    /// <summary>The seed: the same seed is the same run, to the last step.</summary>
    public required int Seed { get; init; }

    /// <summary>Steps taken.</summary>
    public required long Steps { get; init; }

    /// <summary>Simulated time that passed.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Commands that callers sent, repetitions included.</summary>
    public required long Commands { get; init; }

    /// <summary>How often each command was answered in each way; None where there was no answer.</summary>
    public required IReadOnlyDictionary<(StockVerb Verb, StockStatus Status), int> Outcomes { get; init; }

    /// <summary>A number for all that happened: equal where the same happened.</summary>
    public required ulong TraceHash { get; init; }

    /// <summary>What went wrong; <see langword="null"/> when all was well.</summary>
    public string? Failure { get; init; }

    /// <summary>The last steps, a line each; the lines are made when they are read.</summary>
    public IEnumerable<string> Trace { get; init; } = [];

    /// <summary>Whether all was well.</summary>
    public bool Passed => Failure is null;

    /// <summary>One line for people.</summary>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Layer}, seed {Seed}: {(Passed ? "passed" : Failure)} ({Commands} commands, {Steps} steps, {Elapsed.TotalSeconds:0.0} s of simulated time, trace {TraceHash:x16})");
}
