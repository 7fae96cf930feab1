using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Holdfast.Hosting;

/// <summary>
/// The engine that a host's services see. It is opened before any hosted service starts, and disposed with the
/// container, after the last of them has stopped: what was accepted is answered while callers can still be told.
/// </summary>
/// <remarks>
/// Opening may ask a database, which is asynchronous, and a container can only build synchronously: hence this object
/// that exists from the beginning and passes calls on once the store is open.
/// </remarks>
internal sealed class HostedStockEngine(StockEngineFactory open, IServiceProvider services, ILogger<HostedStockEngine> logger) : IStockEngine, IHostedLifecycleService
{
    private OpenedScheme? _opened;

    public OpenedScheme Opened => _opened ?? throw new InvalidOperationException(
        "The stock engine is opened when the host starts; use it from then on, not while services are being constructed.");

    public StockTraits Traits => Opened.Engine.Traits;

    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
        Opened.Engine.ExecuteAsync(commands, cancellationToken);

    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) =>
        Opened.Engine.GetStockAsync(skus, options, cancellationToken);

    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) =>
        Opened.Engine.GetOperationAsync(id, cancellationToken);

    public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        Opened.Engine.ListStockAsync(prefix, after, cancellationToken);

    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) =>
        Opened.Engine.ListOperationsAsync(query, cancellationToken);

    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) =>
        Opened.Engine.ReadFlowAsync(query, cancellationToken);

    public async Task StartingAsync(CancellationToken cancellationToken)
    {
        _opened = await open(services, cancellationToken).ConfigureAwait(false);
        logger.LogInformation("Scheme {Scheme} on the store {Store}; data: {Location}", _opened.Scheme, _opened.Store, _opened.Location);
        logger.LogInformation("Durability: {Durability}", _opened.Durability);
    }

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public ValueTask DisposeAsync() => Interlocked.Exchange(ref _opened, null)?.DisposeAsync() ?? ValueTask.CompletedTask;
}

/// <summary>Opens the engine of a host. The default opens what <see cref="HoldfastOptions"/> say.</summary>
/// <param name="services">The host's services.</param>
/// <param name="cancellationToken">Stops the opening.</param>
public delegate ValueTask<OpenedScheme> StockEngineFactory(IServiceProvider services, CancellationToken cancellationToken);
