using System.Buffers;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Holdfast.Queueing;

namespace Holdfast.Wire;

/// <summary>
/// The JSON form of a command in a queue: <c>{"v":1,"at":…,"deadline":…,"command":{…}}</c> with times in milliseconds since
/// 1970-01-01 UTC, optional <c>tries</c> and <c>request</c>, and the command as <see cref="StockJson"/> writes it. Reading
/// is strict. Thread-safe.
/// </summary>
public static class QueuedCommandJson
{
    /// <summary>The version of the form that this code writes and reads.</summary>
    public const int FormatVersion = 1;

    private static readonly JsonWriterOptions s_options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    [ThreadStatic]
    private static (ArrayBufferWriter<byte> Bytes, Utf8JsonWriter Writer)? s_buffer;

    /// <summary>Writes a command with what the queue must know of it.</summary>
    public static byte[] Write(QueuedCommand queued)
    {
        ArgumentNullException.ThrowIfNull(queued);
        var (bytes, json) = s_buffer ??= NewBuffer();
        json.WriteStartObject();
        json.WriteNumber("v"u8, FormatVersion);
        json.WriteNumber("at"u8, queued.AcceptedAt.ToUnixTimeMilliseconds());
        json.WriteNumber("deadline"u8, queued.Deadline.ToUnixTimeMilliseconds());
        if (queued.Tries > 0)
        {
            json.WriteNumber("tries"u8, queued.Tries);
        }

        if (queued.RequestId is not null)
        {
            json.WriteString("request"u8, queued.RequestId);
        }

        json.WritePropertyName("command"u8);
        StockJson.WriteCommand(json, queued.Command);
        json.WriteEndObject();
        json.Flush();
        var written = bytes.WrittenSpan.ToArray();
        bytes.ResetWrittenCount();
        json.Reset(bytes);
        return written;
    }

    /// <summary>Reads a command with what the queue must know of it.</summary>
    /// <param name="utf8">Exactly one JSON object.</param>
    /// <exception cref="InvalidCommandException">The text is no JSON, of another version, or breaks the contract; the exception names the field.</exception>
    public static QueuedCommand Read(ReadOnlySpan<byte> utf8)
    {
        try
        {
            return ReadObject(utf8);
        }
        catch (JsonException e)
        {
            throw new InvalidCommandException("body", $"is not valid JSON (line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1})");
        }
        catch (InvalidOperationException)
        {
            throw new InvalidCommandException("body", "is not valid Unicode text");
        }
    }

    private static QueuedCommand ReadObject(ReadOnlySpan<byte> utf8)
    {
        var reader = new Utf8JsonReader(utf8);
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw new InvalidCommandException("body", "must be a JSON object");
        }

        long? version = null, at = null, deadline = null, tries = null;
        string? request = null;
        StockCommand? command = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("v"u8))
            {
                version = Number(ref reader, "v");
            }
            else if (reader.ValueTextEquals("at"u8))
            {
                at = Number(ref reader, "at");
            }
            else if (reader.ValueTextEquals("deadline"u8))
            {
                deadline = Number(ref reader, "deadline");
            }
            else if (reader.ValueTextEquals("tries"u8))
            {
                tries = Number(ref reader, "tries");
            }
            else if (reader.ValueTextEquals("request"u8))
            {
                reader.Read();
                request = reader.TokenType == JsonTokenType.String ? reader.GetString() : throw new InvalidCommandException("request", "must be a string");
            }
            else if (reader.ValueTextEquals("command"u8))
            {
                reader.Read();
                var start = (int)reader.TokenStartIndex;
                reader.Skip();
                command = StockJson.ReadCommand(utf8[start..(int)reader.BytesConsumed]);
            }
            else
            {
                throw new InvalidCommandException("body", "has a field that this version does not know");
            }
        }

        if (reader.Read())
        {
            throw new InvalidCommandException("body", "has more than one JSON value");
        }

        if (version != FormatVersion)
        {
            throw new InvalidCommandException("v", version is null ? "is missing" : string.Create(CultureInfo.InvariantCulture, $"is {version}; this version knows {FormatVersion}"));
        }

        if (request is not null && StockKey.Problem(request) is { } problem)
        {
            throw new InvalidCommandException("request", problem);
        }

        return new()
        {
            Command = command ?? throw new InvalidCommandException("command", "is missing"),
            AcceptedAt = Time(at, "at"),
            Deadline = Time(deadline, "deadline"),
            Tries = tries is null or (>= 0 and <= int.MaxValue) ? (int)(tries ?? 0) : throw new InvalidCommandException("tries", "must be a count"),
            RequestId = request,
        };
    }

    private static DateTimeOffset Time(long? milliseconds, string field) => milliseconds switch
    {
        null => throw new InvalidCommandException(field, "is missing"),
        >= 0 and <= 253_402_300_799_999 => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds.Value),
        _ => throw new InvalidCommandException(field, "must be milliseconds since 1970"),
    };

    private static long Number(ref Utf8JsonReader reader, string field)
    {
        reader.Read();
        return reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var number) ? number : throw new InvalidCommandException(field, "must be a whole number");
    }

    private static (ArrayBufferWriter<byte>, Utf8JsonWriter) NewBuffer()
    {
        var bytes = new ArrayBufferWriter<byte>(512);
        return (bytes, new(bytes, s_options));
    }
}
