using System.Globalization;
using Holdfast.Cli;
using Holdfast.Cli.Bench;
using Holdfast.Client;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Rungs;

/// <summary>The gate in front of PostgreSQL against PostgreSQL alone.</summary>
internal static class GateRungs
{
    private const long Plenty = 1_000_000_000_000;
    private const int ReadSkus = 100_000;

    public static Rung SoldOut(RungOptions options, BenchDatabase database) => new()
    {
        Name = "gate-soldout",
        Question = "refusals of one sold-out SKU through the HTTP client's batches: cached against batched",
        SubjectName = "cached",
        BaselineName = "batched",
        Bound = 3,
        Settings = Settings(options, database),
        Subject = cancellationToken => OverHttpAsync(database, isGated: true, units: 0, options, cancellationToken),
        Baseline = cancellationToken => OverHttpAsync(database, isGated: false, units: 0, options, cancellationToken),
    };

    /// <summary>How much faster than <c>batched</c> any scheme could refuse over HTTP: one that looks into a table in the server's memory.</summary>
    public static Rung SoldOutCeiling(RungOptions options, BenchDatabase database) => new()
    {
        Name = "gate-soldout-ceiling",
        Question = "refusals of one sold-out SKU through the HTTP client's batches: a server that only looks into its memory against batched",
        SubjectName = "memory",
        BaselineName = "batched",
        Bound = 1,
        Settings = Settings(options, database),
        Subject = cancellationToken => FromMemoryAsync(options, cancellationToken),
        Baseline = cancellationToken => OverHttpAsync(database, isGated: false, units: 0, options, cancellationToken),
    };

    public static Rung Ample(RungOptions options, BenchDatabase database) => new()
    {
        Name = "gate-ample",
        Question = "accepted deductions of one SKU through the HTTP client's batches: cached against batched",
        SubjectName = "cached",
        BaselineName = "batched",
        Bound = 0.5,
        Settings = Settings(options, database),
        Subject = cancellationToken => OverHttpAsync(database, isGated: true, Plenty, options, cancellationToken),
        Baseline = cancellationToken => OverHttpAsync(database, isGated: false, Plenty, options, cancellationToken),
    };

    public static Rung AmpleAfterGate(RungOptions options, BenchDatabase database) => new()
    {
        Name = "gate-ample-gate",
        Question = "accepted deductions of one SKU through the HTTP client's batches: cached, acknowledging after the gate, against batched",
        SubjectName = "cached after the gate",
        BaselineName = "batched",
        Bound = 0,
        Settings = Settings(options, database),
        Subject = cancellationToken => OverHttpAsync(database, isGated: true, Plenty, options, cancellationToken, GateAcknowledgement.Gate),
        Baseline = cancellationToken => OverHttpAsync(database, isGated: false, Plenty, options, cancellationToken),
    };

    public static Rung Reads(RungOptions options, BenchDatabase database) => new()
    {
        Name = "gate-reads",
        Question = string.Create(CultureInfo.InvariantCulture, $"GetStock of one SKU a call over {ReadSkus:#,##0} SKUs, in process: from Redis against from PostgreSQL"),
        SubjectName = "through Redis",
        BaselineName = "PostgreSQL",
        Bound = 1,
        Settings = [options.Describe(), "equal SKUs are not merged; through Redis: MaxStaleness 10 s", database.Description],
        Subject = cancellationToken => ReadsAsync(database, TimeSpan.FromSeconds(10), options, cancellationToken),
        Baseline = cancellationToken => ReadsAsync(database, TimeSpan.Zero, options, cancellationToken),
    };

    private static string[] Settings(RungOptions options, BenchDatabase database) =>
    [
        options.Describe(),
        "server: its own process; client: Holdfast.Client in this process; Redis: one server, appendfsync everysec, all on the same machine",
        database.Description,
    ];

    private static async Task<Measured> OverHttpAsync(BenchDatabase database, bool isGated, long units, RungOptions options, CancellationToken cancellationToken, GateAcknowledgement acknowledge = GateAcknowledgement.Store)
    {
        var store = $"postgres:{database.ConnectionString}";
        var workload = Workload.Of("hot", RunName.New(TimeProvider.System), seed: 1);
        var redis = await RedisServer.StartAsync().ConfigureAwait(false);
        await using var disposing = redis.ConfigureAwait(false);
        var server = await (isGated ? ServerProcess.StartGatedAsync(store, redis.Configuration, acknowledge) : ServerProcess.StartAsync("batched", store)).ConfigureAwait(false);
        await using var disposingToo = server.ConfigureAwait(false);
        var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingThree = client.ConfigureAwait(false);
        await EngineLoad.OpenAsync(client, workload, units, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        if (isGated)
        {
            await UntilSureAsync(redis, cancellationToken).ConfigureAwait(false);
        }

        var before = await WorkAsync(database).ConfigureAwait(false);
        var result = await LoadGenerator.RunAsync(options.Load, EngineLoad.Callers(client, workload), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
        var after = await WorkAsync(database).ConfigureAwait(false);
        await server.StopAsync().ConfigureAwait(false);
        var seconds = (options.Load.Duration + options.Load.WarmUp).TotalSeconds;
        var opened = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = database.ConnectionString, ReadOnly = true }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingFour = opened.ConfigureAwait(false);
        var audit = await LoadAudit.RunAsync(options.Terminal, opened, workload, result, cancellationToken).ConfigureAwait(false);
        if (audit == "pass" && (result.AllUnknown > 0 || (units == 0 ? result.Accepted : result.Refused) > 0))
        {
            audit = string.Create(CultureInfo.InvariantCulture, $"fail: {result.Accepted} accepted, {result.Refused} refused and {result.AllUnknown} without a verdict of {units} units");
        }

        return new(
            units == 0 ? result.RefusedPerSecond : result.AcceptedPerSecond,
            string.Create(CultureInfo.InvariantCulture, $"p50 {result.Latency.Percentile(0.5).TotalMilliseconds:0.00} ms, p99 {result.Latency.Percentile(0.99).TotalMilliseconds:0.00} ms; PostgreSQL: {(after - before) / seconds:0} transactions/s"),
            audit);
    }

    private static async Task<Measured> FromMemoryAsync(RungOptions options, CancellationToken cancellationToken)
    {
        var workload = Workload.Of("hot", RunName.New(TimeProvider.System), seed: 1);
        var server = await ServerProcess.StartAsync("memory", "memory").ConfigureAwait(false);
        await using var disposing = server.ConfigureAwait(false);
        var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingToo = client.ConfigureAwait(false);
        await EngineLoad.OpenAsync(client, workload, 0, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        var result = await LoadGenerator.RunAsync(options.Load, EngineLoad.Callers(client, workload), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
        var audit = await LoadAudit.RunAsync(options.Terminal, client, workload, result, cancellationToken).ConfigureAwait(false);
        return EngineMeasure.Describe(result, audit) with { PerSecond = result.RefusedPerSecond };
    }

    private static async Task<long> WorkAsync(BenchDatabase database) =>
        (long)(await database.RunSqlAsync("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()").ConfigureAwait(false))!;

    /// <summary>Waits until the gate has loaded its stock and ids, and relies on every process.</summary>
    private static async Task UntilSureAsync(RedisServer redis, CancellationToken cancellationToken)
    {
        while ((await redis.CliAsync("HMGET", "{holdfast}:gate", "ids", "sure").ConfigureAwait(false)).Split('\n', StringSplitOptions.TrimEntries) is not ["1", { Length: > 1 }])
        {
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task<Measured> ReadsAsync(BenchDatabase database, TimeSpan maxStaleness, RungOptions options, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using var disposing = store.ConfigureAwait(false);
        string[] skus = [.. Enumerable.Range(0, ReadSkus).Select(i => string.Create(CultureInfo.InvariantCulture, $"sku-{i:d6}"))];
        foreach (var (lines, i) in skus.Chunk(4_000).Select((chunk, i) => (chunk.Select(sku => new StockLine(sku, 5)).ToArray(), i)))
        {
            await store.Engine.RestockAsync(string.Create(CultureInfo.InvariantCulture, $"opening-{i}"), lines, cancellationToken: cancellationToken).ConfigureAwait(false);
        }

        var redis = await RedisServer.StartAsync().ConfigureAwait(false);
        await using var disposingToo = redis.ConfigureAwait(false);
        IStockEngine engine = store.Engine;
        RedisGate? gate = null;
        if (maxStaleness > TimeSpan.Zero)
        {
            engine = gate = await RedisGate.OpenAsync(new KeptOpen(store.Engine), new() { Redis = redis.Configuration }, cancellationToken: cancellationToken).ConfigureAwait(false);
            while (!gate.IsSure)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            }
        }

        var reading = new ReadOptions { MaxStaleness = maxStaleness };
        var result = await LoadGenerator.RunAsync(
            options.Load,
            number =>
            {
                var random = new Random(number);
                return async () => (await engine.GetStockAsync([skus[random.Next(ReadSkus)]], reading, cancellationToken).ConfigureAwait(false))[0].Available == 5 ? LoadAnswer.Accepted : LoadAnswer.Refused;
            },
            TimeProvider.System,
            cancellationToken: cancellationToken).ConfigureAwait(false);
        if (gate is not null)
        {
            await gate.DisposeAsync().ConfigureAwait(false);
        }

        return EngineMeasure.Describe(result, result.Refused == 0 ? "pass" : "fail: a read was wrong");
    }

    /// <summary>The store outlives the gate in front of it.</summary>
    internal sealed class KeptOpen(IStockEngine inner) : DelegatingStockEngine(inner)
    {
#pragma warning disable CA2215 // That is what it is for.
        public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
#pragma warning restore CA2215
    }
}
