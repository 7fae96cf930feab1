using System.Diagnostics;

namespace Holdfast.Ladder.Faults;

/// <summary>Tells when traffic has resumed: when the next command is applied.</summary>
internal sealed class Resumption(IStockEngine inner) : DelegatingStockEngine(inner)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private TaskCompletionSource<long>? _next;

    /// <summary>Waits for a command that is answered as applied from now on.</summary>
    /// <returns>When it was answered, as <see cref="Stopwatch.GetTimestamp"/> has it.</returns>
    /// <exception cref="TimeoutException">None was for a minute.</exception>
    public async Task<long> NextAsync(CancellationToken cancellationToken)
    {
        var next = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
        Volatile.Write(ref _next, next);
        try
        {
            return await next.Task.WaitAsync(Patience, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"Traffic did not resume within {Patience.TotalSeconds:0} s.", e);
        }
    }

    public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        var results = await base.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        if (Volatile.Read(ref _next) is { } next && results.Any(result => result.IsApplied))
        {
            next.TrySetResult(Stopwatch.GetTimestamp());
        }

        return results;
    }
}
