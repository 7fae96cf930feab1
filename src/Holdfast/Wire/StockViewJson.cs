using System.Collections.Immutable;
using System.Text.Json;

namespace Holdfast.Wire;

/// <summary>
/// The JSON form of what is read: stock levels, operations, ledger entries, and pages of them. Writers omit what is
/// absent; readers pass over fields that they don't know, so that an older client reads a newer server. Thread-safe.
/// </summary>
/// <remarks>
/// A level is <c>{"sku":"85123A","available":94,"reserved":0,"sold":6,"restocked":100,"adjusted":0,"version":2}</c>, with
/// version 0 for a SKU that was never stocked. Verbs, kinds and states are lower case, outcomes are spelled as in
/// <see cref="StockStatus"/>, times are ISO 8601. A page is <c>{"items":[…],"next":"…"}</c>; without <c>next</c> it is the last.
/// </remarks>
public static partial class StockViewJson
{
    /// <summary>Reads one value of a page.</summary>
    public delegate T ItemReader<out T>(ref Utf8JsonReader reader);

    /// <summary>Writes the stock of one SKU.</summary>
    public static void WriteLevel(Utf8JsonWriter writer, in StockLevel level)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStartObject();
        writer.WriteString("sku"u8, level.Sku);
        writer.WriteNumber("available"u8, level.Available);
        writer.WriteNumber("reserved"u8, level.Reserved);
        writer.WriteNumber("sold"u8, level.Sold);
        writer.WriteNumber("restocked"u8, level.Restocked);
        writer.WriteNumber("adjusted"u8, level.Adjusted);
        writer.WriteNumber("version"u8, level.Version);
        writer.WriteEndObject();
    }

    /// <summary>Reads the stock of one SKU from the object that the reader stands on, and leaves it on the object's end.</summary>
    /// <exception cref="JsonException">The object is no stock level.</exception>
    public static StockLevel ReadLevel(ref Utf8JsonReader reader)
    {
        Expect(ref reader, JsonTokenType.StartObject, "A stock level is a JSON object.");
        string? sku = null;
        long available = 0, reserved = 0, restocked = 0, adjusted = 0, version = 0;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("sku"u8))
            {
                sku = ReadText(ref reader, "sku");
            }
            else if (reader.ValueTextEquals("available"u8))
            {
                available = ReadNumber(ref reader, "available");
            }
            else if (reader.ValueTextEquals("reserved"u8))
            {
                reserved = ReadNumber(ref reader, "reserved");
            }
            else if (reader.ValueTextEquals("restocked"u8))
            {
                restocked = ReadNumber(ref reader, "restocked");
            }
            else if (reader.ValueTextEquals("adjusted"u8))
            {
                adjusted = ReadNumber(ref reader, "adjusted");
            }
            else if (reader.ValueTextEquals("version"u8))
            {
                version = ReadNumber(ref reader, "version");
            }
            else
            {
                PassOver(ref reader);
            }
        }

        return new()
        {
            Sku = sku ?? throw Missing("A stock level", "sku"),
            Available = available,
            Reserved = reserved,
            Restocked = restocked,
            Adjusted = adjusted,
            Version = version,
        };
    }

    /// <summary>Writes an operation.</summary>
    public static void WriteOperation(Utf8JsonWriter writer, OperationView operation)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStartObject();
        WriteOperationFields(writer, operation);
        writer.WriteEndObject();
    }

    /// <summary>Writes the fields of an operation into an object that the caller has begun.</summary>
    public static void WriteOperationFields(Utf8JsonWriter writer, OperationView operation)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(operation);
        writer.WriteString("id"u8, operation.Id);
        writer.WriteString("verb"u8, StockJson.VerbName(operation.Verb));
        writer.WriteString("state"u8, StateName(operation.State));
        writer.WriteString("outcome"u8, StockJson.StatusName(operation.Outcome));
        if (operation.Target is not null)
        {
            writer.WriteString("target"u8, operation.Target);
        }

        if (!operation.Lines.IsEmpty)
        {
            writer.WriteStartArray("lines"u8);
            foreach (var (sku, quantity, refunded) in operation.Lines)
            {
                writer.WriteStartObject();
                writer.WriteString("sku"u8, sku);
                writer.WriteNumber("quantity"u8, quantity);
                writer.WriteNumber("refunded"u8, refunded);
                writer.WriteEndObject();
            }

            writer.WriteEndArray();
        }

        if (!operation.Left.IsEmpty)
        {
            StockJson.WriteBalances(writer, operation.Left);
        }

        if (operation.Note is not null)
        {
            writer.WriteString("note"u8, operation.Note);
        }

        writer.WriteString("createdAt"u8, operation.CreatedAt);
        if (operation.ExpiresAt is { } expiresAt)
        {
            writer.WriteString("expiresAt"u8, expiresAt);
        }

        if (operation.EndedAt is { } endedAt)
        {
            writer.WriteString("endedAt"u8, endedAt);
        }

        if (operation.Cursor is not null)
        {
            writer.WriteString("cursor"u8, operation.Cursor);
        }
    }

    /// <summary>Reads an operation from the object that the reader stands on, and leaves it on the object's end.</summary>
    /// <exception cref="JsonException">The object is no operation, or its verb or state is not known to this version.</exception>
    public static OperationView ReadOperation(ref Utf8JsonReader reader)
    {
        Expect(ref reader, JsonTokenType.StartObject, "An operation is a JSON object.");
        string? id = null, target = null, note = null, cursor = null;
        var verb = StockVerb.None;
        var state = OperationState.None;
        ImmutableArray<OperationLine> lines = [];
        ImmutableArray<LineBalance> left = [];
        DateTimeOffset? createdAt = null, expiresAt = null, endedAt = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("id"u8))
            {
                id = ReadText(ref reader, "id");
            }
            else if (reader.ValueTextEquals("verb"u8))
            {
                var name = ReadText(ref reader, "verb");
                verb = TryParseVerb(name, out var known) ? known : throw new JsonException($"'{name}' is no verb that this version knows.");
            }
            else if (reader.ValueTextEquals("state"u8))
            {
                var name = ReadText(ref reader, "state");
                state = TryParseState(name, out var known) ? known : throw new JsonException($"'{name}' is no state that this version knows.");
            }
            else if (reader.ValueTextEquals("target"u8))
            {
                target = ReadText(ref reader, "target");
            }
            else if (reader.ValueTextEquals("lines"u8))
            {
                lines = ReadLines(ref reader);
            }
            else if (reader.ValueTextEquals("left"u8))
            {
                reader.Read();
                left = StockJson.ReadBalances(ref reader);
            }
            else if (reader.ValueTextEquals("note"u8))
            {
                note = ReadText(ref reader, "note");
            }
            else if (reader.ValueTextEquals("createdAt"u8))
            {
                createdAt = ReadTime(ref reader, "createdAt");
            }
            else if (reader.ValueTextEquals("expiresAt"u8))
            {
                expiresAt = ReadTime(ref reader, "expiresAt");
            }
            else if (reader.ValueTextEquals("endedAt"u8))
            {
                endedAt = ReadTime(ref reader, "endedAt");
            }
            else if (reader.ValueTextEquals("cursor"u8))
            {
                cursor = ReadText(ref reader, "cursor");
            }
            else
            {
                PassOver(ref reader);
            }
        }

        return new()
        {
            Id = id ?? throw Missing("An operation", "id"),
            Verb = verb == StockVerb.None ? throw Missing("An operation", "verb") : verb,
            State = state == OperationState.None ? throw Missing("An operation", "state") : state,
            Target = target,
            Lines = lines,
            Left = left,
            Note = note,
            CreatedAt = createdAt ?? throw Missing("An operation", "createdAt"),
            ExpiresAt = expiresAt,
            EndedAt = endedAt,
            Cursor = cursor,
        };
    }

    /// <summary>Reads a page: its items, and the cursor of the next page, <see langword="null"/> when this is the last.</summary>
    /// <exception cref="JsonException">The text is no page.</exception>
    public static (List<T> Items, string? Next) ReadPage<T>(ReadOnlySpan<byte> utf8, ItemReader<T> readItem)
    {
        ArgumentNullException.ThrowIfNull(readItem);
        var reader = new Utf8JsonReader(utf8);
        reader.Read();
        Expect(ref reader, JsonTokenType.StartObject, "A page is a JSON object.");
        List<T>? items = null;
        string? next = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("items"u8))
            {
                reader.Read();
                Expect(ref reader, JsonTokenType.StartArray, "The field 'items' is an array.");
                items = [];
                while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
                {
                    items.Add(readItem(ref reader));
                }
            }
            else if (reader.ValueTextEquals("next"u8))
            {
                next = ReadText(ref reader, "next");
            }
            else
            {
                PassOver(ref reader);
            }
        }

        return (items ?? throw Missing("A page", "items"), next);
    }

    /// <summary>The name of a state on the wire: lower case.</summary>
    public static string StateName(OperationState state) => state switch
    {
        OperationState.Applied => "applied",
        OperationState.Reserved => "reserved",
        OperationState.Confirmed => "confirmed",
        OperationState.Cancelled => "cancelled",
        OperationState.Abandoned => "abandoned",
        OperationState.Expired => "expired",
        OperationState.Undecided => "undecided",
        _ => throw new ArgumentOutOfRangeException(nameof(state), state, "No such state."),
    };

    /// <summary>The state with this name on the wire, case ignored.</summary>
    public static bool TryParseState(string? name, out OperationState state)
    {
        for (state = OperationState.Applied; state <= OperationState.Undecided; state++)
        {
            if (string.Equals(name, StateName(state), StringComparison.OrdinalIgnoreCase))
            {
                return true;
            }
        }

        state = OperationState.None;
        return false;
    }

    private static bool TryParseVerb(string? name, out StockVerb verb)
    {
        for (verb = StockVerb.Deduct; verb <= StockVerb.Adjust; verb++)
        {
            if (name == StockJson.VerbName(verb))
            {
                return true;
            }
        }

        verb = StockVerb.None;
        return false;
    }

    private static ImmutableArray<OperationLine> ReadLines(ref Utf8JsonReader reader)
    {
        reader.Read();
        Expect(ref reader, JsonTokenType.StartArray, "The field 'lines' is an array.");
        var lines = ImmutableArray.CreateBuilder<OperationLine>(1);
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            Expect(ref reader, JsonTokenType.StartObject, "A line is a JSON object.");
            string? sku = null;
            long quantity = 0, refunded = 0;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (reader.ValueTextEquals("sku"u8))
                {
                    sku = ReadText(ref reader, "sku");
                }
                else if (reader.ValueTextEquals("quantity"u8))
                {
                    quantity = ReadNumber(ref reader, "quantity");
                }
                else if (reader.ValueTextEquals("refunded"u8))
                {
                    refunded = ReadNumber(ref reader, "refunded");
                }
                else
                {
                    PassOver(ref reader);
                }
            }

            lines.Add(new(sku ?? throw Missing("A line", "sku"), quantity, refunded));
        }

        return lines.DrainToImmutable();
    }

    private static string? ReadText(ref Utf8JsonReader reader, string field)
    {
        reader.Read();
        return reader.TokenType switch
        {
            JsonTokenType.String => reader.GetString(),
            JsonTokenType.Null => null,
            _ => throw new JsonException($"The field '{field}' is a string."),
        };
    }

    private static long ReadNumber(ref Utf8JsonReader reader, string field)
    {
        reader.Read();
        return reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var number)
            ? number
            : throw new JsonException($"The field '{field}' is a whole number.");
    }

    private static DateTimeOffset? ReadTime(ref Utf8JsonReader reader, string field)
    {
        reader.Read();
        return reader.TokenType == JsonTokenType.Null ? null
            : reader.TokenType == JsonTokenType.String && reader.TryGetDateTimeOffset(out var time) ? time
            : throw new JsonException($"The field '{field}' is a time in ISO 8601.");
    }

    private static void PassOver(ref Utf8JsonReader reader)
    {
        reader.Read();
        reader.Skip();
    }

    private static void Expect(ref Utf8JsonReader reader, JsonTokenType token, string otherwise)
    {
        if (reader.TokenType != token)
        {
            throw new JsonException(otherwise);
        }
    }

    private static JsonException Missing(string what, string field) => new($"{what} has the field '{field}'.");
}
