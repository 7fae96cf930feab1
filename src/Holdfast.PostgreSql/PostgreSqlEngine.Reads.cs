using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.PostgreSql;
using Holdfast.Rules;
using Npgsql;

namespace Holdfast;

// Each read is one short statement, hence one snapshot, and holds nothing afterwards; listings go on from a key.
public sealed partial class PostgreSqlEngine
{
    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);

        // What the contract does not let in is not in the store, and some of it the database would not even take as text.
        var asked = skus.Where(sku => StockKey.Problem(sku) is null).Distinct(StringComparer.Ordinal).ToArray();
        var found = new Dictionary<string, StockLevel>(StringComparer.Ordinal);
        if (asked.Length > 0)
        {
            await ReadAsync(
                (_sql.Levels, found),
                command => command.With(Highest).With(TestTime).With(asked),
                static (found, row) =>
                {
                    var level = ReadLevel(row);
                    found.Add(level.Sku, level);
                },
                cancellationToken).ConfigureAwait(false);
        }

        var levels = new StockLevel[skus.Count];
        for (var i = 0; i < levels.Length; i++)
        {
            levels[i] = found.TryGetValue(skus[i], out var level) ? level : new() { Sku = skus[i] };
        }

        return levels;
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        if (StockKey.Problem(id) is not null)
        {
            return null;
        }

        var found = new List<OperationView>(1);
        await ReadAsync(
            (_sql.FindOperation, found),
            command => command.With(Highest).With(TestTime).With(id),
            static (found, row) => found.Add(StoredOperation.Read(row, first: 1).Operation.ToView(row.GetInt64(0))),
            cancellationToken).ConfigureAwait(false);
        return found.Count == 0 ? null : found[0];
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        prefix ??= "";

        // Half a surrogate pair at the end can't be looked up in UTF-8, and what the contract lets into no key is in none.
        var lookedUp = prefix.Length > 0 && char.IsHighSurrogate(prefix[^1]) ? prefix[..^1] : prefix;
        if (StockKey.Problem(lookedUp.Length < StockLimits.MaxKeyLength ? lookedUp + "x" : lookedUp) is not null)
        {
            yield break;
        }

        // What no key holds can't be looked up either: begin before it, and leave out here what is not after it.
        var from = after ?? "";
        var odd = from.AsSpan().IndexOfAnyExceptInRange(' ', '~');
        var last = odd < 0 ? from : from[..odd];
        while (true)
        {
            var page = new List<StockLevel>();
            var key = last;
            await ReadAsync(
                (_sql.ListLevels, page),
                command => command.With(Highest).With(TestTime).With(lookedUp).With(key).With((long)Tuning.PageRows),
                static (page, row) => page.Add(ReadLevel(row)),
                cancellationToken).ConfigureAwait(false);
            foreach (var level in page)
            {
                if (!level.Sku.StartsWith(lookedUp, StringComparison.Ordinal))
                {
                    yield break;
                }

                if (level.Sku.StartsWith(prefix, StringComparison.Ordinal) && StockKey.ByteOrder.Compare(level.Sku, from) > 0)
                {
                    yield return level;
                }
            }

            if (page.Count < Tuning.PageRows)
            {
                yield break;
            }

            last = page[^1].Sku;
        }
    }

    /// <inheritdoc/>
    /// <remarks>Operations come in byte order of their ids, due ones in order of expiry.</remarks>
    /// <exception cref="ArgumentException">The cursor is none of this kind of listing.</exception>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var (after, afterExpiry) = ParseCursor(query);
        var left = query.Limit ?? int.MaxValue;
        if (left <= 0 || (query.Target is not null && StockKey.Problem(query.Target) is not null))
        {
            yield break;
        }

        var now = await NowAsync(cancellationToken).ConfigureAwait(false);
        if (query.UndecidedOnly)
        {
            var all = new List<Operation>();
            await ReadAsync((_sql.ListUndecided, all), static _ => { }, static (all, row) => all.Add(StoredOperation.Read(row).Operation), cancellationToken).ConfigureAwait(false);
            foreach (var operation in all.Take(left))
            {
                yield return operation.ToView(now);
            }

            yield break;
        }

        var before = query.CreatedBefore is { } limit ? CeilingMilliseconds(limit) : (long?)null;
        var sql = query switch
        {
            { DueOnly: true } => _sql.ListDue,
            { Target: not null } => _sql.ListByTarget,
            { State: null } => _sql.ListAll,
            { State: OperationState.Applied } => _sql.ListApplied,
            { State: OperationState.Reserved } => _sql.ListLive,
            { State: OperationState.Expired } => _sql.ListExpired,
            _ => _sql.ListByState,
        };
        while (true)
        {
            var page = new List<Operation>();
            var (fromId, fromExpiry) = (after, afterExpiry);
            await ReadAsync(
                (sql, page),
                command =>
                {
                    command.With(now).With(fromId).With(before).With((long)Tuning.PageRows);
                    if (query.DueOnly)
                    {
                        command.With(fromExpiry);
                    }
                    else if (query.Target is not null)
                    {
                        command.With(query.Target);
                    }
                    else if (sql == _sql.ListByState)
                    {
                        command.With((short)query.State!);
                    }
                },
                static (page, row) => page.Add(StoredOperation.Read(row).Operation),
                cancellationToken).ConfigureAwait(false);
            foreach (var operation in page)
            {
                (after, afterExpiry) = (operation.Id, operation.ExpiresAt);
                var view = operation.ToView(now, query.DueOnly ? string.Create(CultureInfo.InvariantCulture, $"{afterExpiry}.{after}") : after);
                if ((query.State is null || view.State == query.State) && (query.Target is null || view.Target == query.Target))
                {
                    yield return view;
                    if (--left == 0)
                    {
                        yield break;
                    }
                }
            }

            if (page.Count < Tuning.PageRows)
            {
                yield break;
            }
        }
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default)
    {
        var end = await FinalPositionAsync(cancellationToken).ConfigureAwait(false);
        return end <= 0 ? null : end.ToString(CultureInfo.InvariantCulture);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this store's ledger.</exception>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        return ReadFlowAsync(query, wholeEnd: null, cancellationToken);
    }

    /// <summary>Reads the ledger.</summary>
    /// <param name="query">Which part of it.</param>
    /// <param name="wholeEnd">Up to which position the whole ledger is read; asks for the final one when <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    private async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, long? wholeEnd, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var after = query.After is null ? 0 : ParseNumber(query.After, query.After);
        if (query.Sku is not null && StockKey.Problem(query.Sku) is not null)
        {
            yield break;
        }

        // The first page of a SKU is one snapshot, and mostly all there is; only a longer ledger needs an end, so that a
        // reader does not run after busy writers for ever.
        var end = query.Sku is not null ? long.MaxValue : wholeEnd ?? await FinalPositionAsync(cancellationToken).ConfigureAwait(false);
        var left = query.Limit ?? int.MaxValue;
        while (left > 0 && after < end)
        {
            var page = new List<FlowEntry>();
            var (from, most) = (after, Math.Min(left, Tuning.PageRows));
            var isWhole = query.Sku is null;
            await ReadAsync(
                (isWhole ? _sql.WholeFlow : _sql.SkuFlow, (page, isWhole)),
                command =>
                {
                    command.With(from).With(end).With((long)most);
                    if (!isWhole)
                    {
                        command.With(query.Sku);
                    }
                },
                static (into, row) => into.page.Add(ReadFlowEntry(row, row.GetInt64(into.isWhole ? 0 : 2))),
                cancellationToken).ConfigureAwait(false);
            foreach (var entry in page)
            {
                yield return entry;
            }

            if (page.Count < most)
            {
                yield break;
            }

            left -= page.Count;
            after = ParseNumber(page[^1].Cursor!, page[^1].Cursor!);
            if (end == long.MaxValue && left > 0)
            {
                end = await VersionAsync(query.Sku!, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    internal static FlowEntry ReadFlowEntry(NpgsqlDataReader row, long cursor)
    {
        var kind = (FlowKind)row.GetInt16(4);
        return new()
        {
            Sku = row.GetString(1),
            Version = row.GetInt64(2),
            OperationId = row.GetString(3),
            Kind = kind,
            AvailableChange = row.GetInt64(5),
            ReservedChange = row.GetInt64(6),
            Available = row.GetInt64(7),
            Reserved = row.GetInt64(8),
            At = DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(9)),
            Opening = kind == FlowKind.Opening
                ? new() { Restocked = row.GetInt64(10), Adjusted = row.GetInt64(11), Supplied = row.GetInt64(12), Holds = StoredText.ReadHolds(row.GetString(13)) }
                : null,
            Cursor = cursor.ToString(CultureInfo.InvariantCulture),
        };
    }

    private static StockLevel ReadLevel(NpgsqlDataReader row) => new StockRow(row.GetString(0))
    {
        Available = row.GetInt64(1),
        Reserved = row.GetInt64(2),
        Restocked = row.GetInt64(3),
        Adjusted = row.GetInt64(4),
        Version = row.GetInt64(5),
    }.ToLevel(dueUnits: row.IsDBNull(6) ? 0 : row.GetInt64(6));

    private static (string Id, long ExpiresAt) ParseCursor(OperationQuery query)
    {
        if (query.After is not { } cursor)
        {
            return ("", 0);
        }

        var dot = query.DueOnly ? cursor.IndexOf('.', StringComparison.Ordinal) : -1;
        var id = query.DueOnly ? cursor[(dot + 1)..] : cursor;
        return StockKey.Problem(id) is null && (dot > 0 || !query.DueOnly)
            ? (id, dot > 0 ? ParseNumber(cursor[..dot], cursor) : 0)
            : throw new ArgumentException($"'{cursor}' is no cursor of this store's listing.", nameof(query));
    }

    private static long ParseNumber(string number, string cursor) =>
        long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var value)
            ? value
            : throw new ArgumentException($"'{cursor}' is no cursor of this store's listing.", nameof(cursor));

    /// <summary>The first whole millisecond that is not before an instant: what was created before that one was created before the instant.</summary>
    private static long CeilingMilliseconds(DateTimeOffset instant)
    {
        var floor = instant.ToUnixTimeMilliseconds();
        return DateTimeOffset.FromUnixTimeMilliseconds(floor) < instant ? floor + 1 : floor;
    }

    private Task<long> NowAsync(CancellationToken cancellationToken) =>
        ReadNumberAsync(_sql.Now, command => command.With(Highest).With(TestTime), cancellationToken);

    private Task<long> VersionAsync(string sku, CancellationToken cancellationToken) =>
        ReadNumberAsync(_sql.VersionOf, command => command.With(sku), cancellationToken);

    /// <summary>The last position of the ledger before which nothing can appear any more; see <see cref="Bookmarks"/>.</summary>
    /// <remarks>
    /// Waits for the writers of this moment to end, so that what was acknowledged before the call is part of the answer;
    /// a writer that does not end in time leaves the answer shorter, never with a gap.
    /// </remarks>
    private async Task<long> FinalPositionAsync(CancellationToken cancellationToken)
    {
        var latest = await ReadNumberAsync(_sql.LastBlock, static _ => { }, cancellationToken).ConfigureAwait(false);
        var began = _clock.GetTimestamp();
        while (true)
        {
            var bookmarks = new List<long>();
            await ReadAsync((_sql.FindBookmarks, bookmarks), static _ => { }, static (bookmarks, row) => bookmarks.Add(row.GetInt64(0)), cancellationToken).ConfigureAwait(false);
            var final = bookmarks.Aggregate(latest, (final, bookmark) => Math.Min(final, Bookmarks.BlockOf(bookmark, latest)));
            if (final == latest || _clock.GetElapsedTime(began) > _options.StatementTimeout)
            {
                return EndOfBlock(final);
            }

            await Task.Delay(TimeSpan.FromMilliseconds(2), _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    private static long EndOfBlock(long block) => ((block + 1) << Tuning.BlockBits) - 1;

    private async Task<long> ReadNumberAsync(string sql, Action<NpgsqlBatchCommand> bind, CancellationToken cancellationToken)
    {
        var numbers = new List<long>(1);
        await ReadAsync((sql, numbers), bind, static (numbers, row) => numbers.Add(row.GetInt64(0)), cancellationToken).ConfigureAwait(false);
        return numbers.Count == 0 ? 0 : numbers[0];
    }

    /// <summary>Runs one statement and hands each of its rows over; tries again where a connection of the pool turns out dead.</summary>
    private async Task ReadAsync<T>((string Sql, T Into) read, Action<NpgsqlBatchCommand> bind, Action<T, NpgsqlDataReader> take, CancellationToken cancellationToken)
    {
        const int tries = 3;
        for (var attempt = 1; ; attempt++)
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _closing) == 1, this);
            var stage = Stage.Connecting;
            try
            {
                var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
                await using var disposing = connection.ConfigureAwait(false);
                stage = Stage.Working;
                var batch = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
                await using var disposingToo = batch.ConfigureAwait(false);
                bind(batch.Add(read.Sql));
                var rows = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                await using var disposingThree = rows.ConfigureAwait(false);

                // A row that was handed over can't be taken back: only before the first one a retry is safe.
                while (await rows.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    attempt = tries;
                    take(read.Into, rows);
                }

                return;
            }
            catch (Exception e) when (Failure.IsOfStore(e) && e is not PostgreSqlStoreException && !cancellationToken.IsCancellationRequested)
            {
                var remedy = Failure.RemedyFor(e, stage);
                if (Failure.IsLoss(e))
                {
                    ForgetConnections();
                }

                if (remedy != Remedy.TryAgain || attempt >= tries)
                {
                    throw new PostgreSqlStoreException(Failure.Describe(e, Server), remedy != Remedy.Fail, (e as PostgresException)?.SqlState, e);
                }
            }
        }
    }
}
