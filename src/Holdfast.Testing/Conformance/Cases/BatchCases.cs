namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Batches: in order, each seeing those before it, none harming its neighbours.</summary>
    private static IEnumerable<ConformanceCase> BatchCases() =>
    [
        new("a-batch-is-decided-in-order", "Each command of a batch sees the effects of those before it; a refused one harms no neighbour.", context => BatchAsync(context, """
            restock r1: A 3                 => Done: A 3
            deduct o1: A 2                  => Done: A 1
            deduct o2: A 2                  => Insufficient: A has 1
            deduct o3: Z 1                  => UnknownSku: Z
            refund f1 of gone: A 1          => UnknownTarget
            confirm gone                    => UnknownTarget
            deduct o4: A 1                  => Done: A 0
            cancel o1                       => Done: A 2
            deduct o5: A 2                  => Done: A 0
            restock r2: B 1                 => Done: B 1
            deduct o6: A 1, B 1             => Insufficient: A has 0
            deduct o7: B 1                  => Done: B 0
            """)),

        new("one-id-twice-in-a-batch", "The second of two commands with one id is the replay of the first, or its conflict.", context => BatchAsync(context, """
            restock r1: A 3                 => Done: A 3
            restock r1: A 3                 => Replayed: A 3
            deduct o1: A 1                  => Done: A 2
            deduct o1: A 1                  => Replayed: A 2
            deduct o1: A 2                  => KeyConflict
            deduct o2: A 9                  => Insufficient: A has 2
            deduct o3: A 1                  => Done: A 1
            cancel o1                       => Done: A 2
            cancel o1                       => Replayed Cancelled: A 2
            deduct o1: A 1                  => Cancelled
            """)),

        new("a-whole-life-in-a-batch", "A reservation may begin and end, and an order be refunded and cancelled, within one batch.", context => BatchAsync(context, """
            restock r1: A 10, B 10          => Done: A 10, B 10
            reserve h1 for 600s: A 1, B 1   => Done: A 9, B 9
            confirm h1                      => Done: A 9, B 9
            refund f1 of h1: A 1            => Done: A 10
            refund f2 of h1: A 1            => ExceedsDeducted: A has 0
            cancel h1                       => Done: A 10, B 10
            reserve h2 for 600s: A 1        => Done: A 9
            cancel h2                       => Done: A 10
            confirm h2                      => InvalidTargetState
            cancel t1                       => Done
            deduct t1: A 1                  => Cancelled
            abandon t2                      => Done
            abandon t2                      => Replayed Cancelled
            adjust a1: A -10                => Done: A 0
            deduct o1: A 1                  => Insufficient: A has 0
            restock r2: A 1                 => Done: A 1
            deduct o2: A 1                  => Done: A 0
            """)),

        new("an-empty-batch", "No commands, no answers, no error.", async context => Check.Equal((await context.ExecuteAsync([])).Count, 0, "the number of results")),

        new("a-batch-of-thousands", "A caller's batch of thousands keeps its order even where layers split it.", async context =>
        {
            const int Units = 2_500;
            var commands = new List<StockCommand> { StockCommand.Restock(context.Id("r1"), [context.Line("A", Units)]) };
            for (var i = 0; i < Units; i++)
            {
                commands.Add(StockCommand.Deduct(context.Id("o", i), [context.Line("A", 1)]));
            }

            commands.Add(StockCommand.Deduct(context.Id("late"), [context.Line("A", 1)]));
            commands.Add(StockCommand.Deduct(context.Id("o", 0), [context.Line("A", 1)]));
            var results = await context.ExecuteAsync(commands);
            for (var i = 1; i <= Units; i++)
            {
                Check.Equal(ContractScript.Describe(context, results[i]), $"Done: A {Units - i}", $"answer {i}");
            }

            Check.Equal(ContractScript.Describe(context, results[^2]), "Insufficient: A has 0", "the answer after the last unit");
            Check.Equal(ContractScript.Describe(context, results[^1]), $"Replayed: A {Units - 1}", "the answer to the repetition");
        }),

        new("a-batch-over-many-skus", "A batch may touch more SKUs than an engine's statement has room for.", async context =>
        {
            const int Skus = 2_500;
            const int Cart = 10;
            var commands = new List<StockCommand> { StockCommand.Restock(context.Id("r"), [.. Enumerable.Range(0, Skus).Select(i => context.Line($"S{i}", i))]) };
            for (var first = 0; first < Skus; first += Cart)
            {
                commands.Add(StockCommand.Deduct(context.Id("o", first), [.. Enumerable.Range(first, Cart).Select(i => context.Line($"S{i}", 1))]));
            }

            var results = await context.ExecuteAsync(commands);
            Check.Equal(results[0].Left.Length, Skus, "the number of lines that the restock's answer says what is left of");
            Check.Equal(ContractScript.Describe(context, results[1]), "Insufficient: S0 has 0", "the answer to the cart with an empty SKU");
            for (var i = 2; i < results.Count; i++)
            {
                Check.Equal(results[i].Status, StockStatus.Done, $"answer {i}");
                Check.That(results[i].Left.All(left => left.Available == commands[0].Lines.First(line => line.Sku == left.Sku).Quantity - 1), $"Answer {i} says that {results[i].Left[0].Available} of {results[i].Left[0].Sku} are left.");
            }
        }),

        new("a-cart-of-4096-lines", "The largest cart is deducted whole, refused whole, refunded and cancelled whole.", async context =>
        {
            var lines = Enumerable.Range(0, StockLimits.MaxLines).Select(i => new StockLine(context.Sku($"S{i}"), 2)).ToArray();
            await ExpectAsync(context, StockCommand.Restock(context.Id("r1"), lines), StockStatus.Done);
            await ExpectAsync(context, StockCommand.Deduct(context.Id("o1"), lines), StockStatus.Done);
            await ExpectAsync(context, StockCommand.Restock(context.Id("r2"), lines.AsSpan(1)), StockStatus.Done);
            var refused = await ExpectAsync(context, StockCommand.Deduct(context.Id("o2"), lines), StockStatus.Insufficient);
            Check.Equal(context.Name(refused.Sku!), "S0", "the short SKU");
            await ExpectAsync(context, StockCommand.Refund(context.Id("f1"), context.Id("o1"), lines.AsSpan(0, 1)), StockStatus.Done);
            await ExpectAsync(context, StockCommand.Reserve(context.Id("h1"), lines, TimeSpan.FromMinutes(10)), StockStatus.Done);
            await ExpectAsync(context, StockCommand.Cancel(context.Id("h1")), StockStatus.Done);
            var cancelled = await ExpectAsync(context, StockCommand.Cancel(context.Id("o1")), StockStatus.Done);
            Check.Equal(cancelled.Left.Length, lines.Length, "the number of lines that the answer says what is left of");
            await context.PlayAsync("""
                stock S0    => 2 available, 0 reserved, 0 sold
                stock S4095 => 4 available, 0 reserved, 0 sold
                """);
        }),
    ];

    private static async Task<StockResult> ExpectAsync(ConformanceContext context, StockCommand command, StockStatus expected)
    {
        var result = await context.ExecuteAsync(command);
        Check.Equal(result.Status, expected, $"The answer to {command.Verb} {context.Name(command.Id)}");
        return result;
    }

    /// <summary>Executes all steps of a script in one batch.</summary>
    private static async Task BatchAsync(ConformanceContext context, string script)
    {
        var steps = script.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(step => step.Split("=>", StringSplitOptions.TrimEntries)).ToArray();
        var results = await context.ExecuteAsync([.. steps.Select(step => ContractScript.ParseCommand(context, step[0]))]);
        for (var i = 0; i < steps.Length; i++)
        {
            Check.Equal(ContractScript.Describe(context, results[i]), steps[i][1], $"The answer to '{steps[i][0]}', command {i + 1} of the batch,");
        }
    }
}
