using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Holdfast.Redis;

/// <summary>
/// Keeps the copies up to date: one process of all follows the store's ledger; after a new epoch was begun it loads the
/// stock and the known ids while the sale goes on; and every process loads the copies that its own commands missed.
/// </summary>
internal sealed class GateFollower : IAsyncDisposable
{
    private const int EntriesAPage = 1_000;
    private const int MostWanted = 10_000;

    private readonly IStockEngine _store;
    private readonly GateNode _node;
    private readonly GateCopies _copies;
    private readonly RedisGateOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly ConcurrentDictionary<string, bool> _wanted = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _passing = new(1);
    private Task _following = Task.CompletedTask;
    private Task _listing = Task.CompletedTask;
    private (long Epoch, string Cursor) _position;
    private bool _hasFailed;

    public GateFollower(IStockEngine store, GateNode node, GateCopies copies, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _store = store;
        _node = node;
        _copies = copies;
        _options = options;
        _clock = clock;
        _logger = logger;
    }

    public void Start() => _following = FollowAsync(_stop.Token);

    /// <summary>Asks for a copy to be loaded; nobody waits for it.</summary>
    public void Want(string sku)
    {
        if (_wanted.Count < MostWanted)
        {
            _wanted.TryAdd(sku, true);
        }
    }

    /// <summary>Follows the ledger to its present end now, whoever else does; <see langword="false"/> when the gate's epoch ended meanwhile.</summary>
    public async Task<bool> PassAsync(CancellationToken cancellationToken)
    {
        await _passing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var tick = _node.Latest;
            if (_position.Epoch != tick.Epoch)
            {
                _position = (tick.Epoch, tick.Cursor);
            }

            var began = _node.RedisTimeAtLeast();
            while (true)
            {
                var page = new List<FlowEntry>();
                await foreach (var entry in _store.ReadFlowAsync(new() { After = _position.Cursor.Length == 0 ? null : _position.Cursor, Limit = EntriesAPage }, cancellationToken).ConfigureAwait(false))
                {
                    page.Add(entry);
                }

                var isEnd = page.Count < EntriesAPage;
                var next = page.Count == 0 ? _position.Cursor : page[^1].Cursor ?? "";
                var rows = await ReadRowsAsync(page, cancellationToken).ConfigureAwait(false);
                var ids = page.Select(entry => entry.OperationId).Distinct(StringComparer.Ordinal).ToArray();
                if (await _copies.PushAsync(tick.Epoch, rows, _node.RedisTimeAtLeast(), new(_position.Cursor, next, isEnd ? began : 0, page.Count == 0 ? null : page[^1]), ids, cancellationToken).ConfigureAwait(false) != 1)
                {
                    await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
                    return false;
                }

                _position = (tick.Epoch, next);
                if (isEnd)
                {
                    return true;
                }
            }
        }
        finally
        {
            _passing.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _following.ConfigureAwait(false);
        await _listing.ConfigureAwait(false);
        _passing.Dispose();
        _stop.Dispose();
    }

    /// <summary>What a page of the ledger says of each SKU: its last entry; the whole row where what was ever stocked has changed too.</summary>
    private async Task<List<GateRow>> ReadRowsAsync(List<FlowEntry> page, CancellationToken cancellationToken)
    {
        var last = new Dictionary<string, FlowEntry>(StringComparer.Ordinal);
        var whole = new HashSet<string>(StringComparer.Ordinal);
        foreach (var entry in page)
        {
            last[entry.Sku] = entry;
            if (entry.Kind is FlowKind.Restock or FlowKind.Adjust)
            {
                whole.Add(entry.Sku);
            }
        }

        var rows = new List<GateRow>(last.Count);
        foreach (var (sku, entry) in last)
        {
            if (!whole.Contains(sku))
            {
                rows.Add(new(sku, entry.Version, entry.Available, entry.Reserved));
            }
        }

        foreach (var chunk in whole.Chunk(GateCopies.MostRows))
        {
            rows.AddRange((await _store.GetStockAsync(chunk, cancellationToken: cancellationToken).ConfigureAwait(false)).Where(level => level.IsKnown).Select(GateRow.Of));
        }

        return rows;
    }

    private async Task FollowAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(_options.FollowInterval, _clock);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                if (_node.IsAttached)
                {
                    await WorkAsync(cancellationToken).ConfigureAwait(false);
                }
            }
        }
        catch (Exception e) when (cancellationToken.IsCancellationRequested)
        {
            // Disposed. A call that was under way may have ended otherwise than by its token, since its connection may be closing, too.
            _logger.LogDebug(e, "Stopped while the store's ledger was being followed.");
        }
    }

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        try
        {
            var tick = _node.Latest;
            if (tick.Leads)
            {
                await PassAsync(cancellationToken).ConfigureAwait(false);
                if (!tick.KnowsIds && tick.IsSettled && _listing.IsCompleted)
                {
                    _listing = ListAsync(tick, cancellationToken);
                }
            }
            else
            {
                // Whoever follows next goes on from where the gate is by then, not from where this process once was.
                _position = default;
            }

            // Those that are wanted now: while unknown SKUs keep coming the list would never be empty, and the ledger never followed.
            foreach (var skus in _wanted.Keys.Chunk(GateCopies.MostRows))
            {
                await LoadAsync(skus, cancellationToken).ConfigureAwait(false);
                foreach (var sku in skus)
                {
                    _wanted.TryRemove(sku, out _);
                }
            }

            _hasFailed = false;
        }
        catch (RedisStoreException e)
        {
            _node.Detach(e);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            // The store's troubles are the business of those who send commands; without a pass the copies grow old, and the gate stands aside.
            _logger.Log(_hasFailed ? LogLevel.Debug : LogLevel.Warning, e, "The store's ledger could not be followed; trying again.");
            _hasFailed = true;
        }
    }

    private async Task LoadAsync(string[] skus, CancellationToken cancellationToken)
    {
        var readAt = _node.RedisTimeAtLeast();
        var levels = await _store.GetStockAsync(skus, cancellationToken: cancellationToken).ConfigureAwait(false);
        await _copies.PushAsync(_node.Latest.Epoch, [.. levels.Where(level => level.IsKnown).Select(GateRow.Of)], readAt, default, [], cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Loads the whole stock and all known ids into a new epoch. Commands go on meanwhile, straight to the store.</summary>
    private async Task ListAsync(GateTick tick, CancellationToken cancellationToken)
    {
        var began = _clock.GetTimestamp();
        var (skus, operations) = (0L, 0L);
        try
        {
            var rows = new List<GateRow>(GateCopies.MostRows);
            var readAt = _node.RedisTimeAtLeast();
            await foreach (var level in _store.ListStockAsync(cancellationToken: cancellationToken).ConfigureAwait(false))
            {
                rows.Add(GateRow.Of(level));
                skus++;
                if (rows.Count == GateCopies.MostRows)
                {
                    await _copies.PushAsync(tick.Epoch, rows, readAt, default, [], cancellationToken).ConfigureAwait(false);
                    rows.Clear();
                }
            }

            await _copies.PushAsync(tick.Epoch, rows, readAt, default, [], cancellationToken).ConfigureAwait(false);
            var ids = new List<string>(EntriesAPage);
            await foreach (var operation in _store.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
            {
                ids.Add(operation.Id);
                operations++;
                if (ids.Count == EntriesAPage)
                {
                    await _node.NoteIdsAsync(ids, tick.Epoch, 0, cancellationToken).ConfigureAwait(false);
                    ids.Clear();
                }
            }

            if (await _node.NoteIdsAsync(ids, tick.Epoch, tick.Listing, cancellationToken).ConfigureAwait(false) == 1)
            {
                _logger.LogInformation(
                    "The gate refuses from now on: {Skus} SKUs and {Operations} ids were loaded in {Time:0.0} s.", skus, operations, _clock.GetElapsedTime(began).TotalSeconds);
                await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        catch (RedisStoreException e)
        {
            _node.Detach(e);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            _logger.LogWarning(e, "The stock and the ids could not be loaded into the gate; trying again.");
        }
        catch (Exception e)
        {
            // Disposed, as above.
            _logger.LogDebug(e, "Stopped while the stock and the ids were being loaded.");
        }
    }
}
