using System.Diagnostics;

namespace Holdfast.Testing;

/// <summary>How to read a history.</summary>
public sealed record HistoryAuditOptions
{
    /// <summary>Operations on the same SKUs that are known to come from elsewhere (from before the history, from other callers); none by default.</summary>
    public Func<string, bool>? IsForeign { get; init; }

    /// <summary>
    /// For engines that do not promise <see cref="StockTraits.ExactRefusal"/> but state a bound: how old the state may be
    /// that a refusal for want of units was decided by. Such refusals are then checked, with this much allowed;
    /// <see langword="null"/>, the default, goes by the trait.
    /// </summary>
    public TimeSpan? RefusalLag { get; init; }
}

/// <summary>
/// Compares what callers sent and were answered with what the ledger says: every acknowledged command is in it exactly
/// once and whole, every refused one is not, an unknown one is at most once, and nothing is that nobody asked for; per
/// SKU the order of the ledger agrees with real time (where the engine promises <see cref="StockTraits.RealTimeLedger"/>);
/// and each Insufficient was legal: at some instant between its sending and its answer the units were short (where it
/// promises <see cref="StockTraits.ExactRefusal"/>), each UnknownSku of a SKU that nobody had been told was stocked; each
/// KeyConflict, Cancelled and ExceedsDeducted has a command in the history that explains it; and no repetition of what
/// was acknowledged was refused.
/// <para>
/// Stop the writers first, or a late command still lands after the final read. What an unreleased but expired
/// reservation would have given is not counted as available: an engine releases it before it refuses.
/// The history and the ledgers of its SKUs are held in memory. Where entries of the history were archived meanwhile, give
/// it the store with its archives (<see cref="ArchivedLedger"/>).
/// </para>
/// </summary>
public static class HistoryAudit
{
    /// <summary>Checks a history against the store that it was made on.</summary>
    public static Task<AuditReport> RunAsync(IStockEngine engine, History history, HistoryAuditOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentNullException.ThrowIfNull(history);
        return new HistoryAuditRun(engine, history, options ?? new(), cancellationToken).RunAsync();
    }
}

/// <summary>One run of <see cref="HistoryAudit"/>.</summary>
internal sealed class HistoryAuditRun(IStockEngine engine, History history, HistoryAuditOptions options, CancellationToken cancellationToken)
{
    private readonly DifferenceList _differences = new();

    /// <summary>What was sent, by the operation that it is about and what it would write there.</summary>
    private readonly Dictionary<(string Id, FlowKind Kind), List<HistoryEvent>> _asked = [];
    private readonly Dictionary<(string Id, FlowKind Kind), List<FlowEntry>> _written = [];
    private readonly Dictionary<string, List<SkuTimeline>> _timelines = new(StringComparer.Ordinal);
    private readonly List<HistoryEvent> _abandoned = [];
    private readonly long _refusalLag = (long)((options.RefusalLag ?? TimeSpan.Zero).TotalSeconds * Stopwatch.Frequency);
    private long _entries;

    public async Task<AuditReport> RunAsync()
    {
        ReadHistory();
        var skus = history.Events.SelectMany(sent => sent.Command.Lines).Select(line => line.Sku).Distinct(StringComparer.Ordinal).ToArray();
        foreach (var sku in skus)
        {
            await ReadLedgerAsync(sku).ConfigureAwait(false);
        }

        foreach (var (key, entries) in _written)
        {
            CheckWritten(key.Id, key.Kind, entries);
        }

        foreach (var (key, events) in _asked)
        {
            CheckAsked(key.Id, key.Kind, events);
        }

        await CheckClosedAsync().ConfigureAwait(false);
        foreach (var unexplained in new ExplainedRefusals(history.Events, options.IsForeign).FindUnexplained())
        {
            _differences.Add(unexplained);
        }

        foreach (var timeline in _timelines.Values.SelectMany(partitions => partitions))
        {
            timeline.Prepare();
            if (engine.Traits.HasFlag(StockTraits.RealTimeLedger) && timeline.FindDisorder() is { } disorder)
            {
                _differences.Add(disorder);
            }
        }

        if (options.RefusalLag is not null || engine.Traits.HasFlag(StockTraits.ExactRefusal))
        {
            foreach (var refusal in history.Events.Where(sent => sent.Result.Status == StockStatus.Insufficient))
            {
                CheckRefusal(refusal);
            }

            foreach (var refusal in history.Events.Where(sent => sent.Result.Status == StockStatus.UnknownSku))
            {
                CheckUnknown(refusal);
            }
        }

        return new()
        {
            Skus = skus.Length,
            Entries = _entries,
            Operations = _asked.Count,
            Commands = history.Count,
            DifferenceCount = _differences.Count,
            Differences = _differences.First,
        };
    }

    internal static FlowKind KindOf(StockVerb verb) => verb switch
    {
        StockVerb.Deduct => FlowKind.Deduct,
        StockVerb.Reserve => FlowKind.Reserve,
        StockVerb.Confirm => FlowKind.Confirm,
        StockVerb.Cancel => FlowKind.Cancel,
        StockVerb.Refund => FlowKind.Refund,
        StockVerb.Restock => FlowKind.Restock,
        StockVerb.Adjust => FlowKind.Adjust,
        _ => FlowKind.None,
    };

    private void ReadHistory()
    {
        foreach (var sent in history.Events)
        {
            if (sent.Command.Verb == StockVerb.Abandon)
            {
                _abandoned.Add(sent);
                continue;
            }

            var key = (sent.Command.Id, KindOf(sent.Command.Verb));
            if (!_asked.TryGetValue(key, out var events))
            {
                _asked.Add(key, events = []);
            }

            events.Add(sent);
        }
    }

    private async Task ReadLedgerAsync(string sku)
    {
        var partitions = new SortedDictionary<int, SkuTimeline>();
        await foreach (var entry in engine.ReadFlowAsync(new() { Sku = sku }, cancellationToken).ConfigureAwait(false))
        {
            _entries++;
            if (!partitions.TryGetValue(entry.Partition, out var timeline))
            {
                partitions.Add(entry.Partition, timeline = new(sku));
            }

            if (entry.Kind == FlowKind.Opening)
            {
                // Where the ledger begins with it, what it stands for was there before the history.
                if (entry.Version > timeline.LastVersion)
                {
                    timeline.Add(entry, long.MinValue, long.MinValue);
                }

                continue;
            }

            var (sentAt, answeredAt) = Interval(entry);
            timeline.Add(entry, sentAt, answeredAt);
            if (entry.Kind == FlowKind.Expire)
            {
                continue;
            }

            if (!_written.TryGetValue((entry.OperationId, entry.Kind), out var entries))
            {
                _written.Add((entry.OperationId, entry.Kind), entries = []);
            }

            entries.Add(entry);
        }

        _timelines.Add(sku, [.. partitions.Values]);
    }

    /// <summary>Between which instants an entry was written, as far as its callers know.</summary>
    private (long SentAt, long AnsweredAt) Interval(in FlowEntry entry)
    {
        if (!_asked.TryGetValue((entry.OperationId, entry.Kind), out var events))
        {
            return (long.MinValue, long.MaxValue);
        }

        // The attempt that was answered Done wrote it. Without one, an attempt whose answer is not known, or one that was
        // retried on the way and found its own effect, before the first that found it written.
        foreach (var sent in events)
        {
            if (sent.Result.Status == StockStatus.Done)
            {
                return (sent.SentAt, sent.AnsweredAt);
            }
        }

        var kind = entry.Kind;
        var possible = events.Where(sent => !IsRefusal(kind, sent)).Select(sent => sent.SentAt).DefaultIfEmpty(long.MinValue).Min();
        var found = events.Where(sent => sent.Result.Status == StockStatus.Replayed).Select(sent => sent.AnsweredAt).DefaultIfEmpty(long.MaxValue).Min();
        return (possible, found);
    }

    /// <summary>
    /// Whether the answer proves that this attempt wrote nothing. Cancelled and Expired do not: the attempt may have been
    /// applied, and ended by somebody else before a layer repeated it; nor does a confirmation's InvalidTargetState.
    /// </summary>
    private static bool IsRefusal(FlowKind kind, in HistoryEvent sent) => (kind, sent.Result.Status) switch
    {
        (FlowKind.Confirm, StockStatus.UnknownTarget or StockStatus.Expired) => true,
        (FlowKind.Cancel, StockStatus.InvalidTargetState) => true,
        (FlowKind.Confirm or FlowKind.Cancel, _) => false,
        (_, StockStatus.KeyConflict or StockStatus.UnknownTarget or StockStatus.InvalidTargetState or StockStatus.UnknownSku) => true,
        (_, StockStatus.ExceedsLimit or StockStatus.ExceedsDeducted or StockStatus.Insufficient) => true,
        _ => false,
    };

    /// <summary>Everything in the ledger was asked for, as it was asked for, and is there once.</summary>
    private void CheckWritten(string id, FlowKind kind, List<FlowEntry> entries)
    {
        if (options.IsForeign?.Invoke(id) == true)
        {
            return;
        }

        if (!_asked.TryGetValue((id, kind), out var events))
        {
            _differences.Add($"{id}: the ledger of {entries[0].Sku} has a {kind} (version {entries[0].Version}) that nobody asked for.");
            return;
        }

        foreach (var twice in entries.GroupBy(entry => (entry.Sku, entry.Partition)).Where(group => group.Count() > 1))
        {
            _differences.Add($"{id}: its {kind} is in the ledger of {twice.Key.Sku} {twice.Count()} times (versions {string.Join(", ", twice.Select(entry => entry.Version))}).");
        }

        if (kind is FlowKind.Confirm or FlowKind.Cancel)
        {
            return;
        }

        foreach (var ofSku in entries.GroupBy(entry => entry.Sku))
        {
            var units = ofSku.Sum(entry => entry.AvailableChange);
            if (!events.Exists(sent => sent.Command.Lines.Any(line => line.Sku == ofSku.Key && Change(sent.Command.Verb, line.Quantity) == units)))
            {
                _differences.Add($"{id}: its {kind} changes {ofSku.Key} by {units} in the ledger, which nobody asked for.");
            }
        }
    }

    private static long Change(StockVerb verb, long quantity) => verb is StockVerb.Deduct or StockVerb.Reserve ? -quantity : quantity;

    /// <summary>What was acknowledged is in the ledger, and whole; what was only ever refused is not.</summary>
    private void CheckAsked(string id, FlowKind kind, List<HistoryEvent> events)
    {
        var written = _written.GetValueOrDefault((id, kind));
        if (events.Count(sent => sent.Result.Status == StockStatus.Done) > 1)
        {
            _differences.Add($"{id}: {events.Count(sent => sent.Result.Status == StockStatus.Done)} callers were told that their {kind} was done; one of them did it.");
        }

        if (kind is FlowKind.Confirm)
        {
            // Where the reservation was made by this history its SKUs are known, and the ledger was read.
            if (written is null && _asked.ContainsKey((id, FlowKind.Reserve)) && events.Exists(sent => sent.Result.IsApplied))
            {
                _differences.Add($"{id}: its confirmation was acknowledged but is not in the ledger.");
            }
        }
        else if (kind is not FlowKind.Cancel)
        {
            foreach (var acknowledged in events.Where(sent => sent.Result.IsApplied).Take(1))
            {
                CheckLines(id, kind, acknowledged.Command, written);
            }
        }

        CheckRepetitions(id, kind, events);
        if (written is not null && options.IsForeign?.Invoke(id) != true && events.TrueForAll(sent => IsRefusal(kind, sent)))
        {
            _differences.Add($"{id}: its {kind} was refused ({events[0].Result.Status}) but is in the ledger of {written[0].Sku} (version {written[0].Version}).");
        }
    }

    /// <summary>The duplicate check comes first: whoever sends again what was acknowledged is never told that it can't be done.</summary>
    private void CheckRepetitions(string id, FlowKind kind, List<HistoryEvent> events)
    {
        if (events.Count == 1 || kind is FlowKind.Confirm or FlowKind.Cancel)
        {
            return;
        }

        var acknowledged = events.Where(sent => sent.Result.IsApplied).Select(sent => sent.AnsweredAt).DefaultIfEmpty(long.MaxValue).Min();
        foreach (var sent in events.Where(sent => sent.SentAt > acknowledged && sent.Result.Status != StockStatus.KeyConflict && IsRefusal(kind, sent)))
        {
            _differences.Add($"{id}: was sent again after its {kind} was acknowledged, and was refused ({sent.Result.Status}).");
        }
    }

    private void CheckLines(string id, FlowKind kind, StockCommand command, List<FlowEntry>? written)
    {
        var missing = command.Lines.Where(line => written?.Exists(entry => entry.Sku == line.Sku) != true).ToArray();
        if (missing.Length == command.Lines.Length)
        {
            _differences.Add($"{id}: its {kind} was acknowledged but is not in the ledger.");
        }
        else if (missing.Length > 0)
        {
            _differences.Add($"{id}: its {kind} was acknowledged but is not in the ledger of {missing[0].Sku}: a cart is applied whole or not at all.");
        }

        foreach (var line in command.Lines)
        {
            var units = written?.Where(entry => entry.Sku == line.Sku).Sum(entry => entry.AvailableChange) ?? 0;
            if (units != Change(command.Verb, line.Quantity) && !missing.Contains(line))
            {
                _differences.Add($"{id}: its {kind} of {line.Quantity} {line.Sku} was acknowledged; in the ledger it changes available by {units}.");
            }
        }
    }

    /// <summary>What was cancelled or abandoned is closed.</summary>
    private async ValueTask CheckClosedAsync()
    {
        foreach (var ((id, kind), events) in _asked)
        {
            if (kind == FlowKind.Cancel && events.Exists(sent => sent.Result is { Status: StockStatus.Done } or { Status: StockStatus.Replayed, Original: StockStatus.Cancelled }))
            {
                var view = await engine.GetOperationAsync(id, cancellationToken).ConfigureAwait(false);
                if (view?.State is not (OperationState.Cancelled or OperationState.Abandoned))
                {
                    _differences.Add($"{id}: its cancellation was acknowledged, but it is {(view is null ? "unknown" : view.State.ToString())}.");
                }
            }
        }

        foreach (var closed in _abandoned.Where(sent => sent.Result.Status == StockStatus.Done))
        {
            var id = closed.Command.Id;
            if (_written.Keys.FirstOrDefault(key => key.Id == id && key.Kind is not (FlowKind.Confirm or FlowKind.Cancel)) is { Id: not null } late)
            {
                _differences.Add($"{id}: was abandoned before it was applied, but its {late.Kind} is in the ledger.");
            }
        }
    }

    /// <summary>Some instant between the sending and the answer has to explain a refusal.</summary>
    private void CheckRefusal(in HistoryEvent refusal)
    {
        var (command, result) = (refusal.Command, refusal.Result);
        var line = command.Lines.FirstOrDefault(line => line.Sku == result.Sku);
        if (line.Sku is null)
        {
            _differences.Add($"{command}: was refused for want of {result.Sku ?? "nothing"}, which is none of its lines.");
            return;
        }

        var wanted = Math.Abs(line.Quantity);
        if (result.Available >= wanted)
        {
            _differences.Add($"{command}: wanted {wanted} {line.Sku} and was refused although the answer says that {result.Available} were available.");
            return;
        }

        var least = 0L;
        foreach (var timeline in _timelines[line.Sku])
        {
            least += timeline.LeastAvailable(refusal.SentAt - _refusalLag, refusal.AnsweredAt);
        }

        if (least >= wanted)
        {
            _differences.Add($"{command}: wanted {wanted} {line.Sku} and was refused although never fewer than {least} were available between its sending and its answer.");
        }
    }

    /// <summary>A SKU that was stocked stays known.</summary>
    private void CheckUnknown(in HistoryEvent refusal)
    {
        var (command, named, sentAt) = (refusal.Command, refusal.Result.Sku, refusal.SentAt);
        var lines = command.Lines.Where(line => named is null || line.Sku == named);
        if (lines.All(line => _timelines[line.Sku].Exists(timeline => timeline.HasBegunBy(sentAt))))
        {
            _differences.Add($"{command}: was refused because {named ?? "a SKU"} was never stocked, although it had been before the command was sent.");
        }
    }
}
