using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.Sqlite;

namespace Holdfast;

/// <content>Reads.</content>
public sealed partial class SqliteEngine
{
    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        return ReadAsync<IReadOnlyList<string>, IReadOnlyList<StockLevel>>(skus, static (engine, reader, skus) => reader.Levels(skus, engine.Now(reader)), cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        return StockKey.Problem(id) is not null
            ? new((OperationView?)null)
            : ReadAsync(id, static (engine, reader, id) => reader.FindOperation(id, engine.Now(reader)), cancellationToken);
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        prefix ??= "";

        // Half a surrogate pair at the end can't be looked up in UTF-8: look up what precedes it, and compare here.
        var lookedUp = prefix.Length > 0 && char.IsHighSurrogate(prefix[^1]) ? prefix[..^1] : prefix;
        if (after is not null && StockKey.ByteOrder.Compare(after, lookedUp) < 0)
        {
            after = null;
        }

        while (true)
        {
            var (page, mayGoOn) = await ReadAsync(
                (lookedUp, after),
                static (engine, reader, from) => reader.ListLevels(from.lookedUp, from.after, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            foreach (var level in page)
            {
                if (level.Sku.StartsWith(prefix, StringComparison.Ordinal))
                {
                    yield return level;
                }
            }

            if (!mayGoOn)
            {
                yield break;
            }

            after = page[^1].Sku;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this kind of listing.</exception>
    public async IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var pages = query.UndecidedOnly ? UndecidedPagesAsync(cancellationToken) : query.DueOnly ? DuePagesAsync(query, cancellationToken) : PagesAsync(query, cancellationToken);
        var left = query.Limit ?? int.MaxValue;
        if (left <= 0)
        {
            yield break;
        }

        await foreach (var page in pages.ConfigureAwait(false))
        {
            foreach (var view in page)
            {
                yield return view;
                if (--left == 0)
                {
                    yield break;
                }
            }
        }
    }

    /// <inheritdoc/>
    public async ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default)
    {
        var (_, end) = await ReadAsync((string?)null, static (_, reader, sku) => reader.FlowEnd(sku), cancellationToken).ConfigureAwait(false);
        return end == 0 ? null : end.ToString(CultureInfo.InvariantCulture);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this store's ledger.</exception>
    public async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var after = query.After is null ? 0 : ParseCursor(query.After, query.After);
        if (query.Sku is not null && StockKey.Problem(query.Sku) is not null)
        {
            yield break;
        }

        var (stock, end) = await ReadAsync(query.Sku, static (_, reader, sku) => reader.FlowEnd(sku), cancellationToken).ConfigureAwait(false);
        var left = query.Limit ?? int.MaxValue;
        while (left > 0 && after < end)
        {
            var page = await ReadAsync(
                (query.Sku, stock, after, end, most: Math.Min(left, Tuning.PageRows)),
                static (_, reader, from) => reader.ReadFlow(from.Sku, from.stock, from.after, from.end, from.most),
                cancellationToken).ConfigureAwait(false);
            if (page.Count == 0)
            {
                yield break;
            }

            foreach (var entry in page)
            {
                yield return entry;
            }

            left -= page.Count;
            after = ParseCursor(page[^1].Cursor!, page[^1].Cursor!);
        }
    }

    /// <summary>Store time for a read: beside a writer in another process, what that one stored counts too.</summary>
    private long Now(Reader reader) => _options.ReadOnly ? Math.Max(Now(), reader.HighestTime()) : Now();

    private async IAsyncEnumerable<List<OperationView>> PagesAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var after = query.After is null ? 0 : ParseCursor(query.After, query.After);
        var end = await ReadAsync(query, static (_, reader, _) => reader.LastOperation(), cancellationToken).ConfigureAwait(false);
        for (long? goOn = after; goOn is { } from && from < end;)
        {
            (var page, goOn) = await ReadAsync(
                (query, from, end),
                static (engine, reader, at) => reader.ListOperations(at.query, at.from, at.end, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            yield return page;
        }
    }

    private async IAsyncEnumerable<List<OperationView>> UndecidedPagesAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return await ReadAsync(this, static (engine, reader, _) => reader.ListUndecided(engine.Now(reader)), cancellationToken).ConfigureAwait(false);
    }

    private async IAsyncEnumerable<List<OperationView>> DuePagesAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        (long, long)? goOn = (0, 0);
        if (query.After is { } cursor)
        {
            var dot = cursor.IndexOf('.', StringComparison.Ordinal);
            goOn = (ParseCursor(dot < 0 ? "" : cursor[..dot], cursor), ParseCursor(cursor[(dot + 1)..], cursor));
        }

        while (goOn is { } from)
        {
            (var page, goOn) = await ReadAsync(
                (query, from),
                static (engine, reader, at) => reader.ListDue(at.query, at.from, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            yield return page;
        }
    }

    private static long ParseCursor(string number, string cursor) =>
        long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var value)
            ? value
            : throw new ArgumentException($"'{cursor}' is no cursor of this store's listing.", nameof(cursor));

    /// <summary>Runs one short read on a connection of its own; without a wait where one is free.</summary>
    private ValueTask<TResult> ReadAsync<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return _readTurns.TryBegin() ? new(ReadInTurn(argument, read)) : WaitAndReadAsync(argument, read, cancellationToken);
    }

    private async ValueTask<TResult> WaitAndReadAsync<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read, CancellationToken cancellationToken) =>
        (await _readTurns.BeginAsync(cancellationToken).ConfigureAwait(false)) switch
        {
            Turn.Crowded => throw new SqliteStoreException($"More than {_options.MaxWaiting} reads of the stock file '{_path}' wait already; try again later."),
            Turn.TimedOut => throw new SqliteStoreException($"Waited {_options.BusyTimeout.TotalSeconds:0.###} s for a connection to read the stock file '{_path}'; try again later."),
            _ => ReadInTurn(argument, read),
        };

    private TResult ReadInTurn<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read)
    {
        Reader? reader = null;
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _closing) == 1, this);
            lock (_readers)
            {
                reader = _readers.Pop();
            }

            return read(this, reader, argument);
        }
        finally
        {
            if (reader is not null)
            {
                lock (_readers)
                {
                    _readers.Push(reader);
                }
            }

            _readTurns.End();
        }
    }
}
