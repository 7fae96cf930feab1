using System.Collections.Immutable;
using System.Globalization;

namespace Holdfast;

/// <summary>
/// A command over several shards, as its parts on them name it. The first of the shards is its home: whether the command
/// applies is decided there, for all of them. Immutable and thread-safe.
/// </summary>
public sealed class ShardedCart : IEquatable<ShardedCart>
{
    /// <summary>Names an attempt.</summary>
    /// <param name="attempt">Tells this attempt at the command from every other; 1 to 32 letters and digits.</param>
    /// <param name="shards">The numbers of the shards, ascending, at least one.</param>
    public ShardedCart(string attempt, ImmutableArray<int> shards)
    {
        ArgumentException.ThrowIfNullOrEmpty(attempt);
        ArgumentOutOfRangeException.ThrowIfZero(shards.Length, nameof(shards));
        Attempt = attempt;
        Shards = shards;
    }

    /// <summary>Tells this attempt at the command from every other.</summary>
    public string Attempt { get; }

    /// <summary>The shards that have a part of it, ascending.</summary>
    public ImmutableArray<int> Shards { get; }

    /// <summary>The shard that decides.</summary>
    public int Home => Shards[0];

    /// <summary>Whether another attempt is at a command over the same shards.</summary>
    public bool HasShardsOf(ShardedCart other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return Shards.AsSpan().SequenceEqual(other.Shards.AsSpan());
    }

    /// <summary>The form in which stores keep it: the attempt, and the shards; <c>3f09c2…:0,2</c>.</summary>
    public override string ToString() => $"{Attempt}:{string.Join(',', Shards)}";

    /// <summary>Reads what <see cref="ToString"/> wrote.</summary>
    /// <exception cref="FormatException">It is no such text.</exception>
    public static ShardedCart Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var colon = text.IndexOf(':', StringComparison.Ordinal);
        return colon > 0
            ? new(text[..colon], [.. text[(colon + 1)..].Split(',').Select(shard => int.Parse(shard, NumberStyles.None, CultureInfo.InvariantCulture))])
            : throw new FormatException($"'{text}' names no cart over several shards.");
    }

    /// <inheritdoc/>
    public bool Equals(ShardedCart? other) => other is not null && Attempt == other.Attempt && HasShardsOf(other);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as ShardedCart);

    /// <inheritdoc/>
    public override int GetHashCode() => Attempt.GetHashCode(StringComparison.Ordinal);
}

/// <summary>What a shard is asked to do with its part of a command over several shards. The numbers are sent to stores: never renumber.</summary>
public enum BranchPhase
{
    /// <summary>Not a phase.</summary>
    None = 0,

    /// <summary>Say what the answer would be, and change nothing: Done when the part could be prepared.</summary>
    Check = 1,

    /// <summary>Hold what the part takes, so that it can be committed whatever happens. No ledger entry, no change of any balance.</summary>
    Prepare = 2,

    /// <summary>Apply what this attempt has prepared; UnknownTarget when it has prepared nothing.</summary>
    Commit = 3,

    /// <summary>Let go of what this attempt has prepared; Replayed when it was committed, Done otherwise.</summary>
    Abort = 4,
}

/// <summary>One shard's step in a command over several shards.</summary>
/// <param name="Phase">What the shard is to do.</param>
/// <param name="Cart">The whole that the part belongs to.</param>
public sealed record ShardBranch(BranchPhase Phase, ShardedCart Cart);

/// <summary>
/// What an operation waits for that was applied before: the cancellation, confirmation or refund of it that an attempt
/// has prepared. Until that is decided, nothing else ends or refunds the operation, and it does not expire.
/// </summary>
/// <param name="Verb">Confirm, Cancel or Refund.</param>
/// <param name="Attempt">The attempt that has prepared it.</param>
public sealed record PendingBranch(StockVerb Verb, string Attempt)
{
    /// <summary>The form in which stores keep it: the verb's number, and the attempt; <c>4:3f09c2…</c>.</summary>
    public override string ToString() => $"{(int)Verb}:{Attempt}";

    /// <summary>Reads what <see cref="ToString"/> wrote.</summary>
    /// <exception cref="FormatException">It is no such text.</exception>
    public static PendingBranch Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return text.Length > 2 && text[1] == ':' && char.IsAsciiDigit(text[0])
            ? new((StockVerb)(text[0] - '0'), text[2..])
            : throw new FormatException($"'{text}' names nothing that is pending.");
    }
}
