using System.Text.Json;
using Holdfast.Rules;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>An operation as it was loaded, or as a transaction adds it.</summary>
internal sealed class StoredOperation(Operation operation, bool isNew)
{
    public Operation Operation { get; } = operation;

    /// <summary>Whether this transaction adds it.</summary>
    public bool IsNew { get; } = isNew;

    /// <summary>Whether the database has holds of it.</summary>
    public bool HasHolds { get; } = !isNew && operation.MayExpire;

    /// <summary>Its state when it was loaded.</summary>
    public OperationState LoadedState { get; } = operation.State;

    /// <summary>Its refunds when it was loaded, as stored.</summary>
    public string? LoadedRefunded { get; init; }

    /// <summary>What was pending about it when it was loaded, as stored.</summary>
    public string? LoadedPending { get; init; }

    /// <summary>Whether this transaction has changed it although it was there before.</summary>
    public bool IsChanged { get; set; }

    /// <summary>Reads the row that a reader stands on, from column <paramref name="first"/> on.</summary>
    public static StoredOperation Read(NpgsqlDataReader row, int first = 0)
    {
        var id = row.GetString(first);
        try
        {
            var (lines, left) = StoredText.ReadLines(TextOrNull(row, first + 4));
            var createdAt = row.GetInt64(first + 6);
            var refunded = TextOrNull(row, first + 10);
            var pending = TextOrNull(row, first + 12);
            return new(
                new()
                {
                    Id = id,
                    Verb = (StockVerb)row.GetInt16(first + 1),
                    State = (OperationState)row.GetInt16(first + 2),
                    Target = TextOrNull(row, first + 3),
                    Lines = lines,
                    Left = left,
                    Note = TextOrNull(row, first + 5),
                    CreatedAt = createdAt,
                    TimeToLive = row.IsDBNull(first + 7) ? 0 : row.GetInt64(first + 7) - createdAt,
                    EndedAt = row.IsDBNull(first + 8) ? 0 : row.GetInt64(first + 8),
                    EndLeft = StoredText.ReadBalances(TextOrNull(row, first + 9), lines),
                    Refunded = StoredText.ReadNumbers(refunded, lines.Length),
                    Cart = TextOrNull(row, first + 11) is { } cart ? ShardedCart.Parse(cart) : null,
                    Pending = pending is null ? null : PendingBranch.Parse(pending),
                },
                isNew: false)
            {
                LoadedRefunded = refunded,
                LoadedPending = pending,
            };
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new PostgreSqlStoreException($"The row of operation '{id}' can't be read, so it was changed by other hands: restore a backup.", innerException: e);
        }
    }

    private static string? TextOrNull(NpgsqlDataReader row, int column) => row.IsDBNull(column) ? null : row.GetString(column);
}
