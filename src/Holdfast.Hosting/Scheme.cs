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
        StoreTransactions transactions = StoreTransactions.Call)
    {
        Name = name;
        Description = description;
        Stores = stores;
        Transactions = transactions;
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

    internal StockEngineBuilder Compose(IStockEngine store, HoldfastOptions options) => _layers(new(store), options);
}
