namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Names: whatever the rules for keys allow comes back as it was given.</summary>
    private static IEnumerable<ConformanceCase> KeyCases() =>
    [
        new("keys-are-compared-ordinally", "Upper and lower case, composed and decomposed accents, and inner spaces make different SKUs and different ids.", async context =>
        {
            (string Name, long Units)[] skus = [("85123a", 1), ("85123A", 2), ("é", 3), ("e\u0301", 4), ("a b", 5), ("a  b", 6), ("ab", 7), ("ß", 8), ("ss", 9), ("İ", 10), ("i", 11)];
            await context.ExecuteAsync(StockCommand.Restock(context.Id("r1"), [.. skus.Select(sku => context.Line(sku.Name, sku.Units))]));
            foreach (var (name, units) in skus)
            {
                Check.Equal((await context.ReadAsync(() => context.StockAsync(name), level => level.IsKnown)).Available, units, $"what is available of '{name}'");
            }

            foreach (var (name, _) in skus)
            {
                await ExpectAsync(context, StockCommand.Deduct(context.Id(name), [context.Line("i", 1)]), StockStatus.Done);
            }

            Check.Equal((await context.ReadAsync(() => context.StockAsync("i"), level => level.Available == 0)).Available, 0, "what is available after an order by each of those names");
        }),

        new("keys-may-hold-any-printable-character", "Quotes, wildcards, separators and letters of all alphabets come back as they were given, in every verb and read.", async context =>
        {
            string[] names = ["it's", "100%", "a_b", "a\"b", "a\\b", "a/b?c=d&e#f", "a:b;c", "{p}", "[x]", "a,b", "x\u00A0y", "中文", "Ωmega", "🧸 teddy", "\uFF5E", "--", "*", "$1", "@leeds", "null", "0", "1e5"];
            foreach (var name in names)
            {
                var (sku, id) = (context.Sku(name), context.Id(name));
                await ExpectAsync(context, StockCommand.Restock(id + "r", [new(sku, 5)], name), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Deduct(id + "o", [new(sku, 2)], name), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Deduct(id + "o", [new(sku, 2)], name), StockStatus.Replayed);
                await ExpectAsync(context, StockCommand.Refund(id + "f", id + "o", [new(sku, 1)], name), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Reserve(id + "h", [new(sku, 1)], TimeSpan.FromMinutes(10)), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Confirm(id + "h"), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Cancel(id + "o"), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Abandon(id + "t"), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Adjust(id + "a", [new(sku, -1)], name), StockStatus.Done);
                var short1 = await ExpectAsync(context, StockCommand.Deduct(id + "s", [new(sku, 99)]), StockStatus.Insufficient);
                Check.Equal(short1.Sku, sku, "the short SKU");
                Check.Equal(short1.Available, 3, $"what is available of '{name}'");
                var level = await context.ReadAsync(() => context.StockAsync(name), level => level.Available == 3);
                Check.Equal((level.Sku, level.Available), (sku, 3), "the level");
                var view = await context.ReadAsync(() => context.Engine.GetOperationAsync(id + "f", context.CancellationToken), view => view is not null);
                Check.Equal((view?.Id, view?.Target, view?.Note, view?.Lines[0].Sku), (id + "f", id + "o", name, sku), "the refund as it is read");
                Check.Equal((await context.FlowAsync(name)).Count, 7, $"the number of ledger entries of '{name}'");
            }
        }),

        new("keys-of-full-length", "SKUs and ids of 64 characters, also of those that take most bytes, work in every verb.", async context =>
        {
            var rest = StockLimits.MaxKeyLength - context.Prefix.Length;
            var pairs = string.Concat(Enumerable.Repeat("🧸", rest / 2));
            foreach (var name in (string[])[new('x', rest), new('中', rest), pairs])
            {
                var (sku, order) = (context.Sku(name), context.Prefix + name[..^2]);
                await ExpectAsync(context, StockCommand.Restock(context.Prefix + name, [new(sku, 2)]), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Deduct(order, [new(sku, 1)]), StockStatus.Done);
                await ExpectAsync(context, StockCommand.Cancel(order), StockStatus.Done);
                Check.Equal((await context.ReadAsync(() => context.StockAsync(name), level => level.Available == 2)).Available, 2, "what is available");
                var listed = 0;
                await foreach (var level in context.Engine.ListStockAsync(sku, cancellationToken: context.CancellationToken))
                {
                    Check.Equal(level.Sku, sku, "the SKU listed by its whole name");
                    listed++;
                }

                Check.Equal(listed, 1, "the number of SKUs listed by their whole name");
            }
        }),
    ];
}
