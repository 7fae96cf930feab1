using System.Collections.Immutable;
using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>How an operation stands. The numbers are stored by engines: never renumber.</summary>
public enum OperationState
{
    /// <summary>Not a state.</summary>
    None = 0,

    /// <summary>A deduction, refund, restock or adjustment that stands.</summary>
    Applied = 1,

    /// <summary>A live reservation.</summary>
    Reserved = 2,

    /// <summary>A reservation that became a sale.</summary>
    Confirmed = 3,

    /// <summary>Undone, or cancelled before it arrived (then <see cref="OperationView.Verb"/> is Cancel: a tombstone).</summary>
    Cancelled = 4,

    /// <summary>Closed before it was ever applied (a tombstone).</summary>
    Abandoned = 5,

    /// <summary>A reservation whose time has passed.</summary>
    Expired = 6,

    /// <summary>
    /// One shard's part of a command over several shards that is not decided yet: it holds its units, and has changed no
    /// balance. Only shards themselves list it (<see cref="OperationQuery.UndecidedOnly"/>); to everybody else it is not there.
    /// </summary>
    Undecided = 7,
}

/// <summary>One line of an operation as the store remembers it.</summary>
/// <param name="Sku">The SKU.</param>
/// <param name="Quantity">Units (signed for an adjustment).</param>
/// <param name="Refunded">Units of it that were refunded so far.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct OperationLine(string Sku, long Quantity, long Refunded);

/// <summary>What the store remembers of an operation.</summary>
public sealed record OperationView
{
    /// <summary>The operation's id.</summary>
    public required string Id { get; init; }

    /// <summary>The verb that created it; Cancel or Abandon for a tombstone.</summary>
    public required StockVerb Verb { get; init; }

    /// <summary>How it stands. A reservation whose time has passed is Expired, whether or not it was swept.</summary>
    public required OperationState State { get; init; }

    /// <summary>The order that a refund belongs to.</summary>
    public string? Target { get; init; }

    /// <summary>Its merged lines with what was refunded; empty for a tombstone.</summary>
    public ImmutableArray<OperationLine> Lines { get; init; } = [];

    /// <summary>What was left of each line's SKU when it was applied.</summary>
    public ImmutableArray<LineBalance> Left { get; init; } = [];

    /// <summary>Free text given with the command.</summary>
    public string? Note { get; init; }

    /// <summary>The store's time when it was applied, or when the tombstone was set.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>When the reservation expires or expired.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>When it was confirmed, cancelled or released after its time had passed.</summary>
    public DateTimeOffset? EndedAt { get; init; }

    /// <summary>The command over several shards that this is one shard's part of; <see langword="null"/> for every other operation, and where all shards are seen as one.</summary>
    public ShardedCart? Cart { get; init; }

    /// <summary>What is prepared and not decided yet about this operation, on this shard.</summary>
    public PendingBranch? Pending { get; init; }

    /// <summary>Where to go on listing after this operation, for <see cref="OperationQuery.After"/>; opaque, and <see langword="null"/> outside listings.</summary>
    public string? Cursor { get; init; }

    /// <summary>The outcome that a repetition of the original command stands for: Done, Cancelled or Expired.</summary>
    public StockStatus Outcome => State switch
    {
        OperationState.Cancelled or OperationState.Abandoned => StockStatus.Cancelled,
        OperationState.Expired => StockStatus.Expired,
        _ => StockStatus.Done,
    };
}

/// <summary>Which operations to list. The order is the engine's own and stable, for paging by <see cref="After"/>.</summary>
public sealed record OperationQuery
{
    /// <summary>Only operations in this state; <see langword="null"/> lists all.</summary>
    public OperationState? State { get; init; }

    /// <summary>
    /// Only reservations whose time has passed and whose units the ledger has not released yet, by the store's clock:
    /// the sweeper's question. Answered in order of expiry.
    /// </summary>
    public bool DueOnly { get; init; }

    /// <summary>
    /// Only what commands over several shards have prepared here and not decided: operations in the state
    /// <see cref="OperationState.Undecided"/>, and those with something <see cref="OperationView.Pending"/>. Recovery's
    /// question to a shard; every other listing leaves the former out. In no particular order, and without paging.
    /// </summary>
    public bool UndecidedOnly { get; init; }

    /// <summary>Only operations created before this instant.</summary>
    public DateTimeOffset? CreatedBefore { get; init; }

    /// <summary>Only operations that speak of this target (the refunds of an order).</summary>
    public string? Target { get; init; }

    /// <summary>Goes on after the operation with this <see cref="OperationView.Cursor"/>.</summary>
    public string? After { get; init; }

    /// <summary>At most so many; <see langword="null"/> lists all.</summary>
    public int? Limit { get; init; }
}
