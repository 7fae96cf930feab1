using System.Globalization;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.Redis;

[assembly: AssemblyFixture(typeof(SharedRedis.Lifetime))]

namespace Holdfast.Tests.Redis;

/// <summary>One server, and one cluster, for the whole test run, each started by the first test that needs it; each store has a name of its own.</summary>
public static class SharedRedis
{
    private static readonly Lock s_lock = new();
    private static Task<RedisServer>? s_server;
    private static Task<RedisCluster>? s_cluster;
    private static int s_stores;

    /// <summary>Opens an empty store on the one server.</summary>
    public static async ValueTask<IStockEngine> OpenAsync(SchemeStart start)
    {
        Task<RedisServer> server;
        lock (s_lock)
        {
            server = s_server ??= RedisServer.StartAsync();
        }

        return await OpenAsync(start, (await server).Configuration, [await server]);
    }

    /// <summary>Opens an empty store on the cluster; different stores lie on different nodes.</summary>
    public static async ValueTask<IStockEngine> OpenOnClusterAsync(SchemeStart start)
    {
        Task<RedisCluster> cluster;
        lock (s_lock)
        {
            cluster = s_cluster ??= RedisCluster.StartAsync();
        }

        return await OpenAsync(start, (await cluster).Configuration, (await cluster).Nodes);
    }

    private static async Task<IStockEngine> OpenAsync(SchemeStart start, string configuration, IReadOnlyList<RedisServer> nodes)
    {
        var name = string.Create(CultureInfo.InvariantCulture, $"t{Interlocked.Increment(ref s_stores)}");
        start.Own(new RemovedStore(name, nodes));
        return await RedisEngine.OpenAsync(new() { Configuration = configuration, Name = name, CallTimeout = TimeSpan.FromSeconds(30), TestClock = start.Clock });
    }

    /// <summary>Ends the servers with the test run.</summary>
    public sealed class Lifetime : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            if (s_server is not null)
            {
                await (await s_server).DisposeAsync();
            }

            if (s_cluster is not null)
            {
                await (await s_cluster).DisposeAsync();
            }
        }
    }

    /// <summary>Removes a store's keys from whichever node has them.</summary>
    private sealed class RemovedStore(string name, IReadOnlyList<RedisServer> nodes) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            foreach (var node in nodes)
            {
                await node.CliAsync("EVAL", "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end", "1", $"{{{name}}}:meta", $"{{{name}}}:*");
            }
        }
    }
}
