using System.Globalization;
using System.Text.Json;
using Holdfast.Cli;
using Holdfast.Hosting;
using Holdfast.Ladder.Rungs;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// A month of a real shop's orders, one after the other, through every scheme: whatever stands behind the interface, the same
/// orders must come to the same figures and the same stock. Behind a gate the copies must equal the store afterwards.
/// </summary>
internal static class ReplaysRun
{
    private static readonly string[] s_openings = ["demand", "50"];

    /// <summary>What has to be the same everywhere.</summary>
    private static readonly string[] s_figures =
    [
        "ordersApplied", "ordersRefused", "adjustmentsApplied", "adjustmentsRefused", "refunds", "unitsDeducted", "unitsRefunded", "unitsUnmatched", "unitsWrittenOff", "unitsOpened", "unitsLeft", "skus", "stockSha256",
    ];

    public static async Task<bool> RunAsync(string file, string? only, Output output, CancellationToken cancellationToken)
    {
        var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
        await using var disposing = database.ConfigureAwait(false);
        output.Heading(
            $"replays: {Path.GetFileName(file)} through every scheme, sequentially",
            "each on an empty store; Redis: appendfsync everysec; SQLite: synchronous=FULL; figures and stock must be those of the scheme memory, audits must pass",
            database.Description);
        output.Line($"{"scheme",-32}{"opening",-10}{"applied",9}{"refused",9}{"refunds",9}{"units left",12}{"seconds",10}  stock's SHA-256, audit");
        var expected = new Dictionary<string, string>(StringComparer.Ordinal);
        var reports = new List<object>();
        var isGood = true;
        foreach (var place in Places(database).Where(place => place.Name == "memory" || only is null || place.Name.Contains(only, StringComparison.Ordinal)))
        {
            foreach (var opening in s_openings)
            {
                var (line, verdict, report) = await ReplayAsync(file, place, opening, expected, cancellationToken).ConfigureAwait(false);
                isGood &= verdict == "pass";
                output.Line($"{place.Name,-32}{opening,-10}{line}, {verdict}");
                reports.Add(new { scheme = place.Name, opening, verdict, report });
            }
        }

        output.Line();
        output.Line(isGood ? "all the same" : "NOT all the same");
        await output.FinishAsync(new { run = "replays", passed = isGood, replays = reports }).ConfigureAwait(false);
        return isGood;
    }

    private static IEnumerable<Place> Places(BenchDatabase database)
    {
        yield return new("memory", "memory", NoStore);
        foreach (var scheme in (string[])["database", "batched"])
        {
            yield return new($"{scheme} on SQLite", scheme, SqliteAsync);
        }

        foreach (var scheme in (string[])["database", "database-version", "batched"])
        {
            yield return new($"{scheme} on PostgreSQL", scheme, run => PostgreSqlAsync(database, run));
        }

        yield return new("redis", "redis", async run => $"redis:{(await RedisAsync(run).ConfigureAwait(false)).Configuration}");
        yield return new("redis on a cluster", "redis", async run => $"redis:{(await run.OwnAsync(RedisCluster.StartAsync()).ConfigureAwait(false)).Configuration}");
        yield return new("cached on SQLite", "cached", SqliteAsync, IsGated: true);
        yield return new("cached on PostgreSQL", "cached", run => PostgreSqlAsync(database, run), IsGated: true);
        yield return new("cached after the gate, SQLite", "cached", SqliteAsync, IsGated: true, Options: ["--acknowledge", "Gate"]);
        yield return new("cached after the gate, PgSQL", "cached", run => PostgreSqlAsync(database, run), IsGated: true, Options: ["--acknowledge", "Gate"]);
        yield return new("sharded, 4 SQLite files", "sharded", ShardsAsync);
        yield return new("database, pre-check by Redis", "database", run => PostgreSqlAsync(database, run), IsGated: true, Options: ["--precheck", "redis"]);
    }

    private static Task<string?> NoStore(Run run) => Task.FromResult<string?>(null);

    private static Task<string?> SqliteAsync(Run run) => Task.FromResult<string?>($"sqlite:{run.File("stock.db")}");

    private static Task<string?> ShardsAsync(Run run) => Task.FromResult<string?>(string.Join(" | ", Enumerable.Range(0, 4).Select(shard => $"sqlite:{run.File($"shard-{shard}.db")}")));

    private static async Task<string?> PostgreSqlAsync(BenchDatabase database, Run run)
    {
        var name = $"replay_{Guid.NewGuid():N}";
        await database.RunSqlAsync($"CREATE DATABASE {name}").ConfigureAwait(false);
        run.Own(new Dropped(database, name));
        return $"postgres:{database.ConnectionString};Database={name}";
    }

    private static Task<RedisServer> RedisAsync(Run run) => run.OwnAsync(RedisServer.StartAsync());

    private static async Task<(string Line, string Verdict, JsonElement Report)> ReplayAsync(string file, Place place, string opening, Dictionary<string, string> expected, CancellationToken cancellationToken)
    {
        var run = new Run();
        await using var disposing = run.ConfigureAwait(false);
        var store = await place.OpenAsync(run).ConfigureAwait(false);
        var redis = place.IsGated ? await RedisAsync(run).ConfigureAwait(false) : null;
        string[] arguments =
        [
            "replay", file, "--scheme", place.Scheme, "--opening", opening, "--json", .. store is null ? [] : (string[])["--store", store], .. redis is null ? [] : (string[])["--gate", redis.Configuration], .. place.Options ?? [],
        ];
        var said = new StringWriter(CultureInfo.InvariantCulture);
        var complaints = new StringWriter(CultureInfo.InvariantCulture);
        if (await CommandLineApp.RunAsync(arguments, new(said, complaints, isInteractive: false), cancellationToken).ConfigureAwait(false) != ExitCode.Success)
        {
            throw new InvalidOperationException($"The replay through {place.Name} failed: {complaints}");
        }

        using var document = JsonDocument.Parse(said.ToString());
        var report = document.RootElement.Clone();
        var figures = string.Join(", ", s_figures.Select(name => $"{name} {report.GetProperty(name)}"));
        var verdict = report.GetProperty("audit").GetString()!;
        if (!expected.TryAdd(opening, figures) && expected[opening] != figures)
        {
            verdict = $"fail: {figures} instead of {expected[opening]}";
        }

        if (verdict == "pass" && redis is not null)
        {
            verdict = await CompareAsync(place, store!, redis, cancellationToken).ConfigureAwait(false);
        }

        return (
            string.Create(
                CultureInfo.InvariantCulture,
                $"{report.GetProperty("ordersApplied"),9}{report.GetProperty("ordersRefused"),9}{report.GetProperty("refunds"),9}{report.GetProperty("unitsLeft"),12}{report.GetProperty("seconds").GetDouble(),10:0.00}  {report.GetProperty("stockSha256").GetString()![..12]}…"),
            verdict,
            report);
    }

    /// <summary>The gate's copies of every SKU against the store, once the ledger was followed to its end.</summary>
    private static async Task<string> CompareAsync(Place place, string store, RedisServer redis, CancellationToken cancellationToken)
    {
        var opened = await SchemeCatalog.OpenAsync("cached", store, new() { Gate = { Redis = redis.Configuration, Acknowledge = place.Options?.Contains("Gate") == true ? GateAcknowledgement.Gate : GateAcknowledgement.Store } }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposing = opened.ConfigureAwait(false);
        var gate = (RedisGate)((DelegatingStockEngine)opened.Engine).Inner;
        var reconciler = await gate.OpenReconcilerAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingToo = reconciler.ConfigureAwait(false);
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var comparison = await reconciler.RunAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
            if (comparison is { IsClean: true, Lagging: 0, Unloaded: 0, Backlog: 0 } && comparison.Same == comparison.Skus)
            {
                return "pass";
            }

            if (TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromMinutes(1))
            {
                return string.Create(CultureInfo.InvariantCulture, $"fail: of {comparison.Skus} SKUs {comparison.Same} are the same, {comparison.Lagging} lag, {comparison.Unloaded} are not loaded, {comparison.Differing} differ");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }
    }

    private sealed record Place(string Name, string Scheme, Func<Run, Task<string?>> OpenAsync, bool IsGated = false, string[]? Options = null);

    /// <summary>What one replay uses, removed after it.</summary>
    private sealed class Run : IAsyncDisposable
    {
        private readonly Scratch _scratch = new();
        private readonly Stack<IAsyncDisposable> _owned = new();

        public string File(string name) => _scratch.File(name);

        public void Own(IAsyncDisposable resource) => _owned.Push(resource);

        public async Task<T> OwnAsync<T>(Task<T> starting)
            where T : IAsyncDisposable
        {
            var resource = await starting.ConfigureAwait(false);
            _owned.Push(resource);
            return resource;
        }

        public async ValueTask DisposeAsync()
        {
            while (_owned.TryPop(out var resource))
            {
                await resource.DisposeAsync().ConfigureAwait(false);
            }

            _scratch.Dispose();
        }
    }

    private sealed class Dropped(BenchDatabase database, string name) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync() => await database.RunSqlAsync($"DROP DATABASE {name} WITH (FORCE)").ConfigureAwait(false);
    }
}
