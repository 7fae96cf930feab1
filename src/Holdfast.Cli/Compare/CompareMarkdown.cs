using System.Globalization;
using System.Text;

namespace Holdfast.Cli.Compare;

/// <summary>A comparison as a page of Markdown.</summary>
internal static class CompareMarkdown
{
    /// <summary>Writes the page.</summary>
    /// <param name="report">What was measured.</param>
    /// <param name="plots">The files of its plots, beside the page, each with what it shows.</param>
    public static string Write(CompareReport report, IReadOnlyList<(string File, string Shows)> plots)
    {
        var text = new StringBuilder();
        Line($"# The schemes side by side");
        Line();
        Line($"`{report.Command}`, {report.Began.UtcDateTime:yyyy-MM-dd HH:mm} UTC, {report.Minutes} minutes{(report.IsCutShort ? ", **ended before everything was measured**" : "")}.");
        Line();
        Line($"- Machine: {report.Machine}. It may have been shared with others: compare rows of one run, not figures of two.");
        foreach (var server in report.Servers)
        {
            Line($"- {server}");
        }

        Line($"- Load: {report.Callers} callers in the same process as the scheme, {report.Seconds} s each after a warm-up, seed {report.Seed}. Each row of each column has a store of its own, which was audited afterwards: {(report.Passed ? "every audit passed" : "**not every audit passed**")}.");
        Line();
        WriteCapacity();
        foreach (var workload in report.Workloads.Where(workload => report.Rows.Any(row => Cell(row, workload)?.Open.Count > 0)))
        {
            WriteLatency(workload);
        }

        WriteCurve();
        WriteBaselines();
        WriteRows();
        foreach (var (file, shows) in plots)
        {
            Line($"![{shows}]({file})");
            Line();
        }

        return text.ToString();

        void Line(FormattableString? line = null) => text.Append(line?.ToString(CultureInfo.InvariantCulture)).Append('\n');

        void WriteCapacity()
        {
            Line($"## Orders a second");
            Line();
            Line($"Accepted per second, and after a + those that were refused; callers ask as fast as answers come.");
            Line();
            Line($"| scheme | {string.Join(" | ", report.Workloads.Select(workload => workload.Name))} |");
            Line($"|---|{string.Concat(report.Workloads.Select(_ => "---:|"))}");
            foreach (var row in report.Rows)
            {
                Line($"| {row.Name} | {string.Join(" | ", report.Workloads.Select(workload => Capacity(row, workload)))} |");
            }

            Line();
            foreach (var workload in report.Workloads)
            {
                Line($"- **{workload.Name}**: {workload.Meaning}");
            }

            Line();
        }

        void WriteLatency(ComparedWorkload workload)
        {
            Line($"## Latency under {workload.Name}");
            Line();
            Line($"Milliseconds (p50 / p99 / p99.9) with a share of the scheme's own capacity offered at times set in advance; counted from the intended time. Of the capacity, because a queue grows without end beyond it, whoever's it is.");
            Line();
            var shares = report.Rows.SelectMany(row => Cell(row, workload)?.Open ?? []).Select(figures => figures.Share!.Value).Distinct().Order().ToList();
            Line($"| scheme | capacity/s | {string.Join(" | ", shares.Select(share => $"at {share * 100:0} %"))} |");
            Line($"|---|---:|{string.Concat(shares.Select(_ => "---:|"))}");
            foreach (var row in report.Rows)
            {
                if (Cell(row, workload) is { Closed: { } closed } cell)
                {
                    Line($"| {row.Name} | {Number(closed.AnsweredPerSecond)} | {string.Join(" | ", shares.Select(share => Latency(cell.Open.FirstOrDefault(figures => figures.Share == share))))} |");
                }
            }

            Line();
        }

        void WriteCurve()
        {
            var curves = report.Rows.SelectMany(row => row.Cells.Where(cell => cell.Callers.Count > 0).Select(cell => (row.Name, cell.Callers))).ToList();
            var callers = curves.SelectMany(curve => curve.Callers).Select(figures => figures.Callers).Distinct().Order().ToList();
            if (callers.Count == 0)
            {
                return;
            }

            Line($"## One hot SKU, by the number of callers");
            Line();
            Line($"Accepted per second, and p99 in milliseconds.");
            Line();
            Line($"| scheme | {string.Join(" | ", callers)} |");
            Line($"|---|{string.Concat(callers.Select(_ => "---:|"))}");
            foreach (var (name, figures) in curves)
            {
                Line($"| {name} | {string.Join(" | ", callers.Select(count => figures.FirstOrDefault(one => one.Callers == count) is { } one ? $"{Number(one.AcceptedPerSecond)} ({Milliseconds(one.P99Ms)})" : "—"))} |");
            }

            Line();
        }

        void WriteBaselines()
        {
            if (report.Baselines.Count == 0)
            {
                return;
            }

            Line($"## Without Holdfast");
            Line();
            Line($"| load generator | what it does | per second | more | counted afterwards |");
            Line($"|---|---|---:|---|---|");
            foreach (var baseline in report.Baselines)
            {
                Line($"| {baseline.Name} | {baseline.Meaning} | {(baseline.Audit == "pass" ? Number(baseline.PerSecond) : "—")} | {baseline.Detail} | {baseline.Audit} |");
            }

            Line();
        }

        void WriteRows()
        {
            Line($"## The rows");
            Line();
            Line($"| scheme | what it is | an acknowledgement survives | guarantees | audits |");
            Line($"|---|---|---|---|---|");
            foreach (var row in report.Rows)
            {
                Line($"| {row.Name} | {row.Meaning} | {row.Durability ?? "—"} | {row.Traits ?? "—"} | {Audits(row)} |");
            }

            Line();
        }
    }

    private static CompareCell? Cell(CompareRow row, ComparedWorkload workload) => row.Cells.FirstOrDefault(cell => cell.Workload == workload.Name);

    private static string Capacity(CompareRow row, ComparedWorkload workload) => (row.NotMeasured, Cell(row, workload)) switch
    {
        (not null, _) => "not measured",
        (_, null) => "—",
        (_, { Closed: null }) => "audit failed",
        (_, { Closed: { } closed }) => (closed.RefusedPerSecond, closed.AcceptedPerSecond) switch
        {
            (0, _) => Number(closed.AcceptedPerSecond),
            (_, 0) => $"+ {Number(closed.RefusedPerSecond)}",
            _ => $"{Number(closed.AcceptedPerSecond)} + {Number(closed.RefusedPerSecond)}",
        } + (closed.Unknown > 0 ? $" ({closed.Unknown} unknown)" : ""),
    };

    private static string Audits(CompareRow row) => row.NotMeasured is { } why
        ? $"not measured: {why}"
        : string.Join("; ", row.Cells.Where(cell => cell.Audit != "pass").Select(cell => $"{cell.Workload}: {cell.Audit}").DefaultIfEmpty($"{row.Cells.Count} passed"));

    private static string Latency(CompareFigures? figures) => figures is null ? "—" : $"{Milliseconds(figures.P50Ms)} / {Milliseconds(figures.P99Ms)} / {Milliseconds(figures.P999Ms)}";

    private static string Milliseconds(double value) => value.ToString(value >= 100 ? "#,##0" : value >= 10 ? "0.0" : "0.00", CultureInfo.InvariantCulture);

    private static string Number(double value) => value.ToString("#,##0", CultureInfo.InvariantCulture);
}
