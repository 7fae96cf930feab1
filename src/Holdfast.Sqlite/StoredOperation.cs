using System.Text.Json;
using Holdfast.Rules;

namespace Holdfast.Sqlite;

/// <summary>An operation with its place in the file.</summary>
internal sealed class StoredOperation(long seq, Operation operation, bool isNew)
{
    /// <summary>The columns that <see cref="Read"/> expects, in its order.</summary>
    public const string Columns = "o.seq, o.id, o.verb, o.state, o.target, o.lines, o.note, o.created_at, o.expires_at, o.ended_at, o.end_left, o.refunded, o.cart, o.pending";

    /// <summary>Its row's number, in the order of creation.</summary>
    public long Seq { get; } = seq;

    public Operation Operation { get; } = operation;

    /// <summary>Whether this transaction adds it.</summary>
    public bool IsNew { get; } = isNew;

    /// <summary>Whether the file has holds of it.</summary>
    public bool HasHolds { get; } = !isNew && operation.MayExpire;

    /// <summary>Whether this transaction has changed it although it was there before.</summary>
    public bool IsChanged { get; set; }

    /// <summary>Reads the row that a statement stands on.</summary>
    public static StoredOperation Read(Statement row)
    {
        var seq = row.Int(0);
        var id = row.Text(1);
        try
        {
            var (lines, left) = OperationText.ReadLines(row.Utf8(5));
            var createdAt = row.Int(7);
            return new(
                seq,
                new()
                {
                    Id = id,
                    Verb = (StockVerb)row.Int(2),
                    State = (OperationState)row.Int(3),
                    Target = row.TextOrNull(4),
                    Lines = lines,
                    Left = left,
                    Note = row.TextOrNull(6),
                    CreatedAt = createdAt,
                    TimeToLive = row.IsNull(8) ? 0 : row.Int(8) - createdAt,
                    EndedAt = row.Int(9),
                    EndLeft = OperationText.ReadBalances(row.Utf8(10), lines),
                    Refunded = OperationText.ReadNumbers(row.Utf8(11), lines.Length),
                    Cart = row.TextOrNull(12) is { } cart ? ShardedCart.Parse(cart) : null,
                    Pending = row.TextOrNull(13) is { } pending ? PendingBranch.Parse(pending) : null,
                },
                isNew: false);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new SqliteStoreException($"The row of operation '{id}' in the stock file can't be read, so it was changed by other hands: restore a backup.", innerException: e);
        }
    }
}
