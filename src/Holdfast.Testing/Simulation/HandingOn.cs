namespace Holdfast.Testing;

/// <summary>
/// Between two layers of one process: what the outer one does with an answer is a step of its own, as it is where the
/// inner one's promise is kept on another thread.
/// </summary>
internal sealed class HandingOn(IStockEngine inner, SimulationScheduler scheduler) : DelegatingStockEngine(inner)
{
    public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        try
        {
            return await Inner.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await scheduler.YieldAsync().ConfigureAwait(false);
        }
    }
}
