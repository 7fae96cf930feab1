using System.Runtime.CompilerServices;

namespace Holdfast;

/// <summary>The friendly methods: one command each, over <see cref="IStockEngine.ExecuteAsync"/>. Thread-safe.</summary>
public static class StockEngineExtensions
{
    /// <summary>Executes one command.</summary>
    public static ValueTask<StockResult> ExecuteAsync(this IStockEngine engine, StockCommand command, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentNullException.ThrowIfNull(command);
        var pending = engine.ExecuteAsync([command], cancellationToken);
        return pending.IsCompletedSuccessfully ? new(pending.GetAwaiter().GetResult()[0]) : Await(pending);

        // Pooled: with a thousand callers of single commands this state machine is a tenth of what a call allocates.
        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
        static async ValueTask<StockResult> Await(ValueTask<IReadOnlyList<StockResult>> pending) =>
            (await pending.ConfigureAwait(false))[0];
    }

    /// <inheritdoc cref="StockCommand.Deduct"/>
    public static ValueTask<StockResult> DeductAsync(this IStockEngine engine, string orderId, ReadOnlySpan<StockLine> lines, string? note = null, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Deduct(orderId, lines, note), cancellationToken);

    /// <inheritdoc cref="StockCommand.Reserve"/>
    public static ValueTask<StockResult> ReserveAsync(this IStockEngine engine, string id, ReadOnlySpan<StockLine> lines, TimeSpan timeToLive, string? note = null, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Reserve(id, lines, timeToLive, note), cancellationToken);

    /// <inheritdoc cref="StockCommand.Confirm"/>
    public static ValueTask<StockResult> ConfirmAsync(this IStockEngine engine, string target, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Confirm(target), cancellationToken);

    /// <inheritdoc cref="StockCommand.Cancel"/>
    public static ValueTask<StockResult> CancelAsync(this IStockEngine engine, string target, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Cancel(target), cancellationToken);

    /// <inheritdoc cref="StockCommand.Abandon"/>
    public static ValueTask<StockResult> AbandonAsync(this IStockEngine engine, string target, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Abandon(target), cancellationToken);

    /// <inheritdoc cref="StockCommand.Refund"/>
    public static ValueTask<StockResult> RefundAsync(this IStockEngine engine, string id, string target, ReadOnlySpan<StockLine> lines, string? note = null, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Refund(id, target, lines, note), cancellationToken);

    /// <inheritdoc cref="StockCommand.Restock"/>
    public static ValueTask<StockResult> RestockAsync(this IStockEngine engine, string id, ReadOnlySpan<StockLine> lines, string? note = null, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Restock(id, lines, note), cancellationToken);

    /// <inheritdoc cref="StockCommand.Adjust"/>
    public static ValueTask<StockResult> AdjustAsync(this IStockEngine engine, string id, ReadOnlySpan<StockLine> lines, string? note = null, CancellationToken cancellationToken = default) =>
        engine.ExecuteAsync(StockCommand.Adjust(id, lines, note), cancellationToken);

    /// <summary>Reads the stock of one SKU.</summary>
    public static async ValueTask<StockLevel> GetStockAsync(this IStockEngine engine, string sku, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        return (await engine.GetStockAsync([sku], options, cancellationToken).ConfigureAwait(false))[0];
    }
}
