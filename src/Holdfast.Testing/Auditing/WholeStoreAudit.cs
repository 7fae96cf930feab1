namespace Holdfast.Testing;

/// <summary>Audits everything a store holds, streaming; see <see cref="LedgerAudit"/>.</summary>
internal sealed class WholeStoreAudit(IStockEngine engine, LedgerAuditOptions options, CancellationToken cancellationToken)
    : LedgerAuditRun(engine, options, cancellationToken)
{
    private const int BucketBits = 20;

    /// <summary>Ledger entries minus what the operations stand for, added up per bucket of operation ids: all zero when they agree.</summary>
    private readonly ulong[] _open = new ulong[1 << BucketBits];

    /// <summary>Units of refunds minus what their orders say was refunded, per bucket of order ids.</summary>
    private readonly ulong[] _openRefunds = new ulong[1 << BucketBits];

    /// <summary>Where the ledger has been read to.</summary>
    private string? _cursor;
    private bool _isReleasing;

    public override async Task<AuditReport> RunAsync()
    {
        await ReadRowsAsync().ConfigureAwait(false);
        await ReadLedgerAsync(touched: null).ConfigureAwait(false);
        await ReadOperationsAsync().ConfigureAwait(false);

        // What was written since the ledger was read belongs to operations that were listed before or after it: look at those one by one.
        var touched = new HashSet<int>();
        await ReadLedgerAsync(touched).ConfigureAwait(false);
        var wentOn = touched.Count > 0 || _isReleasing;
        foreach (var replay in Replays.Values)
        {
            await CompareAtEndAsync(replay).ConfigureAwait(false);
        }

        for (var bucket = 0; bucket < _open.Length; bucket++)
        {
            if (_open[bucket] != 0 || _openRefunds[bucket] != 0)
            {
                touched.Add(bucket);
            }
        }

        if (touched.Count > 0 && !await LookCloselyAsync(touched).ConfigureAwait(false) && !wentOn)
        {
            Differences.Add("The ledger and the operations do not add up, although each operation agrees when looked at alone; stop the writers and audit again.");
        }

        return Report();
    }

    private static int BucketOf(ulong hash) => (int)(hash >> (64 - BucketBits));

    private async Task ReadRowsAsync()
    {
        var count = 0L;
        string? last = null;
        await foreach (var row in Engine.ListStockAsync(cancellationToken: CancellationToken).ConfigureAwait(false))
        {
            Tell("stock rows", ++count);
            if (last is not null && StockKey.ByteOrder.Compare(last, row.Sku) >= 0)
            {
                Differences.Add($"{row.Sku}: is listed after {last}; SKUs are listed once, in byte order.");
            }

            last = row.Sku;
            ReplayOf(row.Sku).Row = row;
        }
    }

    private async Task ReadLedgerAsync(HashSet<int>? touched)
    {
        await foreach (var entry in Engine.ReadFlowAsync(new() { After = _cursor }, CancellationToken).ConfigureAwait(false))
        {
            Tell("ledger", ++Entries);
            _cursor = entry.Cursor;
            var replay = ReplayOf(entry.Sku);
            replay.Replay(entry);
            if (replay.MeetsRow)
            {
                await CompareRowAsync(replay, replay.Row!.Value).ConfigureAwait(false);
            }

            if (entry.Kind == FlowKind.Opening)
            {
                continue;
            }

            var hash = OperationFlow.HashOf(entry.OperationId);
            _open[BucketOf(hash)] += OperationFlow.Fingerprint(hash, entry.Sku, OperationFlow.GroupOf(entry.Kind), entry.AvailableChange, entry.ReservedChange);
            touched?.Add(BucketOf(hash));
        }
    }

    private async Task ReadOperationsAsync()
    {
        var ids = Engine.Traits.HasFlag(StockTraits.GlobalIds) ? null : new ReusedIds();
        await foreach (var view in Engine.ListOperationsAsync(new(), CancellationToken).ConfigureAwait(false))
        {
            Tell("operations", ++Operations);
            if (OperationFlow.Problem(view) is { } problem)
            {
                Differences.Add(problem);
            }

            _isReleasing |= OperationFlow.IsBeingReleased(view);
            var hash = OperationFlow.HashOf(view.Id);
            ids?.Add(view.Id, hash);
            foreach (var change in OperationFlow.Expected(view, OpeningOf))
            {
                _open[BucketOf(hash)] -= OperationFlow.Fingerprint(hash, change.Sku, change.Kind, change.Available, change.Reserved);
            }

            AddRefunds(view, hash);
        }

        foreach (var difference in ids is null ? [] : await ids.FindAsync(Engine, CancellationToken).ConfigureAwait(false))
        {
            Differences.Add(difference);
        }
    }

    private void AddRefunds(OperationView view, ulong hash)
    {
        if (view is { Verb: StockVerb.Refund, Target: { } order })
        {
            var orderHash = OperationFlow.HashOf(order);
            foreach (var line in view.Lines)
            {
                _openRefunds[BucketOf(orderHash)] += OperationFlow.RefundFingerprint(orderHash, line.Sku, line.Quantity);
            }
        }

        foreach (var line in view.Lines)
        {
            if (line.Refunded != 0)
            {
                _openRefunds[BucketOf(hash)] -= OperationFlow.RefundFingerprint(hash, line.Sku, line.Refunded);
            }
        }
    }

    /// <summary>The second pass: compares the operations of some buckets one by one, and names what differs.</summary>
    /// <returns>Whether it found any.</returns>
    private async Task<bool> LookCloselyAsync(HashSet<int> buckets)
    {
        var before = Differences.Count;
        var entries = new Dictionary<string, List<FlowEntry>>(StringComparer.Ordinal);
        string? cursor = null;
        var reached = new Dictionary<string, long>(StringComparer.Ordinal);
        async Task CollectAsync()
        {
            await foreach (var entry in Engine.ReadFlowAsync(new() { After = cursor }, CancellationToken).ConfigureAwait(false))
            {
                cursor = entry.Cursor;
                if (entry.Kind == FlowKind.Opening)
                {
                    // The one that the first pass began with, or one whose entries were read just now from an archive.
                    IsOvertaken |= entry.Version > reached.GetValueOrDefault(entry.Sku, OpeningOf(entry.Sku)?.Version ?? 0);
                    continue;
                }

                reached[entry.Sku] = entry.Version;
                if (!buckets.Contains(BucketOf(OperationFlow.HashOf(entry.OperationId))))
                {
                    continue;
                }

                if (!entries.TryGetValue(entry.OperationId, out var list))
                {
                    entries.Add(entry.OperationId, list = []);
                }

                list.Add(entry);
            }
        }

        await CollectAsync().ConfigureAwait(false);
        var views = new Dictionary<string, OperationView>(StringComparer.Ordinal);
        var refundedOrders = new HashSet<string>(StringComparer.Ordinal);
        await foreach (var view in Engine.ListOperationsAsync(new(), CancellationToken).ConfigureAwait(false))
        {
            Tell("operations, second look", views.Count + 1);
            if (buckets.Contains(BucketOf(OperationFlow.HashOf(view.Id))) && !views.TryAdd(view.Id, view))
            {
                Differences.Add($"{view.Id}: is listed twice among the operations.");
            }

            if (view is { Verb: StockVerb.Refund, Target: { } order } && buckets.Contains(BucketOf(OperationFlow.HashOf(order))))
            {
                refundedOrders.Add(order);
            }
        }

        foreach (var id in views.Keys.Concat(entries.Keys).Distinct(StringComparer.Ordinal).ToList())
        {
            for (var look = 1; Compare(id, views.GetValueOrDefault(id), entries.GetValueOrDefault(id) ?? []) is { } difference; look++)
            {
                // On a live store the listing and the ledger are of two instants: read both again before judging.
                var seen = entries.GetValueOrDefault(id)?.Count;
                if (await OperationAsync(id).ConfigureAwait(false) is { } now)
                {
                    views[id] = now;
                }

                await CollectAsync().ConfigureAwait(false);
                if (look >= Looks || (look > 1 && seen == entries.GetValueOrDefault(id)?.Count))
                {
                    Differences.Add(difference);
                    break;
                }
            }
        }

        foreach (var order in refundedOrders.Concat(views.Values.Where(HasRefunds).Select(view => view.Id)).Distinct(StringComparer.Ordinal))
        {
            await CompareRefundsAsync(order, views.GetValueOrDefault(order), static _ => true).ConfigureAwait(false);
        }

        return Differences.Count > before;
    }

    private static bool HasRefunds(OperationView view) => view.Lines.Any(line => line.Refunded != 0);

    private string? Compare(string id, OperationView? view, List<FlowEntry> entries) => view is null
        ? $"{id}: has ledger entries ({entries[0].Kind} of {entries[0].Sku}, version {entries[0].Version}) but there is no such operation."
        : OperationFlow.Compare(view, entries, static _ => true, OpeningOf);
}
