namespace Holdfast.Cli.Replay;

/// <summary>
/// Plays the invoices of a file into an engine. One after another in file order, or several at once: then the invoices
/// of one customer still come one after another in file order, so that a cancellation finds exactly the orders before
/// it, while different customers, and invoices without one, run side by side.
/// </summary>
internal sealed class Replayer(IStockEngine engine, OrderFile file, TimeProvider time)
{
    private static readonly TimeSpan PatienceLimit = TimeSpan.FromSeconds(30);

    private readonly Patience _patience = new(engine, time, PatienceLimit);
    private readonly RefundBook _book = new();

    /// <summary>What came of it so far.</summary>
    public ReplayTally Tally { get; } = new();

    /// <summary>Stocks every SKU of the file.</summary>
    /// <returns>Whether all of it was applied; if not, the tally says why.</returns>
    public async Task<bool> OpenAsync(Opening opening)
    {
        foreach (var restock in opening.Commands(file))
        {
            var result = await _patience.ExecuteAsync(restock).ConfigureAwait(false);
            Tally.CountOpening(restock, result);
            if (!result.IsApplied)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Plays the invoices.</summary>
    /// <param name="concurrency">How many run at once.</param>
    /// <param name="progress">Called with the number of invoices done.</param>
    /// <param name="cancellationToken">Begins no further invoice; those under way are answered first.</param>
    public async Task RunAsync(int concurrency, Action<long> progress, CancellationToken cancellationToken)
    {
        if (concurrency == 1)
        {
            foreach (var invoice in file.Invoices)
            {
                if (cancellationToken.IsCancellationRequested)
                {
                    return;
                }

                await PlayAsync(invoice).ConfigureAwait(false);
                progress(Tally.Invoices);
            }

            return;
        }

        using var slots = new SemaphoreSlim(concurrency);
        var lastOfCustomer = new Dictionary<string, Task>(StringComparer.Ordinal);
        var running = new HashSet<Task>();
        foreach (var invoice in file.Invoices)
        {
            // Slots are handed out in file order, so whoever waits for a predecessor waits for one that has a slot.
            await slots.WaitAsync(CancellationToken.None).ConfigureAwait(false);
            if (cancellationToken.IsCancellationRequested || running.Any(task => task.IsFaulted))
            {
                slots.Release();
                break;
            }

            var customers = invoice.Rows.Select(row => row.Customer).Where(customer => customer.Length > 0).Distinct(StringComparer.Ordinal).ToArray();
            var predecessors = customers.Select(lastOfCustomer.GetValueOrDefault).OfType<Task>().ToArray();
            var task = PlayInSlotAsync(invoice, predecessors, slots, progress);
            foreach (var customer in customers)
            {
                lastOfCustomer[customer] = task;
            }

            running.RemoveWhere(t => t.IsCompletedSuccessfully);
            running.Add(task);
        }

        await Task.WhenAll(running).ConfigureAwait(false);
    }

    private async Task PlayInSlotAsync(Invoice invoice, Task[] predecessors, SemaphoreSlim slots, Action<long> progress)
    {
        try
        {
            await Task.WhenAll(predecessors).ConfigureAwait(false);
            await PlayAsync(invoice).ConfigureAwait(false);
            progress(Tally.Invoices);
        }
        finally
        {
            slots.Release();
        }
    }

    private async Task PlayAsync(Invoice invoice)
    {
        switch (invoice.Kind)
        {
            case InvoiceKind.Order:
                if (Tally.CountOrder(invoice, await _patience.ExecuteAsync(invoice.Command!).ConfigureAwait(false)))
                {
                    _book.Add(invoice);
                }

                break;
            case InvoiceKind.WriteOff:
                Tally.CountWriteOff(invoice, await _patience.ExecuteAsync(invoice.Command!).ConfigureAwait(false));
                break;
            default:
                var refunds = _book.Take(invoice, out var unmatched);
                foreach (var refund in refunds)
                {
                    Tally.CountRefund(refund, await _patience.ExecuteAsync(refund).ConfigureAwait(false));
                }

                Tally.CountUnmatched(unmatched);
                break;
        }

        Tally.CountInvoice();
    }
}
