using System.Runtime.CompilerServices;

namespace Holdfast;

/// <summary>Reads of several shards as of one. Thread-safe.</summary>
internal sealed class ShardReads(IStockEngine[] shards, SlotMap map, ShardCalls calls)
{
    public async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(skus);
        var byShard = Enumerable.Range(0, skus.Count).GroupBy(place => map.ShardOf(skus[place])).Select(group => (Shard: group.Key, Places: group.ToArray())).ToArray();
        if (byShard is [{ Shard: var only }])
        {
            return await shards[only].GetStockAsync(skus, options, cancellationToken).ConfigureAwait(false);
        }

        var levels = new StockLevel[skus.Count];
        var found = await ShardCalls.AllAsync(
            byShard.Length,
            part => shards[byShard[part].Shard].GetStockAsync(Array.ConvertAll(byShard[part].Places, place => skus[place]), options, cancellationToken)).ConfigureAwait(false);
        for (var part = 0; part < found.Length; part++)
        {
            for (var i = 0; i < found[part].Count; i++)
            {
                levels[byShard[part].Places[i]] = found[part][i];
            }
        }

        return levels;
    }

    public async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(id);
        var views = await FindEverywhereAsync(id, cancellationToken).ConfigureAwait(false);
        if (calls.Options.Recovery && Array.Exists(views, view => view is { Cart: not null, State: OperationState.Expired, EndedAt: not null }))
        {
            // A shard releases its part of a reservation when somebody meets it there. Who sees one part released sees all.
            var due = Enumerable.Range(0, shards.Length).Where(shard => views[shard] is { Cart: not null, State: OperationState.Expired, EndedAt: null }).ToArray();
            if (due.Length > 0)
            {
                await ShardCalls.AllAsync(due.Length, i => calls.ExecuteAsync(due[i], StockCommand.Abandon(id))).ConfigureAwait(false);
                views = await FindEverywhereAsync(id, cancellationToken).ConfigureAwait(false);
            }
        }

        return Whole(views);
    }

    /// <summary>What every shard knows of an id, by shard.</summary>
    private async ValueTask<OperationView?[]> FindEverywhereAsync(string id, CancellationToken cancellationToken)
    {
        var views = await calls.FindEverywhereAsync(id, cancellationToken).ConfigureAwait(false);
        return IsTorn(views) ? await calls.FindEverywhereAsync(id, cancellationToken).ConfigureAwait(false) : views;
    }

    /// <summary>
    /// Whether a part of a cart was looked for before it was prepared there, and its home after it was decided: what looks whole would
    /// lack lines. Before a home is decided all parts are prepared, so a second look finds them. Where the home was not decided yet,
    /// nothing looks whole, and a second look could be the torn one.
    /// </summary>
    private static bool IsTorn(OperationView?[] views) => Array.Exists(
        views,
        view => view is { Cart: { } cart }
            && cart.Shards[^1] < views.Length
            && views[cart.Home] is { State: not OperationState.Undecided, Cart: { } decided }
            && decided.Attempt == cart.Attempt
            && cart.Shards.Any(shard => views[shard] is null || (views[shard]!.Cart is { } other && other.Attempt != cart.Attempt)));

    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix, string? after, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var merged = MergeAsync(shard => shards[shard].ListStockAsync(prefix, after, cancellationToken), static (a, b) => StockKey.ByteOrder.Compare(a.Sku, b.Sku));
        await foreach (var (_, level) in merged.ConfigureAwait(false))
        {
            yield return level;
        }
    }

    public async IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(query);
        var left = query.Limit ?? int.MaxValue;
        if (query.UndecidedOnly || left <= 0)
        {
            yield break;
        }

        var cursors = ShardCursor.Read(query.After, shards.Length);
        var met = query.DueOnly ? new HashSet<string>(StringComparer.Ordinal) : null;
        var merged = MergeAsync(
            shard => shards[shard].ListOperationsAsync(query with { After = cursors[shard], Limit = null }, cancellationToken),
            query.DueOnly
                ? static (a, b) => Nullable.Compare(a.ExpiresAt, b.ExpiresAt)
                : static (a, b) => a.CreatedAt.CompareTo(b.CreatedAt));
        await foreach (var (shard, view) in merged.ConfigureAwait(false))
        {
            cursors[shard] = view.Cursor;
            var whole = view;
            if (view.Cart is { } cart)
            {
                // A part is listed by its home; what is due by any, because each part is released by itself.
                if (met is null ? shard != cart.Home : !met.Add(view.Id))
                {
                    continue;
                }

                whole = await GetOperationAsync(view.Id, cancellationToken).ConfigureAwait(false);
            }
            else if (IsTombstone(view))
            {
                // Every shard has it. Where its operation came all the same while it was being left, that one counts.
                whole = shard == shards.Length - 1 ? await GetOperationAsync(view.Id, cancellationToken).ConfigureAwait(false) : null;
                whole = whole is not null && IsTombstone(whole) ? view : null;
            }

            if (whole is null || (query.State is { } state && whole.State != state))
            {
                continue;
            }

            yield return whole with { Cart = null, Pending = null, Cursor = ShardCursor.Write(cursors) };
            if (--left == 0)
            {
                yield break;
            }
        }
    }

    public async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(query);
        if (query.Sku is not null)
        {
            await foreach (var entry in shards[map.ShardOf(query.Sku)].ReadFlowAsync(query, cancellationToken).ConfigureAwait(false))
            {
                yield return entry;
            }

            yield break;
        }

        var left = query.Limit ?? int.MaxValue;
        var cursors = ShardCursor.Read(query.After, shards.Length);
        if (left <= 0)
        {
            yield break;
        }

        var merged = MergeAsync(shard => shards[shard].ReadFlowAsync(query with { After = cursors[shard] }, cancellationToken), static (a, b) => a.At.CompareTo(b.At));
        await foreach (var (shard, entry) in merged.ConfigureAwait(false))
        {
            cursors[shard] = entry.Cursor;
            yield return entry with { Cursor = ShardCursor.Write(cursors) };
            if (--left == 0)
            {
                yield break;
            }
        }
    }

    public async ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken)
    {
        var ends = await ShardCalls.AllAsync(shards.Length, i => FlowEndOf(shards[i]).GetFlowEndAsync(cancellationToken)).ConfigureAwait(false);
        return Array.TrueForAll(ends, end => end is null) ? null : ShardCursor.Write(ends);
    }

    private static IFlowEnd FlowEndOf(IStockEngine engine)
    {
        while (engine is DelegatingStockEngine layer and not IFlowEnd)
        {
            engine = layer.Inner;
        }

        return engine as IFlowEnd ?? throw new NotSupportedException($"{engine.GetType().Name} does not know where its ledger ends.");
    }

    private static bool IsTombstone(OperationView view) => view.Verb is StockVerb.Cancel or StockVerb.Abandon;

    /// <summary>
    /// An operation as one thing, from what each shard knows of its id; <see langword="null"/> where nothing is decided.
    /// An operation counts before a tombstone: that one was being left while it came.
    /// </summary>
    private static OperationView? Whole(OperationView?[] views)
    {
        OperationView? found = null;
        foreach (var view in views)
        {
            if (view is null or { State: OperationState.Undecided })
            {
                continue;
            }

            if (view.Cart is not null)
            {
                return Joined(views, view.Cart) ?? found;
            }

            found = found is null || (IsTombstone(found) && !IsTombstone(view)) ? view : found;
        }

        return found is null ? null : found with { Pending = null };
    }

    private static OperationView? Joined(OperationView?[] views, ShardedCart cart)
    {
        if (views[cart.Home] is not { } home || home.Cart?.Attempt != cart.Attempt || home.State == OperationState.Undecided)
        {
            // Seen before its home was decided.
            return null;
        }

        var parts = cart.Shards.Select(shard => views[shard]).Where(part => part?.Cart?.Attempt == cart.Attempt).Select(part => part!).ToArray();
        var expired = Array.Find(parts, part => part.State == OperationState.Expired);
        return home with
        {
            State = expired is null ? home.State : OperationState.Expired,

            // Each part is released by itself, by whoever meets it; the whole has ended when the last of them has.
            EndedAt = expired is null ? home.EndedAt : Array.Exists(parts, part => part.EndedAt is null) ? null : parts.Max(part => part.EndedAt),
            Lines = [.. parts.SelectMany(part => part.Lines).OrderBy(line => line.Sku, StockKey.ByteOrder)],
            Left = [.. parts.Where(part => part.State != OperationState.Undecided).SelectMany(part => part.Left).OrderBy(left => left.Sku, StockKey.ByteOrder)],
            Cart = null,
            Pending = null,
            Cursor = null,
        };
    }

    /// <summary>The shards' streams as one, in order where each of them is; ties go to the lower shard.</summary>
    private async IAsyncEnumerable<(int Shard, T Item)> MergeAsync<T>(Func<int, IAsyncEnumerable<T>> open, Comparison<T> order)
    {
        var streams = new List<(int Shard, IAsyncEnumerator<T> Items)>();
        try
        {
            for (var shard = 0; shard < shards.Length; shard++)
            {
                var items = open(shard).GetAsyncEnumerator();
                streams.Add((shard, items));
                if (!await items.MoveNextAsync().ConfigureAwait(false))
                {
                    streams.RemoveAt(streams.Count - 1);
                    await items.DisposeAsync().ConfigureAwait(false);
                }
            }

            while (streams.Count > 0)
            {
                var first = 0;
                for (var i = 1; i < streams.Count; i++)
                {
                    first = order(streams[i].Items.Current, streams[first].Items.Current) < 0 ? i : first;
                }

                var (shard, items) = streams[first];
                yield return (shard, items.Current);
                if (!await items.MoveNextAsync().ConfigureAwait(false))
                {
                    streams.RemoveAt(first);
                    await items.DisposeAsync().ConfigureAwait(false);
                }
            }
        }
        finally
        {
            foreach (var (_, items) in streams)
            {
                await items.DisposeAsync().ConfigureAwait(false);
            }
        }
    }
}
