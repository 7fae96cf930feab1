namespace Holdfast;

/// <summary>
/// The base of every layer: passes each call to the inner engine unless overridden. Disposing a layer disposes the
/// engine inside it, so a composition is disposed by its outermost layer.
/// </summary>
public abstract class DelegatingStockEngine : IStockEngine
{
    /// <summary>Wraps an engine.</summary>
    protected DelegatingStockEngine(IStockEngine inner)
    {
        ArgumentNullException.ThrowIfNull(inner);
        Inner = inner;
    }

    /// <summary>The engine inside.</summary>
    public IStockEngine Inner { get; }

    /// <inheritdoc/>
    public virtual StockTraits Traits => Inner.Traits;

    /// <inheritdoc/>
    public virtual ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
        Inner.ExecuteAsync(commands, cancellationToken);

    /// <inheritdoc/>
    public virtual ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) =>
        Inner.GetStockAsync(skus, options, cancellationToken);

    /// <inheritdoc/>
    public virtual ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) =>
        Inner.GetOperationAsync(id, cancellationToken);

    /// <inheritdoc/>
    public virtual IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        Inner.ListStockAsync(prefix, after, cancellationToken);

    /// <inheritdoc/>
    public virtual IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) =>
        Inner.ListOperationsAsync(query, cancellationToken);

    /// <inheritdoc/>
    public virtual IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) =>
        Inner.ReadFlowAsync(query, cancellationToken);

    /// <summary>Disposes the layer and the engine inside it.</summary>
    public virtual async ValueTask DisposeAsync()
    {
        await Inner.DisposeAsync().ConfigureAwait(false);
        GC.SuppressFinalize(this);
    }
}
