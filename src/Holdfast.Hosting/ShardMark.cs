namespace Holdfast.Hosting;

/// <summary>
/// Each store of several bears a mark that says which of how many it is: a closed operation id. Opened in another order, with
/// one more or one less, SKUs would be looked for where they are not, and sold again; so that is refused.
/// </summary>
internal static class ShardMark
{
    /// <summary>Marks an empty store, and checks one that is not.</summary>
    /// <exception cref="InvalidOperationException">The store is another shard, of another number of shards, or no shard at all.</exception>
    public static async Task CheckAsync(IStockEngine store, string location, int shard, int shards, bool mayWrite, CancellationToken cancellationToken)
    {
        var mark = $"holdfast shard {shard} of {shards}";
        if (await store.GetOperationAsync(mark, cancellationToken).ConfigureAwait(false) is not null)
        {
            return;
        }

        await foreach (var _ in store.ListOperationsAsync(new() { Limit = 1 }, cancellationToken).ConfigureAwait(false))
        {
            throw new InvalidOperationException(
                $"The store {location} is not empty and was not shard {shard} of {shards} before: name the same stores in the same order as ever. The number of shards can't be changed yet.");
        }

        if (mayWrite)
        {
            var result = await store.AbandonAsync(mark, cancellationToken).ConfigureAwait(false);
            if (result.Status is not (StockStatus.Done or StockStatus.Replayed))
            {
                throw new InvalidOperationException($"The store {location} could not be marked as shard {shard} of {shards}: {result}.");
            }
        }
    }
}
