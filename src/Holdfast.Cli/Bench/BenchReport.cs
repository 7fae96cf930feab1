using System.Text.Json.Serialization;

namespace Holdfast.Cli.Bench;

/// <summary>What <c>holdfast bench</c> reports; with <c>--json</c> in exactly this shape. Rates and latencies are there only when the audit passed.</summary>
internal sealed record BenchReport
{
    public required string Scheme { get; init; }

    public required string Workload { get; init; }

    public required int Callers { get; init; }

    public required double Seconds { get; init; }

    public required long Accepted { get; init; }

    public double? AcceptedPerSecond { get; init; }

    public required long Refused { get; init; }

    public double? RefusedPerSecond { get; init; }

    public required long Repeated { get; init; }

    public required long Unknown { get; init; }

    public double? P50Ms { get; init; }

    public double? P99Ms { get; init; }

    public double? P999Ms { get; init; }

    public double? MaxMs { get; init; }

    public required string Durability { get; init; }

    public required string Audit { get; init; }

    /// <summary>Whether the figures may be quoted.</summary>
    [JsonIgnore]
    public bool IsGood => Audit == "pass";

    public static BenchReport Of(string scheme, string durability, Workload workload, Load load, LoadResult result, string audit)
    {
        var report = new BenchReport
        {
            Scheme = scheme,
            Workload = workload.Name,
            Callers = load.Callers,
            Seconds = Math.Round(result.Duration.TotalSeconds, 3),
            Accepted = result.Accepted,
            Refused = result.Refused,
            Repeated = result.Repeated,
            Unknown = result.Unknown,
            Durability = durability,
            Audit = audit,
        };
        return !report.IsGood ? report : report with
        {
            AcceptedPerSecond = Math.Round(result.AcceptedPerSecond, 1),
            RefusedPerSecond = Math.Round(result.RefusedPerSecond, 1),
            P50Ms = Math.Round(result.Latency.Percentile(0.50).TotalMilliseconds, 3),
            P99Ms = Math.Round(result.Latency.Percentile(0.99).TotalMilliseconds, 3),
            P999Ms = Math.Round(result.Latency.Percentile(0.999).TotalMilliseconds, 3),
            MaxMs = Math.Round(result.Latency.Max.TotalMilliseconds, 3),
        };
    }
}
