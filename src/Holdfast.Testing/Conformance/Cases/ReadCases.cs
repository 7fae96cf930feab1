namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Reads, listings and the ledger.</summary>
    private static IEnumerable<ConformanceCase> ReadCases() =>
    [
        new("reads-answer-in-the-order-asked", "One level a SKU, in the order asked, known or not, asked once or twice.", async context =>
        {
            await context.PlayAsync("restock r1: A 1, B 2 => Done: A 1, B 2");
            string[] skus = [context.Sku("B"), context.Sku("Z"), context.Sku("A"), context.Sku("B")];
            var levels = await context.ReadAsync(
                () => context.Engine.GetStockAsync(skus, cancellationToken: context.CancellationToken),
                levels => levels.Count(level => level.IsKnown) == 3);
            Check.Sequence(levels.Select(level => level.Sku), skus, "the SKUs");
            Check.Sequence(levels.Select(level => level.Available), [2L, 0, 1, 2], "what is available");
            Check.Sequence(levels.Select(level => level.IsKnown), [true, false, true, true], "which are known");
            Check.Equal((await context.Engine.GetStockAsync([], cancellationToken: context.CancellationToken)).Count, 0, "the number of levels of no SKUs");
        }),

        new("an-unknown-operation-is-no-verdict", "An id that was never applied reads as nothing, also after a refusal that is not remembered.", """
            operation o1                    => unknown
            restock r1: A 1                 => Done: A 1
            deduct o1: A 2                  => Insufficient: A has 1
            operation o1                    => unknown | Abandon Abandoned   # a queue closes what it refused
            """),

        new("an-operation-tells-its-outcome", "What a repetition would be answered can be read from the operation.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 9                 => Done: A 9
                deduct o1: A 2                  => Done: A 7
                reserve h1 for 1s: A 1          => Done: A 6
                reserve h2 for 600s: A 1        => Done: A 5
                reserve h3 for 600s: A 1        => Done: A 4
                confirm h3                      => Done: A 4
                cancel h2                       => Done: A 5
                abandon t1                      => Done
                wait 1s
                """);
            foreach (var (id, outcome) in new[]
            {
                ("r1", StockStatus.Done), ("o1", StockStatus.Done), ("h1", StockStatus.Expired), ("h2", StockStatus.Cancelled), ("h3", StockStatus.Done), ("t1", StockStatus.Cancelled),
            })
            {
                Check.Equal((await ViewAsync(context, id)).Outcome, outcome, $"the outcome of {id}");
            }
        }) { UsesTime = true },

        new("a-listing-has-the-prefix-and-byte-order", "A listing holds the known SKUs with the prefix, literally and by case, in the order of their UTF-8 bytes.", async context =>
        {
            string[] names = ["p", "p1", "p10", "p2", "pA", "pa", "p%", "p_", "p x", "p'", "p\\", "pé", "p\uFF5E", "p\U0001F600", "P1", "q1", "P%1"];
            await context.ExecuteAsync(StockCommand.Restock(context.Id("r1"), [.. names.Select(name => context.Line(name, 1))]));
            await ListAsync("p", ["p", "p x", "p%", "p'", "p1", "p10", "p2", "pA", "p\\", "p_", "pa", "pé", "p\uFF5E", "p\U0001F600"]);
            await ListAsync("p1", ["p1", "p10"]);
            await ListAsync("p%", ["p%"]);
            await ListAsync("p_", ["p_"]);
            await ListAsync("p'", ["p'"]);
            await ListAsync("p\\", ["p\\"]);
            await ListAsync("P", ["P%1", "P1"]);
            await ListAsync("p\U0001F600", ["p\U0001F600"]);
            await ListAsync("nothing", []);

            async Task ListAsync(string prefix, string[] expected)
            {
                async ValueTask<List<string>> ReadAsync()
                {
                    var found = new List<string>();
                    await foreach (var level in context.Engine.ListStockAsync(context.Prefix + prefix, cancellationToken: context.CancellationToken))
                    {
                        Check.Equal(level.Available, 1, $"what is available of {context.Name(level.Sku)} in the listing");
                        found.Add(context.Name(level.Sku));
                    }

                    return found;
                }

                Check.Sequence(await context.ReadAsync(ReadAsync, found => found.SequenceEqual(expected)), expected, $"the listing of '{prefix}'");
            }
        }),

        new("a-long-listing", "A listing of more SKUs than fit one page is complete and in order.", async context =>
        {
            const int Skus = 1_300;
            var names = Enumerable.Range(0, Skus).Select(i => $"L{i:D5}").ToArray();
            await context.ExecuteAsync(StockCommand.Restock(context.Id("r1"), [.. names.Select(name => context.Line(name, 2))]));
            var found = new List<string>();
            await foreach (var level in context.Engine.ListStockAsync(context.Prefix + "L", cancellationToken: context.CancellationToken))
            {
                found.Add(context.Name(level.Sku));
            }

            Check.Sequence(found, names, "the listing");

            var rest = new List<string>();
            await foreach (var level in context.Engine.ListStockAsync(context.Prefix + "L", context.Prefix + names[700], context.CancellationToken))
            {
                rest.Add(context.Name(level.Sku));
            }

            Check.Sequence(rest, names[701..], $"the listing after {names[700]}");
        }),

        new("operations-by-state", "A listing by state holds the operations that are in it now, each once; an expired reservation is not a live one.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 20                => Done: A 20
                deduct o1: A 1                  => Done: A 19
                deduct o2: A 1                  => Done: A 18
                cancel o2                       => Done: A 19
                reserve h1 for 600s: A 1        => Done: A 18
                reserve h2 for 600s: A 1        => Done: A 17
                confirm h2                      => Done: A 17
                reserve h3 for 1s: A 1          => Done: A 16
                reserve h4 for 1s: A 1          => Done: A 15
                reserve h5 for 600s: A 1        => Done: A 14
                cancel h5                       => Done: A 15
                refund f1 of o1: A 1            => Done: A 16
                adjust a1: A 1                  => Done: A 17
                cancel t1                       => Done
                abandon t2                      => Done
                wait 1s
                abandon h3                      => Replayed Expired
                """);
            await ListAsync(OperationState.Applied, "a1", "f1", "o1", "r1");
            await ListAsync(OperationState.Reserved, "h1");
            await ListAsync(OperationState.Confirmed, "h2");
            await ListAsync(OperationState.Expired, "h3", "h4");
            await ListAsync(OperationState.Cancelled, "h5", "o2", "t1");
            await ListAsync(OperationState.Abandoned, "t2");

            async Task ListAsync(OperationState state, params string[] expected)
            {
                var found = new List<string>();
                await foreach (var view in context.Engine.ListOperationsAsync(new() { State = state }, context.CancellationToken))
                {
                    Check.Equal(view.State, state, $"the state of {view.Id}");
                    if (view.Id.StartsWith(context.Prefix, StringComparison.Ordinal))
                    {
                        found.Add(context.Name(view.Id));
                    }
                }

                Check.Sequence(found.Order(StringComparer.Ordinal), expected, $"the operations that are {state}");
            }
        }) { UsesTime = true },

        new("operations-of-a-target-page-by-page", "The refunds of an order, all at once and page by page.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 20                => Done: A 20
                deduct o1: A 9                  => Done: A 11
                deduct o2: A 9                  => Done: A 2
                refund g1 of o2: A 1            => Done: A 3
                """);
            var expected = Enumerable.Range(1, 7).Select(i => $"f{i}").ToArray();
            foreach (var id in expected)
            {
                await context.PlayAsync($"refund {id} of o1: A 1");
            }

            var target = new OperationQuery { Target = context.Id("o1") };
            Check.Sequence((await OperationsAsync(context, target)).Order(StringComparer.Ordinal), expected, "the refunds");
            Check.Sequence(await OperationsAsync(context, new() { Target = context.Id("f1") }), [], "the operations of an order without refunds");
            var whole = await OperationsAsync(context, target);
            var pages = new List<string>();
            string? cursor = null;
            for (var page = 0; page < 10; page++)
            {
                var before = pages.Count;
                await foreach (var view in context.Engine.ListOperationsAsync(target with { After = cursor, Limit = 3 }, context.CancellationToken))
                {
                    pages.Add(context.Name(view.Id));
                    cursor = view.Cursor;
                    Check.That(cursor is not null, "An operation of a listing has no cursor.");
                }

                Check.That(pages.Count - before <= 3, $"A page of at most 3 operations holds {pages.Count - before}.");
                if (pages.Count == before)
                {
                    break;
                }
            }

            Check.Sequence(pages, whole, "the refunds page by page");
            Check.Equal((await OperationsAsync(context, target with { State = OperationState.Cancelled })).Count, 0, "the number of cancelled refunds");
        }),

        new("operations-created-before", "A listing by age holds what was created before an instant, and not what was created then.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 9                 => Done: A 9
                deduct o0: A 3                  => Done: A 6
                refund f1 of o0: A 1            => Done: A 7
                wait 1s
                refund f2 of o0: A 1            => Done: A 8
                """);
            var border = (await ViewAsync(context, "f2")).CreatedAt;
            var query = new OperationQuery { Target = context.Id("o0"), CreatedBefore = border };
            Check.Sequence(await OperationsAsync(context, query), ["f1"], "the refunds created before the second one");
            Check.Sequence((await OperationsAsync(context, query with { CreatedBefore = border.AddMilliseconds(1) })).Order(StringComparer.Ordinal), ["f1", "f2"], "the refunds created before the millisecond after it");
        }) { UsesTime = true },

        new("the-ledger-of-a-sku", "The ledger of a SKU is numbered 1, 2, 3 …, with balances and times, and can be read on from any entry.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 9                 => Done: A 9
                deduct o1: A 3                  => Done: A 6
                reserve h1 for 600s: A 2        => Done: A 4
                confirm h1                      => Done: A 4
                refund f1 of o1: A 1            => Done: A 5
                cancel o1                       => Done: A 7
                adjust a1: A -7                 => Done: A 0
                flow A                          => Restock r1 +9 0; Deduct o1 -3 0; Reserve h1 -2 +2; Confirm h1 0 -2; Refund f1 +1 0; Cancel o1 +2 0; Adjust a1 -7 0
                """);
            var entries = await context.FlowAsync("A");
            foreach (var partition in entries.GroupBy(entry => entry.Partition))
            {
                Check.Sequence(partition.Select(entry => entry.Version), Enumerable.Range(1, partition.Count()).Select(i => (long)i), "the versions");
            }

            Check.That(entries.All(entry => entry.Sku == context.Sku("A")), "An entry names another SKU.");
            Check.Sequence(await ReadAsync(null, 3), entries.Take(3), "the first three entries");
            for (var i = 0; i < entries.Count; i++)
            {
                Check.That(entries[i].Cursor is not null, "An entry that was read has no cursor.");
                Check.Sequence(await ReadAsync(entries[i].Cursor, null), entries.Skip(i + 1), $"the entries after number {i + 1}");
                Check.Sequence(await ReadAsync(entries[i].Cursor, 2), entries.Skip(i + 1).Take(2), $"two entries after number {i + 1}");
            }

            Check.Equal((await context.FlowAsync("Z")).Count, 0, "the number of entries of an unknown SKU");

            async Task<List<FlowEntry>> ReadAsync(string? after, int? limit)
            {
                var found = new List<FlowEntry>();
                await foreach (var entry in context.Engine.ReadFlowAsync(new() { Sku = context.Sku("A"), After = after, Limit = limit }, context.CancellationToken))
                {
                    found.Add(entry);
                }

                return found;
            }
        }),

        new("the-ledger-of-a-long-life", "The ledger of a SKU that changed more often than fits one page is complete.", async context =>
        {
            const int Entries = 1_100;
            var commands = Enumerable.Range(0, Entries).Select(i => StockCommand.Restock(context.Id("r", i), [context.Line("A", 1)])).ToArray();
            await context.ExecuteAsync(commands);
            var entries = await context.FlowAsync("A");
            Check.Equal(entries.Count, Entries, "the number of entries");
            Check.Sequence(entries.Select(entry => entry.Available), Enumerable.Range(1, Entries).Select(i => (long)i), "the balances");
        }),

        new("the-ledger-of-the-store", "The ledger of the whole store, page by page, agrees with every SKU's versions, and goes on where a reader left off.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 9, B 9            => Done: A 9, B 9
                deduct o1: A 1, B 1             => Done: A 8, B 8
                deduct o2: B 1                  => Done: B 7
                """);
            var found = new List<FlowEntry>();
            var cursor = await ReadToEndAsync(null, found);
            await context.PlayAsync("""
                deduct o3: A 1                  => Done: A 7
                cancel o1                       => Done: A 8, B 8
                """);
            await ReadToEndAsync(cursor, found);
            foreach (var sku in (string[])["A", "B"])
            {
                var ofStore = found.Where(entry => entry.Sku == context.Sku(sku)).Select(entry => entry with { Cursor = null });
                var ofSku = (await context.FlowAsync(sku)).Select(entry => entry with { Cursor = null });
                Check.Sequence(ofStore, ofSku, $"the entries of {sku}");
            }

            async Task<string?> ReadToEndAsync(string? after, List<FlowEntry> into)
            {
                // Bounded pages: on a shared store this reads past everybody's entries.
                const int Page = 1_000;
                int count;
                do
                {
                    count = 0;
                    await foreach (var entry in context.Engine.ReadFlowAsync(new() { After = after, Limit = Page }, context.CancellationToken))
                    {
                        count++;
                        after = entry.Cursor;
                        if (entry.Sku.StartsWith(context.Prefix, StringComparison.Ordinal))
                        {
                            into.Add(entry);
                        }
                    }

                    Check.That(count <= Page, $"A page of at most {Page} entries holds {count}.");
                }
                while (count == Page);
                return after;
            }
        }),

        new("reads-that-may-be-stale", "A read of stock or ledger that may be old answers what was true once, never a ledger with a gap, and catches up.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 5, B 3            => Done: A 5, B 3
                deduct o1: A 2, B 1             => Done: A 3, B 2
                cancel o1                       => Done: A 5, B 3
                deduct o2: A 1                  => Done: A 4
                """);
            var truth = await context.FlowAsync("A");
            var limit = TimeSpan.FromMinutes(1);
            var stock = await UntilAsync(
                async () => (await context.Engine.GetStockAsync([context.Sku("A")], new() { MaxStaleness = limit }, context.CancellationToken))[0],
                level => level.Version == truth.Count);
            Check.Equal((stock.Available, stock.Sold), (4L, 1L), "available and sold");
            foreach (var isWhole in (bool[])[false, true])
            {
                var flow = await UntilAsync(() => ReadAsync(isWhole), entries => entries.Count == truth.Count);
                Check.Sequence(flow, truth.Select(entry => entry with { Cursor = null }), isWhole ? "the entries of A in the whole ledger" : "the entries of A");
            }

            async ValueTask<List<FlowEntry>> ReadAsync(bool isWhole)
            {
                var found = new List<FlowEntry>();
                await foreach (var entry in context.Engine.ReadFlowAsync(new() { Sku = isWhole ? null : context.Sku("A"), MaxStaleness = limit }, context.CancellationToken))
                {
                    if (entry.Sku == context.Sku("A"))
                    {
                        found.Add(entry with { Cursor = null });
                    }
                }

                Check.Sequence(found, truth.Take(found.Count).Select(entry => entry with { Cursor = null }), "what there was of the ledger");
                return found;
            }

            // What is late is late by the age of its source, which is bounded; what is wrong stays wrong.
            async Task<T> UntilAsync<T>(Func<ValueTask<T>> read, Func<T, bool> isRight)
            {
                var started = TimeProvider.System.GetTimestamp();
                while (true)
                {
                    var value = await read();
                    if (isRight(value) || TimeProvider.System.GetElapsedTime(started) > limit)
                    {
                        return value;
                    }

                    await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, context.CancellationToken);
                }
            }
        }),
    ];

    private static async Task<List<string>> OperationsAsync(ConformanceContext context, OperationQuery query)
    {
        var found = new List<string>();
        await foreach (var view in context.Engine.ListOperationsAsync(query, context.CancellationToken))
        {
            found.Add(context.Name(view.Id));
        }

        return found;
    }
}
