using System.Buffers;
using System.Text.Json;
using Holdfast.Wire;

namespace Holdfast.Tests.Wire;

/// <summary>What a server writes, a client reads back: levels, operations, ledger entries and pages.</summary>
public sealed class StockViewJsonTests
{
    private static readonly DateTimeOffset At = DateTimeOffset.FromUnixTimeMilliseconds(1_700_000_000_123);

    [Fact]
    public void A_level_comes_back_as_it_was_written()
    {
        var level = new StockLevel { Sku = "85123A \"ß\"", Available = 94, Reserved = 2, Restocked = StockLimits.MaxSupplied, Adjusted = -3, Version = 7 };
        Back(level, StockViewJson.WriteLevel, StockViewJson.ReadLevel).ShouldBe(level);
        Text(level, StockViewJson.WriteLevel).ShouldContain($"\"sold\":{level.Sold}");
    }

    [Fact]
    public void An_operation_comes_back_as_it_was_written()
    {
        var operation = new OperationView
        {
            Id = "refund-1",
            Verb = StockVerb.Refund,
            State = OperationState.Applied,
            Target = "order-1",
            Lines = [new("a", 3, 1), new("b", 5, 0)],
            Left = [new("a", 10), new("b", 0)],
            Note = "why\nnot",
            CreatedAt = At,
            ExpiresAt = At.AddSeconds(1),
            EndedAt = At.AddDays(1),
            Cursor = "41",
        };
        ShouldAgree(Back<OperationView>(operation, Write, StockViewJson.ReadOperation), operation);

        var tombstone = new OperationView { Id = "gone", Verb = StockVerb.Abandon, State = OperationState.Abandoned, CreatedAt = At };
        ShouldAgree(Back<OperationView>(tombstone, Write, StockViewJson.ReadOperation), tombstone);

        static void Write(Utf8JsonWriter writer, in OperationView view) => StockViewJson.WriteOperation(writer, view);

        // Arrays of a record compare by identity: compared line by line here.
        static void ShouldAgree(OperationView actual, OperationView expected)
        {
            actual.Lines.AsSpan().SequenceEqual(expected.Lines.AsSpan()).ShouldBeTrue();
            actual.Left.AsSpan().SequenceEqual(expected.Left.AsSpan()).ShouldBeTrue();
            (actual with { Lines = expected.Lines, Left = expected.Left }).ShouldBe(expected);
        }
    }

    [Theory]
    [InlineData(0, null)]
    [InlineData(3, "cursor/17")]
    public void An_entry_comes_back_as_it_was_written(int partition, string? cursor)
    {
        foreach (var kind in Enum.GetValues<FlowKind>().Where(kind => kind is not (FlowKind.None or FlowKind.Opening)))
        {
            var entry = new FlowEntry
            {
                Sku = "a",
                Partition = partition,
                Version = 9,
                OperationId = "order-1",
                Kind = kind,
                AvailableChange = -6,
                ReservedChange = 6,
                Available = 94,
                Reserved = 6,
                At = At,
                Cursor = cursor,
            };
            Back(entry, StockViewJson.WriteFlow, StockViewJson.ReadFlow).ShouldBe(entry);
        }
    }

    [Fact]
    public void An_opening_comes_back_as_it_was_written()
    {
        foreach (FlowHold[] holds in (FlowHold[][])[[], [new("h1", 3), new("h\"2", 1)]])
        {
            var opening = new FlowEntry
            {
                Sku = "a",
                Version = 57,
                OperationId = "order-1",
                Kind = FlowKind.Opening,
                AvailableChange = 94,
                ReservedChange = 4,
                Available = 94,
                Reserved = 4,
                At = At,
                Opening = new() { Restocked = 200, Adjusted = -2, Supplied = 205, Holds = [.. holds] },
                Cursor = "9",
            };
            var back = Back(opening, StockViewJson.WriteFlow, StockViewJson.ReadFlow);
            back.Opening!.Holds.ShouldBe(holds);
            (back with { Opening = null }).ShouldBe(opening with { Opening = null });
            (back.Opening with { Holds = [] }).ShouldBe(opening.Opening with { Holds = [] });
        }
    }

    [Fact]
    public void A_page_tells_where_the_next_begins_and_fields_of_a_newer_server_are_passed_over()
    {
        var (items, next) = StockViewJson.ReadPage(
            """{"more":{"x":[1]},"items":[{"sku":"a","available":1,"version":1,"colour":["red"]},{"sku":"b","available":2,"version":3}],"next":"b"}"""u8,
            StockViewJson.ReadLevel);
        items.Select(level => (level.Sku, level.Available)).ShouldBe([("a", 1), ("b", 2)]);
        next.ShouldBe("b");
        StockViewJson.ReadPage("""{"items":[]}"""u8, StockViewJson.ReadLevel).Next.ShouldBeNull();
    }

    [Theory]
    [InlineData("""{"items":[{"available":1}]}""")]
    [InlineData("""{"items":[{"sku":5}]}""")]
    [InlineData("""{"items":[{"sku":"a","available":1.5}]}""")]
    [InlineData("""{"items":{}}""")]
    [InlineData("""{"next":"b"}""")]
    [InlineData("""{"items":[{"sku":"a"}""")]
    [InlineData("""[]""")]
    public void What_is_no_page_of_levels_is_refused(string text) =>
        Should.Throw<JsonException>(() => StockViewJson.ReadPage(System.Text.Encoding.UTF8.GetBytes(text), StockViewJson.ReadLevel));

    private delegate void Writer<T>(Utf8JsonWriter writer, in T value);

    private static T Back<T>(in T value, Writer<T> write, StockViewJson.ItemReader<T> read)
    {
        var reader = new Utf8JsonReader(System.Text.Encoding.UTF8.GetBytes(Text(value, write)));
        reader.Read();
        var back = read(ref reader);
        reader.Read().ShouldBeFalse("a reader leaves the object's end behind and nothing more");
        return back;
    }

    private static string Text<T>(in T value, Writer<T> write)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(buffer))
        {
            write(writer, value);
        }

        return System.Text.Encoding.UTF8.GetString(buffer.WrittenSpan);
    }
}
