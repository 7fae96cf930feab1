using System.Globalization;

namespace Holdfast.Cli.Replay;

/// <summary>With how many units the SKUs of a file are stocked before its orders are replayed.</summary>
internal sealed class Opening
{
    private readonly decimal? _percent;
    private readonly long _units;

    private Opening(string text, long units, decimal? percent)
    {
        Text = text;
        _units = units;
        _percent = percent;
    }

    /// <summary>As many as are ordered.</summary>
    public static Opening Demand { get; } = new("demand", 0, 100);

    /// <summary>The opening as it was written.</summary>
    public string Text { get; }

    /// <inheritdoc/>
    public override string ToString() => Text;

    /// <summary>Reads <c>demand</c>, a number of units, or a percentage of what is ordered.</summary>
    public static bool TryParse(string text, out Opening opening)
    {
        opening = Demand;
        if (text == Demand.Text)
        {
            return true;
        }

        if (text.EndsWith('%'))
        {
            if (!decimal.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var percent) || percent > 100_000)
            {
                return false;
            }

            opening = new(text, 0, percent);
            return true;
        }

        if (!long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var units) || units > StockLimits.MaxQuantity)
        {
            return false;
        }

        opening = new(text, units, percent: null);
        return true;
    }

    /// <summary>The units of every SKU of the file, in byte order; a SKU that is never ordered is opened with 0 by a percentage.</summary>
    public IReadOnlyList<StockLine> Lines(OrderFile file)
    {
        if (_percent is null)
        {
            return [.. file.Skus.Select(sku => new StockLine(sku, _units))];
        }

        var ordered = file.Skus.ToDictionary(sku => sku, _ => 0L, StringComparer.Ordinal);
        foreach (var row in file.Invoices.Where(invoice => invoice.Kind == InvoiceKind.Order).SelectMany(invoice => invoice.Rows))
        {
            ordered[row.Sku] = checked(ordered[row.Sku] + row.Quantity);
        }

        return [.. file.Skus.Select(sku => new StockLine(sku, (long)Math.Floor(ordered[sku] * _percent.Value / 100)))];
    }

    /// <summary>
    /// The restocks that open the store. Their ids come from the file's content, so that a second replay into the same
    /// store is recognised and adds nothing, and one with another opening is a conflict instead of twice the stock.
    /// </summary>
    public IReadOnlyList<StockCommand> Commands(OrderFile file) =>
        [.. Lines(file).Chunk(StockLimits.MaxLines).Select((lines, i) => StockCommand.Restock($"opening-{file.Sha256[..32]}-{i + 1}", lines))];
}
