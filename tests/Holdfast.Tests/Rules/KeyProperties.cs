using System.Text;
using FsCheck;
using FsCheck.Fluent;

namespace Holdfast.Tests.Rules;

/// <summary>Properties that hold for any keys and lines.</summary>
public sealed class KeyProperties
{
    /// <summary>From each length of UTF-8, the borders between them, and the places where UTF-16 and UTF-8 disagree.</summary>
    private static readonly string[] Pieces = ["a", "B", "0", " ", "-", "~", "\u00A1", "é", "\u07FF", "\u0800", "中", "\uD7FF", "\uE000", "\uFF5E", "\uFFFD", "\U00010000", "\U0001F600", "\U0010FFFF"];

    private static readonly Gen<string> Keys = Gen.Elements(Pieces).ArrayOf().Select(pieces => string.Concat(pieces)).Where(key => StockKey.Problem(key) is null);

    private static readonly Gen<StockLine[]> Lines =
        (from sku in Gen.Elements("A", "a", "B", "ß", "\uFF5E", "\U0001F600") from units in Gen.Choose(1, 9) select new StockLine(sku, units)).NonEmptyListOf().Select(lines => lines.ToArray());

    [Fact]
    public void The_order_of_keys_is_the_order_of_their_UTF8_bytes() => Prop.ForAll(
        Keys.ToArbitrary(),
        Keys.ToArbitrary(),
        (x, y) => Math.Sign(StockKey.ByteOrder.Compare(x, y)) == Math.Sign(Encoding.UTF8.GetBytes(x).AsSpan().SequenceCompareTo(Encoding.UTF8.GetBytes(y)))).QuickCheckThrowOnFailure();

    [Fact]
    public void Merged_lines_are_sorted_distinct_and_add_up() => Prop.ForAll(Lines.ToArbitrary(), lines =>
    {
        var merged = StockCommand.Deduct("o1", lines).Lines;
        return merged.Select(line => line.Sku).SequenceEqual(lines.Select(line => line.Sku).Distinct().Order(StockKey.ByteOrder))
            && merged.All(line => line.Quantity == lines.Where(given => given.Sku == line.Sku).Sum(given => given.Quantity));
    }).QuickCheckThrowOnFailure();

    [Fact]
    public void The_order_of_lines_makes_no_difference() => Prop.ForAll(Lines.ToArbitrary(), lines =>
    {
        var given = StockCommand.Deduct("o1", lines);
        var turned = StockCommand.Deduct("o1", [.. lines.Reverse()]);
        return given.HasContent(turned.Verb, turned.Target, turned.Lines.AsSpan(), turned.TimeToLiveMilliseconds);
    }).QuickCheckThrowOnFailure();
}
