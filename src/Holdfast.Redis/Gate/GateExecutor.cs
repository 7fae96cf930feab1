using Microsoft.Extensions.Logging;

namespace Holdfast.Redis;

/// <summary>Has the store execute what stands in a gate's stream, whatever single commands do to it. Thread-safe.</summary>
internal sealed class GateExecutor(IGateStore store, string gate, ILogger logger)
{
    /// <returns>One result a command, without a status where the store failed at it alone; <see langword="null"/> when the epoch or the turn is over.</returns>
    public async Task<StockResult[]?> ExecuteAsync(long epoch, long turn, IReadOnlyCollection<GateCommand> commands, CancellationToken cancellationToken)
    {
        StockCommand[] all = [.. commands.Select(static each => each.Command)];
        try
        {
            return await store.ExecuteFromGateAsync(gate, epoch, turn, all, cancellationToken).ConfigureAwait(false) is { } results ? [.. results] : null;
        }
        catch (Exception e) when (all.Length > 1 && !cancellationToken.IsCancellationRequested)
        {
            logger.LogWarning(e, "The store failed at {Commands} commands of the gate's stream; they are tried one by one.", all.Length);
            return await ExecuteEachAsync(epoch, turn, all, e, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>One poison command must not keep the others from the store; but where all fail it is not the commands' fault.</summary>
    private async Task<StockResult[]?> ExecuteEachAsync(long epoch, long turn, StockCommand[] commands, Exception failure, CancellationToken cancellationToken)
    {
        var results = new StockResult[commands.Length];
        var poisoned = new List<int>();
        for (var i = 0; i < commands.Length; i++)
        {
            try
            {
                if (await store.ExecuteFromGateAsync(gate, epoch, turn, [commands[i]], cancellationToken).ConfigureAwait(false) is not { } result)
                {
                    return null;
                }

                results[i] = result[0];
                if (result[0].IsRetryable)
                {
                    results.AsSpan(i).Fill(result[0]);
                    break;
                }
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
            {
                logger.LogError(e, "The store failed at {Command} by itself.", commands[i]);
                poisoned.Add(i);
            }
        }

        if (poisoned.Count > 0 && !results.Any(static result => result.Status != StockStatus.None && !result.IsRetryable))
        {
            throw new InvalidOperationException("The store failed at every command of the gate's stream.", failure);
        }

        foreach (var i in poisoned)
        {
            // Unknown, and out of the way: among the incidents where it was acknowledged.
            results[i] = default;
        }

        return results;
    }
}
