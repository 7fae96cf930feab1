namespace Holdfast.Hosting;

/// <summary>An engine that runs, and what to say about it. Disposing it disposes the engine.</summary>
public sealed class OpenedScheme : IAsyncDisposable
{
    private readonly bool _leavesOpen;

    internal OpenedScheme(IStockEngine engine, string scheme, string store, string location, string durability, bool leavesOpen = false)
    {
        Engine = engine;
        Scheme = scheme;
        Store = store;
        Location = location;
        Durability = durability;
        _leavesOpen = leavesOpen;
    }

    /// <summary>The engine.</summary>
    public IStockEngine Engine { get; }

    /// <summary>The scheme's name.</summary>
    public string Scheme { get; }

    /// <summary>The kind of store, for example <c>sqlite</c>.</summary>
    public string Store { get; }

    /// <summary>Where the data lies, for people: a full path, or a server without its password.</summary>
    public string Location { get; }

    /// <summary>What an acknowledged command survives, in one line.</summary>
    public string Durability { get; }

    /// <summary>Wraps an engine that somebody else made and will dispose.</summary>
    /// <param name="engine">The engine.</param>
    /// <param name="scheme">What to call it.</param>
    public static OpenedScheme Of(IStockEngine engine, string scheme = "custom")
    {
        ArgumentNullException.ThrowIfNull(engine);
        var durability = engine.Traits.HasFlag(StockTraits.DurableAck) ? "as durable as the engine that was given" : "none promised by the engine that was given";
        return new(engine, scheme, "custom", "an engine that was given", durability, leavesOpen: true);
    }

    /// <summary>Disposes the engine, which first answers what it accepted.</summary>
    public ValueTask DisposeAsync() => _leavesOpen ? ValueTask.CompletedTask : Engine.DisposeAsync();
}
