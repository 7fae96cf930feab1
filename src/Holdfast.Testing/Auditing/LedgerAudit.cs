using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>What to audit, and whom to tell how far it is.</summary>
public sealed record LedgerAuditOptions
{
    /// <summary>
    /// Only these SKUs, read SKU by SKU: for a part of a shared store, and for engines that do not list the whole store.
    /// All by default.
    /// </summary>
    public IReadOnlyCollection<string>? Skus { get; init; }

    /// <summary>Told now and then how far the audit is.</summary>
    public IProgress<AuditProgress>? Progress { get; init; }
}

/// <summary>
/// Replays the whole ledger of a store and compares it with the stock rows and the operations: versions contiguous per
/// (SKU, partition), balances adding up, never negative, within the limit of supply, equal to the rows; every entry
/// belonging to an operation, every operation having exactly the entries that it stands for (carts whole, reservations
/// ended once), refunds adding up to what their order says and never over what was deducted.
/// <para>
/// Streams: memory is a few numbers a SKU, its live holds, and 16 MiB of fingerprints, however long the ledger is. Only
/// after a mismatch a second pass over the store finds the operations to name.
/// </para>
/// <para>
/// A live store may be audited. The rows are read first, then the ledger to the end that it has at that moment: each
/// row is compared when the ledger passes the version it was read at. Operations that change while the audit runs are
/// read again, one by one, until they agree with the ledger; this takes memory in proportion to what is written
/// meanwhile. What is found on a live store is a real difference all the same.
/// </para>
/// <para>
/// Where older entries were archived, it starts from the openings that stand for them: versions, balances, sums and live
/// holds go on from there, and of an operation those entries are asked for that are younger. With the archives at hand
/// (<see cref="ArchivedLedger"/>) it proves everything from the first entry, and each opening as well.
/// </para>
/// </summary>
public static class LedgerAudit
{
    /// <summary>How often an audit begins anew when entries are archived under its eyes.</summary>
    private const int Tries = 3;

    /// <summary>Audits a store.</summary>
    public static async Task<AuditReport> RunAsync(IStockEngine engine, LedgerAuditOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        options ??= new();
        for (var attempt = 1; ; attempt++)
        {
            LedgerAuditRun run = options.Skus is null
                ? new WholeStoreAudit(engine, options, cancellationToken)
                : new SkuAudit(engine, options, cancellationToken);
            var report = await run.RunAsync().ConfigureAwait(false);
            if (!run.WasOvertaken || attempt == Tries)
            {
                return report;
            }
        }
    }
}

/// <summary>What both ways of auditing share.</summary>
internal abstract class LedgerAuditRun(IStockEngine engine, LedgerAuditOptions options, CancellationToken cancellationToken)
{
    /// <summary>How often what disagrees is read again: on a live store it may change between two reads.</summary>
    protected const int Looks = 10;

    private const int ProgressStep = 10_000;

    protected IStockEngine Engine { get; } = engine;

    protected LedgerAuditOptions Options { get; } = options;

    protected CancellationToken CancellationToken { get; } = cancellationToken;

    protected DifferenceList Differences { get; } = new();

    protected Dictionary<string, SkuReplay> Replays { get; } = new(StringComparer.Ordinal);

    protected long Entries { get; set; }

    protected long Operations { get; set; }

    /// <summary>Whether entries were archived between two reads of this audit, so that what it found may be no difference.</summary>
    public bool WasOvertaken => IsOvertaken || Replays.Values.Any(replay => replay.WasOvertaken);

    /// <summary>Set where a second pass meets an opening that the first did not.</summary>
    protected bool IsOvertaken { get; set; }

    /// <summary>Audits.</summary>
    public abstract Task<AuditReport> RunAsync();

    protected AuditReport Report() => new()
    {
        Skus = Replays.Count,
        Entries = Entries,
        Operations = Operations,
        DifferenceCount = Differences.Count,
        Differences = Differences.First,
    };

    protected void Tell(string phase, long count)
    {
        if (count % ProgressStep == 0)
        {
            Options.Progress?.Report(new(phase, count));
        }
    }

    protected SkuReplay ReplayOf(string sku)
    {
        ref var replay = ref CollectionsMarshal.GetValueRefOrAddDefault(Replays, sku, out _);
        return replay ??= new(sku, Differences);
    }

    /// <summary>The opening that a SKU's ledger was read from, if any.</summary>
    protected SkuOpening? OpeningOf(string sku) => Replays.GetValueOrDefault(sku)?.Opening;

    protected ValueTask<OperationView?> OperationAsync(string id) => Engine.GetOperationAsync(id, CancellationToken);

    /// <summary>Compares a row, read before the ledger, at the version that the replay has reached.</summary>
    protected async ValueTask CompareRowAsync(SkuReplay replay, StockLevel row)
    {
        var due = replay.CompareWith(row);
        if (due == 0)
        {
            return;
        }

        // The row counts some held units as available: those must be the holds that expire first, whole ones, and such
        // that nobody holds any more now that we ask.
        var holds = new List<(DateTimeOffset ExpiresAt, long Units)>();
        foreach (var (id, units) in replay.OpenHolds)
        {
            if (await OperationAsync(id).ConfigureAwait(false) is { State: not OperationState.Reserved, ExpiresAt: { } expiresAt })
            {
                holds.Add((expiresAt, units));
            }
        }

        var sum = 0L;
        foreach (var sameInstant in holds.GroupBy(hold => hold.ExpiresAt).OrderBy(group => group.Key))
        {
            sum += sameInstant.Sum(hold => hold.Units);
            if (sum == due)
            {
                return;
            }
        }

        Differences.Add($"{replay.Sku}: the stock row counts {due} reserved units as available; they are not those of reservations whose time has passed (version {replay.Version}).");
    }

    /// <summary>Compares what the ledger came to with the row that was read before it, where that has not been done on the way.</summary>
    protected async ValueTask CompareAtEndAsync(SkuReplay replay)
    {
        var row = replay.Row ?? await Engine.GetStockAsync(replay.Sku, cancellationToken: CancellationToken).ConfigureAwait(false);
        if (replay.IsCompared)
        {
            return;
        }

        if (replay.Version > row.Version && replay.Row is not null)
        {
            // Several partitions, and the store went on: the row as it is now is at least as new as the ledger that was read.
            row = await Engine.GetStockAsync(replay.Sku, cancellationToken: CancellationToken).ConfigureAwait(false);
        }

        if (row.Version == replay.Version)
        {
            await CompareRowAsync(replay, row).ConfigureAwait(false);
        }
        else if (row.Version < replay.Version)
        {
            Differences.Add(row.IsKnown
                ? $"{replay.Sku}: the ledger ends at version {replay.Version}, its stock row is at version {row.Version}."
                : $"{replay.Sku}: the ledger has {replay.Version} entries, but there is no stock row.");
        }
        else if (replay.Row is { } earlier && earlier.Version > replay.Version)
        {
            Differences.Add($"{replay.Sku}: the stock row is at version {earlier.Version}, its ledger ends at version {replay.Version}.");
        }
    }

    /// <summary>Compares what an order says was refunded with its refunds.</summary>
    /// <param name="id">The order.</param>
    /// <param name="order">How it stood a moment ago, if it is known.</param>
    /// <param name="isAudited">Whether a SKU belongs to what is audited.</param>
    protected async ValueTask CompareRefundsAsync(string id, OperationView? order, Func<string, bool> isAudited)
    {
        for (var look = 1; ; look++)
        {
            var refunds = new Dictionary<string, long>(StringComparer.Ordinal);
            await foreach (var refund in Engine.ListOperationsAsync(new() { Target = id }, CancellationToken).ConfigureAwait(false))
            {
                foreach (var line in refund.Lines.Where(line => refund.Verb == StockVerb.Refund && isAudited(line.Sku)))
                {
                    refunds[line.Sku] = refunds.GetValueOrDefault(line.Sku) + line.Quantity;
                }
            }

            var refunded = (order?.Lines ?? []).Where(line => line.Refunded != 0 && isAudited(line.Sku)).ToDictionary(line => line.Sku, line => line.Refunded, StringComparer.Ordinal);
            var sku = refunded.Keys.Concat(refunds.Keys).FirstOrDefault(sku => refunded.GetValueOrDefault(sku) != refunds.GetValueOrDefault(sku));
            if (sku is null)
            {
                return;
            }

            var now = await OperationAsync(id).ConfigureAwait(false);
            if (look >= Looks || (look > 1 && (now?.Lines ?? []).SequenceEqual(order?.Lines ?? [])))
            {
                Differences.Add(now is null
                    ? $"{id}: {refunds[sku]} units of {sku} were refunded, but there is no such order."
                    : $"{id}: its refunds of {sku} add up to {refunds.GetValueOrDefault(sku)}; it says {refunded.GetValueOrDefault(sku)}.");
                return;
            }

            order = now;
        }
    }
}
