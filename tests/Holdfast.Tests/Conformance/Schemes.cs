using Holdfast.Testing;
using Holdfast.Tests.Client;
using Holdfast.Tests.Gate;
using Holdfast.Tests.PostgreSql;
using Holdfast.Tests.Queueing;
using Holdfast.Tests.Redis;

namespace Holdfast.Tests.Conformance;

/// <summary>
/// Every scheme that the conformance cases, the differential test and the storms run over. To have a new scheme tested,
/// add a line to <see cref="All"/>: a name, and how to open an empty store of it.
/// </summary>
public static class Schemes
{
    /// <summary>Every scheme there is.</summary>
    public static IReadOnlyList<Scheme> All { get; } =
    [
        new("memory", start => new MemoryEngine(start.Clock)),
        new("memory-batched", start => new GroupCommit(new MemoryEngine(start.Clock))),

        // What the disk has got in the end is tested elsewhere, by killing; here a flush a command would only take time.
        new("database", start => Sqlite(start, SqliteTransactionScope.Command, SqliteSynchronous.Normal)),
        new("batched", start => new GroupCommit(Sqlite(start, SqliteTransactionScope.Call, SqliteSynchronous.Full))),
        new("http-memory", start => RunningServer.OpenClientAsync(start, new MemoryEngine(start.Clock))),
        new("http-batched", start => RunningServer.OpenClientAsync(start, new GroupCommit(Sqlite(start, SqliteTransactionScope.Call, SqliteSynchronous.Full)))),

        new("redis", async start => new GroupCommit(await SharedRedis.OpenAsync(start), new() { MaxConcurrentBatches = 8 })),
        new("redis-cluster", async start => new GroupCommit(await SharedRedis.OpenOnClusterAsync(start), new() { MaxConcurrentBatches = 8 })),
        new("cached", start => SharedGate.OpenAsync(start, new GroupCommit(Sqlite(start, SqliteTransactionScope.Call, SqliteSynchronous.Full)))) { IsSlowToOpen = true },

        new("database-precheck", start => SharedGate.OpenAsync(start, Sqlite(start, SqliteTransactionScope.Command, SqliteSynchronous.Normal))) { IsSlowToOpen = true },
        new("cached-gate", start => SharedGate.OpenSettledAsync(start, new GroupCommit(Sqlite(start, SqliteTransactionScope.Call, SqliteSynchronous.Full)))),
        new("postgres-cached-gate", async start => await SharedGate.OpenAsync(start, new GroupCommit(await PostgreSqlEngine.OpenAsync((await SharedPostgreSql.NewStoreAsync(start)) with { TestClock = null })), GateAcknowledgement.Gate)) { FollowsRealClock = true, IsSlowToOpen = true },
        new("sharded-memory", start => ShardedAsync(4, _ => new(new GroupCommit(new MemoryEngine(start.Clock))))),
        new("sharded-sqlite", start => ShardedAsync(3, shard => new(new GroupCommit(Sqlite(start, SqliteTransactionScope.Call, SqliteSynchronous.Normal, $"shard-{shard}.db"))))),
        new("sharded-postgres", start => ShardedAsync(4, async shard => new GroupCommit(await SharedPostgreSql.OpenAsync(start, PostgreSqlTransactions.Call, shard)))) { IsSlowToOpen = true, IsSlow = true },
        new("sharded-redis-cluster", start => ShardedAsync(3, async _ => new GroupCommit(await SharedRedis.OpenOnClusterAsync(start), new() { MaxConcurrentBatches = 8 }))) { IsSlowToOpen = true },
        .. QueuedSchemes.Transports.Keys.Select(QueuedSchemes.Awaited),

        new("postgres-batched", async start => new GroupCommit(await SharedPostgreSql.OpenAsync(start, PostgreSqlTransactions.Call), new() { MaxConcurrentBatches = 2 })),

        new("postgres-database", start => SharedPostgreSql.OpenAsync(start, PostgreSqlTransactions.Command)) { IsSlowToOpen = true },
        new("postgres-database-version", start => SharedPostgreSql.OpenAsync(start, PostgreSqlTransactions.Version)) { IsSlowToOpen = true },
        new("postgres-replica", SharedPostgreSql.OpenReplicaAsync) { IsSlowToOpen = true },
    ];

    /// <summary>Each scheme's name, for theories.</summary>
    public static TheoryData<string> Names => [.. All.Select(scheme => scheme.Name)];

    /// <summary>
    /// Each scheme's name with each case's name, for theories; without the schemes whose stores take long to open: they meet every case
    /// on one shared store.
    /// </summary>
    public static TheoryData<string, string> TimesCases
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (var scheme in All.Where(scheme => !scheme.IsSlowToOpen))
            {
                foreach (var each in ConformanceCases.All)
                {
                    data.Add(scheme.Name, each.Name);
                }
            }

            return data;
        }
    }

    private static async ValueTask<IStockEngine> ShardedAsync(int count, Func<int, ValueTask<IStockEngine>> open)
    {
        var shards = new IStockEngine[count];
        for (var shard = 0; shard < count; shard++)
        {
            shards[shard] = await open(shard);
        }

        return new Sharding(shards);
    }

    private static SqliteEngine Sqlite(SchemeStart start, SqliteTransactionScope transactionPer, SqliteSynchronous synchronous, string file = "stock.db") =>
        SqliteEngine.Open(new() { Path = Path.Combine(start.Folder, file), TransactionPer = transactionPer, Synchronous = synchronous }, start.Clock);

    public static Scheme Find(string name) => All.Single(scheme => scheme.Name == name);
}

/// <summary>A scheme, and how to open an empty store of it.</summary>
public sealed class Scheme
{
    private readonly Func<SchemeStart, ValueTask<IStockEngine>> _open;

    public Scheme(string name, Func<SchemeStart, IStockEngine> open)
        : this(name, start => new ValueTask<IStockEngine>(open(start)))
    {
    }

    public Scheme(string name, Func<SchemeStart, ValueTask<IStockEngine>> open)
    {
        Name = name;
        _open = open;
    }

    public string Name { get; }

    /// <summary>Whether the store can't be given a clock; then cases that let time pass really wait.</summary>
    public bool FollowsRealClock { get; init; }

    /// <summary>Whether opening a store takes so long that a store a case would be most of the whole run.</summary>
    public bool IsSlowToOpen { get; init; }

    /// <summary>Whether a command takes so long that random ones are tried half as many.</summary>
    public bool IsSlow { get; init; }

    /// <summary>Opens an empty store; disposing it removes everything.</summary>
    public async Task<OpenScheme> OpenAsync()
    {
        var start = new SchemeStart(new());
        return new(await _open(start), FollowsRealClock ? null : start.Clock, start);
    }

    /// <summary>Opens an empty store that follows a given clock; disposing the engine removes everything.</summary>
    public async Task<IStockEngine> OpenEngineAsync(ManualTimeProvider clock)
    {
        var start = new SchemeStart(clock);
        return new OwningEngine(await _open(start), start);
    }

    private sealed class OwningEngine(IStockEngine inner, SchemeStart start) : DelegatingStockEngine(inner)
    {
        public override async ValueTask DisposeAsync()
        {
            await base.DisposeAsync();
            await start.DisposeAsync();
        }
    }
}

/// <summary>What a scheme may use to open its store.</summary>
public sealed class SchemeStart(ManualTimeProvider clock) : IAsyncDisposable
{
    private readonly Stack<IAsyncDisposable> _owned = new();
    private string? _folder;

    /// <summary>The clock that the store is to follow.</summary>
    public ManualTimeProvider Clock { get; } = clock;

    /// <summary>An empty folder of this store's own; made when asked for, removed at the end.</summary>
    public string Folder => _folder ??= Directory.CreateTempSubdirectory("holdfast-test-").FullName;

    /// <summary>Something to dispose after the engine, the latest first.</summary>
    public void Own(IAsyncDisposable resource) => _owned.Push(resource);

    public async ValueTask DisposeAsync()
    {
        while (_owned.TryPop(out var resource))
        {
            await resource.DisposeAsync();
        }

        if (_folder is not null)
        {
            Directory.Delete(_folder, recursive: true);
        }
    }
}

/// <summary>An open store of a scheme.</summary>
/// <param name="Engine">The engine.</param>
/// <param name="Clock">The clock that it follows, or <see langword="null"/> when it is a real one.</param>
/// <param name="Start">What the store uses.</param>
public sealed record OpenScheme(IStockEngine Engine, ManualTimeProvider? Clock, SchemeStart Start) : IAsyncDisposable
{
    public async ValueTask DisposeAsync()
    {
        await Engine.DisposeAsync();
        await Start.DisposeAsync();
    }
}
