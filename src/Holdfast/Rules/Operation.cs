using System.Collections.Immutable;

namespace Holdfast.Rules;

/// <summary>
/// What a store remembers of an operation, as the rules see and change it. Times are milliseconds since 1970-01-01 UTC
/// by the store's clock. Not thread-safe: it belongs to one decision at a time.
/// </summary>
public sealed class Operation
{
    /// <summary>The operation's id.</summary>
    public required string Id { get; init; }

    /// <summary>The verb that created it; Cancel or Abandon for a tombstone.</summary>
    public required StockVerb Verb { get; init; }

    /// <summary>The order that a refund belongs to.</summary>
    public string? Target { get; init; }

    /// <summary>The merged lines in byte order; empty for a tombstone.</summary>
    public ImmutableArray<StockLine> Lines { get; init; } = [];

    /// <summary>The reservation's time to live in milliseconds; 0 for other verbs.</summary>
    public long TimeToLive { get; init; }

    /// <summary>Free text given with the command.</summary>
    public string? Note { get; init; }

    /// <summary>When it was applied, or when the tombstone was set.</summary>
    public required long CreatedAt { get; init; }

    /// <summary>What was left of each line's SKU when it was applied.</summary>
    public ImmutableArray<LineBalance> Left { get; init; } = [];

    /// <summary>How it stands.</summary>
    public required OperationState State { get; set; }

    /// <summary>When it was confirmed, cancelled or released after its time had passed; 0 until then.</summary>
    public long EndedAt { get; set; }

    /// <summary>What was left of each line's SKU when it ended: what a repeated Confirm or Cancel answers.</summary>
    public ImmutableArray<LineBalance> EndLeft { get; set; } = [];

    /// <summary>Units refunded of each line, in line order; <see langword="null"/> until the first refund.</summary>
    public long[]? Refunded { get; set; }

    /// <summary>The command over several shards that this is one shard's part of.</summary>
    public ShardedCart? Cart { get; init; }

    /// <summary>What is prepared and not decided yet about this operation.</summary>
    public PendingBranch? Pending { get; set; }

    /// <summary>Whether it holds units until it expires: a live reservation that nothing is pending about.</summary>
    public bool MayExpire => State == OperationState.Reserved && Pending is null;

    /// <summary>When the reservation expires; <see cref="long.MaxValue"/> for other verbs.</summary>
    public long ExpiresAt => Verb == StockVerb.Reserve ? CreatedAt + TimeToLive : long.MaxValue;

    /// <summary>Whether it is a reservation that nobody ended although its time has passed.</summary>
    public bool IsDue(long now) => MayExpire && now >= ExpiresAt;

    /// <summary>The operation as a read shows it.</summary>
    /// <param name="now">The store's time: a due reservation is shown as Expired.</param>
    /// <param name="cursor">Where a listing goes on after it.</param>
    public OperationView ToView(long now, string? cursor = null)
    {
        var lines = new OperationLine[Lines.Length];
        for (var i = 0; i < lines.Length; i++)
        {
            lines[i] = new(Lines[i].Sku, Lines[i].Quantity, Refunded is null ? 0 : Refunded[i]);
        }

        return new()
        {
            Id = Id,
            Verb = Verb,
            State = IsDue(now) ? OperationState.Expired : State,
            Target = Target,
            Lines = [.. lines],
            Left = Left,
            Note = Note,
            CreatedAt = DateTimeOffset.FromUnixTimeMilliseconds(CreatedAt),
            ExpiresAt = Verb == StockVerb.Reserve ? DateTimeOffset.FromUnixTimeMilliseconds(ExpiresAt) : null,
            EndedAt = EndedAt == 0 ? null : DateTimeOffset.FromUnixTimeMilliseconds(EndedAt),
            Cart = Cart,
            Pending = Pending,
            Cursor = cursor,
        };
    }
}
