namespace Holdfast.Tests.Rules;

/// <summary>What the factories accept, and what they say about what they don't.</summary>
public sealed class StockCommandTests
{
    [Theory]
    [InlineData("", "id is missing or empty")]
    [InlineData(" o1", "id begins or ends with white space")]
    [InlineData("o1\u2003", "id begins or ends with white space")]
    [InlineData("o\t1", "id contains the control character U+0009")]
    [InlineData("o\u007F1", "id contains the control character U+007F")]
    [InlineData("o\u00851", "id contains the control character U+0085")]
    [InlineData("12345678901234567890123456789012345678901234567890123456789012345", "id is 65 characters long; at most 64 are allowed")]
    public void Ids_that_break_the_rules(string id, string says) => Refuses(() => StockCommand.Deduct(id, [("A", 1)]), "id", says);

    [Fact]
    public void Half_a_surrogate_pair() => Refuses(() => StockCommand.Deduct("o\uD83D", [("A", 1)]), "id", "id contains half of a surrogate pair");

    [Fact]
    public void Ids_that_are_allowed()
    {
        foreach (var id in (string[])["a", "a b", new('x', 64), "\U0001F600", "'; --", "é", "a\u00A0b"])
        {
            StockCommand.Deduct(id, [("A", 1)]).Id.ShouldBe(id);
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(1_000_000_000_001)]
    [InlineData(long.MinValue)]
    [InlineData(long.MaxValue)]
    public void Quantities_out_of_bounds(long quantity)
    {
        Refuses(() => StockCommand.Deduct("o1", [("A", 1), ("B", quantity)]), "lines[1].quantity", $"lines[1].quantity is {quantity}; it must be from 1 to 1000000000000");
        Refuses(() => StockCommand.Reserve("o1", [("A", quantity)], TimeSpan.FromSeconds(1)), "lines[0].quantity");
        Refuses(() => StockCommand.Refund("f1", "o1", [("A", quantity)]), "lines[0].quantity");
        if (quantity != 0)
        {
            Refuses(() => StockCommand.Restock("r1", [("A", quantity)]), "lines[0].quantity");
        }
    }

    [Fact]
    public void Merged_quantities_out_of_bounds()
    {
        Refuses(() => StockCommand.Deduct("o1", [("A", StockLimits.MaxQuantity), ("A", 1)]), "lines", "lines add up to 1000000000001 of A; at most 1000000000000 are allowed");
        Refuses(() => StockCommand.Adjust("a1", [("A", -StockLimits.MaxQuantity), ("A", -1)]), "lines");
        Refuses(() => StockCommand.Adjust("a1", [("A", 2), ("A", -2)]), "lines", "lines change A by 0; an adjustment must change each of its SKUs");
        Refuses(() => StockCommand.Adjust("a1", [("A", 0)]), "lines");
        StockCommand.Adjust("a1", [("A", 2), ("A", -3)]).Lines.ShouldBe([new StockLine("A", -1)]);
        StockCommand.Restock("r1", [("A", 0), ("A", 0)]).Lines.ShouldBe([new StockLine("A", 0)]);
    }

    [Fact]
    public void Lines_that_are_missing_or_too_many()
    {
        Refuses(() => StockCommand.Deduct("o1", []), "lines", "lines are missing or empty; a command needs at least one");
        var many = Enumerable.Range(0, StockLimits.MaxLines + 1).Select(i => new StockLine($"S{i}", 1)).ToArray();
        Refuses(() => StockCommand.Deduct("o1", many), "lines", "lines are 4097 after merging; at most 4096 are allowed");
        many[^1] = many[0];
        StockCommand.Deduct("o1", many).Lines.Length.ShouldBe(StockLimits.MaxLines);
    }

    [Theory]
    [InlineData(0.9995)]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(2_592_000.001)]
    public void Times_to_live_out_of_bounds(double seconds) => Refuses(() => StockCommand.Reserve("h1", [("A", 1)], TimeSpan.FromSeconds(seconds)), "timeToLive");

    [Fact]
    public void A_fraction_of_a_millisecond_is_dropped() =>
        StockCommand.Reserve("h1", [("A", 1)], TimeSpan.FromTicks(15_009_999)).TimeToLive.ShouldBe(TimeSpan.FromMilliseconds(1_500));

    [Fact]
    public void Notes_out_of_bounds()
    {
        Refuses(() => StockCommand.Deduct("o1", [("A", 1)], new string('n', 257)), "note", "note is 257 characters long; at most 256 are allowed");
        Refuses(() => StockCommand.Deduct("o1", [("A", 1)], "bell\a"), "note");
        StockCommand.Deduct("o1", [("A", 1)], "two\nlines\tand a tab").Note.ShouldBe("two\nlines\tand a tab");
        StockCommand.Deduct("o1", [("A", 1)], "").Note.ShouldBeNull();
    }

    [Fact]
    public void Targets_that_break_the_rules()
    {
        Refuses(() => StockCommand.Confirm(""), "target");
        Refuses(() => StockCommand.Cancel("o1 "), "target");
        Refuses(() => StockCommand.Abandon("o\n1"), "target");
        Refuses(() => StockCommand.Refund("f1", "", [("A", 1)]), "target");
    }

    private static void Refuses(Func<StockCommand> make, string field, string? says = null)
    {
        var refusal = Should.Throw<InvalidCommandException>(() => make());
        refusal.Field.ShouldBe(field);
        if (says is not null)
        {
            refusal.Message.ShouldBe(says);
        }
    }
}
