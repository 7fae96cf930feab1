using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Holdfast.Cli;
using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>Several processes that sell from one database: this program again, told to begin together, and audited as one store.</summary>
internal static class PostgreSqlProcesses
{
    /// <summary>The sub-command that makes this program a selling process.</summary>
    public const string SellCommand = "sell-postgres";

    private const long Plenty = 1_000_000_000_000;
    private const int Processes = 3;

    /// <summary>Each measurement has new processes, so each has to wait until theirs have compiled themselves.</summary>
    private static readonly TimeSpan s_warmUp = TimeSpan.FromSeconds(8);

    public static Rung Hot(RungOptions options, BenchDatabase database) => Create("postgres-processes", "one hot SKU", "hot", options, database);

    public static Rung Carts(RungOptions options, BenchDatabase database) => Create("postgres-processes-carts", "carts of 1 to 5 lines over 10,000 SKUs, zipf 0.99", "carts", options, database);

    /// <summary>A selling process: opens the store, says so, waits for a line, sells, and says what it counted.</summary>
    public static async Task SellAsync(SellOrder order, CancellationToken cancellationToken)
    {
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = order.ConnectionString, Schema = order.Schema }, cancellationToken: cancellationToken).ConfigureAwait(false);
        var engine = new StockEngineBuilder(store).UseGroupCommit().Build();
        await using (engine.ConfigureAwait(false))
        {
            var callers = EngineLoad.Callers(engine, Workload.Of(order.Workload, order.Run, seed: 1));
            await Console.Out.WriteLineAsync("ready").ConfigureAwait(false);
            await Console.In.ReadLineAsync(cancellationToken).ConfigureAwait(false);
            var result = await LoadGenerator.RunAsync(
                new(order.Callers, order.WarmUp, order.Duration), number => callers((order.Process * order.Callers) + number), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
            await Console.Out.WriteLineAsync(JsonSerializer.Serialize(new Sold(result.AcceptedPerSecond, result.AllAccepted, result.AllUnknown, result.Refused, result.Latency.Percentile(0.99).TotalMilliseconds))).ConfigureAwait(false);
        }
    }

    private static Rung Create(string name, string what, string workload, RungOptions given, BenchDatabase database)
    {
        var options = given with { Load = given.Load with { WarmUp = s_warmUp } };
        return new()
        {
            Name = name,
            Question = $"{Processes} processes with batched on one database against one process, {what}",
            SubjectName = $"{Processes} processes",
            BaselineName = "one process",
            Bound = 0.6,
            Settings = [options.Describe(), $"callers: {options.Load.Callers} in each process; each process is new, and runs with DOTNET_TieredPGO=0", database.Description],
            Subject = cancellationToken => MeasureAsync(database, workload, Processes, options, cancellationToken),
            Baseline = cancellationToken => MeasureAsync(database, workload, 1, options, cancellationToken),
        };
    }

    private static async Task<Measured> MeasureAsync(BenchDatabase database, string workloadName, int processes, RungOptions options, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            var workload = Workload.Of(workloadName, RunName.New(TimeProvider.System), seed: 1);
            await EngineLoad.OpenAsync(store.Engine, workload, Plenty, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            var deadlocks = await DeadlocksAsync(database).ConfigureAwait(false);
            var order = new SellOrder(database.ConnectionString, store.Options.Schema, workloadName, workload.Run, 0, options.Load.Callers, options.Load.WarmUp, options.Load.Duration);
            var sold = await SellTogetherAsync([.. Enumerable.Range(0, processes).Select(i => order with { Process = i })], cancellationToken).ConfigureAwait(false);
            deadlocks = await DeadlocksAsync(database).ConfigureAwait(false) - deadlocks;
            var unknown = sold.Sum(one => one.AllUnknown);
            var audit = await LoadAudit.RunAsync(options.Terminal, store.Engine, workload, sold.Sum(one => one.AllAccepted), unknown, cancellationToken).ConfigureAwait(false);
            var refused = sold.Sum(one => one.Refused);
            if (audit == "pass" && unknown + refused > 0)
            {
                audit = string.Create(CultureInfo.InvariantCulture, $"fail: {unknown} without a verdict and {refused} refused, where there was plenty");
            }

            return new(
                sold.Sum(one => one.AcceptedPerSecond),
                $"{string.Join(" + ", sold.Select(one => Output.Show(one.AcceptedPerSecond)))} a second, p99 {string.Join(" / ", sold.Select(one => Output.Show(one.P99Ms)))} ms, {unknown} unknown, deadlocks on the server: {deadlocks}",
                audit);
        }
    }

    private static async Task<long> DeadlocksAsync(BenchDatabase database) =>
        (long)(await database.RunSqlAsync("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").ConfigureAwait(false))!;

    private static async Task<Sold[]> SellTogetherAsync(SellOrder[] orders, CancellationToken cancellationToken)
    {
        var sellers = new List<Process>();
        try
        {
            foreach (var order in orders)
            {
                sellers.Add(Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [SellCommand, JsonSerializer.Serialize(order)])
                {
                    UseShellExecute = false,
                    RedirectStandardInput = true,
                    RedirectStandardOutput = true,

                    // Compiled once more instead of twice: these live for seconds, and several of them share the processors.
                    Environment = { ["DOTNET_TieredPGO"] = "0" },
                })!);
            }

            foreach (var seller in sellers)
            {
                await LineAsync(seller, cancellationToken).ConfigureAwait(false);
            }

            // All are ready: now they begin together.
            foreach (var seller in sellers)
            {
                await seller.StandardInput.WriteLineAsync("go").ConfigureAwait(false);
                await seller.StandardInput.FlushAsync(cancellationToken).ConfigureAwait(false);
            }

            var sold = new List<Sold>();
            foreach (var seller in sellers)
            {
                sold.Add(JsonSerializer.Deserialize<Sold>(await LineAsync(seller, cancellationToken).ConfigureAwait(false))!);
                await seller.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
            }

            return [.. sold];
        }
        finally
        {
            foreach (var seller in sellers)
            {
                if (!seller.HasExited)
                {
                    seller.Kill();
                }

                seller.Dispose();
            }
        }
    }

    private static async Task<string> LineAsync(Process seller, CancellationToken cancellationToken) =>
        await seller.StandardOutput.ReadLineAsync(cancellationToken).AsTask().WaitAsync(TimeSpan.FromMinutes(2), cancellationToken).ConfigureAwait(false)
            ?? throw new InvalidOperationException($"The selling process {seller.Id} ended before it had said what it sold.");

    /// <summary>What a selling process says at its end.</summary>
    private sealed record Sold(double AcceptedPerSecond, long AllAccepted, long AllUnknown, long Refused, double P99Ms);
}

/// <summary>What a selling process is told.</summary>
internal sealed record SellOrder(string ConnectionString, string Schema, string Workload, string Run, int Process, int Callers, TimeSpan WarmUp, TimeSpan Duration);
