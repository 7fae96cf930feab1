using System.Collections.Immutable;
using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>What a command asks for. The numbers are stored by engines: never renumber.</summary>
public enum StockVerb
{
    /// <summary>Not a verb; a command never carries it.</summary>
    None = 0,

    /// <summary>Takes units of every line, all or none.</summary>
    Deduct = 1,

    /// <summary>Holds units of every line for a time, all or none.</summary>
    Reserve = 2,

    /// <summary>Turns a live reservation into a sale.</summary>
    Confirm = 3,

    /// <summary>Undoes an order or a reservation as if it had never happened.</summary>
    Cancel = 4,

    /// <summary>Closes an id that was never applied; leaves an applied one as it is.</summary>
    Abandon = 5,

    /// <summary>Gives units of an order back, never more than it took.</summary>
    Refund = 6,

    /// <summary>Adds units, and makes the SKU known.</summary>
    Restock = 7,

    /// <summary>Corrects the count up or down, never below zero.</summary>
    Adjust = 8,
}

/// <summary>One line of a command: so many units of a SKU.</summary>
/// <param name="Sku">The SKU, see <see cref="StockKey"/>.</param>
/// <param name="Quantity">Units: 1 to <see cref="StockLimits.MaxQuantity"/>; 0 is allowed in a restock, a negative number in an adjustment.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct StockLine(string Sku, long Quantity)
{
    /// <summary>Lets a line be written as <c>("85123A", 6)</c>.</summary>
    public static implicit operator StockLine((string Sku, long Quantity) line) => new(line.Sku, line.Quantity);
}

/// <summary>Thrown by the factories of <see cref="StockCommand"/>: the input breaks the contract, and <see cref="Field"/> names where.</summary>
public sealed class InvalidCommandException : ArgumentException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="field">The path of the offending field, for example <c>lines[3].quantity</c>.</param>
    /// <param name="problem">What is wrong with it, as the end of a sentence that begins with the field's name.</param>
    public InvalidCommandException(string field, string problem)
        : base($"{field} {problem}")
    {
        Field = field;
        Problem = problem;
    }

    /// <summary>The path of the offending field, for example <c>lines[3].quantity</c>.</summary>
    public string Field { get; }

    /// <summary>What is wrong with it, as the end of a sentence that begins with the field's name.</summary>
    public string Problem { get; }
}

/// <summary>
/// One request to change stock. Valid once it exists: the factories check every bound of the contract, merge lines that
/// name the same SKU and sort them by <see cref="StockKey.ByteOrder"/>. Immutable and thread-safe. The same object is
/// the unit of batching, queueing and journalling; its JSON form is <c>Wire.StockJson</c>.
/// </summary>
public sealed class StockCommand
{
    private readonly string? _id;

    private StockCommand(StockVerb verb, string? id, string? target, ImmutableArray<StockLine> lines, long timeToLiveMilliseconds, string? note, ShardBranch? branch = null)
    {
        Verb = verb;
        _id = id;
        Target = target;
        Lines = lines;
        TimeToLiveMilliseconds = timeToLiveMilliseconds;
        Note = note;
        Branch = branch;
    }

    /// <summary>What is asked for.</summary>
    public StockVerb Verb { get; }

    /// <summary>
    /// The caller's idempotency key, unique over all verbs of one store. Confirm, Cancel and Abandon carry no id of
    /// their own: for them this is the <see cref="Target"/>, the only operation they touch.
    /// </summary>
    public string Id => _id ?? Target!;

    /// <summary>The order or reservation that a Confirm, Cancel, Abandon or Refund speaks of; <see langword="null"/> for the other verbs.</summary>
    public string? Target { get; }

    /// <summary>The merged lines in byte order of their SKUs; empty for Confirm, Cancel and Abandon.</summary>
    public ImmutableArray<StockLine> Lines { get; }

    /// <summary>How long a reservation lives; zero for the other verbs.</summary>
    public TimeSpan TimeToLive => TimeSpan.FromMilliseconds(TimeToLiveMilliseconds);

    /// <summary><see cref="TimeToLive"/> in whole milliseconds.</summary>
    public long TimeToLiveMilliseconds { get; }

    /// <summary>Free text kept with the operation, at most <see cref="StockLimits.MaxNoteLength"/> characters; not part of what makes two commands equal.</summary>
    public string? Note { get; }

    /// <summary>
    /// The step of a command over several shards that this is for one of them; <see langword="null"/> for what callers send.
    /// Only <see cref="Sharding"/> makes such commands, only stores execute them, and they have no form on the wire.
    /// </summary>
    public ShardBranch? Branch { get; }

    /// <summary>Whether <see cref="Verb"/> acts on a target and carries no id of its own (Confirm, Cancel, Abandon).</summary>
    public bool IsTransition => _id is null;

    /// <summary>Takes units of every line from stock, all lines or none.</summary>
    /// <param name="orderId">The caller's idempotency key.</param>
    /// <param name="lines">1 to <see cref="StockLimits.MaxLines"/> lines after merging, each of 1 to <see cref="StockLimits.MaxQuantity"/> units.</param>
    /// <param name="note">Free text kept with the operation.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Deduct(string orderId, ReadOnlySpan<StockLine> lines, string? note = null) =>
        new(StockVerb.Deduct, CheckKey("id", orderId), null, Merge(lines, 1), 0, CheckNote(note));

    /// <summary>Holds units of every line, all lines or none, until confirmed, cancelled or expired.</summary>
    /// <param name="id">The caller's idempotency key.</param>
    /// <param name="lines">1 to <see cref="StockLimits.MaxLines"/> lines after merging, each of 1 to <see cref="StockLimits.MaxQuantity"/> units.</param>
    /// <param name="timeToLive">1 second to 30 days; a fraction of a millisecond is dropped.</param>
    /// <param name="note">Free text kept with the operation.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Reserve(string id, ReadOnlySpan<StockLine> lines, TimeSpan timeToLive, string? note = null)
    {
        if (timeToLive < StockLimits.MinTimeToLive || timeToLive > StockLimits.MaxTimeToLive)
        {
            throw new InvalidCommandException("timeToLive", $"is {timeToLive:c}; it must be from 1 second to 30 days");
        }

        return new(StockVerb.Reserve, CheckKey("id", id), null, Merge(lines, 1), (long)timeToLive.TotalMilliseconds, CheckNote(note));
    }

    /// <summary>Turns a live reservation into a sale.</summary>
    /// <param name="target">The reservation.</param>
    /// <exception cref="InvalidCommandException">The target is no valid id.</exception>
    public static StockCommand Confirm(string target) => new(StockVerb.Confirm, null, CheckKey("target", target), [], 0, null);

    /// <summary>Undoes an order or reservation as if it had never happened; an unknown target gets a tombstone, so that a late command with that id is refused.</summary>
    /// <param name="target">The order or reservation.</param>
    /// <exception cref="InvalidCommandException">The target is no valid id.</exception>
    public static StockCommand Cancel(string target) => new(StockVerb.Cancel, null, CheckKey("target", target), [], 0, null);

    /// <summary>Closes an id that was never applied with a tombstone; an applied one is left as it is.</summary>
    /// <param name="target">Any operation id.</param>
    /// <param name="note">Why, kept with the tombstone where one is left.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Abandon(string target, string? note = null) => new(StockVerb.Abandon, null, CheckKey("target", target), [], 0, CheckNote(note));

    /// <summary>Gives units of an order back; over all refunds of one order and SKU never more than was deducted.</summary>
    /// <param name="id">The caller's idempotency key of this refund.</param>
    /// <param name="target">The order (a deduction, or a confirmed reservation).</param>
    /// <param name="lines">1 to <see cref="StockLimits.MaxLines"/> lines after merging, each of 1 to <see cref="StockLimits.MaxQuantity"/> units.</param>
    /// <param name="note">Free text kept with the operation.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Refund(string id, string target, ReadOnlySpan<StockLine> lines, string? note = null) =>
        new(StockVerb.Refund, CheckKey("id", id), CheckKey("target", target), Merge(lines, 1), 0, CheckNote(note));

    /// <summary>Adds units and makes new SKUs known.</summary>
    /// <param name="id">The caller's idempotency key.</param>
    /// <param name="lines">1 to <see cref="StockLimits.MaxLines"/> lines after merging, each of 0 to <see cref="StockLimits.MaxQuantity"/> units.</param>
    /// <param name="note">Free text kept with the operation.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Restock(string id, ReadOnlySpan<StockLine> lines, string? note = null) =>
        new(StockVerb.Restock, CheckKey("id", id), null, Merge(lines, 0), 0, CheckNote(note));

    /// <summary>Corrects the count of known SKUs up or down, never below zero, all lines or none.</summary>
    /// <param name="id">The caller's idempotency key.</param>
    /// <param name="lines">1 to <see cref="StockLimits.MaxLines"/> lines after merging, each a change of up to <see cref="StockLimits.MaxQuantity"/> units either way, not 0.</param>
    /// <param name="note">Why, and who did it.</param>
    /// <exception cref="InvalidCommandException">A field breaks the contract.</exception>
    public static StockCommand Adjust(string id, ReadOnlySpan<StockLine> lines, string? note = null) =>
        new(StockVerb.Adjust, CheckKey("id", id), null, Merge(lines, -StockLimits.MaxQuantity), 0, CheckNote(note));

    /// <summary>
    /// Whether a command asks for the same as this one: verb, target, merged lines and time to live. Two commands with
    /// one id and different content are a <see cref="StockStatus.KeyConflict"/>. The note does not count.
    /// </summary>
    /// <param name="verb">The other's verb.</param>
    /// <param name="target">The other's target.</param>
    /// <param name="lines">The other's merged lines in byte order.</param>
    /// <param name="timeToLiveMilliseconds">The other's time to live.</param>
    public bool HasContent(StockVerb verb, string? target, ReadOnlySpan<StockLine> lines, long timeToLiveMilliseconds) =>
        Verb == verb
        && TimeToLiveMilliseconds == timeToLiveMilliseconds
        && string.Equals(Target, target, StringComparison.Ordinal)
        && Lines.AsSpan().SequenceEqual(lines);

    /// <summary>One shard's step: the same command, of those lines that are the shard's (none for Confirm and Cancel).</summary>
    internal StockCommand OnShard(BranchPhase phase, ShardedCart cart, ImmutableArray<StockLine> lines) =>
        new(Verb, _id, Target, lines, TimeToLiveMilliseconds, Note, new(phase, cart));

    /// <summary>The same step in another phase.</summary>
    internal StockCommand InPhase(BranchPhase phase) =>
        new(Verb, _id, Target, Lines, TimeToLiveMilliseconds, Note, Branch! with { Phase = phase });

    /// <summary>A short text for people: verb, id and the number of lines.</summary>
    public override string ToString() => (Branch is null ? "" : $"{Branch.Phase} of ") + (IsTransition
        ? $"{Verb} {Target}"
        : $"{Verb} {Id}{(Target is null ? "" : $" of {Target}")} ({Lines.Length} {(Lines.Length == 1 ? "line" : "lines")})");

    private static string CheckKey(string field, string? key) =>
        StockKey.Problem(key) is { } problem ? throw new InvalidCommandException(field, problem) : key!;

    private static string? CheckNote(string? note)
    {
        if (string.IsNullOrEmpty(note))
        {
            return null;
        }

        if (note.Length > StockLimits.MaxNoteLength)
        {
            throw new InvalidCommandException("note", $"is {note.Length} characters long; at most {StockLimits.MaxNoteLength} are allowed");
        }

        return StockKey.TextProblem(note, allowLineBreaks: true) is { } problem ? throw new InvalidCommandException("note", problem) : note;
    }

    /// <summary>Checks, merges and sorts lines. <paramref name="least"/> is the smallest quantity of a given line: 1, 0 (restock) or negative (adjustment, where a merged 0 is refused).</summary>
    private static ImmutableArray<StockLine> Merge(ReadOnlySpan<StockLine> lines, long least)
    {
        if (lines.IsEmpty)
        {
            throw new InvalidCommandException("lines", "are missing or empty; a command needs at least one");
        }

        var sorted = true;
        for (var i = 0; i < lines.Length; i++)
        {
            var (sku, quantity) = lines[i];
            if (StockKey.Problem(sku) is { } problem)
            {
                throw new InvalidCommandException($"lines[{i}].sku", problem);
            }

            if (quantity < least || quantity > StockLimits.MaxQuantity)
            {
                throw new InvalidCommandException($"lines[{i}].quantity", $"is {quantity}; it must be from {least} to {StockLimits.MaxQuantity}");
            }

            sorted = sorted && (i == 0 || StockKey.ByteOrder.Compare(lines[i - 1].Sku, sku) < 0);
        }

        var merged = lines.ToArray();
        if (!sorted)
        {
            merged = MergeUnsorted(merged);
        }

        if (merged.Length > StockLimits.MaxLines)
        {
            throw new InvalidCommandException("lines", $"are {merged.Length} after merging; at most {StockLimits.MaxLines} are allowed");
        }

        foreach (var line in merged)
        {
            if (Math.Abs(line.Quantity) > StockLimits.MaxQuantity)
            {
                throw new InvalidCommandException("lines", $"add up to {line.Quantity} of {line.Sku}; at most {StockLimits.MaxQuantity} are allowed");
            }

            if (least < 0 && line.Quantity == 0)
            {
                throw new InvalidCommandException("lines", $"change {line.Sku} by 0; an adjustment must change each of its SKUs");
            }
        }

        return ImmutableCollectionsMarshal.AsImmutableArray(merged);
    }

    private static StockLine[] MergeUnsorted(StockLine[] lines)
    {
        Array.Sort(lines, static (a, b) => StockKey.ByteOrder.Compare(a.Sku, b.Sku));
        var last = 0;
        for (var i = 1; i < lines.Length; i++)
        {
            if (lines[i].Sku == lines[last].Sku)
            {
                // Each addend is at most 10^12, so a sum could overflow after some nine million lines only: still checked.
                lines[last] = lines[last] with { Quantity = checked(lines[last].Quantity + lines[i].Quantity) };
            }
            else
            {
                lines[++last] = lines[i];
            }
        }

        return lines[..(last + 1)];
    }
}
