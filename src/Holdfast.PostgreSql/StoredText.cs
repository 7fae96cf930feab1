using System.Buffers;
using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Holdfast.PostgreSql;

/// <summary>
/// The JSON columns of an operation: JSON rather than bytes of our own, so that any PostgreSQL tool can read them
/// (<c>json_array_elements(lines::json)</c>). Text rather than jsonb, because nothing is looked up inside them and
/// converting costs time.
/// </summary>
internal static class StoredText
{
    private static readonly JsonWriterOptions s_relaxed = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    /// <summary><c>[["85123A",6,94],…]</c>: SKU, quantity, what was left. <see langword="null"/> when there are no lines.</summary>
    public static string? Lines(ImmutableArray<StockLine> lines, ImmutableArray<LineBalance> left)
    {
        if (lines.IsEmpty)
        {
            return null;
        }

        if (lines.Length == 1 && IsPlain(lines[0].Sku))
        {
            // Most orders of a flash sale.
            return string.Create(CultureInfo.InvariantCulture, $"[[\"{lines[0].Sku}\",{lines[0].Quantity},{left[0].Available}]]");
        }

        var buffer = new ArrayBufferWriter<byte>(32 * lines.Length);
        using (var writer = new Utf8JsonWriter(buffer, s_relaxed))
        {
            writer.WriteStartArray();
            for (var i = 0; i < lines.Length; i++)
            {
                writer.WriteStartArray();
                writer.WriteStringValue(lines[i].Sku);
                writer.WriteNumberValue(lines[i].Quantity);
                writer.WriteNumberValue(left[i].Available);
                writer.WriteEndArray();
            }

            writer.WriteEndArray();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    /// <summary><c>[94,…]</c>: what was left of each line. <see langword="null"/> when there are none.</summary>
    public static string? Balances(ImmutableArray<LineBalance> left)
    {
        if (left.IsEmpty)
        {
            return null;
        }

        var numbers = new long[left.Length];
        for (var i = 0; i < numbers.Length; i++)
        {
            numbers[i] = left[i].Available;
        }

        return Numbers(numbers);
    }

    /// <summary><c>[0,2,…]</c>. <see langword="null"/> when there are none.</summary>
    public static string? Numbers(long[]? numbers) => numbers is null
        ? null
        : $"[{string.Join(',', numbers.Select(number => number.ToString(CultureInfo.InvariantCulture)))}]";

    public static (ImmutableArray<StockLine> Lines, ImmutableArray<LineBalance> Left) ReadLines(string? json)
    {
        if (json is null)
        {
            return ([], []);
        }

        var lines = ImmutableArray.CreateBuilder<StockLine>();
        var left = ImmutableArray.CreateBuilder<LineBalance>();
        var reader = new Utf8JsonReader(Encoding.UTF8.GetBytes(json));
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.StartArray)
        {
            reader.Read();
            var sku = reader.GetString()!;
            reader.Read();
            lines.Add(new(sku, reader.GetInt64()));
            reader.Read();
            left.Add(new(sku, reader.GetInt64()));
            reader.Read();
        }

        return (lines.DrainToImmutable(), left.DrainToImmutable());
    }

    public static ImmutableArray<LineBalance> ReadBalances(string? json, ImmutableArray<StockLine> lines)
    {
        if (ReadNumbers(json, lines.Length) is not { } numbers)
        {
            return [];
        }

        var balances = new LineBalance[lines.Length];
        for (var i = 0; i < balances.Length; i++)
        {
            balances[i] = new(lines[i].Sku, numbers[i]);
        }

        return ImmutableCollectionsMarshal.AsImmutableArray(balances);
    }

    public static long[]? ReadNumbers(string? json, int count)
    {
        if (json is null)
        {
            return null;
        }

        var numbers = new long[count];
        var reader = new Utf8JsonReader(Encoding.UTF8.GetBytes(json));
        reader.Read();
        for (var i = 0; i < count; i++)
        {
            reader.Read();
            numbers[i] = reader.GetInt64();
        }

        return numbers;
    }

    /// <summary><c>[["reservation-1",3],…]</c>: reservation, units held.</summary>
    public static string Holds(IEnumerable<FlowHold> holds)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(buffer, s_relaxed))
        {
            writer.WriteStartArray();
            foreach (var (id, units) in holds)
            {
                writer.WriteStartArray();
                writer.WriteStringValue(id);
                writer.WriteNumberValue(units);
                writer.WriteEndArray();
            }

            writer.WriteEndArray();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    public static ImmutableArray<FlowHold> ReadHolds(string json)
    {
        var holds = ImmutableArray.CreateBuilder<FlowHold>();
        var reader = new Utf8JsonReader(Encoding.UTF8.GetBytes(json));
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.StartArray)
        {
            reader.Read();
            var id = reader.GetString()!;
            reader.Read();
            holds.Add(new(id, reader.GetInt64()));
            reader.Read();
        }

        return holds.DrainToImmutable();
    }

    /// <summary>Whether a text stands in JSON as it is.</summary>
    private static bool IsPlain(string text)
    {
        foreach (var c in text)
        {
            if (c is < ' ' or '"' or '\\' or > '~')
            {
                return false;
            }
        }

        return true;
    }
}
