namespace Holdfast;

/// <summary>
/// Composes a scheme: a store, and the layers around it. The first <see cref="Use(Func{IStockEngine, IServiceProvider, IStockEngine})"/>
/// is the outermost layer. Not thread-safe; what it builds is.
/// </summary>
public sealed class StockEngineBuilder
{
    private readonly Func<IServiceProvider, IStockEngine> _store;
    private readonly List<Func<IStockEngine, IServiceProvider, IStockEngine>> _layers = [];

    /// <summary>Begins with a store that exists.</summary>
    public StockEngineBuilder(IStockEngine store)
        : this(_ => store) => ArgumentNullException.ThrowIfNull(store);

    /// <summary>Begins with a store that is made when <see cref="Build"/> is called.</summary>
    public StockEngineBuilder(Func<IServiceProvider, IStockEngine> store)
    {
        ArgumentNullException.ThrowIfNull(store);
        _store = store;
    }

    /// <summary>Adds a layer inside those added before it.</summary>
    public StockEngineBuilder Use(Func<IStockEngine, IServiceProvider, IStockEngine> layer)
    {
        ArgumentNullException.ThrowIfNull(layer);
        _layers.Add(layer);
        return this;
    }

    /// <summary>Adds a layer inside those added before it.</summary>
    public StockEngineBuilder Use(Func<IStockEngine, IStockEngine> layer)
    {
        ArgumentNullException.ThrowIfNull(layer);
        return Use((inner, _) => layer(inner));
    }

    /// <summary>Makes the store and wraps the layers around it. The result owns everything inside it.</summary>
    /// <param name="services">Where layers find their loggers and clocks; none by default.</param>
    public IStockEngine Build(IServiceProvider? services = null)
    {
        services ??= EmptyServices.Instance;
        var engine = _store(services);
        for (var i = _layers.Count - 1; i >= 0; i--)
        {
            engine = _layers[i](engine, services)
                ?? throw new InvalidOperationException($"Layer {i + 1} of {_layers.Count} made no engine.");
        }

        return engine;
    }

    private sealed class EmptyServices : IServiceProvider
    {
        public static readonly EmptyServices Instance = new();

        public object? GetService(Type serviceType) => null;
    }
}
