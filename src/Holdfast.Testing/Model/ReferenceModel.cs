using System.Collections.Immutable;

namespace Holdfast.Testing;

/// <summary>
/// The contract once more, deliberately naive: a list of everything that was applied, from which each answer is worked
/// out anew. Written from the contract's text, and sharing nothing with the rules that the engines use, so that the two
/// check each other. Slow, small, in memory, and not thread-safe.
/// </summary>
public sealed class ReferenceModel
{
    private readonly List<Applied> _applied = [];
    private readonly Dictionary<string, Applied> _byId = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Tombstone> _tombstones = new(StringComparer.Ordinal);
    private readonly HashSet<string> _skus = new(StringComparer.Ordinal);
    private readonly List<Movement> _movements = [];
    private readonly Dictionary<string, ModelAnswer> _refused = new(StringComparer.Ordinal);
    private DateTimeOffset _storeTime = DateTimeOffset.MinValue;

    /// <summary>Whether a refused id is closed for good and its refusal repeated, as a queue does it.</summary>
    public bool RemembersRefusals { get; init; }

    /// <summary>Tells the model what the clock shows; store time never goes back.</summary>
    public void ClockShows(DateTimeOffset now) => _storeTime = now > _storeTime ? now : _storeTime;

    /// <summary>The ids that were applied or closed, in that order.</summary>
    public IEnumerable<string> Ids => _byId.Keys.Concat(_tombstones.Keys);

    /// <summary>The SKUs that were ever stocked.</summary>
    public IReadOnlySet<string> Skus => _skus;

    /// <summary>The next instant at which a live reservation expires, if any.</summary>
    public DateTimeOffset? NextExpiry => _applied.Where(IsLive).Min(reservation => reservation.ExpiresAt);

    /// <summary>Answers one command, and remembers what it did.</summary>
    public ModelAnswer Execute(StockCommand command)
    {
        ArgumentNullException.ThrowIfNull(command);
        return command.Verb switch
        {
            StockVerb.Confirm => Confirm(command.Target!),
            StockVerb.Cancel => Cancel(command.Target!),
            StockVerb.Abandon => Abandon(command.Target!),
            _ => RemembersRefusals ? ApplyOrClose(command) : Apply(command),
        };
    }

    /// <summary>The stock of a SKU; the version is left out, because a ledger may note an expiry at any time after it.</summary>
    public StockLevel Stock(string sku) => new()
    {
        Sku = sku,
        Available = Available(sku),
        Reserved = _applied.Where(IsLive).Sum(reservation => reservation.UnitsOf(sku)),
        Restocked = _applied.Where(operation => operation.Verb == StockVerb.Restock).Sum(operation => operation.UnitsOf(sku)),
        Adjusted = _applied.Where(operation => operation.Verb == StockVerb.Adjust).Sum(operation => operation.UnitsOf(sku)),
    };

    /// <summary>How an operation stands, or <see langword="null"/>. Of an expired reservation it does not say when it was released.</summary>
    public OperationView? Operation(string id)
    {
        if (_tombstones.TryGetValue(id, out var closed))
        {
            return new() { Id = id, Verb = closed.Verb, State = closed.Verb == StockVerb.Cancel ? OperationState.Cancelled : OperationState.Abandoned, CreatedAt = closed.At };
        }

        return Find(id) is not { } operation ? null : new()
        {
            Id = id,
            Verb = operation.Verb,
            State = StateOf(operation),
            Target = operation.Target,
            Lines = [.. Sorted(operation).Select(line => new OperationLine(line.Key, line.Value, Refunded(id, line.Key)))],
            Left = operation.Left,
            Note = operation.Note,
            CreatedAt = operation.At,
            ExpiresAt = operation.ExpiresAt,
            EndedAt = operation.CancelledAt ?? operation.ConfirmedAt,
        };
    }

    /// <summary>The ledger of a SKU without its expiries, which an engine may note at any time after they happened: who did what.</summary>
    public IEnumerable<(string OperationId, FlowKind Kind, long Available, long Reserved)> Flow(string sku) =>
        _movements.Where(movement => movement.Sku == sku).Select(movement => (movement.OperationId, movement.Kind, movement.Available, movement.Reserved));

    private ModelAnswer ApplyOrClose(StockCommand command)
    {
        if (_refused.TryGetValue(command.Id, out var refused))
        {
            return refused with { Status = StockStatus.Replayed, Original = refused.Status };
        }

        var answer = Apply(command);
        if (answer.Status is not (StockStatus.Done or StockStatus.KeyConflict or StockStatus.Cancelled or StockStatus.Expired or StockStatus.Replayed))
        {
            _refused.Add(command.Id, answer);
            _tombstones.Add(command.Id, new(StockVerb.Abandon, _storeTime));
        }

        return answer;
    }

    private ModelAnswer Apply(StockCommand command)
    {
        var lines = Merge(command.Lines);
        if (_tombstones.ContainsKey(command.Id))
        {
            return new(StockStatus.Cancelled);
        }

        if (Find(command.Id) is { } known)
        {
            var isSame = known.Verb == command.Verb && known.Target == command.Target && known.TimeToLive == command.TimeToLive
                && known.Lines.Count == lines.Count && known.Lines.All(line => lines.TryGetValue(line.Key, out var units) && units == line.Value);
            return !isSame ? new(StockStatus.KeyConflict) : StateOf(known) switch
            {
                OperationState.Cancelled => new(StockStatus.Cancelled),
                OperationState.Expired => new(StockStatus.Expired),
                _ => new(StockStatus.Replayed) { Original = StockStatus.Done, Left = known.Left },
            };
        }

        if (command.Verb == StockVerb.Refund)
        {
            if (Find(command.Target!) is not { } order)
            {
                return new(_tombstones.ContainsKey(command.Target!) ? StockStatus.InvalidTargetState : StockStatus.UnknownTarget);
            }

            if ((order.Verb, StateOf(order)) is not ((StockVerb.Deduct, OperationState.Applied) or (StockVerb.Reserve, OperationState.Confirmed)))
            {
                return new(StockStatus.InvalidTargetState);
            }
        }

        // Where several are true, the first listed in the contract is the answer; of several SKUs any may be named.
        var refusals = new (StockStatus Status, Func<string, long, bool> IsTrue, Func<string, long> Says)[]
        {
            (StockStatus.UnknownSku, (sku, _) => command.Verb != StockVerb.Restock && !_skus.Contains(sku), _ => 0),
            (StockStatus.ExceedsLimit, (sku, units) => command.Verb is StockVerb.Restock or StockVerb.Adjust && units > 0 && Supplied(sku) + units > StockLimits.MaxSupplied, _ => 0),
            (StockStatus.ExceedsDeducted, (sku, units) => command.Verb == StockVerb.Refund && units > Refundable(command.Target!, sku), sku => Refundable(command.Target!, sku)),
            (StockStatus.Insufficient, (sku, units) => Taken(command.Verb, units) > Available(sku), Available),
        };
        foreach (var (status, isTrue, says) in refusals)
        {
            var about = lines.Where(line => isTrue(line.Key, line.Value)).ToDictionary(line => line.Key, line => says(line.Key), StringComparer.Ordinal);
            if (about.Count > 0)
            {
                return new(status) { About = about };
            }
        }

        var operation = new Applied
        {
            Id = command.Id,
            Verb = command.Verb,
            Target = command.Target,
            Lines = lines,
            TimeToLive = command.TimeToLive,
            Note = command.Note,
            At = _storeTime,
        };
        _applied.Add(operation);
        _byId.Add(operation.Id, operation);
        if (command.Verb == StockVerb.Restock)
        {
            _skus.UnionWith(lines.Keys);
        }
        else if (command.Verb == StockVerb.Refund)
        {
            Find(command.Target!)!.Refunds.Add(operation);
        }

        foreach (var (sku, units) in Sorted(operation))
        {
            switch (command.Verb)
            {
                case StockVerb.Deduct: Move(operation, sku, FlowKind.Deduct, -units, 0); break;
                case StockVerb.Reserve: Move(operation, sku, FlowKind.Reserve, -units, units); break;
                case StockVerb.Refund: Move(operation, sku, FlowKind.Refund, units, 0); break;
                case StockVerb.Restock: Move(operation, sku, FlowKind.Restock, units, 0); break;
                default: Move(operation, sku, FlowKind.Adjust, units, 0); break;
            }
        }

        operation.Left = LeftOf(operation);
        return new(StockStatus.Done) { Left = operation.Left };
    }

    private ModelAnswer Confirm(string id)
    {
        if (Find(id) is not { } target)
        {
            return new(_tombstones.ContainsKey(id) ? StockStatus.InvalidTargetState : StockStatus.UnknownTarget);
        }

        switch (StateOf(target))
        {
            case OperationState.Expired:
                return new(StockStatus.Expired);
            case OperationState.Confirmed:
                return new(StockStatus.Replayed) { Original = StockStatus.Done, Left = target.LeftAtEnd };
            case OperationState.Reserved:
                target.ConfirmedAt = _storeTime;
                foreach (var (sku, units) in Sorted(target))
                {
                    Move(target, sku, FlowKind.Confirm, 0, -units);
                }

                target.LeftAtEnd = LeftOf(target);
                return new(StockStatus.Done) { Left = target.LeftAtEnd };
            default:
                return new(StockStatus.InvalidTargetState);
        }
    }

    private ModelAnswer Cancel(string id)
    {
        if (_tombstones.ContainsKey(id))
        {
            return new(StockStatus.Replayed) { Original = StockStatus.Cancelled };
        }

        if (Find(id) is not { } target)
        {
            _tombstones.Add(id, new(StockVerb.Cancel, _storeTime));
            return new(StockStatus.Done);
        }

        var state = StateOf(target);
        if (state == OperationState.Expired)
        {
            return new(StockStatus.Replayed) { Original = StockStatus.Expired };
        }

        if (state == OperationState.Cancelled)
        {
            return new(StockStatus.Replayed) { Original = StockStatus.Cancelled, Left = target.LeftAtEnd };
        }

        if (target.Verb is not (StockVerb.Deduct or StockVerb.Reserve))
        {
            return new(StockStatus.InvalidTargetState);
        }

        foreach (var (sku, units) in Sorted(target))
        {
            var back = units - Refunded(id, sku);
            if (back > 0)
            {
                Move(target, sku, FlowKind.Cancel, back, state == OperationState.Reserved ? -back : 0);
            }
        }

        target.CancelledAt = _storeTime;
        target.LeftAtEnd = LeftOf(target);
        return new(StockStatus.Done) { Left = target.LeftAtEnd };
    }

    private ModelAnswer Abandon(string id)
    {
        if (_tombstones.ContainsKey(id))
        {
            return new(StockStatus.Replayed) { Original = StockStatus.Cancelled };
        }

        if (Find(id) is not { } target)
        {
            _tombstones.Add(id, new(StockVerb.Abandon, _storeTime));
            return new(StockStatus.Done);
        }

        return StateOf(target) switch
        {
            OperationState.Cancelled => new(StockStatus.Replayed) { Original = StockStatus.Cancelled },
            OperationState.Expired => new(StockStatus.Replayed) { Original = StockStatus.Expired },
            _ => new(StockStatus.Replayed) { Original = StockStatus.Done, Left = target.Left },
        };
    }

    private Applied? Find(string id) => _byId.GetValueOrDefault(id);

    private bool IsLive(Applied operation) => StateOf(operation) == OperationState.Reserved;

    private OperationState StateOf(Applied operation) => operation switch
    {
        { CancelledAt: not null } => OperationState.Cancelled,
        { ConfirmedAt: not null } => OperationState.Confirmed,
        { Verb: not StockVerb.Reserve } => OperationState.Applied,
        _ => _storeTime >= operation.ExpiresAt ? OperationState.Expired : OperationState.Reserved,
    };

    /// <summary>Everything that came in, less what orders took and did not give back, less what live reservations hold.</summary>
    private long Available(string sku)
    {
        var units = 0L;
        foreach (var operation in _applied)
        {
            var line = operation.UnitsOf(sku);
            units += operation.Verb switch
            {
                StockVerb.Restock or StockVerb.Adjust or StockVerb.Refund => line,
                _ => StateOf(operation) switch
                {
                    // As if it had never happened; what was refunded before, its refunds have brought already.
                    OperationState.Cancelled => -Refunded(operation.Id, sku),
                    OperationState.Expired => 0,
                    _ => -line,
                },
            };
        }

        return units;
    }

    private long Supplied(string sku) => _applied.Where(operation => operation.Verb is StockVerb.Restock or StockVerb.Adjust).Sum(operation => Math.Max(0, operation.UnitsOf(sku)));

    private long Refunded(string order, string sku) => Find(order)!.Refunds.Sum(refund => refund.UnitsOf(sku));

    private long Refundable(string order, string sku) => Find(order)!.UnitsOf(sku) - Refunded(order, sku);

    private static long Taken(StockVerb verb, long units) => verb switch
    {
        StockVerb.Deduct or StockVerb.Reserve => units,
        StockVerb.Adjust => -units,
        _ => long.MinValue,
    };

    private void Move(Applied operation, string sku, FlowKind kind, long available, long reserved) => _movements.Add(new(operation.Id, sku, kind, available, reserved));

    private ImmutableArray<LineBalance> LeftOf(Applied operation) => [.. Sorted(operation).Select(line => new LineBalance(line.Key, Available(line.Key)))];

    private static IEnumerable<KeyValuePair<string, long>> Sorted(Applied operation) =>
        operation.Lines.OrderBy(line => Convert.ToHexString(System.Text.Encoding.UTF8.GetBytes(line.Key)), StringComparer.Ordinal);

    private static Dictionary<string, long> Merge(IEnumerable<StockLine> lines) =>
        lines.GroupBy(line => line.Sku, StringComparer.Ordinal).ToDictionary(group => group.Key, group => group.Sum(line => line.Quantity), StringComparer.Ordinal);

    private sealed class Applied
    {
        public required string Id { get; init; }

        public required StockVerb Verb { get; init; }

        public required string? Target { get; init; }

        public required Dictionary<string, long> Lines { get; init; }

        public required TimeSpan TimeToLive { get; init; }

        public required string? Note { get; init; }

        public required DateTimeOffset At { get; init; }

        public ImmutableArray<LineBalance> Left { get; set; } = [];

        public List<Applied> Refunds { get; } = [];

        public DateTimeOffset? ConfirmedAt { get; set; }

        public DateTimeOffset? CancelledAt { get; set; }

        public ImmutableArray<LineBalance> LeftAtEnd { get; set; } = [];

        public DateTimeOffset? ExpiresAt => Verb == StockVerb.Reserve ? At + TimeToLive : null;

        public long UnitsOf(string sku) => Lines.GetValueOrDefault(sku);
    }

    private sealed record Tombstone(StockVerb Verb, DateTimeOffset At);

    private sealed record Movement(string OperationId, string Sku, FlowKind Kind, long Available, long Reserved);
}

/// <summary>What the contract allows as the answer to a command.</summary>
/// <param name="Status">The outcome.</param>
public sealed record ModelAnswer(StockStatus Status)
{
    /// <summary>For a replay, how the operation stands.</summary>
    public StockStatus Original { get; init; }

    /// <summary>What is left of each line's SKU.</summary>
    public ImmutableArray<LineBalance> Left { get; init; } = [];

    /// <summary>The SKUs that a refusal may name, each with the units that it must then say.</summary>
    public IReadOnlyDictionary<string, long> About { get; init; } = ImmutableDictionary<string, long>.Empty;

    /// <summary>Whether an engine's answer is this one. A gate that acknowledges by itself does not count what is due and not released yet: it may show less left.</summary>
    public bool Allows(StockResult result) =>
        result.Status == Status
        && result.Original == Original
        && (result.Left.SequenceEqual(Left) || (result.AcknowledgedBy == Acknowledgement.Gate && ShowsLess(result.Left)))
        && (About.Count == 0 ? result.Sku is null : result.Sku is not null && About.TryGetValue(result.Sku, out var units) && units == result.Available);

    private bool ShowsLess(ImmutableArray<LineBalance> left) =>
        left.Length == Left.Length && left.Zip(Left).All(static both => both.First.Sku == both.Second.Sku && both.First.Available <= both.Second.Available);

    /// <summary>A short text for people.</summary>
    public override string ToString() =>
        $"{Status}{(Original == StockStatus.None ? "" : $" ({Original})")}"
        + (About.Count == 0 ? "" : $" about {string.Join(" or ", About.Select(about => $"{about.Key} {about.Value}"))}")
        + (Left.IsEmpty ? "" : $", left {string.Join(", ", Left.Select(left => $"{left.Sku} {left.Available}"))}");
}
