using Holdfast.Queueing;

namespace Holdfast.Testing;

/// <summary>
/// A queue whose callers wait: each command is queued under a request id of its own, and answered with its verdict. What
/// the conformance cases and the storms run a queue through. Commands of one call are queued one after the other, since a
/// queue promises no order between orders. Thread-safe; disposing it disposes the queue.
/// </summary>
/// <param name="queue">The queue; its consumers must run, here or elsewhere.</param>
/// <param name="patience">How long to wait for a verdict before the answer is InDoubt; a minute by default.</param>
public sealed class AwaitedVerdicts(CommandQueue queue, TimeSpan? patience = null) : DelegatingStockEngine(queue)
{
    private const int MostAtOnce = 1_000;

    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(10);

    private readonly TimeSpan _patience = patience ?? TimeSpan.FromMinutes(1);

    /// <summary>What the engine behind the queue promises, but for <see cref="StockTraits.ImmediateVerdict"/>: refusals are remembered.</summary>
    public override StockTraits Traits => queue.Inner.Traits & ~StockTraits.ImmediateVerdict & (queue.Traits | ~StockTraits.DurableAck);

    /// <inheritdoc/>
    public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);

        // One queue keeps the order of all.
        var atOnce = queue.Transport.Queues == 1 ? MostAtOnce : 1;
        var results = new List<StockResult>(commands.Count);
        foreach (var part in commands.Chunk(atOnce))
        {
            results.AddRange(await ExecuteAtOnceAsync(part, cancellationToken).ConfigureAwait(false));
        }

        return results;
    }

    private async Task<StockResult[]> ExecuteAtOnceAsync(StockCommand[] commands, CancellationToken cancellationToken)
    {
        var now = TimeProvider.System.GetUtcNow();
        var queued = Array.ConvertAll(commands, command => new QueuedCommand { Command = command, AcceptedAt = now, Deadline = now + s_deadline, RequestId = $"request-{Guid.NewGuid():N}" });
        var accepted = await queue.EnqueueAsync(queued, cancellationToken).ConfigureAwait(false);
        var verdicts = await Task.WhenAll(queued.Select((each, i) => accepted[i].Status == StockStatus.Pending
            ? queue.WaitForVerdictAsync(each.RequestId!, _patience, cancellationToken).AsTask()
            : Task.FromResult<Verdict?>(null))).ConfigureAwait(false);
        var results = new StockResult[queued.Length];
        for (var i = 0; i < results.Length; i++)
        {
            results[i] = accepted[i].Status != StockStatus.Pending ? accepted[i]
                : verdicts[i]?.Result ?? StockResult.Of(StockStatus.InDoubt, $"no verdict within {_patience}");
        }

        return results;
    }
}
