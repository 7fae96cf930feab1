using System.Buffers;
using System.Collections.Immutable;
using System.Text.Json;

namespace Holdfast.Wire;

/// <summary>
/// The JSON form of commands and results: one object each, used over HTTP (single requests and NDJSON batches), in queues
/// and journals. Reading is strict: unknown, repeated and misplaced fields, wrong types and broken bounds are refused
/// with the field's path; nothing is guessed. Thread-safe.
/// </summary>
/// <remarks>
/// A command is <c>{"verb":"deduct","id":"order-1","lines":[{"sku":"85123A","quantity":6}]}</c>, with <c>target</c> for
/// confirm, cancel, abandon and refund, <c>ttlSeconds</c> for reserve and an optional <c>note</c>. An optional
/// <c>"v":1</c> states the format's version. A result is
/// <c>{"outcome":"Done","retry":false,"acknowledgedBy":"Store","left":[{"sku":"85123A","available":94}]}</c>.
/// </remarks>
public static partial class StockJson
{
    /// <summary>The version of the command format that this code writes and reads.</summary>
    public const int FormatVersion = 1;

    /// <summary>How the fields are called in one place where commands are read; the NDJSON form by default.</summary>
    /// <param name="Verb">The verb that the place implies, or <see cref="StockVerb.None"/> when the object names it.</param>
    /// <param name="IdField">The name of the id field.</param>
    /// <param name="TargetField">The name of the target field.</param>
    public sealed record CommandForm(StockVerb Verb = StockVerb.None, string IdField = "id", string TargetField = "target")
    {
        /// <summary>The form of batches, queues and journals: the object names its verb.</summary>
        public static CommandForm Default { get; } = new();
    }

    /// <summary>Reads one command.</summary>
    /// <param name="utf8">Exactly one JSON object.</param>
    /// <param name="form">The names of the fields.</param>
    /// <exception cref="InvalidCommandException">The text is no JSON, or breaks the contract; the exception names the field.</exception>
    public static StockCommand ReadCommand(ReadOnlySpan<byte> utf8, CommandForm? form = null)
    {
        form ??= CommandForm.Default;
        var fields = new CommandFields();
        try
        {
            var reader = new Utf8JsonReader(utf8);
            reader.Read();
            try
            {
                fields.Read(ref reader, form);
            }
            catch (InvalidOperationException)
            {
                // The reader unescapes names and verbs while it compares them, and some escapes are no text: half a surrogate pair.
                throw new InvalidCommandException(CommandFields.Place(ref reader), "is not valid Unicode text");
            }

            if (reader.Read())
            {
                throw new InvalidCommandException("body", "has more than one JSON value");
            }

            return fields.ToCommand(form);
        }
        catch (JsonException e)
        {
            throw new InvalidCommandException("body", $"is not valid JSON (line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1})");
        }
        finally
        {
            fields.Dispose();
        }
    }

    /// <summary>One command in the default form, as UTF-8.</summary>
    public static byte[] WriteCommand(StockCommand command)
    {
        var buffer = new ArrayBufferWriter<byte>(128);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            WriteCommand(writer, command);
        }

        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Writes one command in the default form.</summary>
    /// <exception cref="NotSupportedException">It is one shard's step of a command over several: sent without that it would be another command.</exception>
    public static void WriteCommand(Utf8JsonWriter writer, StockCommand command)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(command);
        if (command.Branch is not null)
        {
            throw new NotSupportedException($"{command}: a shard has to be a store that this process opens itself, not a server.");
        }

        writer.WriteStartObject();
        writer.WriteString("verb"u8, VerbName(command.Verb));
        if (!command.IsTransition)
        {
            writer.WriteString("id"u8, command.Id);
        }

        if (command.Target is not null)
        {
            writer.WriteString("target"u8, command.Target);
        }

        if (!command.Lines.IsEmpty)
        {
            writer.WriteStartArray("lines"u8);
            foreach (var (sku, quantity) in command.Lines)
            {
                writer.WriteStartObject();
                writer.WriteString("sku"u8, sku);
                writer.WriteNumber("quantity"u8, quantity);
                writer.WriteEndObject();
            }

            writer.WriteEndArray();
        }

        if (command.Verb == StockVerb.Reserve)
        {
            writer.WriteNumber("ttlSeconds"u8, command.TimeToLiveMilliseconds / 1000m);
        }

        if (command.Note is not null)
        {
            writer.WriteString("note"u8, command.Note);
        }

        writer.WriteEndObject();
    }

    /// <summary>The name of a verb on the wire: lower case.</summary>
    public static string VerbName(StockVerb verb) => verb switch
    {
        StockVerb.Deduct => "deduct",
        StockVerb.Reserve => "reserve",
        StockVerb.Confirm => "confirm",
        StockVerb.Cancel => "cancel",
        StockVerb.Abandon => "abandon",
        StockVerb.Refund => "refund",
        StockVerb.Restock => "restock",
        StockVerb.Adjust => "adjust",
        _ => throw new ArgumentOutOfRangeException(nameof(verb), verb, "No such verb."),
    };

    /// <summary>Writes what is left as the field <c>left</c>.</summary>
    internal static void WriteBalances(Utf8JsonWriter writer, ImmutableArray<LineBalance> left)
    {
        writer.WriteStartArray("left"u8);
        foreach (var (sku, available) in left)
        {
            writer.WriteStartObject();
            writer.WriteString("sku"u8, sku);
            writer.WriteNumber("available"u8, available);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    internal static ImmutableArray<LineBalance> ReadBalances(ref Utf8JsonReader reader)
    {
        var left = ImmutableArray.CreateBuilder<LineBalance>(1);
        while (reader.Read() && reader.TokenType == JsonTokenType.StartObject)
        {
            string? sku = null;
            long available = 0;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (reader.ValueTextEquals("sku"u8))
                {
                    reader.Read();
                    sku = reader.GetString();
                }
                else if (reader.ValueTextEquals("available"u8))
                {
                    reader.Read();
                    available = reader.GetInt64();
                }
                else
                {
                    reader.Read();
                    reader.Skip();
                }
            }

            left.Add(new(sku ?? throw new JsonException("A balance has the field 'sku'."), available));
        }

        return left.DrainToImmutable();
    }

    /// <summary>The fields of a command while it is read; lines in a pooled buffer.</summary>
    private ref struct CommandFields
    {
        private StockVerb _verb;
        private string? _id;
        private string? _target;
        private string? _note;
        private decimal? _ttlSeconds;
        private bool _hasVersion;
        private bool _hasNote;
        private StockLine[]? _lines;
        private int _lineCount;

        public void Read(ref Utf8JsonReader reader, CommandForm form)
        {
            if (reader.TokenType != JsonTokenType.StartObject)
            {
                throw new InvalidCommandException("body", "must be a JSON object");
            }

            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (reader.ValueTextEquals(form.IdField))
                {
                    OnlyOnce(_id is null, form.IdField);
                    _id = ReadText(ref reader, form.IdField);
                }
                else if (reader.ValueTextEquals("lines"u8))
                {
                    OnlyOnce(_lines is null, "lines");
                    ReadLines(ref reader);
                }
                else if (reader.ValueTextEquals(form.TargetField))
                {
                    OnlyOnce(_target is null, form.TargetField);
                    _target = ReadText(ref reader, form.TargetField);
                }
                else if (form.Verb == StockVerb.None && reader.ValueTextEquals("verb"u8))
                {
                    OnlyOnce(_verb == StockVerb.None, "verb");
                    _verb = ReadVerb(ref reader);
                }
                else if (reader.ValueTextEquals("ttlSeconds"u8))
                {
                    OnlyOnce(_ttlSeconds is null, "ttlSeconds");
                    _ttlSeconds = ReadTimeToLive(ref reader);
                }
                else if (reader.ValueTextEquals("note"u8))
                {
                    OnlyOnce(!_hasNote, "note");
                    _hasNote = true;
                    reader.Read();
                    _note = reader.TokenType == JsonTokenType.Null ? null : Text(ref reader, "note");
                }
                else if (reader.ValueTextEquals("v"u8))
                {
                    OnlyOnce(!_hasVersion, "v");
                    _hasVersion = true;
                    reader.Read();
                    if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt32(out var version) || version != FormatVersion)
                    {
                        throw new InvalidCommandException("v", $"must be {FormatVersion}, the only version of the command format that this server knows");
                    }
                }
                else
                {
                    throw new InvalidCommandException(Name(ref reader), "is not a field of a command");
                }
            }
        }

        public readonly StockCommand ToCommand(CommandForm form)
        {
            var verb = form.Verb == StockVerb.None ? _verb : form.Verb;
            if (verb == StockVerb.None)
            {
                throw new InvalidCommandException("verb", "is missing; it is one of deduct, reserve, confirm, cancel, abandon, refund, restock, adjust");
            }

            var transition = verb is StockVerb.Confirm or StockVerb.Cancel or StockVerb.Abandon;
            Forbid(transition && _id is not null, form.IdField, verb);
            Forbid(transition && _lines is not null, "lines", verb);
            Forbid(verb is StockVerb.Confirm or StockVerb.Cancel && _hasNote, "note", verb);
            Forbid(!transition && verb != StockVerb.Refund && _target is not null, form.TargetField, verb);
            Forbid(verb != StockVerb.Reserve && _ttlSeconds is not null, "ttlSeconds", verb);
            if (verb == StockVerb.Reserve && _ttlSeconds is null)
            {
                throw new InvalidCommandException("ttlSeconds", "is missing; it says how long the reservation lives");
            }

            var lines = _lines.AsSpan(0, _lineCount);
            try
            {
                return verb switch
                {
                    StockVerb.Deduct => StockCommand.Deduct(_id!, lines, _note),
                    StockVerb.Reserve => StockCommand.Reserve(_id!, lines, TimeSpan.FromTicks((long)(_ttlSeconds!.Value * TimeSpan.TicksPerSecond)), _note),
                    StockVerb.Confirm => StockCommand.Confirm(_target!),
                    StockVerb.Cancel => StockCommand.Cancel(_target!),
                    StockVerb.Abandon => StockCommand.Abandon(_target!, _note),
                    StockVerb.Refund => StockCommand.Refund(_id!, _target!, lines, _note),
                    StockVerb.Restock => StockCommand.Restock(_id!, lines, _note),
                    _ => StockCommand.Adjust(_id!, lines, _note),
                };
            }
            catch (InvalidCommandException e) when (e.Field is "id" or "target" or "timeToLive")
            {
                // The factories speak of the command's fields; the caller wrote this form's.
                throw new InvalidCommandException(e.Field switch { "id" => form.IdField, "target" => form.TargetField, _ => "ttlSeconds" }, e.Problem);
            }
        }

        public void Dispose()
        {
            if (_lines is not null)
            {
                ArrayPool<StockLine>.Shared.Return(_lines, clearArray: true);
                _lines = null;
            }
        }

        private void ReadLines(ref Utf8JsonReader reader)
        {
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartArray)
            {
                throw new InvalidCommandException("lines", "must be an array of {\"sku\", \"quantity\"}");
            }

            _lines = ArrayPool<StockLine>.Shared.Rent(4);
            while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            {
                if (_lineCount == _lines.Length)
                {
                    var larger = ArrayPool<StockLine>.Shared.Rent(_lines.Length * 2);
                    _lines.AsSpan().CopyTo(larger);
                    ArrayPool<StockLine>.Shared.Return(_lines, clearArray: true);
                    _lines = larger;
                }

                _lines[_lineCount] = ReadLine(ref reader, _lineCount);
                _lineCount++;
            }
        }

        private static StockLine ReadLine(ref Utf8JsonReader reader, int index)
        {
            if (reader.TokenType != JsonTokenType.StartObject)
            {
                throw new InvalidCommandException($"lines[{index}]", "must be an object {\"sku\", \"quantity\"}");
            }

            string? sku = null;
            long? quantity = null;
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                if (reader.ValueTextEquals("sku"u8))
                {
                    OnlyOnce(sku is null, $"lines[{index}].sku");
                    reader.Read();
                    sku = reader.TokenType == JsonTokenType.String ? Text(ref reader, $"lines[{index}].sku")
                        : throw new InvalidCommandException($"lines[{index}].sku", "must be a string");
                }
                else if (reader.ValueTextEquals("quantity"u8))
                {
                    OnlyOnce(quantity is null, $"lines[{index}].quantity");
                    reader.Read();
                    quantity = reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out var number) ? number
                        : throw new InvalidCommandException($"lines[{index}].quantity", "must be a whole number, written in digits, of at most 10^12");
                }
                else
                {
                    throw new InvalidCommandException($"lines[{index}].{Name(ref reader)}", "is not a field of a line");
                }
            }

            return new(
                sku ?? throw new InvalidCommandException($"lines[{index}].sku", "is missing"),
                quantity ?? throw new InvalidCommandException($"lines[{index}].quantity", "is missing"));
        }

        private static StockVerb ReadVerb(ref Utf8JsonReader reader)
        {
            reader.Read();
            if (reader.TokenType == JsonTokenType.String)
            {
                for (var verb = StockVerb.Deduct; verb <= StockVerb.Adjust; verb++)
                {
                    if (reader.ValueTextEquals(VerbName(verb)))
                    {
                        return verb;
                    }
                }
            }

            throw new InvalidCommandException("verb", "must be one of deduct, reserve, confirm, cancel, abandon, refund, restock, adjust");
        }

        private static decimal ReadTimeToLive(ref Utf8JsonReader reader)
        {
            reader.Read();
            return reader.TokenType == JsonTokenType.Number && reader.TryGetDecimal(out var seconds) && seconds is >= 0 and <= 1_000_000_000
                ? seconds
                : throw new InvalidCommandException("ttlSeconds", "must be a number of seconds from 1 to 2592000 (30 days)");
        }

        private static string ReadText(ref Utf8JsonReader reader, string field)
        {
            reader.Read();
            return Text(ref reader, field);
        }

        private static string Text(ref Utf8JsonReader reader, string field)
        {
            if (reader.TokenType != JsonTokenType.String)
            {
                throw new InvalidCommandException(field, "must be a string");
            }

            try
            {
                return reader.GetString()!;
            }
            catch (InvalidOperationException)
            {
                throw new InvalidCommandException(field, "is not valid Unicode text");
            }
        }

        /// <summary>Where the reader stands: the name itself, or the only field whose value is compared without being taken out first.</summary>
        public static string Place(ref Utf8JsonReader reader) => reader.TokenType == JsonTokenType.PropertyName ? Name(ref reader) : "verb";

        private static string Name(ref Utf8JsonReader reader)
        {
            // An error message repeats the name, so its length is bounded.
            var name = System.Text.Encoding.UTF8.GetString(reader.ValueSpan);
            return name.Length <= StockLimits.MaxKeyLength ? name : string.Concat(name.AsSpan(0, StockLimits.MaxKeyLength), "…");
        }

        private static void OnlyOnce(bool first, string field)
        {
            if (!first)
            {
                throw new InvalidCommandException(field, "appears twice");
            }
        }

        private static void Forbid(bool present, string field, StockVerb verb)
        {
            if (present)
            {
                throw new InvalidCommandException(field, $"is not a field of the verb {VerbName(verb)}");
            }
        }
    }
}
