using System.Buffers;
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Holdfast.Sqlite;

/// <summary>
/// The JSON columns of an operation: JSON rather than bytes of our own, so that the file can be read with any SQLite
/// tool (<c>json_each(lines)</c>). Not thread-safe; the spans it returns live until the next call.
/// </summary>
internal sealed class OperationText : IDisposable
{
    private readonly ArrayBufferWriter<byte> _buffer = new(512);
    private readonly Utf8JsonWriter _writer;

    public OperationText() => _writer = new(_buffer, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true });

    /// <summary><c>[["85123A",6,94],…]</c>: SKU, quantity, what was left. Empty when there are no lines.</summary>
    public ReadOnlySpan<byte> Lines(ImmutableArray<StockLine> lines, ImmutableArray<LineBalance> left)
    {
        if (lines.IsEmpty)
        {
            return [];
        }

        Begin();
        for (var i = 0; i < lines.Length; i++)
        {
            _writer.WriteStartArray();
            _writer.WriteStringValue(lines[i].Sku);
            _writer.WriteNumberValue(lines[i].Quantity);
            _writer.WriteNumberValue(left[i].Available);
            _writer.WriteEndArray();
        }

        return End();
    }

    /// <summary><c>[94,…]</c>. Empty when there are none.</summary>
    public ReadOnlySpan<byte> Balances(ImmutableArray<LineBalance> left)
    {
        if (left.IsEmpty)
        {
            return [];
        }

        Begin();
        foreach (var balance in left)
        {
            _writer.WriteNumberValue(balance.Available);
        }

        return End();
    }

    /// <summary><c>[0,2,…]</c>. Empty when nothing was refunded.</summary>
    public ReadOnlySpan<byte> Numbers(long[]? numbers)
    {
        if (numbers is null)
        {
            return [];
        }

        Begin();
        foreach (var number in numbers)
        {
            _writer.WriteNumberValue(number);
        }

        return End();
    }

    public static (ImmutableArray<StockLine> Lines, ImmutableArray<LineBalance> Left) ReadLines(ReadOnlySpan<byte> json)
    {
        if (json.IsEmpty)
        {
            return ([], []);
        }

        var lines = ImmutableArray.CreateBuilder<StockLine>();
        var left = ImmutableArray.CreateBuilder<LineBalance>();
        var reader = new Utf8JsonReader(json);
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

    public static ImmutableArray<LineBalance> ReadBalances(ReadOnlySpan<byte> json, ImmutableArray<StockLine> lines)
    {
        if (json.IsEmpty)
        {
            return [];
        }

        var balances = new LineBalance[lines.Length];
        var reader = new Utf8JsonReader(json);
        reader.Read();
        for (var i = 0; i < balances.Length; i++)
        {
            reader.Read();
            balances[i] = new(lines[i].Sku, reader.GetInt64());
        }

        return ImmutableCollectionsMarshal.AsImmutableArray(balances);
    }

    public static long[]? ReadNumbers(ReadOnlySpan<byte> json, int count)
    {
        if (json.IsEmpty)
        {
            return null;
        }

        var numbers = new long[count];
        var reader = new Utf8JsonReader(json);
        reader.Read();
        for (var i = 0; i < count; i++)
        {
            reader.Read();
            numbers[i] = reader.GetInt64();
        }

        return numbers;
    }

    public void Dispose() => _writer.Dispose();

    private void Begin()
    {
        _buffer.ResetWrittenCount();
        _writer.Reset();
        _writer.WriteStartArray();
    }

    private ReadOnlySpan<byte> End()
    {
        _writer.WriteEndArray();
        _writer.Flush();
        return _buffer.WrittenSpan;
    }
}
