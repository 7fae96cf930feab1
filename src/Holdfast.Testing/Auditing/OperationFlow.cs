using System.Globalization;
using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>
/// What an operation's ledger entries must add up to, given how it stands; and fingerprints of both sides, so that
/// millions of operations are compared in constant memory.
/// </summary>
internal static class OperationFlow
{
    /// <summary>Confirm and Cancel entries are added up together: a cancelled reservation does not say whether it was confirmed before.</summary>
    private const FlowKind EndOfHold = FlowKind.Confirm;

    /// <summary>What is added up apart: the change of one SKU by one kind of entry.</summary>
    [StructLayout(LayoutKind.Auto)]
    public readonly record struct Change(string Sku, FlowKind Kind, long Available, long Reserved);

    public static FlowKind GroupOf(FlowKind kind) => kind == FlowKind.Cancel ? EndOfHold : kind;

    /// <summary>What the operation's entries must add up to, those left out that an opening stands for.</summary>
    /// <param name="view">How it stands.</param>
    /// <param name="openingOf">The opening that a SKU's ledger was read from, if any.</param>
    public static IEnumerable<Change> Expected(OperationView view, Func<string, SkuOpening?> openingOf) => view.Lines.SelectMany(line =>
        openingOf(line.Sku) is { } opening ? ExpectedSince(opening, view, line) : Expected(view, line));

    /// <summary>
    /// An operation's first entries were written when it was created, its last when it ended, and an opening says before
    /// which instant everything was archived. Only of a reservation that was cancelled these two are not enough: it may
    /// have been confirmed before, and only the opening's holds know on which side of it.
    /// </summary>
    private static IEnumerable<Change> ExpectedSince(SkuOpening opening, OperationView view, OperationLine line)
    {
        if (view.CreatedAt >= opening.At)
        {
            return Expected(view, line);
        }

        if (view.Verb is not (StockVerb.Deduct or StockVerb.Reserve) || !(view.EndedAt >= opening.At))
        {
            return [];
        }

        var ends = Expected(view, line).Skip(1);
        return view.Verb == StockVerb.Reserve && view.State == OperationState.Cancelled && !opening.Holds.ContainsKey(view.Id)
            ? ends.Select(static end => end with { Reserved = 0 })
            : ends;
    }

    private static IEnumerable<Change> Expected(OperationView view, OperationLine line)
    {
        var (sku, quantity, refunded) = line;
        switch (view.Verb, view.State)
        {
            case (_, OperationState.Undecided):
                // Prepared by a command over several shards: nothing has changed yet.
                break;
            case (StockVerb.Deduct, OperationState.Applied):
                yield return new(sku, FlowKind.Deduct, -quantity, 0);
                break;
            case (StockVerb.Deduct, OperationState.Cancelled):
                yield return new(sku, FlowKind.Deduct, -quantity, 0);
                yield return new(sku, EndOfHold, quantity - refunded, 0);
                break;
            case (StockVerb.Reserve, OperationState.Confirmed):
                yield return new(sku, FlowKind.Reserve, -quantity, quantity);
                yield return new(sku, EndOfHold, 0, -quantity);
                break;
            case (StockVerb.Reserve, OperationState.Cancelled):
                yield return new(sku, FlowKind.Reserve, -quantity, quantity);
                yield return new(sku, EndOfHold, quantity - refunded, -quantity);
                break;
            case (StockVerb.Reserve, OperationState.Expired) when view.EndedAt is not null:
                yield return new(sku, FlowKind.Reserve, -quantity, quantity);
                yield return new(sku, FlowKind.Expire, quantity, -quantity);
                break;
            case (StockVerb.Reserve, _):
                yield return new(sku, FlowKind.Reserve, -quantity, quantity);
                break;
            case (StockVerb.Refund, _):
                yield return new(sku, FlowKind.Refund, quantity, 0);
                break;
            case (StockVerb.Restock, _):
                yield return new(sku, FlowKind.Restock, quantity, 0);
                break;
            case (StockVerb.Adjust, _):
                yield return new(sku, FlowKind.Adjust, quantity, 0);
                break;
            default:
                break;
        }
    }

    /// <summary>What is wrong with the operation by itself, or <see langword="null"/>.</summary>
    public static string? Problem(OperationView view)
    {
        var isPossible = view.Verb switch
        {
            not (StockVerb.Cancel or StockVerb.Abandon) when view.State == OperationState.Undecided => true,
            StockVerb.Deduct => view.State is OperationState.Applied or OperationState.Cancelled,
            StockVerb.Reserve => view.State is OperationState.Reserved or OperationState.Confirmed or OperationState.Cancelled or OperationState.Expired,
            StockVerb.Refund or StockVerb.Restock or StockVerb.Adjust => view.State == OperationState.Applied,
            StockVerb.Cancel => view.State == OperationState.Cancelled,
            StockVerb.Abandon => view.State == OperationState.Abandoned,
            _ => false,
        };
        if (!isPossible)
        {
            return $"{view.Id}: a {view.Verb} cannot be {view.State}.";
        }

        if ((view.Verb is StockVerb.Cancel or StockVerb.Abandon) != view.Lines.IsEmpty)
        {
            return $"{view.Id}: a {view.Verb} has {view.Lines.Length} lines.";
        }

        foreach (var (sku, quantity, refunded) in view.Lines)
        {
            if (refunded < 0 || refunded > Math.Max(0, quantity) || (refunded > 0 && view.Verb is not (StockVerb.Deduct or StockVerb.Reserve)))
            {
                return $"{view.Id}: {refunded} units of {sku} are marked as refunded, of {quantity}.";
            }
        }

        return null;
    }

    /// <summary>Compares an operation with its entries.</summary>
    /// <param name="view">How it stands.</param>
    /// <param name="entries">All its entries, of those SKUs.</param>
    /// <param name="isAudited">Whether a SKU belongs to what is audited.</param>
    /// <param name="openingOf">The opening that a SKU's ledger was read from, if any.</param>
    /// <returns>The first difference, or <see langword="null"/>.</returns>
    public static string? Compare(OperationView view, IEnumerable<FlowEntry> entries, Func<string, bool> isAudited, Func<string, SkuOpening?> openingOf)
    {
        var left = new Dictionary<(string Sku, FlowKind Kind), (long Available, long Reserved, int Entries)>();
        foreach (var entry in entries)
        {
            ref var sum = ref CollectionsMarshal.GetValueRefOrAddDefault(left, (entry.Sku, GroupOf(entry.Kind)), out _);
            sum = (sum.Available + entry.AvailableChange, sum.Reserved + entry.ReservedChange, sum.Entries + 1);
        }

        var taken = 0;
        string? missing = null;
        foreach (var change in Expected(view, openingOf))
        {
            if (!isAudited(change.Sku))
            {
                continue;
            }

            var isThere = left.Remove((change.Sku, change.Kind), out var sum);
            if (!isThere && (change.Available != 0 || change.Reserved != 0 || change.Kind == FlowKind.Restock))
            {
                missing ??= $"{view.Id} ({view.Verb}, {view.State}) has no {change.Kind} entry for {change.Sku}";
            }
            else if (sum.Available != change.Available || sum.Reserved != change.Reserved)
            {
                return $"{view.Id} ({view.Verb}, {view.State}): its {change.Kind} entries change {change.Sku} by available {Signed(sum.Available)} and reserved {Signed(sum.Reserved)}; it stands for {Signed(change.Available)} and {Signed(change.Reserved)}.";
            }
            else if (change.Kind == FlowKind.Restock && change.Available == 0 && sum.Entries != 1)
            {
                return $"{view.Id} ({view.Verb}, {view.State}) has {sum.Entries} entries for its line of 0 {change.Sku}.";
            }
            else
            {
                taken++;
            }
        }

        if (missing is not null)
        {
            return missing + (taken > 0 && view.Lines.Length > 1 ? ": a cart is applied whole or not at all." : ".");
        }

        if (IsBeingReleased(view))
        {
            foreach (var line in view.Lines)
            {
                if (left.GetValueOrDefault((line.Sku, FlowKind.Expire)) == (line.Quantity, -line.Quantity, 1))
                {
                    left.Remove((line.Sku, FlowKind.Expire));
                }
            }
        }

        return left.Count == 0 ? null
            : left.First() is var ((sku, kind), (available, reserved, _)) ? $"{view.Id} ({view.Verb}, {view.State}) has {kind} entries for {sku} (available {Signed(available)}, reserved {Signed(reserved)}) that it does not stand for."
            : null;
    }

    /// <summary>
    /// Whether some lines of a reservation that is due may have been released already and others not: over several shards
    /// each part is, by whoever meets it there.
    /// </summary>
    public static bool IsBeingReleased(OperationView view) => view is { Verb: StockVerb.Reserve, State: OperationState.Expired, EndedAt: null, Lines.Length: > 1 };

    public static ulong HashOf(string text)
    {
        var hash = 0xCBF29CE484222325UL;
        foreach (var c in text)
        {
            hash = (hash ^ c) * 0x100000001B3UL;
        }

        return Mix(hash ^ (ulong)text.Length);
    }

    /// <summary>A number for one change of one operation; linear in the units, so that the numbers of parts add up to the number of the whole.</summary>
    public static ulong Fingerprint(ulong operation, string sku, FlowKind group, long available, long reserved)
    {
        var key = Mix(operation ^ Mix(HashOf(sku) + (ulong)group));
        var units = (key * (ulong)available) + (Mix(key + 1) * (ulong)reserved);
        return available == 0 && reserved == 0 && group == FlowKind.Restock ? Mix(key + 2) : units;
    }

    public static ulong RefundFingerprint(ulong order, string sku, long units) => Mix(order ^ Mix(HashOf(sku) + 99)) * (ulong)units;

    /// <summary>The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every input bit changes every output bit with even odds.</summary>
    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9UL;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBUL;
        return x ^ (x >> 31);
    }

    private static string Signed(long units) => units.ToString("+0;-0;0", CultureInfo.InvariantCulture);
}
