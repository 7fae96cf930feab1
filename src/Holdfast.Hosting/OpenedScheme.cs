namespace Holdfast.Hosting;

/// <summary>An engine that runs, and what to say about it. Disposing it disposes the engine.</summary>
public sealed class OpenedScheme : IAsyncDisposable
{
    private readonly bool _leavesOpen;

    internal OpenedScheme(IStockEngine engine, string scheme, string store, string location, string durability, bool leavesOpen = false, CommandQueue? queue = null)
    {
        Queue = queue;
        Engine = engine;
        Scheme = scheme;
        Store = store;
        Location = location;
        Durability = durability;
        _leavesOpen = leavesOpen;
    }

    /// <summary>The engine. In a scheme with a queue it is what synchronous callers use, beside the queue and on the same store.</summary>
    public IStockEngine Engine { get; }

    /// <summary>The queue in front of the engine, where the scheme has one. Its consumers are started by whoever opened it, and by the host's worker.</summary>
    public CommandQueue? Queue { get; }

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
    /// <param name="queue">A queue in front of it; disposed by whoever made it.</param>
    public static OpenedScheme Of(IStockEngine engine, string scheme = "custom", CommandQueue? queue = null)
    {
        ArgumentNullException.ThrowIfNull(engine);
        var durability = engine.Traits.HasFlag(StockTraits.DurableAck) ? "as durable as the engine that was given" : "none promised by the engine that was given";
        return new(engine, scheme, "custom", "an engine that was given", durability, leavesOpen: true, queue);
    }

    /// <summary>Disposes the engine, which first answers what it accepted.</summary>
    public ValueTask DisposeAsync() => _leavesOpen ? ValueTask.CompletedTask : Queue?.DisposeAsync() ?? Engine.DisposeAsync();
}
