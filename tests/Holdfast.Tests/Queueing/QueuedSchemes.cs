using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.Queueing;

/// <summary>How the tests open the queued schemes: a store, a transport, and callers that wait for the verdict.</summary>
public static class QueuedSchemes
{
    public static async ValueTask<IStockEngine> OpenOnMemoryAsync(SchemeStart start)
    {
        var store = new MemoryEngine(start.Clock);
        return await StartAsync(store, new MemoryTransport(), new MemoryVerdicts(store));
    }

    public static async ValueTask<IStockEngine> OpenOnSqliteAsync(SchemeStart start)
    {
        var store = SqliteEngine.Open(new() { Path = Path.Combine(start.Folder, "stock.db"), Synchronous = SqliteSynchronous.Normal }, start.Clock);
        return await StartAsync(store, await store.OpenQueueAsync(), await store.OpenVerdictsAsync());
    }

    /// <summary>Starts a queue whose waits follow the real clock, and which takes an unknown target for unknown at once.</summary>
    private static ValueTask<IStockEngine> StartAsync(IStockEngine store, ICommandTransport transport, IVerdictStore verdicts)
    {
        var queue = new CommandQueue(store, transport, verdicts, new() { TargetPatience = TimeSpan.Zero });
        queue.Start();
        return new(new AwaitedVerdicts(queue));
    }
}
