using System.Security.Cryptography;
using System.Text;

namespace Holdfast.Cli.Replay;

/// <summary>
/// Who bought what and has not returned it yet, to find the orders that a cancellation speaks of: the file names the
/// customer and the SKU, not the order. Thread-safe; the invoices of one customer must come one after another.
/// </summary>
internal sealed class RefundBook
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(string Customer, string Sku), List<Purchase>> _purchases = [];

    /// <summary>Remembers an order that was applied. Rows without a customer can't be found again and are not kept.</summary>
    public void Add(Invoice order)
    {
        lock (_lock)
        {
            foreach (var rows in order.Rows.Where(row => row.Customer.Length > 0).GroupBy(row => (row.Customer, row.Sku)))
            {
                if (!_purchases.TryGetValue(rows.Key, out var purchases))
                {
                    _purchases.Add(rows.Key, purchases = []);
                }

                purchases.Add(new(order.Number, rows.Sum(row => row.Quantity)));
            }
        }
    }

    /// <summary>
    /// Turns a cancellation into refunds: row by row, from the customer's most recent order of that SKU backwards, the
    /// smaller of what is still unrefunded there and what is still needed; one refund an order.
    /// </summary>
    /// <param name="cancellation">The cancellation.</param>
    /// <param name="unmatched">Units that no order was found for.</param>
    public IReadOnlyList<StockCommand> Take(Invoice cancellation, out long unmatched)
    {
        var linesByOrder = new Dictionary<string, List<StockLine>>(StringComparer.Ordinal);
        unmatched = 0;
        lock (_lock)
        {
            foreach (var row in cancellation.Rows)
            {
                var needed = -row.Quantity;
                var purchases = row.Customer.Length > 0 ? _purchases.GetValueOrDefault((row.Customer, row.Sku)) : null;
                for (var i = (purchases?.Count ?? 0) - 1; i >= 0 && needed > 0; i--)
                {
                    var purchase = purchases![i];
                    var units = Math.Min(purchase.Unrefunded, needed);
                    if (units > 0)
                    {
                        purchase.Unrefunded -= units;
                        needed -= units;
                        if (!linesByOrder.TryGetValue(purchase.Order, out var lines))
                        {
                            linesByOrder.Add(purchase.Order, lines = []);
                        }

                        lines.Add(new(row.Sku, units));
                    }
                }

                unmatched += needed;
            }
        }

        return [.. linesByOrder.Select(order => StockCommand.Refund(IdOf(cancellation.Number, order.Key), order.Key, [.. order.Value]))];
    }

    /// <summary>A refund's id tells the cancellation and the order; where both are long, a digest of the two.</summary>
    public static string IdOf(string cancellation, string order)
    {
        var id = $"{cancellation}/{order}";
        return id.Length <= StockLimits.MaxKeyLength ? id : $"refund-{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(id)))[..48]}";
    }

    private sealed class Purchase(string order, long units)
    {
        public string Order { get; } = order;

        public long Unrefunded { get; set; } = units;
    }
}
