namespace Holdfast.Hosting;

/// <summary>What the host's engine is, for those who show it. Thread-safe.</summary>
public sealed class OpenedSchemeAccessor
{
    private readonly HostedStockEngine _engine;

    internal OpenedSchemeAccessor(HostedStockEngine engine) => _engine = engine;

    /// <summary>The scheme that runs.</summary>
    /// <exception cref="InvalidOperationException">The host has not started yet.</exception>
    public OpenedScheme Scheme => _engine.Opened;
}
