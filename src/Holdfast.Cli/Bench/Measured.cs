namespace Holdfast.Cli.Bench;

/// <summary>What a measurement came to, ours or a baseline's.</summary>
/// <param name="PerSecond">What was done per second.</param>
/// <param name="Detail">More for people: latencies, counts.</param>
/// <param name="Audit"><c>pass</c>, <c>fail: …</c>, or <see langword="null"/> where there is no store.</param>
internal sealed record Measured(double PerSecond, string Detail, string? Audit)
{
    /// <summary>Whether nothing speaks against the figure.</summary>
    public bool IsGood => Audit is null or "pass";
}
