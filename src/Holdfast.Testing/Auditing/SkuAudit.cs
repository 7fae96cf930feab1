namespace Holdfast.Testing;

/// <summary>Audits some SKUs, one after the other. Keeps their ledgers in memory: for what one test or one incident touched.</summary>
internal sealed class SkuAudit(IStockEngine engine, LedgerAuditOptions options, CancellationToken cancellationToken)
    : LedgerAuditRun(engine, options, cancellationToken)
{
    private const int RowsPerRead = 500;

    /// <summary>From so many operations on, the store's listing is looked through before they are asked for one by one.</summary>
    private const int ManyOperations = 500;

    /// <summary>How many operations of others are passed over for each one looked for.</summary>
    private const int ListedPerOperation = 4;

    private readonly Dictionary<string, List<FlowEntry>> _byOperation = new(StringComparer.Ordinal);

    /// <summary>Where each SKU's ledger has been read to.</summary>
    private readonly Dictionary<string, string?> _cursors = new(StringComparer.Ordinal);

    public override async Task<AuditReport> RunAsync()
    {
        // Each row is read before its ledger; thousands of rows in a few reads.
        foreach (var page in Options.Skus!.Chunk(RowsPerRead))
        {
            var rows = await Engine.GetStockAsync(page, cancellationToken: CancellationToken).ConfigureAwait(false);
            for (var i = 0; i < page.Length; i++)
            {
                ReplayOf(page[i]).Row = rows[i];
            }
        }

        foreach (var sku in Options.Skus!)
        {
            await ReadLedgerAsync(sku).ConfigureAwait(false);
            await CompareAtEndAsync(ReplayOf(sku)).ConfigureAwait(false);
        }

        Operations = _byOperation.Count;
        await CompareRefundsAsync(await CompareOperationsAsync().ConfigureAwait(false)).ConfigureAwait(false);
        return Report();
    }

    private bool IsAudited(string sku) => Replays.ContainsKey(sku);

    private async Task ReadLedgerAsync(string sku)
    {
        var replay = ReplayOf(sku);
        await foreach (var entry in Engine.ReadFlowAsync(new() { Sku = sku, After = _cursors.GetValueOrDefault(sku) }, CancellationToken).ConfigureAwait(false))
        {
            Tell("ledger", ++Entries);
            _cursors[sku] = entry.Cursor;
            if (entry.Sku != sku)
            {
                Differences.Add($"{sku}: its ledger holds an entry of {entry.Sku} ({entry.Kind} of {entry.OperationId}).");
                continue;
            }

            replay.Replay(entry);
            if (replay.MeetsRow)
            {
                await CompareRowAsync(replay, replay.Row!.Value).ConfigureAwait(false);
            }

            if (entry.Kind == FlowKind.Opening)
            {
                continue;
            }

            if (!_byOperation.TryGetValue(entry.OperationId, out var entries))
            {
                _byOperation.Add(entry.OperationId, entries = []);
            }

            entries.Add(entry);
        }
    }

    /// <summary>Compares each operation with its entries; those that disagree are read again together with what the ledger got meanwhile.</summary>
    private async Task<List<OperationView>> CompareOperationsAsync()
    {
        var views = new Dictionary<string, OperationView>(StringComparer.Ordinal);
        var different = new Dictionary<string, string>(StringComparer.Ordinal);
        if (_byOperation.Count >= ManyOperations)
        {
            await ListOperationsAsync(views).ConfigureAwait(false);
        }

        // What was listed and agrees is done; all else is asked for by its id.
        IReadOnlyCollection<string> pending = [.. _byOperation.Keys.Where(id => !views.TryGetValue(id, out var view) || Difference(id, view) is not null)];
        for (var look = 1; look <= Looks && pending.Count > 0; look++)
        {
            different.Clear();
            foreach (var id in pending)
            {
                var view = await OperationAsync(id).ConfigureAwait(false);
                if (view is not null)
                {
                    views[id] = view;
                }

                if (Difference(id, view) is { } difference)
                {
                    different.Add(id, difference);
                }

                Tell("operations", views.Count);
            }

            pending = [.. different.Keys];
            if (look == Looks || pending.Count == 0)
            {
                break;
            }

            // On a live store the operation and the ledgers were of different instants: now the ledgers are not older.
            foreach (var sku in Options.Skus!)
            {
                await ReadLedgerAsync(sku).ConfigureAwait(false);
            }

            if (pending.All(id => views.TryGetValue(id, out var view) && Difference(id, view) == different[id]))
            {
                break;
            }
        }

        foreach (var difference in different.Values)
        {
            Differences.Add(difference);
        }

        return [.. views.Values];
    }

    /// <summary>Finds operations in the store's listing, as far as that is worth it on a store that holds many others.</summary>
    private async Task ListOperationsAsync(Dictionary<string, OperationView> views)
    {
        var query = new OperationQuery { Limit = _byOperation.Count * ListedPerOperation };
        await foreach (var view in Engine.ListOperationsAsync(query, CancellationToken).ConfigureAwait(false))
        {
            if (_byOperation.ContainsKey(view.Id))
            {
                views[view.Id] = view;
                Tell("operations", views.Count);
            }
        }
    }

    private string? Difference(string id, OperationView? view) => view is null
        ? $"{id}: has ledger entries ({_byOperation[id][0].Kind} of {_byOperation[id][0].Sku}) but there is no such operation."
        : OperationFlow.Problem(view) ?? OperationFlow.Compare(view, _byOperation[id], IsAudited, OpeningOf);

    private async Task CompareRefundsAsync(List<OperationView> views)
    {
        var refunds = new Dictionary<(string Order, string Sku), long>();
        foreach (var refund in views.Where(view => view.Verb == StockVerb.Refund))
        {
            foreach (var line in refund.Lines.Where(line => IsAudited(line.Sku)))
            {
                refunds[(refund.Target!, line.Sku)] = refunds.GetValueOrDefault((refund.Target!, line.Sku)) + line.Quantity;
            }
        }

        var different = new HashSet<string>(StringComparer.Ordinal);
        foreach (var order in views.Where(view => view.Verb is StockVerb.Deduct or StockVerb.Reserve))
        {
            foreach (var line in order.Lines.Where(line => IsAudited(line.Sku)))
            {
                refunds.Remove((order.Id, line.Sku), out var refunded);
                if (refunded != line.Refunded)
                {
                    different.Add(order.Id);
                }
            }
        }

        // What is left are refunds of what took none of these SKUs, or of what was not there yet when their ledgers were read.
        different.UnionWith(refunds.Keys.Select(key => key.Order));
        foreach (var id in different)
        {
            await CompareRefundsAsync(id, await OperationAsync(id).ConfigureAwait(false), IsAudited).ConfigureAwait(false);
        }
    }
}
