using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Holdfast.Wire;

namespace Holdfast.Queueing;

/// <summary>What became of a queued command. It is final.</summary>
public sealed record Verdict
{
    private static readonly JsonWriterOptions s_options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>What it is asked for by: the request id where the command had one, otherwise the operation id.</summary>
    public required string Id { get; init; }

    /// <summary>What was asked for; for what was read back from an operation, the verb of that.</summary>
    public required StockVerb Verb { get; init; }

    /// <summary>The operation that the command spoke of.</summary>
    public required string OperationId { get; init; }

    /// <summary>The answer.</summary>
    public required StockResult Result { get; init; }

    /// <summary>When it was given.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>
    /// The verdict on the command that an operation remembers: Done for what was applied, whatever became of it later; for a
    /// tombstone the refusal that it was left for, otherwise Cancelled.
    /// </summary>
    public static Verdict Of(OperationView operation)
    {
        ArgumentNullException.ThrowIfNull(operation);
        return new()
        {
            Id = operation.Id,
            Verb = operation.Verb,
            OperationId = operation.Id,
            At = operation.CreatedAt,
            Result = operation.Verb switch
            {
                StockVerb.Cancel => Closed,
                StockVerb.Abandon => ReadNote(operation.Note) ?? Closed,
                _ => new() { Status = StockStatus.Done, AcknowledgedBy = Acknowledgement.Store, Left = operation.Left },
            },
        };
    }

    /// <summary>Writes it as an object: <c>{"id":…,"verb":…,"operationId":…,"at":…,"verdict":{…}}</c>, the verdict as <see cref="StockJson.WriteResult"/> writes a result.</summary>
    public void Write(Utf8JsonWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStartObject();
        writer.WriteString("id"u8, Id);
        writer.WriteString("verb"u8, StockJson.VerbName(Verb));
        writer.WriteString("operationId"u8, OperationId);
        writer.WriteString("at"u8, At);
        writer.WritePropertyName("verdict"u8);
        StockJson.WriteResult(writer, Result);
        writer.WriteEndObject();
    }

    private static StockResult Closed => StockResult.Of(StockStatus.Cancelled);

    /// <summary>The note of a tombstone that closes an id for a refusal: the refusal as it was answered, so that it can be read back.</summary>
    internal static string NoteOf(in StockResult refusal)
    {
        var note = Write(refusal);
        if (note.Length > StockLimits.MaxNoteLength && refusal.Detail is { } detail)
        {
            note = Write(refusal with { Detail = string.Concat(detail.AsSpan(0, Math.Min(detail.Length, 80)), "…") });
        }

        // A SKU of characters that JSON writes as \uXXXX is longer than a note: better a refusal that does not name it than none.
        return note.Length <= StockLimits.MaxNoteLength ? note : Write(StockResult.Of(refusal.Status));
    }

    /// <summary>The refusal that a tombstone's note tells, or <see langword="null"/> for any other note.</summary>
    private static StockResult? ReadNote(string? note)
    {
        if (note is null || !note.StartsWith("{\"outcome\":", StringComparison.Ordinal))
        {
            return null;
        }

        try
        {
            return StockJson.ReadResult(Encoding.UTF8.GetBytes(note));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            // Somebody's own text that begins like ours.
            return null;
        }
    }

    private static string Write(in StockResult result)
    {
        var bytes = new ArrayBufferWriter<byte>(StockLimits.MaxNoteLength);
        using (var json = new Utf8JsonWriter(bytes, s_options))
        {
            StockJson.WriteResult(json, result);
        }

        return Encoding.UTF8.GetString(bytes.WrittenSpan);
    }
}

/// <summary>A verdict that is to be told to somebody outside.</summary>
/// <param name="Verdict">The verdict.</param>
/// <param name="Attempts">How often that was tried so far.</param>
public sealed record Announcement(Verdict Verdict, int Attempts);

/// <summary>How many verdicts are still to be told, and how many were given up.</summary>
/// <param name="Waiting">Still to be told.</param>
/// <param name="GivenUp">Given up after too many tries; they stay until they are purged.</param>
public sealed record AnnouncementCounts(long Waiting, long GivenUp);

/// <summary>
/// Where verdicts are kept, durable with the store. The verdict on a command with an id of its own stands in its operation
/// (a refusal in the tombstone that closes the id); recorded beside it are those asked for by a request id, and those that
/// are to be announced. Thread-safe.
/// </summary>
public interface IVerdictStore
{
    /// <summary>Records verdicts; of one id the first stays.</summary>
    /// <param name="verdicts">The verdicts.</param>
    /// <param name="announce">Whether they are to be announced.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <exception cref="IOException">The store could not do it now; it may have been recorded, and recording again does no harm.</exception>
    ValueTask RecordAsync(IReadOnlyList<Verdict> verdicts, bool announce = false, CancellationToken cancellationToken = default);

    /// <summary>Finds verdicts: those recorded, and otherwise what the operation of that id tells (<see cref="Verdict.Of"/>).</summary>
    /// <returns>One an id, in order; <see langword="null"/> where there is none yet.</returns>
    ValueTask<IReadOnlyList<Verdict?>> FindAsync(IReadOnlyList<string> ids, CancellationToken cancellationToken = default);

    /// <summary>Removes recorded verdicts that were given before an instant and are not waiting to be announced.</summary>
    /// <returns>How many were removed, at most <paramref name="most"/>.</returns>
    ValueTask<int> PurgeAsync(DateTimeOffset before, int most, CancellationToken cancellationToken = default);

    /// <summary>Takes verdicts that are due to be announced; nobody else gets them until the lease is over.</summary>
    ValueTask<IReadOnlyList<Announcement>> TakeAnnouncementsAsync(int most, TimeSpan lease, CancellationToken cancellationToken = default);

    /// <summary>Notes how an announcement went.</summary>
    /// <param name="id">The verdict's id.</param>
    /// <param name="isDelivered">Whether it was told.</param>
    /// <param name="again">When to try again; <see langword="null"/> gives it up.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    ValueTask SettleAnnouncementAsync(string id, bool isDelivered, DateTimeOffset? again = null, CancellationToken cancellationToken = default);

    /// <summary>Counts announcements.</summary>
    ValueTask<AnnouncementCounts> CountAnnouncementsAsync(CancellationToken cancellationToken = default);
}
