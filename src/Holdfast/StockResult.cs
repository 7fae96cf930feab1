using System.Collections.Immutable;
using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>
/// What became of a command, in order of precedence: where several apply, the one with the lowest number is the answer.
/// The gaps are room for outcomes to come; the wire carries names, and whether a retry makes sense, so that older
/// clients survive new ones.
/// </summary>
public enum StockStatus
{
    /// <summary>Not an outcome: a result that nobody filled in.</summary>
    None = 0,

    /// <summary>It applied now.</summary>
    Done = 100,

    /// <summary>The id was used before with other content (verb, target, merged lines or time to live). Fix the bug.</summary>
    KeyConflict = 200,

    /// <summary>The id was cancelled or abandoned, before or after it arrived. Stop.</summary>
    Cancelled = 300,

    /// <summary>The reservation's time has passed. Stop, or begin anew with a new id.</summary>
    Expired = 400,

    /// <summary>The same command applied earlier and still stands; the answer carries what it answered then. Go on.</summary>
    Replayed = 500,

    /// <summary>A Confirm or Refund names nothing known. Retry later or stop.</summary>
    UnknownTarget = 600,

    /// <summary>The target is not in the state that the verb needs. Stop.</summary>
    InvalidTargetState = 700,

    /// <summary>A line names a SKU that was never stocked. Fix the catalogue.</summary>
    UnknownSku = 800,

    /// <summary>The SKU's units would pass <see cref="StockLimits.MaxSupplied"/>. Fix the number.</summary>
    ExceedsLimit = 900,

    /// <summary>The refund would return more than was deducted. Stop.</summary>
    ExceedsDeducted = 1000,

    /// <summary>A line asks for more than is available; the answer names a short SKU and what was available. Tell the buyer.</summary>
    Insufficient = 1100,

    /// <summary>Not attempted, or not decidable within the time bound. Retry with the same id.</summary>
    Busy = 1200,

    /// <summary>It may have applied. Retry with the same id, or ask, or Abandon, or Cancel.</summary>
    InDoubt = 1300,

    /// <summary>A queue accepted it; the verdict comes later. Ask.</summary>
    Pending = 1400,
}

/// <summary>Who vouches for an answer; the higher, the more it survives.</summary>
public enum Acknowledgement
{
    /// <summary>Nobody: the command was refused or its outcome is unknown.</summary>
    None = 0,

    /// <summary>The memory of one process.</summary>
    Memory = 10,

    /// <summary>A queue that holds the command durably; the verdict is still to come.</summary>
    Queue = 20,

    /// <summary>A gate (cache) in front of the store, within its stated loss window.</summary>
    Gate = 30,

    /// <summary>The store that owns the truth, as durable as it is configured.</summary>
    Store = 40,
}

/// <summary>What is left of a SKU after a command.</summary>
/// <param name="Sku">The SKU.</param>
/// <param name="Available">Units available right after the command was applied.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct LineBalance(string Sku, long Available);

/// <summary>The answer to one command. A value: outcomes are not exceptions. <see langword="default"/> is visibly wrong (<see cref="StockStatus.None"/>).</summary>
[StructLayout(LayoutKind.Auto)]
public readonly struct StockResult
{
    private readonly ImmutableArray<LineBalance> _left;

    /// <summary>The outcome.</summary>
    public StockStatus Status { get; init; }

    /// <summary>
    /// For <see cref="StockStatus.Replayed"/>: how the operation stands, which is <see cref="StockStatus.Done"/> unless
    /// it was asked by Cancel or Abandon of an id that is <see cref="StockStatus.Cancelled"/> or <see cref="StockStatus.Expired"/>
    /// (or, with engines that remember refusals, the refusal). Otherwise <see cref="StockStatus.None"/>.
    /// </summary>
    public StockStatus Original { get; init; }

    /// <summary>Who vouches for it.</summary>
    public Acknowledgement AcknowledgedBy { get; init; }

    /// <summary>The SKU that a refusal is about (unknown, over the limit, over what was deducted, or short); otherwise <see langword="null"/>.</summary>
    public string? Sku { get; init; }

    /// <summary>For <see cref="StockStatus.Insufficient"/> the units of <see cref="Sku"/> that were available; for <see cref="StockStatus.ExceedsDeducted"/> the units that can still be refunded; otherwise 0.</summary>
    public long Available { get; init; }

    /// <summary>After an applied command what is left of each line's SKU, in line order (of the target's lines for Confirm and Cancel); for a replay what was answered then. Never default; empty when nothing was applied.</summary>
    public ImmutableArray<LineBalance> Left
    {
        get => _left.IsDefault ? [] : _left;
        init => _left = value;
    }

    /// <summary>A sentence for people about a <see cref="StockStatus.Busy"/> or <see cref="StockStatus.InDoubt"/> (what was overloaded or lost); <see langword="null"/> otherwise. Not for programs.</summary>
    public string? Detail { get; init; }

    /// <summary>
    /// For <see cref="StockStatus.Busy"/>: whether the answer hangs on units, or on an order, that a command over several
    /// shards has in hand and that is about to be decided.
    /// </summary>
    public bool IsUndecided { get; init; }

    /// <summary>Whether the command's effect stands: Done, or a replay of what was done.</summary>
    public bool IsApplied => Status == StockStatus.Done || (Status == StockStatus.Replayed && Original is StockStatus.Done or StockStatus.None);

    /// <summary>Whether sending the same command again, same id, makes sense (Busy and InDoubt).</summary>
    public bool IsRetryable => Status is StockStatus.Busy or StockStatus.InDoubt;

    /// <summary>A result that carries nothing but its status and, where it is retryable, why.</summary>
    public static StockResult Of(StockStatus status, string? detail = null) => new() { Status = status, Detail = detail };

    /// <summary>A refusal that is about one SKU.</summary>
    public static StockResult Refused(StockStatus status, string sku, long available = 0) => new() { Status = status, Sku = sku, Available = available };

    /// <summary>A short text for people.</summary>
    public override string ToString() => (Status, Sku) switch
    {
        (StockStatus.Insufficient, not null) => $"Insufficient: {Sku} has {Available} available",
        (StockStatus.ExceedsDeducted, not null) => $"ExceedsDeducted: {Available} of {Sku} can still be refunded",
        (_, not null) => $"{Status}: {Sku}",
        (StockStatus.Replayed, _) => $"Replayed ({Original})",
        _ => Detail is null ? Status.ToString() : $"{Status}: {Detail}",
    };
}
