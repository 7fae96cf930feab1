using System.Globalization;

namespace Holdfast.Testing;

/// <summary>
/// All verbs over few SKUs and few ids, which callers share. The number of an id decides what it asks for: over shards
/// the reuse of an id for another cart need not be noticed, so nobody does that here.
/// </summary>
internal sealed class CartWorkload(int seed, int skus, int ids, int longest)
{
    private const int Largest = 6;

    public IReadOnlyList<string> Skus { get; } = [.. Enumerable.Range(0, skus).Select(static i => Text($"sku{i}"))];

    public StockCommand Opening(int units) => StockCommand.Restock("open", [.. Skus.Select(sku => new StockLine(sku, units))]);

    /// <summary>The commands of one caller, without end.</summary>
    public IEnumerable<StockCommand> Commands(int caller)
    {
        var random = new Random(unchecked((seed * 1_000_003) ^ caller));
        while (true)
        {
            yield return Next(random);
        }
    }

    public StockCommand Next(Random random)
    {
        var number = random.Next(ids);
        return random.Next(20) switch
        {
            < 5 => Deduct(number),
            < 9 => Reserve(number),
            < 12 => StockCommand.Confirm(Text($"h{number}")),
            < 14 => StockCommand.Cancel(Text($"{(random.Next(2) == 0 ? 'o' : 'h')}{number}")),
            14 => StockCommand.Abandon(Text($"{(random.Next(2) == 0 ? 'o' : 'h')}{number}")),
            < 18 => Refund(number),
            18 => StockCommand.Restock(Text($"r{number}"), Cart('r', number)),
            _ => StockCommand.Adjust(Text($"a{number}"), [.. Cart('a', number).Select((line, i) => line with { Quantity = (number + i) % 2 == 0 ? line.Quantity : -line.Quantity })]),
        };
    }

    public StockCommand Deduct(int number) => StockCommand.Deduct(Text($"o{number}"), Cart('o', number));

    public StockCommand Reserve(int number) => StockCommand.Reserve(Text($"h{number}"), Cart('h', number), TimeSpan.FromSeconds(1 + (number % 15)));

    /// <summary>Some of what an order has, mostly; several refunds of one order go over its cap together.</summary>
    public StockCommand Refund(int number)
    {
        var content = Content('f', number);
        var kind = content.Next(2) == 0 ? 'o' : 'h';
        var order = content.Next(ids);
        var lines = Cart(kind, order).Where(_ => content.Next(3) > 0).Select(line => line with { Quantity = content.Next(1, (int)line.Quantity + 1) }).ToArray();
        return StockCommand.Refund(Text($"f{number}"), Text($"{kind}{order}"), lines.Length > 0 ? lines : [new(Skus[content.Next(Skus.Count)], 1)]);
    }

    private StockLine[] Cart(char kind, int number)
    {
        var content = Content(kind, number);
        return
        [
            .. Enumerable.Range(0, content.Next(1, longest + 1)).Select(_ => new StockLine(Skus[content.Next(Skus.Count)], content.Next(1, Largest)))
                .GroupBy(static line => line.Sku, StringComparer.Ordinal).Select(static group => new StockLine(group.Key, group.Sum(static line => line.Quantity))),
        ];
    }

    private Random Content(char kind, int number) => new(unchecked((seed * 31) + (kind * 7_919) + (number * 104_729)));

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
