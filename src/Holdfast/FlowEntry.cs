using System.Collections.Immutable;
using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>What changed a SKU's units. The numbers are stored by engines: never renumber.</summary>
public enum FlowKind
{
    /// <summary>Not a kind; an entry never carries it.</summary>
    None = 0,

    /// <summary>A deduction: available −q.</summary>
    Deduct = 1,

    /// <summary>A reservation: available −q, reserved +q.</summary>
    Reserve = 2,

    /// <summary>A confirmation: reserved −q.</summary>
    Confirm = 3,

    /// <summary>A cancellation: units come back from reserved or from sold.</summary>
    Cancel = 4,

    /// <summary>A reservation's time passed: available +q, reserved −q.</summary>
    Expire = 5,

    /// <summary>A refund: available +q.</summary>
    Refund = 6,

    /// <summary>A restock: available +q (0 makes a SKU known).</summary>
    Restock = 7,

    /// <summary>An adjustment: available ±q.</summary>
    Adjust = 8,

    /// <summary>
    /// Not a change: older entries of the SKU were moved to an archive, and this entry stands for all of them, up to and
    /// including its version. Its balances are those after the last of them, its changes those from nothing;
    /// <see cref="FlowEntry.Opening"/> has the rest.
    /// </summary>
    Opening = 9,
}

/// <summary>
/// One entry of the ledger: one change of one SKU's units. Never altered once written. Numbered 1, 2, 3 … without a gap
/// per (SKU, partition) by <see cref="Version"/>. Where older entries were archived, an entry of kind
/// <see cref="FlowKind.Opening"/> stands for them: the next has the version after it. A reader that meets one whose
/// version is not the next after the last that it has read finds what lies between in the archive.
/// </summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct FlowEntry
{
    /// <summary>The SKU.</summary>
    public required string Sku { get; init; }

    /// <summary>The part of the SKU's stock that the entry belongs to; 0 with engines that keep a SKU in one piece.</summary>
    public int Partition { get; init; }

    /// <summary>The entry's number within (SKU, partition).</summary>
    public required long Version { get; init; }

    /// <summary>The operation that caused it; of an opening, the last archived one. Confirm, Cancel and Expire entries carry the id of the order or reservation that they ended.</summary>
    public required string OperationId { get; init; }

    /// <summary>What happened.</summary>
    public required FlowKind Kind { get; init; }

    /// <summary>The change of available, in units.</summary>
    public required long AvailableChange { get; init; }

    /// <summary>The change of reserved, in units.</summary>
    public required long ReservedChange { get; init; }

    /// <summary>Available after the change.</summary>
    public required long Available { get; init; }

    /// <summary>Reserved after the change.</summary>
    public required long Reserved { get; init; }

    /// <summary>The store's time of the change; of an opening, the instant before which everything was archived.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>What an entry of kind <see cref="FlowKind.Opening"/> knows beside the balances; <see langword="null"/> on every other.</summary>
    public FlowOpening? Opening { get; init; }

    /// <summary>Where to go on reading after this entry, for <see cref="FlowQuery.After"/>; opaque, and <see langword="null"/> on an entry that was not read from an engine.</summary>
    public string? Cursor { get; init; }
}

/// <summary>What the archived entries of one SKU came to, beside the balances: enough to go on with an audit from here.</summary>
public sealed record FlowOpening
{
    /// <summary>All units ever restocked.</summary>
    public required long Restocked { get; init; }

    /// <summary>The sum of all adjustments, positive and negative.</summary>
    public required long Adjusted { get; init; }

    /// <summary>Units restocked, and positive adjustments.</summary>
    public required long Supplied { get; init; }

    /// <summary>The reservations that held units of the SKU, in byte order of their ids.</summary>
    public ImmutableArray<FlowHold> Holds { get; init; } = [];
}

/// <summary>Units of one SKU in the hands of a reservation.</summary>
/// <param name="OperationId">The reservation.</param>
/// <param name="Units">Its units.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct FlowHold(string OperationId, long Units);

/// <summary>Which part of the ledger to read.</summary>
public sealed record FlowQuery
{
    /// <summary>Only this SKU, in order of version; <see langword="null"/> reads the whole store, in an order that agrees with every SKU's versions.</summary>
    public string? Sku { get; init; }

    /// <summary>Goes on after the entry with this <see cref="FlowEntry.Cursor"/>, read with the same <see cref="Sku"/>; <see langword="null"/> begins at the beginning.</summary>
    public string? After { get; init; }

    /// <summary>At most so many entries; <see langword="null"/> reads to the present end.</summary>
    public int? Limit { get; init; }

    /// <summary>
    /// How old the answer may be, as in <see cref="ReadOptions.MaxStaleness"/>. An answer that is older than the truth
    /// ends sooner and is right as far as it goes; reading goes on from its last cursor wherever the next read is served.
    /// </summary>
    public TimeSpan MaxStaleness { get; init; }
}
