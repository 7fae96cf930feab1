using Holdfast.Cli.Bench;

namespace Holdfast.Ladder;

/// <summary>What a rung measures against what.</summary>
internal sealed record Rung
{
    public required string Name { get; init; }

    public required string Question { get; init; }

    public required string SubjectName { get; init; }

    public required string BaselineName { get; init; }

    /// <summary>The ratio subject / baseline must be at least this.</summary>
    public required double Bound { get; init; }

    /// <summary>The subject must do at least so many a second; 0 where only the ratio counts.</summary>
    public double Least { get; init; }

    public required Func<CancellationToken, Task<Measured>> Subject { get; init; }

    public required Func<CancellationToken, Task<Measured>> Baseline { get; init; }

    public IReadOnlyList<string> Settings { get; init; } = [];

    /// <summary>What has to be found out before the first pair.</summary>
    public Func<CancellationToken, Task>? Prepare { get; init; }
}

/// <summary>Measures a rung in alternated pairs, so that a machine that slows down or speeds up does so for both sides.</summary>
internal static class Pairs
{
    /// <summary>Runs the pairs and reports.</summary>
    /// <returns>Whether every audit passed and the median of the ratios reaches the bound.</returns>
    public static async Task<bool> RunAsync(Rung rung, int pairs, Output output, CancellationToken cancellationToken)
    {
        output.Heading($"{rung.Name}: {rung.Question}", [.. rung.Settings]);
        output.Line($"{"pair",-6}{rung.SubjectName + "/s",30}{rung.BaselineName + "/s",30}{"ratio",10}");
        if (rung.Prepare is { } prepare)
        {
            await prepare(cancellationToken).ConfigureAwait(false);
        }

        var rows = new List<(Measured Subject, Measured Baseline, double Ratio)>();
        for (var i = 0; i < pairs; i++)
        {
            // Every other pair begins with the baseline.
            var first = await (i % 2 == 0 ? rung.Subject : rung.Baseline)(cancellationToken).ConfigureAwait(false);
            var second = await (i % 2 == 0 ? rung.Baseline : rung.Subject)(cancellationToken).ConfigureAwait(false);
            var (subject, baseline) = i % 2 == 0 ? (first, second) : (second, first);
            var ratio = subject.PerSecond / baseline.PerSecond;
            rows.Add((subject, baseline, ratio));
            output.Line($"{i + 1,-6}{Output.Show(subject.PerSecond),30}{Output.Show(baseline.PerSecond),30}{ratio,10:0.000}");
            output.Line($"      {rung.SubjectName}: {subject.Detail}{Audit(subject)}");
            output.Line($"      {rung.BaselineName}: {baseline.Detail}{Audit(baseline)}");
        }

        var audited = rows.TrueForAll(row => row.Subject.IsGood && row.Baseline.IsGood);
        var medianRatio = Median([.. rows.Select(row => row.Ratio)]);
        var medianSubject = Median([.. rows.Select(row => row.Subject.PerSecond)]);
        var medianBaseline = Median([.. rows.Select(row => row.Baseline.PerSecond)]);
        var reached = medianRatio >= rung.Bound && medianSubject >= rung.Least;
        output.Line();
        if (audited)
        {
            output.Line($"median{Output.Show(medianSubject),30}{Output.Show(medianBaseline),30}{medianRatio,10:0.000}   (ratio: the median of the pairs' ratios)");
            output.Line($"bound: at least {rung.Bound:0.###}{(rung.Least > 0 ? $", and {Output.Show(rung.Least)}/s" : "")}: {(reached ? "reached" : "NOT reached")}");
        }
        else
        {
            output.Line("An audit failed: no figure is quoted.");
        }

        await output.FinishAsync(new
        {
            rung = rung.Name,
            subject = rung.SubjectName,
            baseline = rung.BaselineName,
            settings = rung.Settings,
            pairs = rows.Select(row => new { subject = Math.Round(row.Subject.PerSecond, 1), baseline = Math.Round(row.Baseline.PerSecond, 1), ratio = Math.Round(row.Ratio, 4), audit = row.Subject.Audit }).ToArray(),
            medianSubject = audited ? Math.Round(medianSubject, 1) : (double?)null,
            medianBaseline = audited ? Math.Round(medianBaseline, 1) : (double?)null,
            ratio = audited ? Math.Round(medianRatio, 4) : (double?)null,
            bound = rung.Bound,
            least = rung.Least,
            passed = audited && reached,
        }).ConfigureAwait(false);
        return audited && reached;

        static string Audit(Measured side) => side.Audit is null ? "" : $"; audit {side.Audit}";
    }

    public static double Median(double[] values)
    {
        Array.Sort(values);
        var middle = values.Length / 2;
        return values.Length % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
    }
}
