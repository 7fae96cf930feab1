using Holdfast.Cli;
using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>How a rung is measured.</summary>
internal sealed record RungOptions(Load Load, int Pairs, Terminal Terminal)
{
    public string Describe() => $"load: {Load.Callers} callers, closed loop, {Load.Duration.TotalSeconds:0.#} s after {Load.WarmUp.TotalSeconds:0.#} s of warm-up, {Pairs} pairs, alternated";
}

/// <summary>A workload on an engine as one side of a pair.</summary>
internal static class EngineMeasure
{
    private const long Plenty = 1_000_000_000_000;

    public static async Task<Measured> RunAsync(IStockEngine engine, string workloadName, RungOptions options, CancellationToken cancellationToken)
    {
        var (result, audit) = await LoadAsync(engine, workloadName, options, cancellationToken).ConfigureAwait(false);
        return Describe(result, audit);
    }

    /// <summary>The load itself, and the audit's verdict.</summary>
    public static async Task<(LoadResult Result, string Audit)> LoadAsync(IStockEngine engine, string workloadName, RungOptions options, CancellationToken cancellationToken)
    {
        var workload = Workload.Of(workloadName, RunName.New(TimeProvider.System), seed: 1);
        await EngineLoad.OpenAsync(engine, workload, Plenty, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        var result = await LoadGenerator.RunAsync(options.Load, EngineLoad.Callers(engine, workload), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        return (result, await LoadAudit.RunAsync(options.Terminal, engine, workload, result, cancellationToken).ConfigureAwait(false));
    }

    public static Measured Describe(LoadResult result, string? audit) => new(
        result.AcceptedPerSecond,
        $"{result.Accepted:#,##0} in {result.Duration.TotalSeconds:0.0} s, {Latencies(result.Latency)}, {result.ProcessorTime.TotalMicroseconds / Math.Max(1, result.AllAnswered):0.00} µs of processor each in this process{(result.Refused + result.Unknown > 0 ? $", {result.Refused} refused, {result.Unknown} unknown" : "")}",
        audit);

    private static string Latencies(LatencyHistogram latency) => latency.Count == 0
        ? "no request both began and ended in that time"
        : $"p50 {latency.Percentile(0.5).TotalMilliseconds:0.00} ms, p99 {latency.Percentile(0.99).TotalMilliseconds:0.00} ms";
}
