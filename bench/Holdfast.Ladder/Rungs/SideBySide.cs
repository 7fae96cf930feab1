using System.Reflection;
using Holdfast.Cli.Bench;
using Npgsql;

namespace Holdfast.Ladder.Rungs;

/// <summary>
/// The plain transaction and the schemes next to each other: one server, one hot SKU, the same settings, in rounds, so that a machine
/// that slows down does so for everybody.
/// </summary>
internal static class SideBySide
{
    private const double Bound = 20;
    private const int ManyCallers = 1_024;
    private static readonly int[] s_clients = [1, 8, 64];

    public static async Task<bool> RunAsync(int rounds, int seconds, RungOptions options, Output output, CancellationToken cancellationToken)
    {
        var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
        await using (database.ConfigureAwait(false))
        {
            var pgbench = await PgBench.VersionAsync().ConfigureAwait(false);
            var npgsql = typeof(NpgsqlConnection).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];
            var settings = (string[])
            [
                database.Description,
                $"{pgbench}; Npgsql {npgsql}",
                $"pgbench: the article's transaction, prepared, over TCP like the schemes: {string.Join(' ', PgBench.Transaction.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))}",
                "schemes: deductions of one unit with ids, duplicates found, operation and ledger written; every figure's store was audited",
                $"{rounds} rounds in alternating order, {seconds} s each after {options.Load.WarmUp.TotalSeconds:0.#} s of warm-up (pgbench: without); medians",
            ];
            output.Heading("side by side: the article's transaction and the schemes, one hot SKU, one server", settings);
            var rows = Rows(database, seconds, options);
            await PostgreSqlRungs.WarmUpAsync(database, "hot", options with { Load = options.Load with { Callers = ManyCallers } }, cancellationToken).ConfigureAwait(false);
            for (var round = 0; round < rounds; round++)
            {
                // Every other round the other way round.
                for (var i = 0; i < rows.Count; i++)
                {
                    var row = rows[round % 2 == 0 ? i : rows.Count - 1 - i];
                    row.Measured.Add(await row.MeasureAsync(cancellationToken).ConfigureAwait(false));
                }
            }

            return await ReportAsync(rows, settings, output).ConfigureAwait(false);
        }
    }

    private static List<Row> Rows(BenchDatabase database, int seconds, RungOptions options)
    {
        var rows = s_clients.Select(clients => new Row("pgbench", clients, token => PgBench.RunAsync(database.Server, clients, seconds, token))).ToList();
        foreach (var (scheme, transactions) in ((string, PostgreSqlTransactions)[])[("database", PostgreSqlTransactions.Command), ("batched", PostgreSqlTransactions.Call)])
        {
            rows.AddRange(s_clients.Append(ManyCallers).Select(callers => new Row(scheme, callers, token =>
                PostgreSqlRungs.EngineAsync(database, transactions, "hot", options with { Load = options.Load with { Callers = callers } }, token))));
        }

        return rows;
    }

    private static async Task<bool> ReportAsync(List<Row> rows, string[] settings, Output output)
    {
        // By rounds: what was measured close together is compared.
        var rounds = rows[0].Measured.Count;
        var best = rows.Where(row => row.Scheme == "pgbench").MaxBy(row => row.Median)!;
        var crowded = rows.Single(row => row.Scheme == "pgbench" && row.Callers == s_clients[^1]);
        var subject = rows.Single(row => row is { Scheme: "batched", Callers: ManyCallers });
        output.Line($"{"scheme",-10}{"callers",8}{"per second",12}{"of pgbench's best",19}{"of pgbench at " + crowded.Callers,18}   rounds");
        foreach (var row in rows)
        {
            output.Line($"{row.Scheme,-10}{row.Callers,8}{Output.Show(row.Median),12}{row.RatioTo(best),18:0.00}×{row.RatioTo(crowded),17:0.00}×   {string.Join(' ', row.Measured.Select(measured => Output.Show(measured.PerSecond)))}; audit {row.Audit}");
            output.Line($"                  {row.Measured[rounds / 2].Detail}");
        }

        var audited = rows.TrueForAll(row => row.Audit == "pass");
        var ratio = subject.RatioTo(best);
        var reached = ratio >= Bound;
        output.Line();
        output.Line(audited
            ? $"batched with {ManyCallers} callers against pgbench's best client count ({best.Callers}): {ratio:0.0} times (bound: at least {Bound}: {(reached ? "reached" : "NOT reached")}); against pgbench with {crowded.Callers} clients: {subject.RatioTo(crowded):0.0} times (ratios: the medians of the rounds' ratios)"
            : "An audit failed: no figure is quoted.");
        await output.FinishAsync(new
        {
            run = "side-by-side",
            settings,
            rows = rows.Select(row => new
            {
                scheme = row.Scheme,
                callers = row.Callers,
                perSecond = Math.Round(row.Median, 1),
                ofPgbenchBest = Math.Round(row.RatioTo(best), 3),
                ofPgbenchCrowded = Math.Round(row.RatioTo(crowded), 3),
                rounds = row.Measured.Select(measured => Math.Round(measured.PerSecond, 1)).ToArray(),
                audit = row.Audit,
            }).ToArray(),
            bestClients = best.Callers,
            ratio = audited ? Math.Round(ratio, 2) : (double?)null,
            bound = Bound,
            passed = audited && reached,
        }).ConfigureAwait(false);
        return audited && reached;
    }

    private sealed class Row(string scheme, int callers, Func<CancellationToken, Task<Measured>> measure)
    {
        public string Scheme { get; } = scheme;

        public int Callers { get; } = callers;

        public List<Measured> Measured { get; } = [];

        public double Median => Pairs.Median([.. Measured.Select(measured => measured.PerSecond)]);

        public string Audit => Measured.Find(measured => !measured.IsGood)?.Audit ?? "pass";

        public Task<Measured> MeasureAsync(CancellationToken cancellationToken) => measure(cancellationToken);

        public double RatioTo(Row other) => Pairs.Median([.. Measured.Zip(other.Measured, (mine, its) => mine.PerSecond / its.PerSecond)]);
    }
}
