using System.Collections.Immutable;
using System.Text.Json;

namespace Holdfast.Wire;

/// <content>Entries of the ledger.</content>
public static partial class StockViewJson
{
    /// <summary>Writes a ledger entry.</summary>
    public static void WriteFlow(Utf8JsonWriter writer, in FlowEntry entry)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStartObject();
        writer.WriteString("sku"u8, entry.Sku);
        if (entry.Partition != 0)
        {
            writer.WriteNumber("partition"u8, entry.Partition);
        }

        writer.WriteNumber("version"u8, entry.Version);
        writer.WriteString("operationId"u8, entry.OperationId);
        writer.WriteString("kind"u8, KindName(entry.Kind));
        writer.WriteNumber("availableChange"u8, entry.AvailableChange);
        writer.WriteNumber("reservedChange"u8, entry.ReservedChange);
        writer.WriteNumber("available"u8, entry.Available);
        writer.WriteNumber("reserved"u8, entry.Reserved);
        writer.WriteString("at"u8, entry.At);
        if (entry.Opening is { } opening)
        {
            WriteOpening(writer, opening);
        }

        if (entry.Cursor is not null)
        {
            writer.WriteString("cursor"u8, entry.Cursor);
        }

        writer.WriteEndObject();
    }

    /// <summary>Reads a ledger entry from the object that the reader stands on, and leaves it on the object's end.</summary>
    /// <exception cref="JsonException">The object is no ledger entry, or its kind is not known to this version.</exception>
    public static FlowEntry ReadFlow(ref Utf8JsonReader reader)
    {
        Expect(ref reader, JsonTokenType.StartObject, "A ledger entry is a JSON object.");
        string? sku = null, operationId = null, cursor = null;
        var kind = FlowKind.None;
        long partition = 0, version = 0, availableChange = 0, reservedChange = 0, available = 0, reserved = 0;
        DateTimeOffset? at = null;
        FlowOpening? opening = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("sku"u8))
            {
                sku = ReadText(ref reader, "sku");
            }
            else if (reader.ValueTextEquals("partition"u8))
            {
                partition = ReadNumber(ref reader, "partition");
            }
            else if (reader.ValueTextEquals("version"u8))
            {
                version = ReadNumber(ref reader, "version");
            }
            else if (reader.ValueTextEquals("operationId"u8))
            {
                operationId = ReadText(ref reader, "operationId");
            }
            else if (reader.ValueTextEquals("kind"u8))
            {
                var name = ReadText(ref reader, "kind");
                kind = ParseKind(name);
            }
            else if (reader.ValueTextEquals("availableChange"u8))
            {
                availableChange = ReadNumber(ref reader, "availableChange");
            }
            else if (reader.ValueTextEquals("reservedChange"u8))
            {
                reservedChange = ReadNumber(ref reader, "reservedChange");
            }
            else if (reader.ValueTextEquals("available"u8))
            {
                available = ReadNumber(ref reader, "available");
            }
            else if (reader.ValueTextEquals("reserved"u8))
            {
                reserved = ReadNumber(ref reader, "reserved");
            }
            else if (reader.ValueTextEquals("at"u8))
            {
                at = ReadTime(ref reader, "at");
            }
            else if (reader.ValueTextEquals("opening"u8))
            {
                opening = ReadOpening(ref reader);
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
            Sku = sku ?? throw Missing("A ledger entry", "sku"),
            Partition = (int)partition,
            Version = version,
            OperationId = operationId ?? throw Missing("A ledger entry", "operationId"),
            Kind = kind == FlowKind.None ? throw Missing("A ledger entry", "kind") : kind,
            AvailableChange = availableChange,
            ReservedChange = reservedChange,
            Available = available,
            Reserved = reserved,
            At = at ?? throw Missing("A ledger entry", "at"),
            Opening = opening ?? (kind == FlowKind.Opening ? throw Missing("An opening", "opening") : null),
            Cursor = cursor,
        };
    }

    /// <summary>The name of a ledger entry's kind on the wire: lower case.</summary>
    public static string KindName(FlowKind kind) => kind switch
    {
        FlowKind.Deduct => "deduct",
        FlowKind.Reserve => "reserve",
        FlowKind.Confirm => "confirm",
        FlowKind.Cancel => "cancel",
        FlowKind.Expire => "expire",
        FlowKind.Refund => "refund",
        FlowKind.Restock => "restock",
        FlowKind.Adjust => "adjust",
        FlowKind.Opening => "opening",
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "No such kind of entry."),
    };

    private static FlowKind ParseKind(string? name)
    {
        for (var kind = FlowKind.Deduct; kind <= FlowKind.Opening; kind++)
        {
            if (name == KindName(kind))
            {
                return kind;
            }
        }

        throw new JsonException($"'{name}' is no kind of ledger entry that this version knows.");
    }

    private static void WriteOpening(Utf8JsonWriter writer, FlowOpening opening)
    {
        writer.WriteStartObject("opening"u8);
        writer.WriteNumber("restocked"u8, opening.Restocked);
        writer.WriteNumber("adjusted"u8, opening.Adjusted);
        writer.WriteNumber("supplied"u8, opening.Supplied);
        if (!opening.Holds.IsEmpty)
        {
            writer.WriteStartArray("holds"u8);
            foreach (var (id, units) in opening.Holds)
            {
                writer.WriteStartObject();
                writer.WriteString("operationId"u8, id);
                writer.WriteNumber("units"u8, units);
                writer.WriteEndObject();
            }

            writer.WriteEndArray();
        }

        writer.WriteEndObject();
    }

    private static FlowOpening ReadOpening(ref Utf8JsonReader reader)
    {
        reader.Read();
        Expect(ref reader, JsonTokenType.StartObject, "An opening is a JSON object.");
        long restocked = 0, adjusted = 0, supplied = 0;
        ImmutableArray<FlowHold> holds = [];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("restocked"u8))
            {
                restocked = ReadNumber(ref reader, "restocked");
            }
            else if (reader.ValueTextEquals("adjusted"u8))
            {
                adjusted = ReadNumber(ref reader, "adjusted");
            }
            else if (reader.ValueTextEquals("supplied"u8))
            {
                supplied = ReadNumber(ref reader, "supplied");
            }
            else if (reader.ValueTextEquals("holds"u8))
            {
                holds = ReadHolds(ref reader);
            }
            else
            {
                PassOver(ref reader);
            }
        }

        return new() { Restocked = restocked, Adjusted = adjusted, Supplied = supplied, Holds = holds };
    }

    private static ImmutableArray<FlowHold> ReadHolds(ref Utf8JsonReader reader)
    {
        reader.Read();
        Expect(ref reader, JsonTokenType.StartArray, "The field 'holds' is an array.");
        var holds = ImmutableArray.CreateBuilder<FlowHold>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            Expect(ref reader, JsonTokenType.StartObject, "A hold is a JSON object.");
            string? id = null;
            long units = 0;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (reader.ValueTextEquals("operationId"u8))
                {
                    id = ReadText(ref reader, "operationId");
                }
                else if (reader.ValueTextEquals("units"u8))
                {
                    units = ReadNumber(ref reader, "units");
                }
                else
                {
                    PassOver(ref reader);
                }
            }

            holds.Add(new(id ?? throw Missing("A hold", "operationId"), units));
        }

        return holds.DrainToImmutable();
    }
}
