using System.Globalization;
using Holdfast.Cli.Bench;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Rungs;

/// <summary>Pure Redis against scripts written by hand, each side on a new server with the same settings.</summary>
internal static class RedisRungs
{
    private const string AppendFsync = "everysec";
    private const int ReadSkus = 100_000;
    private const double LeastReads = 100_000;

    /// <summary>Against a script that writes the same.</summary>
    public static Rung Same(RungOptions options) => new()
    {
        Name = "redis",
        Question = "redis under group commit against redis-benchmark with a one-deduction script that writes the same, one hot SKU",
        SubjectName = "redis",
        BaselineName = "script a call",
        Bound = 1.5,
        Settings = [$"{options.Describe()}; one run of redis before them does not count, until the runtime has compiled what it needs", $"both: a new redis-server each, appendonly yes, appendfsync {AppendFsync}", $"{RedisBenchmark.Settings}; the script: duplicate marker, stock check, balance, version, ledger entry with balance and time"],
        Prepare = cancellationToken => EngineAsync(options, cancellationToken),
        Subject = cancellationToken => EngineAsync(options, cancellationToken),
        Baseline = cancellationToken => RedisBenchmark.DeductAsync(isMinimal: false, AppendFsync, options.Load, cancellationToken),
    };

    /// <summary>Against the least that a deduction can be; reported, not held to a bound.</summary>
    public static Rung Minimal(RungOptions options) => Same(options) with
    {
        Name = "redis-minimal",
        Question = "redis under group commit against redis-benchmark with a script of duplicate marker and counter only (no version, no ledger), one hot SKU",
        BaselineName = "minimal script",
        Bound = 0,
        Settings = [options.Describe(), $"both: a new redis-server each, appendonly yes, appendfsync {AppendFsync}", RedisBenchmark.Settings],
        Baseline = cancellationToken => RedisBenchmark.DeductAsync(isMinimal: true, AppendFsync, options.Load, cancellationToken),
    };

    /// <summary>Reads of one SKU each, as product pages make them.</summary>
    public static Rung Reads(RungOptions options) => new()
    {
        Name = "redis-reads",
        Question = string.Create(CultureInfo.InvariantCulture, $"GetStock of one SKU a call over {ReadSkus:#,##0} SKUs against redis-benchmark with HGET of one row a call"),
        SubjectName = "GetStock",
        BaselineName = "HGET",
        Bound = 0,
        Least = LeastReads,
        Settings = [options.Describe(), "each answer is checked against the number of units that its SKU has", "reads that wait at one moment go together; equal SKUs are not merged; nothing is cached", RedisBenchmark.Settings.Replace(", ids from a range of 10^9", "", StringComparison.Ordinal)],
        Prepare = cancellationToken => ReadsAsync(options, cancellationToken),
        Subject = cancellationToken => ReadsAsync(options, cancellationToken),
        Baseline = cancellationToken => HashReadsAsync(options, cancellationToken),
    };

    private static async Task<Measured> EngineAsync(RungOptions options, CancellationToken cancellationToken)
    {
        var server = await RedisServer.StartAsync($"appendfsync {AppendFsync}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var store = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: cancellationToken).ConfigureAwait(false);
            var engine = new StockEngineBuilder(store).UseGroupCommit(new() { MaxConcurrentBatches = 8 }).Build();
            await using (engine.ConfigureAwait(false))
            {
                var before = await MemoryAsync(server).ConfigureAwait(false);
                var measured = await EngineMeasure.RunAsync(engine, "hot", options, cancellationToken).ConfigureAwait(false);
                var operations = double.Parse(await server.CliAsync("HLEN", "{holdfast}:op").ConfigureAwait(false), CultureInfo.InvariantCulture);
                var each = (await MemoryAsync(server).ConfigureAwait(false) - before) / operations;
                return measured with { Detail = string.Create(CultureInfo.InvariantCulture, $"{measured.Detail}, {each:0} bytes of Redis's memory a deduction") };
            }
        }
    }

    private static async Task<Measured> ReadsAsync(RungOptions options, CancellationToken cancellationToken)
    {
        var server = await RedisServer.StartAsync($"appendfsync {AppendFsync}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var engine = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (engine.ConfigureAwait(false))
            {
                var skus = await StockAsync(engine, cancellationToken).ConfigureAwait(false);
                var result = await LoadGenerator.RunAsync(
                    options.Load,
                    caller =>
                    {
                        var random = new Random(caller);
                        return async () =>
                        {
                            var number = random.Next(skus.Length);
                            var level = (await engine.GetStockAsync([skus[number]], cancellationToken: CancellationToken.None).ConfigureAwait(false))[0];
                            return level.Available == number + 1 && level.Sku == skus[number]
                                ? LoadAnswer.Accepted
                                : throw new InvalidOperationException($"{skus[number]} has {number + 1} units; the answer was {level}.");
                        };
                    },
                    TimeProvider.System,
                    cancellationToken: cancellationToken).ConfigureAwait(false);
                var audit = await LoadAudit.LedgerAsync(options.Terminal, engine, cancellationToken).ConfigureAwait(false);
                return EngineMeasure.Describe(result, audit);
            }
        }
    }

    private static async Task<Measured> HashReadsAsync(RungOptions options, CancellationToken cancellationToken)
    {
        var server = await RedisServer.StartAsync($"appendfsync {AppendFsync}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var engine = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (engine.ConfigureAwait(false))
            {
                await StockAsync(engine, cancellationToken).ConfigureAwait(false);
                return await RedisBenchmark.ReadAsync(server, "{holdfast}:stock", options.Load, ReadSkus, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>SKUs as redis-benchmark writes its numbers; the n-th has n units.</summary>
    private static async Task<string[]> StockAsync(IStockEngine engine, CancellationToken cancellationToken)
    {
        string[] skus = [.. Enumerable.Range(0, ReadSkus).Select(i => string.Create(CultureInfo.InvariantCulture, $"sku-{i:d12}"))];
        foreach (var some in skus.Select((sku, i) => new StockLine(sku, i + 1)).Chunk(StockLimits.MaxLines))
        {
            var result = await engine.RestockAsync($"opening-{some[0].Sku}", some, cancellationToken: cancellationToken).ConfigureAwait(false);
            if (result.Status != StockStatus.Done)
            {
                throw new InvalidOperationException($"The opening was answered {result}.");
            }
        }

        return skus;
    }

    private static async Task<double> MemoryAsync(RedisServer server)
    {
        var line = (await server.CliAsync("INFO", "memory").ConfigureAwait(false)).Split('\n').First(line => line.StartsWith("used_memory:", StringComparison.Ordinal));
        return double.Parse(line["used_memory:".Length..], CultureInfo.InvariantCulture);
    }
}
