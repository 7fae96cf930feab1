using System.Globalization;

namespace Holdfast.TestServers;

/// <summary>A Redis Cluster of three masters on the loopback. Disposing kills and removes it.</summary>
public sealed class RedisCluster : IAsyncDisposable
{
    private const int Slots = 16_384;

    private RedisCluster(IReadOnlyList<RedisServer> nodes) => Nodes = nodes;

    /// <summary>Its nodes; each has a third of the slots.</summary>
    public IReadOnlyList<RedisServer> Nodes { get; }

    /// <summary>How a client connects: every node, with commas between.</summary>
    public string Configuration => string.Join(',', Nodes.Select(node => node.Configuration));

    /// <summary>Makes and starts the nodes, gives each a third of the slots, and waits until they agree.</summary>
    /// <param name="settings">Settings of each node, such as <c>appendfsync always</c>.</param>
    public static async Task<RedisCluster> StartAsync(params string[] settings)
    {
        var busPorts = new List<int>();
        var nodes = new List<RedisServer>();
        var cluster = new RedisCluster(nodes);
        try
        {
            for (var i = 0; i < 3; i++)
            {
                // The bus's port is the client's plus 10,000 by default, which need not be a port at all.
                busPorts.Add(RedisServer.FreePort());
                nodes.Add(await RedisServer.StartAsync(
                    ["cluster-enabled yes", Text($"cluster-port {busPorts[i]}"), "cluster-config-file nodes.conf", "cluster-node-timeout 2000", .. settings]));
            }

            for (var i = 0; i < 3; i++)
            {
                await ExpectAsync(nodes[i], "CLUSTER", "ADDSLOTSRANGE", Text($"{Slots * i / 3}"), Text($"{(Slots * (i + 1) / 3) - 1}"));
                await ExpectAsync(nodes[i], "CLUSTER", "SET-CONFIG-EPOCH", Text($"{i + 1}"));
            }

            foreach (var other in Enumerable.Range(1, 2))
            {
                await ExpectAsync(nodes[0], "CLUSTER", "MEET", "127.0.0.1", Text($"{nodes[other].Port}"), Text($"{busPorts[other]}"));
            }

            foreach (var node in nodes)
            {
                await RedisServer.UntilAsync(
                    async () => await node.CliAsync("CLUSTER", "INFO") is var info && info.Contains("cluster_state:ok", StringComparison.Ordinal)
                        && info.Contains("cluster_known_nodes:3", StringComparison.Ordinal) && info.Contains("cluster_size:3", StringComparison.Ordinal),
                    "the cluster's nodes agree");
            }

            return cluster;
        }
        catch
        {
            await cluster.DisposeAsync();
            throw;
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        foreach (var node in Nodes)
        {
            await node.DisposeAsync();
        }
    }

    private static async Task ExpectAsync(RedisServer node, params string[] command)
    {
        if (await node.CliAsync(command) is not "OK" and var answer)
        {
            throw new InvalidOperationException($"{string.Join(' ', command)} answered {answer}");
        }
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
