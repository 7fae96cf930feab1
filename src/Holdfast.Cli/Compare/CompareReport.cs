using Holdfast.Cli.Bench;

namespace Holdfast.Cli.Compare;

/// <summary>What <c>holdfast bench compare</c> measured; its JSON has exactly this shape.</summary>
internal sealed record CompareReport
{
    /// <summary>When it began, UTC.</summary>
    public required DateTimeOffset Began { get; init; }

    /// <summary>How long all of it took.</summary>
    public required double Minutes { get; init; }

    /// <summary>The command that measures it again.</summary>
    public required string Command { get; init; }

    /// <summary>Processor, memory, operating system, runtime.</summary>
    public required string Machine { get; init; }

    /// <summary>The servers, with their settings of durability.</summary>
    public required IReadOnlyList<string> Servers { get; init; }

    public required int Callers { get; init; }

    public required double Seconds { get; init; }

    public required int Seed { get; init; }

    /// <summary>The workloads, in the order of the columns, each with what it means.</summary>
    public required IReadOnlyList<ComparedWorkload> Workloads { get; init; }

    public required IReadOnlyList<CompareRow> Rows { get; init; }

    public required IReadOnlyList<CompareBaseline> Baselines { get; init; }

    /// <summary>Whether the run was ended before everything was measured.</summary>
    public required bool IsCutShort { get; init; }

    /// <summary>Whether every audit passed.</summary>
    public bool Passed => Rows.All(row => row.Cells.All(cell => cell.Audit == "pass")) && Baselines.All(baseline => baseline.Audit == "pass");
}

/// <summary>A workload, and what it means.</summary>
internal sealed record ComparedWorkload(string Name, string Meaning);

/// <summary>A scheme's row.</summary>
internal sealed record CompareRow
{
    public required string Name { get; init; }

    public required string Meaning { get; init; }

    /// <summary>What its answers are worth, as the engine says it.</summary>
    public string? Traits { get; init; }

    /// <summary>What an acknowledgement survives.</summary>
    public string? Durability { get; init; }

    /// <summary>Why it was not measured; <see langword="null"/> where it was.</summary>
    public string? NotMeasured { get; init; }

    public required IReadOnlyList<CompareCell> Cells { get; init; }
}

/// <summary>A scheme under a workload. Where the audit failed there are no figures.</summary>
internal sealed record CompareCell
{
    public required string Workload { get; init; }

    /// <summary>Callers that ask as fast as answers come: the capacity.</summary>
    public CompareFigures? Closed { get; init; }

    /// <summary>Orders at times set in advance, at shares of the capacity.</summary>
    public required IReadOnlyList<CompareFigures> Open { get; init; }

    /// <summary>The capacity with other numbers of callers.</summary>
    public required IReadOnlyList<CompareFigures> Callers { get; init; }

    /// <summary><c>pass</c>, or <c>fail: …</c>.</summary>
    public required string Audit { get; init; }
}

/// <summary>The figures of one load.</summary>
internal sealed record CompareFigures
{
    public required int Callers { get; init; }

    /// <summary>The share of the capacity that was offered, in an open loop.</summary>
    public double? Share { get; init; }

    /// <summary>Orders offered per second, in an open loop.</summary>
    public double? Rate { get; init; }

    public required double AcceptedPerSecond { get; init; }

    public required double RefusedPerSecond { get; init; }

    public required double RepeatedPerSecond { get; init; }

    /// <summary>Answers without a verdict.</summary>
    public required long Unknown { get; init; }

    public required double P50Ms { get; init; }

    public required double P99Ms { get; init; }

    public required double P999Ms { get; init; }

    /// <summary>Everything answered with a verdict.</summary>
    public double AnsweredPerSecond => AcceptedPerSecond + RefusedPerSecond + RepeatedPerSecond;

    public static CompareFigures Of(Load load, LoadResult result, double? share = null) => new()
    {
        Callers = load.Callers,
        Share = share,
        Rate = load.Rate is { } rate ? Math.Round(rate, 1) : null,
        AcceptedPerSecond = Math.Round(result.AcceptedPerSecond, 1),
        RefusedPerSecond = Math.Round(result.RefusedPerSecond, 1),
        RepeatedPerSecond = Math.Round(result.Repeated / result.Duration.TotalSeconds, 1),
        Unknown = result.Unknown,
        P50Ms = Math.Round(result.Latency.Percentile(0.50).TotalMilliseconds, 3),
        P99Ms = Math.Round(result.Latency.Percentile(0.99).TotalMilliseconds, 3),
        P999Ms = Math.Round(result.Latency.Percentile(0.999).TotalMilliseconds, 3),
    };
}

/// <summary>What others' own load generators made of the same servers, without any Holdfast.</summary>
internal sealed record CompareBaseline(string Name, string Meaning, double PerSecond, string Detail, string Audit);
