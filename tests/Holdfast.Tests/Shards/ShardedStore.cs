using System.Globalization;
using Holdfast.Testing;

namespace Holdfast.Tests.Shards;

/// <summary>Shards in memory that outlive the layers over them, each of which can go wrong; and SKUs by the shard that has them.</summary>
internal sealed class ShardedStore : IAsyncDisposable
{
    private readonly Dictionary<int, List<string>> _skus = [];
    private readonly List<Sharding> _nodes = [];

    public ShardedStore(int shards = 3, TimeProvider? clock = null)
    {
        Stores = [.. Enumerable.Range(0, shards).Select(_ => new MemoryEngine(clock))];
        Shards = [.. Stores.Select((store, shard) => new FaultyEngine(store, seed: shard))];
        var map = SlotMap.Even(shards);
        for (var i = 0; _skus.Count < shards || _skus.Values.Any(skus => skus.Count < 4); i++)
        {
            var sku = string.Create(CultureInfo.InvariantCulture, $"s{i}");
            var shard = map.ShardOf(sku);
            _skus.TryAdd(shard, []);
            _skus[shard].Add(sku);
        }
    }

    public MemoryEngine[] Stores { get; }

    public FaultyEngine[] Shards { get; }

    /// <summary>The SKU number <paramref name="number"/> of a shard.</summary>
    public string Sku(int shard, int number = 0) => _skus[shard][number];

    /// <summary>Every SKU that tests here use.</summary>
    public IReadOnlyCollection<string> Skus => [.. _skus.Values.SelectMany(skus => skus)];

    /// <summary>A line of units of the first SKU of a shard.</summary>
    public StockLine On(int shard, long units) => new(Sku(shard), units);

    /// <summary>Another process over the same shards.</summary>
    public Sharding Node(ShardingOptions? options = null, TimeProvider? clock = null)
    {
        var node = new Sharding([.. Shards.Select(shard => new Kept(shard))], options ?? new() { Recovery = false, RecoverAfter = TimeSpan.FromMilliseconds(1) }, clock);
        _nodes.Add(node);
        return node;
    }

    /// <summary>Lets a process settle whatever is undecided, and asserts that then nothing is.</summary>
    public async Task RecoverAsync(Sharding node)
    {
        // The first round only sees, and a round may come before a millisecond has passed.
        for (var round = 0; round < 10_000 && await CountUndecidedAsync() > 0; round++)
        {
            await node.RecoverAsync(TestContext.Current.CancellationToken);
        }

        (await CountUndecidedAsync()).ShouldBe(0, "after recovery nothing stays held or undecided");
    }

    public async Task<int> CountUndecidedAsync()
    {
        var count = 0;
        foreach (var store in Stores)
        {
            await foreach (var _ in store.ListOperationsAsync(new() { UndecidedOnly = true }, TestContext.Current.CancellationToken))
            {
                count++;
            }
        }

        return count;
    }

    /// <summary>Audits each shard by itself, and all of them as one.</summary>
    /// <param name="whole">A process over all shards.</param>
    /// <param name="skus">Only these SKUs, which is quick where little is there; all by default.</param>
    public async Task AuditAsync(IStockEngine whole, IReadOnlyCollection<string>? skus = null)
    {
        foreach (var engine in (IStockEngine[])[.. Stores, whole])
        {
            var audit = await LedgerAudit.RunAsync(engine, new() { Skus = skus }, TestContext.Current.CancellationToken);
            audit.FirstDifference.ShouldBeNull();
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var node in _nodes)
        {
            await node.DisposeAsync();
        }
    }

    /// <summary>A shard that its layer does not take with it.</summary>
    private sealed class Kept(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private readonly bool _isKept = true;

        public override ValueTask DisposeAsync() => _isKept ? ValueTask.CompletedTask : base.DisposeAsync();
    }
}
