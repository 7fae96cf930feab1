using System.Collections.Immutable;
using System.Text.Json;

namespace Holdfast.Wire;

/// <content>Results.</content>
public static partial class StockJson
{
    /// <summary>Writes one result as an object.</summary>
    public static void WriteResult(Utf8JsonWriter writer, in StockResult result)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStartObject();
        WriteResultFields(writer, result);
        writer.WriteEndObject();
    }

    /// <summary>Writes the fields of a result into an object that the caller has begun.</summary>
    public static void WriteResultFields(Utf8JsonWriter writer, in StockResult result)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteString("outcome"u8, StatusName(result.Status));
        writer.WriteBoolean("retry"u8, result.IsRetryable);
        if (result.Original != StockStatus.None)
        {
            writer.WriteString("original"u8, StatusName(result.Original));
        }

        if (result.AcknowledgedBy != Acknowledgement.None)
        {
            writer.WriteString("acknowledgedBy"u8, AcknowledgementName(result.AcknowledgedBy));
        }

        if (result.Sku is not null)
        {
            writer.WriteString("sku"u8, result.Sku);
            writer.WriteNumber("available"u8, result.Available);
        }

        if (!result.Left.IsEmpty)
        {
            WriteBalances(writer, result.Left);
        }

        if (result.Detail is not null)
        {
            writer.WriteString("detail"u8, result.Detail);
        }
    }

    /// <summary>
    /// Reads one result. Unknown fields are passed over, and an outcome that this version does not know becomes InDoubt
    /// or, where the sender says that a retry makes sense, Busy, with the name in <see cref="StockResult.Detail"/>.
    /// </summary>
    /// <param name="utf8">Exactly one JSON object.</param>
    /// <exception cref="JsonException">The text is no result.</exception>
    public static StockResult ReadResult(ReadOnlySpan<byte> utf8)
    {
        var reader = new Utf8JsonReader(utf8);
        reader.Read();
        return ReadResult(ref reader);
    }

    /// <summary>Reads the result whose object the reader stands on, and leaves it on the object's end.</summary>
    public static StockResult ReadResult(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw new JsonException("A result is a JSON object.");
        }

        string? outcome = null, sku = null, detail = null, unknown = null;
        var retry = false;
        var original = StockStatus.None;
        var acknowledgedBy = Acknowledgement.None;
        long available = 0;
        ImmutableArray<LineBalance> left = [];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("outcome"u8))
            {
                reader.Read();
                outcome = reader.ValueTextEquals("Done"u8) ? nameof(StockStatus.Done) : reader.GetString();
            }
            else if (reader.ValueTextEquals("retry"u8))
            {
                reader.Read();
                retry = reader.GetBoolean();
            }
            else if (reader.ValueTextEquals("original"u8))
            {
                reader.Read();
                var name = reader.GetString();
                original = ParseStatus(name);
                unknown = name is not null && original == StockStatus.None ? name : null;
            }
            else if (reader.ValueTextEquals("acknowledgedBy"u8))
            {
                reader.Read();
                acknowledgedBy = reader.ValueTextEquals("Store"u8) ? Acknowledgement.Store
                    : Enum.TryParse<Acknowledgement>(reader.GetString(), out var named) ? named : Acknowledgement.None;
            }
            else if (reader.ValueTextEquals("sku"u8))
            {
                reader.Read();
                sku = reader.GetString();
            }
            else if (reader.ValueTextEquals("available"u8))
            {
                reader.Read();
                available = reader.GetInt64();
            }
            else if (reader.ValueTextEquals("detail"u8))
            {
                reader.Read();
                detail = reader.GetString();
            }
            else if (reader.ValueTextEquals("left"u8))
            {
                reader.Read();
                left = ReadBalances(ref reader);
            }
            else
            {
                reader.Read();
                reader.Skip();
            }
        }

        if (outcome is null)
        {
            throw new JsonException("A result has the field 'outcome'.");
        }

        var status = ParseStatus(outcome);
        if (status == StockStatus.None || unknown is not null)
        {
            // The replay of an outcome that is not known must not be taken for the replay of a success.
            status = retry ? StockStatus.Busy : StockStatus.InDoubt;
            detail = $"The server answered '{(unknown is null ? outcome : $"{outcome}: {unknown}")}', which this version does not know. {detail}".TrimEnd();
        }

        return new() { Status = status, Original = original, AcknowledgedBy = acknowledgedBy, Sku = sku, Available = available, Left = left, Detail = detail };
    }

    /// <summary>The name of an outcome on the wire, without the allocation of <see cref="Enum.ToString()"/>.</summary>
    public static string StatusName(StockStatus status) => status switch
    {
        StockStatus.Done => nameof(StockStatus.Done),
        StockStatus.Insufficient => nameof(StockStatus.Insufficient),
        StockStatus.Replayed => nameof(StockStatus.Replayed),
        _ => Enum.GetName(status) ?? throw new ArgumentOutOfRangeException(nameof(status), status, "No such outcome."),
    };

    private static StockStatus ParseStatus(string? name) =>
        Enum.TryParse<StockStatus>(name, out var status) && Enum.IsDefined(status) ? status : StockStatus.None;

    private static string AcknowledgementName(Acknowledgement by) => by == Acknowledgement.Store ? nameof(Acknowledgement.Store) : by.ToString();
}
