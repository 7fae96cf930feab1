using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.PostgreSql;

namespace Holdfast.Tests.Queueing;

/// <summary>How the tests open the queued schemes: a store, a transport, and callers that wait for the verdict.</summary>
public static class QueuedSchemes
{
    /// <summary>The transports, and how to open an empty store and queue on each.</summary>
    public static IReadOnlyDictionary<string, Func<SchemeStart, int, Task<QueueParts>>> Transports { get; } = new Dictionary<string, Func<SchemeStart, int, Task<QueueParts>>>(StringComparer.Ordinal)
    {
        ["memory"] = OnMemoryAsync,
        ["sqlite"] = OnSqliteAsync,
        ["postgres"] = OnPostgreSqlAsync,
        ["rabbitmq"] = OnRabbitMqAsync,
    };

    /// <summary>Each transport's name, for theories.</summary>
    public static TheoryData<string> Names => [.. Transports.Keys];

    /// <summary>A scheme whose callers wait for the verdict. Its waits follow the real clock, and it takes an unknown target for unknown at once.</summary>
    public static Scheme Awaited(string transport) => new($"queued-{transport}", async start =>
    {
        // One queue keeps the order of a batch, which the cases send as a whole; with several each command waits for the one before.
        var parts = await Transports[transport](start, transport == "memory" ? 4 : 1);
        var queue = parts.Open(new() { TargetPatience = TimeSpan.Zero });
        queue.Start();
        return new AwaitedVerdicts(queue);
    })
    {
        IsSlowToOpen = transport == "postgres",
    };

    private static Task<QueueParts> OnMemoryAsync(SchemeStart start, int queues)
    {
        var store = new MemoryEngine(start.Clock);
        return Task.FromResult(new QueueParts(store, new MemoryTransport(queues), new MemoryVerdicts(store)));
    }

    private static async Task<QueueParts> OnSqliteAsync(SchemeStart start, int queues)
    {
        var store = OpenSqlite(start);
        return new(store, await store.OpenQueueAsync(queues), await store.OpenVerdictsAsync());
    }

    private static async Task<QueueParts> OnPostgreSqlAsync(SchemeStart start, int queues)
    {
        var store = await PostgreSqlEngine.OpenAsync(await SharedPostgreSql.NewStoreAsync(start));
        return new(store, await store.OpenQueueAsync(queues), await store.OpenVerdictsAsync());
    }

    private static async Task<QueueParts> OnRabbitMqAsync(SchemeStart start, int queues)
    {
        var store = OpenSqlite(start);
        return new(store, await SharedRabbitMq.BorrowAsync(queues), await store.OpenVerdictsAsync());
    }

    private static SqliteEngine OpenSqlite(SchemeStart start) =>
        SqliteEngine.Open(new() { Path = Path.Combine(start.Folder, "stock.db"), Synchronous = SqliteSynchronous.Normal }, start.Clock);
}

/// <summary>What a queue is made of.</summary>
/// <param name="Store">The engine that decides.</param>
/// <param name="Transport">The queue.</param>
/// <param name="Verdicts">Where verdicts are kept.</param>
public sealed record QueueParts(IStockEngine Store, ICommandTransport Transport, IVerdictStore Verdicts)
{
    /// <summary>Puts the queue in front of the store, or of something around the store.</summary>
    public CommandQueue Open(CommandQueueOptions? options = null, IStockEngine? decider = null, ICommandTransport? transport = null) =>
        new(Store, transport ?? Transport, Verdicts, options, decider);
}
