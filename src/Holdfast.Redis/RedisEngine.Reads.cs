using System.Runtime.CompilerServices;
using Holdfast.Redis;

namespace Holdfast;

/// <content>Reads: each page one script, bounded in what it looks at.</content>
public sealed partial class RedisEngine
{
    /// <inheritdoc/>
    /// <remarks>Reads that wait at one moment go to Redis in one call.</remarks>
    /// <exception cref="RedisStoreException">The stock could not be read.</exception>
    public async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        cancellationToken.ThrowIfCancellationRequested();
        return skus.Count == 0 ? [] : await _stockReads.ReadAsync(skus, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    /// <exception cref="RedisStoreException">The operation could not be read.</exception>
    public async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        return StockKey.Problem(id) is not null ? null : ReadOperation(await RunAsync(RedisScripts.Operation, cancellationToken, id).ConfigureAwait(false));
    }

    /// <inheritdoc/>
    /// <exception cref="RedisStoreException">The stock could not be read.</exception>
    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        // UTF-8 has no byte 0xFF: what begins with the prefix comes before the prefix with it.
        byte[] most = string.IsNullOrEmpty(prefix) ? "+"u8.ToArray() : [(byte)'(', .. System.Text.Encoding.UTF8.GetBytes(prefix), 0xFF];
        while (true)
        {
            var least = after is null || (prefix is not null && StockKey.ByteOrder.Compare(after, prefix) < 0)
                ? string.IsNullOrEmpty(prefix) ? "-" : "[" + prefix
                : "(" + after;
            var answer = await RunAsync(RedisScripts.ListStock, cancellationToken, least, most, Tuning.PageRows).ConfigureAwait(false);
            var page = ReadLevels(answer);
            foreach (var level in page)
            {
                yield return level;
            }

            if (page.Count < Tuning.PageRows)
            {
                yield break;
            }

            after = page[^1].Sku;
        }
    }

    /// <inheritdoc/>
    /// <remarks>Looks at the journal from its beginning or the cursor, so a rare state or target is found by reading much of it; reservations that are due have an index.</remarks>
    /// <exception cref="ArgumentException">The cursor is none of this store's listing.</exception>
    /// <exception cref="RedisStoreException">The operations could not be read.</exception>
    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        return query.UndecidedOnly ? ListUndecidedAsync(query, cancellationToken) : query.DueOnly ? ListDueAsync(query, cancellationToken) : ListCreatedAsync(query, cancellationToken);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this store's ledger.</exception>
    /// <exception cref="RedisStoreException">The ledger could not be read.</exception>
    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        return query.Sku is null ? ReadJournalAsync(query, cancellationToken) : ReadFlowOfSkuAsync(query, cancellationToken);
    }

    private OperationView? ReadOperation(byte[] answer)
    {
        var reader = new ReplyReader(answer);
        var now = See(ref reader);
        return reader.FindOperation()?.ToView(now);
    }

    private async Task<StockLevel[]> ReadStockAsync(IReadOnlyList<string> skus, CancellationToken cancellationToken)
    {
        var answer = await RunAsync(RedisScripts.Stock, cancellationToken, PackWriter.Write(skus)).ConfigureAwait(false);
        return ReadLevels(answer, skus);
    }

    private StockLevel[] ReadLevels(byte[] answer, IReadOnlyList<string> skus)
    {
        var reader = new ReplyReader(answer);
        See(ref reader);
        var levels = new StockLevel[skus.Count];
        for (var i = 0; i < levels.Length; i++)
        {
            levels[i] = reader.Level(skus[i]);
        }

        return levels;
    }

    private List<StockLevel> ReadLevels(byte[] answer)
    {
        var reader = new ReplyReader(answer);
        See(ref reader);
        var levels = new List<StockLevel>(reader.Short());
        while (!reader.IsAtEnd)
        {
            levels.Add(reader.Level(reader.Text(reader.Byte())));
        }

        return levels;
    }

    private async IAsyncEnumerable<OperationView> ListUndecidedAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var view in ReadUndecided(await RunAsync(RedisScripts.Undecided, cancellationToken).ConfigureAwait(false)).Take(query.Limit ?? int.MaxValue))
        {
            yield return view;
        }
    }

    private List<OperationView> ReadUndecided(byte[] answer)
    {
        var reader = new ReplyReader(answer);
        var now = See(ref reader);
        var all = new List<OperationView>();
        while (!reader.IsAtEnd)
        {
            if (reader.FindOperation() is { } operation)
            {
                all.Add(operation.ToView(now));
            }
        }

        return all;
    }

    private async IAsyncEnumerable<OperationView> ListCreatedAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var position = query.After is null ? 0 : JournalCursor.Parse(query.After);
        var before = query.CreatedBefore is { } instant ? CeilingMilliseconds(instant) : long.MaxValue >> 11;
        for (var left = query.Limit ?? int.MaxValue; left > 0;)
        {
            var answer = await RunAsync(
                RedisScripts.Operations, cancellationToken, position, (int)(query.State ?? OperationState.None), query.Target ?? "", before, Math.Min(left, Tuning.PageRows), Tuning.PageBytes).ConfigureAwait(false);
            var (page, next, isEnd) = ReadCreated(answer);
            foreach (var view in page)
            {
                yield return view;
            }

            if (isEnd)
            {
                yield break;
            }

            left -= page.Count;
            position = next;
        }
    }

    private (List<OperationView> Page, long Next, bool IsEnd) ReadCreated(byte[] answer)
    {
        var reader = new ReplyReader(answer);
        var (now, end, next) = (reader.Number(6), reader.Number(6), reader.Number(6));
        Raise(ref _highest, now);
        var page = new List<OperationView>(reader.Short());
        while (!reader.IsAtEnd)
        {
            var cursor = JournalCursor.Text(reader.Number(6));
            page.Add(reader.Operation().ToView(now, cursor));
        }

        return (page, next, next >= end);
    }

    private async IAsyncEnumerable<OperationView> ListDueAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var (expiry, id) = query.After is null ? (0, "") : JournalCursor.Split(query.After);
        for (var left = query.Limit ?? int.MaxValue; left > 0;)
        {
            var answer = await RunAsync(RedisScripts.Due, cancellationToken, JournalCursor.Text(expiry), id, Tuning.PageRows).ConfigureAwait(false);
            var page = ReadDue(answer);
            foreach (var (view, _) in page)
            {
                if (left > 0 && Matches(view, query))
                {
                    left--;
                    yield return view;
                }
            }

            if (page.Count < Tuning.PageRows)
            {
                yield break;
            }

            (expiry, id) = (page[^1].ExpiresAt, page[^1].View.Id);
        }
    }

    private List<(OperationView View, long ExpiresAt)> ReadDue(byte[] answer)
    {
        var reader = new ReplyReader(answer);
        var now = reader.Number(6);
        Raise(ref _highest, now);
        reader.Number(6);
        var page = new List<(OperationView, long)>(reader.Short());
        while (!reader.IsAtEnd)
        {
            var operation = reader.Operation();
            page.Add((operation.ToView(now, $"{JournalCursor.Text(operation.ExpiresAt)}.{operation.Id}"), operation.ExpiresAt));
        }

        return page;
    }

    private static bool Matches(OperationView view, OperationQuery query) =>
        (query.State is null || view.State == query.State)
        && (query.CreatedBefore is null || view.CreatedAt < query.CreatedBefore)
        && (query.Target is null || view.Target == query.Target);

    private async IAsyncEnumerable<FlowEntry> ReadJournalAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var (position, rest) = query.After is null ? (0, "0") : JournalCursor.Split(query.After);
        var skip = (int)JournalCursor.Parse(rest);
        var left = query.Limit ?? int.MaxValue;
        long bound = 0;
        while (left > 0)
        {
            // Up to the end that the first page found: a ledger that grows faster than it is read would never end.
            var answer = await RunAsync(RedisScripts.Flow, cancellationToken, position, bound == 0 ? long.MaxValue >> 11 : bound, Tuning.PageBytes).ConfigureAwait(false);
            var (page, next, end) = ReadRecords(answer, position, skip);
            bound = bound == 0 ? end : bound;
            foreach (var entry in page)
            {
                if (left-- == 0)
                {
                    yield break;
                }

                yield return entry;
            }

            if (next >= bound)
            {
                yield break;
            }

            (position, skip) = (next, 0);
        }
    }

    private (List<FlowEntry> Page, long Next, long End) ReadRecords(byte[] answer, long position, int skip)
    {
        var reader = new ReplyReader(answer);
        Raise(ref _highest, reader.Number(6));
        var (end, next) = (reader.Number(6), reader.Number(6));
        var page = new List<FlowEntry>();
        while (!reader.IsAtEnd)
        {
            position += reader.Entries(position, skip, page);
            skip = 0;
        }

        return (page, next, end);
    }

    private async IAsyncEnumerable<FlowEntry> ReadFlowOfSkuAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var after = query.After is null ? 0 : JournalCursor.Parse(query.After);
        long upTo = 0;
        for (var left = query.Limit ?? int.MaxValue; left > 0;)
        {
            var most = Math.Min(left, Tuning.PageRows);
            var answer = await RunAsync(RedisScripts.FlowOfSku, cancellationToken, query.Sku, after, upTo, most).ConfigureAwait(false);
            var (page, latest) = ReadEntries(answer, query.Sku!);
            upTo = upTo == 0 ? latest : upTo;
            foreach (var entry in page)
            {
                yield return entry;
            }

            if (page.Count < most)
            {
                yield break;
            }

            left -= page.Count;
            after = page[^1].Version;
        }
    }

    private (List<FlowEntry> Page, long Latest) ReadEntries(byte[] answer, string sku)
    {
        var reader = new ReplyReader(answer);
        See(ref reader);
        var latest = reader.Number(6);
        var page = new List<FlowEntry>(reader.Short());
        while (!reader.IsAtEnd)
        {
            page.Add(reader.EntryOfSku(sku));
        }

        return (page, latest);
    }

    /// <summary>The first whole millisecond that is not before an instant: what was created before that one was created before the instant.</summary>
    private static long CeilingMilliseconds(DateTimeOffset instant)
    {
        var floor = instant.ToUnixTimeMilliseconds();
        return DateTimeOffset.FromUnixTimeMilliseconds(floor) < instant ? floor + 1 : floor;
    }
}
