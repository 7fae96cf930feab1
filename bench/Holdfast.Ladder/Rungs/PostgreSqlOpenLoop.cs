using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>
/// How long a buyer waits when orders come at their own times, at half of what the store can do: that is measured first, in the same
/// run and in each round anew. A latency counts from the intended time, so nobody is spared by being late.
/// </summary>
internal static class PostgreSqlOpenLoop
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMilliseconds(25);

    public static async Task<bool> RunAsync(RungOptions options, Output output, CancellationToken cancellationToken)
    {
        var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
        await using (database.ConfigureAwait(false))
        {
            output.Heading(
                "postgres-open: latency at half of the capacity, open loop, scheme batched, one hot SKU",
                $"capacity: {options.Load.Callers} callers, closed loop; then as many callers with intended times at half that rate; each {options.Load.Duration.TotalSeconds:0.#} s after {options.Load.WarmUp.TotalSeconds:0.#} s of warm-up, {options.Pairs} rounds",
                database.Description,
                $"bound: p99 at most {s_bound.TotalMilliseconds:0} ms (median of the rounds), and no unknown outcome");
            output.Line($"{"round",-7}{"capacity/s",12}{"offered/s",12}{"accepted/s",12}{"p50 ms",9}{"p99 ms",9}{"p99.9 ms",10}{"max ms",9}{"unknown",9}   audits");
            await PostgreSqlRungs.WarmUpAsync(database, "hot", options, cancellationToken).ConfigureAwait(false);
            var rounds = new List<Round>();
            for (var i = 0; i < options.Pairs; i++)
            {
                var round = await RoundAsync(database, options, cancellationToken).ConfigureAwait(false);
                rounds.Add(round);
                output.Line($"{i + 1,-7}{Output.Show(round.Capacity),12}{Output.Show(round.Offered),12}{Output.Show(round.Accepted),12}{round.P50,9:0.0}{round.P99,9:0.0}{round.P999,10:0.0}{round.Max,9:0.0}{round.Unknown,9}   {round.Audit}");
            }

            var p99 = Pairs.Median([.. rounds.Select(round => round.P99)]);
            var audited = rounds.TrueForAll(round => round.Audit == "pass");
            var passed = audited && p99 <= s_bound.TotalMilliseconds && rounds.TrueForAll(round => round.Unknown == 0);
            output.Line();
            output.Line(audited ? $"p99, median of the rounds: {p99:0.0} ms; unknown outcomes: {rounds.Sum(round => round.Unknown)}; bound {(passed ? "reached" : "NOT reached")}" : "An audit failed: no figure is quoted.");
            await output.FinishAsync(new { rung = "postgres-open", callers = options.Load.Callers, server = database.Description, rounds, p99Ms = audited ? Math.Round(p99, 2) : (double?)null, boundMs = s_bound.TotalMilliseconds, passed }).ConfigureAwait(false);
            return passed;
        }
    }

    private static async Task<Round> RoundAsync(BenchDatabase database, RungOptions options, CancellationToken cancellationToken)
    {
        var (capacity, before) = await LoadAsync(database, options, cancellationToken).ConfigureAwait(false);
        var offered = capacity.AcceptedPerSecond / 2;
        var (result, audit) = await LoadAsync(database, options with { Load = options.Load with { Rate = offered } }, cancellationToken).ConfigureAwait(false);
        return new(
            capacity.AcceptedPerSecond,
            offered,
            result.AcceptedPerSecond,
            result.Latency.Percentile(0.5).TotalMilliseconds,
            result.Latency.Percentile(0.99).TotalMilliseconds,
            result.Latency.Percentile(0.999).TotalMilliseconds,
            result.Latency.Max.TotalMilliseconds,
            capacity.AllUnknown + result.AllUnknown,
            before == "pass" ? audit : before);
    }

    private static async Task<(LoadResult Result, string Audit)> LoadAsync(BenchDatabase database, RungOptions options, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            return await EngineMeasure.LoadAsync(store.Engine, "hot", options, cancellationToken).ConfigureAwait(false);
        }
    }

    private sealed record Round(double Capacity, double Offered, double Accepted, double P50, double P99, double P999, double Max, long Unknown, string Audit);
}
