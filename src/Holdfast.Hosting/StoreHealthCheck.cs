using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;

namespace Holdfast.Hosting;

/// <summary>
/// Asks the store for a verdict, within a time bound. The probe takes the whole way of a write (queue, batch,
/// transaction) and changes nothing: it confirms a reservation that can't exist.
/// </summary>
internal sealed class StoreHealthCheck(IStockEngine engine, IOptions<HoldfastOptions> options, TimeProvider? clock = null) : IHealthCheck
{
    private readonly TimeProvider _clock = clock ?? TimeProvider.System;

    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        var timeout = options.Value.HealthTimeout;
        using var limit = new CancellationTokenSource(timeout, _clock);
        using var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            var probe = StockCommand.Confirm($"health-probe-{Guid.NewGuid():N}");
            var results = await engine.ExecuteAsync([probe], both.Token).AsTask().WaitAsync(timeout, _clock, cancellationToken).ConfigureAwait(false);
            return results[0].Status == StockStatus.UnknownTarget
                ? HealthCheckResult.Healthy("the store answers")
                : new(context.Registration.FailureStatus, $"the store answers {results[0]}");
        }
        catch (Exception e) when (e is TimeoutException || (e is OperationCanceledException && limit.IsCancellationRequested))
        {
            return new(context.Registration.FailureStatus, $"the store did not answer within {timeout}");
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            return new(context.Registration.FailureStatus, "the store failed", e);
        }
    }
}
