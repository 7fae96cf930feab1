using Microsoft.Extensions.Logging;

namespace Holdfast.Hosting;

/// <summary>A named composition: layers around a store.</summary>
public sealed class Scheme
{
    private readonly Func<StockEngineBuilder, HoldfastOptions, StockEngineBuilder> _layers;

    internal Scheme(
        string name,
        string description,
        IReadOnlyList<StoreKind> stores,
        Func<StockEngineBuilder, HoldfastOptions, StockEngineBuilder> layers,
        StoreTransactions transactions = StoreTransactions.Call,
        bool hasGate = false,
        bool isSharded = false)
    {
        Name = name;
        Description = description;
        Stores = stores;
        Transactions = transactions;
        HasGate = hasGate;
        IsSharded = isSharded;
        _layers = layers;
    }

    /// <summary>Its name in configuration and on command lines.</summary>
    public string Name { get; }

    /// <summary>What it is for, in one line.</summary>
    public string Description { get; }

    /// <summary>The stores that it runs on; the first is its default.</summary>
    public IReadOnlyList<StoreKind> Stores { get; }

    /// <summary>What one transaction of its store holds.</summary>
    internal StoreTransactions Transactions { get; }

    /// <summary>Whether a <see cref="RedisGate"/> stands in front of its layers.</summary>
    internal bool HasGate { get; }

    /// <summary>Whether it runs on several stores, each with the layers around it and a <see cref="Sharding"/> over all.</summary>
    internal bool IsSharded { get; }

    /// <summary>Puts the layers around a store, and opens what has to be opened.</summary>
    internal async ValueTask<IStockEngine> ComposeAsync(IStockEngine store, HoldfastOptions options, IServiceProvider services, CancellationToken cancellationToken)
    {
        var engine = Wrap(store, options, services);
        if (!HasGate)
        {
            return engine;
        }

        var gate = await RedisGate.OpenAsync(
            engine,
            options.Gate,
            (TimeProvider?)services.GetService(typeof(TimeProvider)),
            (ILogger<RedisGate>?)services.GetService(typeof(ILogger<RedisGate>)),
            cancellationToken).ConfigureAwait(false);
        return new StockEngineBuilder(gate).UseTelemetry().Build(services);
    }

    /// <summary>Puts the layers around shards, and a layer over them.</summary>
    internal IStockEngine ComposeShards(IReadOnlyList<IStockEngine> stores, HoldfastOptions options, IServiceProvider services, bool readOnly)
    {
        var sharding = readOnly ? new ShardingOptions { Recovery = false } : options.Sharding;
        var shards = readOnly ? stores : [.. stores.Select(store => Wrap(store, options, services))];
        var engine = new Sharding(
            shards, sharding, (TimeProvider?)services.GetService(typeof(TimeProvider)), (ILogger<Sharding>?)services.GetService(typeof(ILogger<Sharding>)));
        return readOnly ? engine : new Telemetry(engine);
    }

    private IStockEngine Wrap(IStockEngine store, HoldfastOptions options, IServiceProvider services) => _layers(new(store), options).Build(services);
}
