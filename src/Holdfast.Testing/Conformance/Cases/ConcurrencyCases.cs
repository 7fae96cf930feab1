using System.Collections.Concurrent;

namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    private const int Callers = 64;

    /// <summary>Many callers at once.</summary>
    private static IEnumerable<ConformanceCase> ConcurrencyCases() =>
    [
        new("sell-out-to-the-unit", "Hundreds of buyers at once get exactly the units there are; nobody is refused while one is left.", async context =>
        {
            const int Units = 100;
            const int Buyers = 400;
            await context.PlayAsync($"restock r1: A {Units}");
            var sold = 0;
            await context.ForEachAsync(Buyers, Callers, async i =>
            {
                var result = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o", i), [context.Line("A", 1)]));
                Check.That(result.Status is StockStatus.Done or StockStatus.Insufficient, $"A buyer was answered {result}.");
                if (result.Status == StockStatus.Done)
                {
                    Interlocked.Increment(ref sold);
                }
            });
            Check.Equal(sold, Units, "the number of units sold");
            await context.PlayAsync($"stock A => 0 available, 0 reserved, {Units} sold");
        }),

        new("sell-out-of-odd-quantities", "Buyers of several units are refused only when fewer are left than they ask for.", async context =>
        {
            const int Units = 300;
            await context.PlayAsync($"restock r1: A {Units}");
            var (sold, refused) = (0L, new ConcurrentBag<long>());
            await context.ForEachAsync(300, Callers, async i =>
            {
                var quantity = 1 + (i % 7);
                var result = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o", i), [context.Line("A", quantity)]));
                if (result.Status == StockStatus.Done)
                {
                    Interlocked.Add(ref sold, quantity);
                }
                else
                {
                    Check.That(result.Status == StockStatus.Insufficient && result.Available < quantity, $"A buyer of {quantity} was answered {result}.");
                    refused.Add(quantity);
                }
            });
            var left = (await context.ReadAsync(() => context.StockAsync("A"), level => level.Sold == sold)).Available;
            Check.Equal(left, Units - sold, "what is left");
            Check.That(refused.All(quantity => quantity > left), $"{left} units are left, but a buyer of {refused.Min()} was refused.");
        }),

        new("opposing-carts", "Carts that name the same SKUs in opposite orders never deadlock and are applied whole.", async context =>
        {
            await context.PlayAsync("restock r1: A 150, B 150, C 150");
            var done = 0;
            await context.ForEachAsync(240, Callers, async i =>
            {
                var (first, second) = (i % 3) switch { 0 => ("A", "B"), 1 => ("B", "C"), _ => ("C", "A") };
                StockLine[] lines = i % 2 == 0 ? [context.Line(first, 1), context.Line(second, 1)] : [context.Line(second, 1), context.Line(first, 1)];
                var result = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o", i), lines));
                Check.That(result.Status is StockStatus.Done or StockStatus.Insufficient, $"A cart was answered {result}.");
                if (result.Status == StockStatus.Done)
                {
                    Interlocked.Increment(ref done);
                }
            });
            var sold = 0L;
            foreach (var name in (string[])["A", "B", "C"])
            {
                sold += (await context.ReadAsync(() => context.StockAsync(name), level => level.Sold > 0)).Sold;
            }

            Check.Equal(done * 2L, sold, "two units a cart");
            Check.That(done >= 150, $"Only {done} carts of 240 were served although there were units for more.");
        }),

        new("one-id-from-many-callers", "The same command from many callers at once applies once; the others are its replays.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000, B 1000");
            for (var round = 0; round < 8; round++)
            {
                var id = context.Id("o", round);
                var statuses = new ConcurrentBag<StockStatus>();
                await context.ForEachAsync(24, 24, async _ =>
                    statuses.Add((await context.ExecuteAsync(StockCommand.Deduct(id, [context.Line("A", 1), context.Line("B", 2)]))).Status));
                Check.Equal(statuses.Count(status => status == StockStatus.Done), 1, "the number of callers answered Done");
                Check.Equal(statuses.Count(status => status == StockStatus.Replayed), 23, "the number of callers answered Replayed");
            }

            await context.PlayAsync("""
                stock A => 992 available, 0 reserved, 8 sold
                stock B => 984 available, 0 reserved, 16 sold
                """);
        }),

        new("two-commands-with-one-id", "Two different commands with one id at once: one applies, the other is in conflict.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000");
            for (var round = 0; round < 20; round++)
            {
                var id = context.Id("o", round);
                var statuses = new ConcurrentBag<StockStatus>();
                await context.ForEachAsync(2, 2, async i =>
                    statuses.Add((await context.ExecuteAsync(StockCommand.Deduct(id, [context.Line("A", 1 + i)]))).Status));
                Check.Sequence(statuses.Order(), [StockStatus.Done, StockStatus.KeyConflict], "the answers");
            }
        }),

        new("refund-against-cancel", "A refund and a cancel of one order at once never give back more than it took.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000, B 1000 => Done: A 1000, B 1000");
            for (var round = 0; round < 20; round++)
            {
                var order = context.Id("o", round);
                await ExpectAsync(context, StockCommand.Deduct(order, [context.Line("A", 3), context.Line("B", 2)]), StockStatus.Done);
                StockCommand[] race =
                [
                    StockCommand.Refund(context.Id("f", round), order, [context.Line("A", 2)]),
                    StockCommand.Refund(context.Id("g", round), order, [context.Line("A", 2), context.Line("B", 1)]),
                    StockCommand.Cancel(order),
                ];
                var results = new StockResult[race.Length];
                await context.ForEachAsync(race.Length, race.Length, async i => results[i] = await context.ExecuteAsync(race[i]));
                Check.Equal(results[2].Status, StockStatus.Done, "the answer to the cancel");
                Check.That(results[..2].All(result => result.Status is StockStatus.Done or StockStatus.InvalidTargetState or StockStatus.ExceedsDeducted), $"The refunds were answered {results[0]} and {results[1]}.");
                Check.That(results[..2].Count(result => result.Status == StockStatus.Done) <= 1, "Two refunds of 2 units each were applied to an order of 3.");
            }

            await context.PlayAsync("""
                stock A => 1000 available, 0 reserved, 0 sold
                stock B => 1000 available, 0 reserved, 0 sold
                """);
        }),

        new("refunds-against-each-other", "Many refunds of one order at once never give back more than it took.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 100, B 100        => Done: A 100, B 100
                deduct o1: A 50, B 50           => Done: A 50, B 50
                """);
            var (ofA, ofB) = (0, 0);
            await context.ForEachAsync(120, Callers, async i =>
            {
                // Two refunds of one order over different SKUs must not both find that nothing was refunded yet.
                StockLine[] lines = (i % 3) switch { 0 => [context.Line("A", 1)], 1 => [context.Line("B", 1)], _ => [context.Line("A", 1), context.Line("B", 1)] };
                var result = await context.ExecuteAsync(StockCommand.Refund(context.Id("f", i), context.Id("o1"), lines));
                Check.That(result.Status is StockStatus.Done or StockStatus.ExceedsDeducted, $"A refund was answered {result}.");
                if (result.Status == StockStatus.Done)
                {
                    Interlocked.Add(ref ofA, i % 3 == 1 ? 0 : 1);
                    Interlocked.Add(ref ofB, i % 3 == 0 ? 0 : 1);
                }
            });
            Check.That(ofA <= 50 && ofB <= 50, $"{ofA} of 50 A and {ofB} of 50 B were refunded.");
            await context.PlayAsync($"""
                stock A         => {50 + ofA} available, 0 reserved, {50 - ofA} sold
                stock B         => {50 + ofB} available, 0 reserved, {50 - ofB} sold
                """);
        }),

        new("confirm-against-cancel", "Confirm and Cancel of one reservation at once: it ends once, and both answers agree with how.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000 => Done: A 1000");
            for (var round = 0; round < 20; round++)
            {
                var id = context.Id("h", round);
                await ExpectAsync(context, StockCommand.Reserve(id, [context.Line("A", 2)], TimeSpan.FromMinutes(10)), StockStatus.Done);
                var results = new StockResult[2];
                await context.ForEachAsync(2, 2, async i => results[i] = await context.ExecuteAsync(i == 0 ? StockCommand.Confirm(id) : StockCommand.Cancel(id)));

                // The cancel undoes a confirmed reservation as well as a live one: it always wins in the end.
                Check.Equal(results[1].Status, StockStatus.Done, "the answer to the cancel");
                Check.That(results[0].Status is StockStatus.Done or StockStatus.InvalidTargetState, $"The confirm was answered {results[0]}.");
                Check.Equal((await ViewAsync(context, $"h{round}")).State, OperationState.Cancelled, "the reservation's state");
            }

            await context.PlayAsync("stock A => 1000 available, 0 reserved, 0 sold");
        }),

        new("a-command-against-its-tombstone", "A command and the abandoning of its id at once: either it stands, or it was refused; nothing between.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000 => Done: A 1000");
            var sold = 0;
            for (var round = 0; round < 20; round++)
            {
                var id = context.Id("o", round);
                var results = new StockResult[2];
                await context.ForEachAsync(2, 2, async i => results[i] = await context.ExecuteAsync(i == 0 ? StockCommand.Deduct(id, [context.Line("A", 1)]) : StockCommand.Abandon(id)));
                var answers = (results[0].Status, results[1].Status, results[1].Original);
                Check.That(
                    answers is (StockStatus.Done, StockStatus.Replayed, StockStatus.Done) or (StockStatus.Cancelled, StockStatus.Done, StockStatus.None),
                    $"The deduction was answered {results[0]}, the abandoning {results[1]}.");
                sold += results[0].Status == StockStatus.Done ? 1 : 0;
            }

            await context.PlayAsync($"stock A => {1000 - sold} available, 0 reserved, {sold} sold");
        }),

        new("confirm-against-expiry", "Confirms and buyers at the moment of expiry: each unit goes to one of them.", async context =>
        {
            const int Holds = 40;
            await context.PlayAsync($"restock r1: A {Holds}");
            for (var i = 0; i < Holds; i++)
            {
                await ExpectAsync(context, StockCommand.Reserve(context.Id("h", i), [context.Line("A", 1)], TimeSpan.FromSeconds(1)), StockStatus.Done);
            }

            var (confirmed, bought) = (0, 0);
            await context.AdvanceAsync(TimeSpan.FromSeconds(0.9) - (context.Clock is null ? ConformanceContext.ClockTolerance : TimeSpan.Zero));
            await context.ForEachAsync(Holds * 3, Callers, async i =>
            {
                if (i == Holds && context.Clock is { } clock)
                {
                    clock.Advance(TimeSpan.FromSeconds(0.2));
                }

                var command = i % 3 == 0 ? StockCommand.Confirm(context.Id("h", i / 3)) : StockCommand.Deduct(context.Id("o", i), [context.Line("A", 1)]);
                var result = await context.ExecuteAsync(command);
                Check.That(result.Status is StockStatus.Done or StockStatus.Expired or StockStatus.Insufficient, $"{command} was answered {result}.");
                if (result.Status == StockStatus.Done)
                {
                    Interlocked.Increment(ref i % 3 == 0 ? ref confirmed : ref bought);
                }
            });
            await context.AdvanceAsync(TimeSpan.FromSeconds(1));
            Check.That(confirmed + bought <= Holds, $"{confirmed} reservations were confirmed and {bought} units bought, of {Holds}.");
            await context.PlayAsync($"stock A => {Holds - confirmed - bought} available, 0 reserved, {confirmed + bought} sold");
        }) { UsesTime = true },

        new("a-storm-of-all-verbs", "All verbs over few SKUs and few ids from many callers at once leave a ledger that adds up.", async context =>
        {
            string[] skus = ["A", "B", "C", "D", "E"];
            await context.PlayAsync("restock r1: A 60, B 60, C 60, D 60, E 60");
            await context.ForEachAsync(1_000, Callers, async i =>
            {
                var random = new Random(i);
                var number = random.Next(150);

                // Without GlobalIds an id must not be used for another cart.
                var content = context.Promises(StockTraits.GlobalIds) ? random : new Random(number);
                StockLine[] lines = [.. Enumerable.Range(0, content.Next(1, 4)).Select(_ => context.Line(skus[content.Next(skus.Length)], content.Next(1, 4)))];
                var (order, hold) = (context.Id("o", number), context.Id("h", number));
                var command = random.Next(16) switch
                {
                    < 5 => StockCommand.Deduct(order, lines),
                    < 8 => StockCommand.Reserve(hold, lines, TimeSpan.FromMinutes(10)),
                    < 10 => StockCommand.Confirm(hold),
                    10 => StockCommand.Cancel(random.Next(2) == 0 ? order : hold),
                    11 => StockCommand.Abandon(random.Next(2) == 0 ? order : hold),
                    < 14 => StockCommand.Refund(context.Id("f", number), context.Id(content.Next(2) == 0 ? "o" : "h", content.Next(150)), lines),
                    14 => StockCommand.Restock(context.Id("r", number + 2), lines),
                    _ => StockCommand.Adjust(context.Id("a", i), [context.Line(skus[random.Next(skus.Length)], random.Next(2) == 0 ? -1 : 1)]),
                };
                var result = await context.ExecuteAsync(command);
                Check.That(result.Status is not (StockStatus.None or StockStatus.Busy), $"{command} was answered {result}.");
            });
        }),

        new("a-caller-that-stops-waiting", "A caller's cancellation never leaves half a cart; afterwards the same id tells what became of it.", async context =>
        {
            await context.PlayAsync("restock r1: A 1000, B 1000");
            await context.ForEachAsync(60, 30, async i =>
            {
                using var caller = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken);
                var command = StockCommand.Deduct(context.Id("o", i), [context.Line("A", 1), context.Line("B", 1)]);
                if (i % 3 == 0)
                {
                    await caller.CancelAsync();
                }

                try
                {
                    var pending = context.Engine.ExecuteAsync([command], caller.Token);
                    if (i % 3 == 1)
                    {
                        await caller.CancelAsync();
                    }

                    var answer = (await pending)[0];
                    Check.That(answer.Status is StockStatus.Done or StockStatus.Busy or StockStatus.InDoubt, $"A caller who stopped waiting was answered {answer}.");
                }
                catch (OperationCanceledException) when (!context.CancellationToken.IsCancellationRequested)
                {
                    // The outcome is unknown until asked for, which the same id does.
                }

                var again = await context.ExecuteAsync(command);
                Check.That(again.Status is StockStatus.Done or StockStatus.Replayed, $"The repetition was answered {again}.");
            });
            await context.PlayAsync("""
                stock A => 940 available, 0 reserved, 60 sold
                stock B => 940 available, 0 reserved, 60 sold
                """);
        }),
    ];
}
