namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>One id, one effect: repetitions and conflicts.</summary>
    private static IEnumerable<ConformanceCase> IdentityCases() =>
    [
        new("duplicate-check-comes-before-stock", "A retry of a deduction that succeeded is Replayed even when the SKU has since sold out.", """
            restock r1: A 2                 => Done: A 2
            deduct o1: A 1                  => Done: A 1
            deduct o2: A 1                  => Done: A 0
            deduct o1: A 1                  => Replayed: A 1
            reserve h1 for 60s: A 1         => Insufficient: A has 0
            stock A                         => 0 available, 0 reserved, 2 sold
            """),

        new("a-replay-carries-the-original-answer", "A repetition answers what was answered then, whatever happened since.", """
            restock r1: A 10, B 4           => Done: A 10, B 4
            deduct o1: A 1, B 1             => Done: A 9, B 3
            reserve h1 for 600s: A 2        => Done: A 7
            refund f1 of o1: A 1            => Done: A 8
            adjust a1: A -3                 => Done: A 5
            restock r2: A 90                => Done: A 95
            confirm h1                      => Done: A 95
            deduct o2: A 95                 => Done: A 0
            restock r1: A 10, B 4           => Replayed: A 10, B 4
            deduct o1: A 1, B 1             => Replayed: A 9, B 3
            reserve h1 for 600s: A 2        => Replayed: A 7
            refund f1 of o1: A 1            => Replayed: A 8
            adjust a1: A -3                 => Replayed: A 5
            restock r2: A 90                => Replayed: A 95
            confirm h1                      => Replayed: A 95
            stock A                         => 0 available, 0 reserved, 97 sold
            """),

        new("a-repetition-changes-nothing", "Repeated commands leave no trace in stock or ledger.", """
            restock r1: A 5                 => Done: A 5
            restock r1: A 5                 => Replayed: A 5
            deduct o1: A 1                  => Done: A 4
            deduct o1: A 1                  => Replayed: A 4
            deduct o1: A 1                  => Replayed: A 4
            reserve h1 for 600s: A 1        => Done: A 3
            reserve h1 for 600s: A 1        => Replayed: A 3
            refund f1 of o1: A 1            => Done: A 4
            refund f1 of o1: A 1            => Replayed: A 4
            adjust a1: A 2                  => Done: A 6
            adjust a1: A 2                  => Replayed: A 6
            stock A                         => 6 available, 1 reserved, 0 sold
            flow A                          => Restock r1 +5 0; Deduct o1 -1 0; Reserve h1 -1 +1; Refund f1 +1 0; Adjust a1 +2 0
            """),

        new("an-id-with-other-content-is-a-conflict", "The same id with another quantity, verb, target or time to live is a KeyConflict.", """
            restock r1: A 9                 => Done: A 9
            deduct o1: A 1                  => Done: A 8
            deduct o2: A 1                  => Done: A 7
            deduct o1: A 2                  => KeyConflict
            reserve o1 for 60s: A 1         => KeyConflict
            restock o1: A 1                 => KeyConflict
            adjust o1: A -1                 => KeyConflict
            refund o1 of o2: A 1            => KeyConflict
            deduct r1: A 9                  => KeyConflict
            reserve h1 for 600s: A 1        => Done: A 6
            reserve h1 for 601s: A 1        => KeyConflict
            refund f1 of o1: A 1            => Done: A 7
            refund f1 of o2: A 1            => KeyConflict
            stock A                         => 7 available, 1 reserved, 1 sold
            """),

        new("an-id-with-another-cart-is-a-conflict", "The same id with a cart of other SKUs is a KeyConflict.", """
                restock r1: A 5, B 5            => Done: A 5, B 5
                deduct o1: A 1                  => Done: A 4
                deduct o1: A 1, B 1             => KeyConflict
                deduct o1: B 1                  => KeyConflict
                stock B                         => 5 available, 0 reserved, 0 sold
                """.Play(),
            """
                # An engine without GlobalIds finds the conflict where the carts share a SKU; where they share none it may miss it.
                restock r1: A 5, B 5            => Done: A 5, B 5
                deduct o1: A 1                  => Done: A 4
                deduct o1: A 2                  => KeyConflict
                """.Play()) { Needs = StockTraits.GlobalIds },

        new("the-note-is-kept-and-makes-no-difference", "A note of 256 characters is kept with the operation; another note is no other content.", async context =>
        {
            var note = new string('n', StockLimits.MaxNoteLength - 3) + "é\t€";
            await context.PlayAsync("restock r1: A 5 => Done: A 5");
            var first = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o1"), [context.Line("A", 1)], note));
            var again = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o1"), [context.Line("A", 1)], "another"));
            Check.Equal(first.Status, StockStatus.Done, "the first answer");
            Check.Equal(again.Status, StockStatus.Replayed, "the answer to a repetition with another note");
            var view = await context.ReadAsync(() => context.Engine.GetOperationAsync(context.Id("o1"), context.CancellationToken), view => view is not null);
            Check.Equal(view?.Note, note, "the note");
            await context.PlayAsync("adjust a1: A 1 => Done: A 5");
            var noted = await context.ExecuteAsync(StockCommand.Adjust(context.Id("a2"), [context.Line("A", -1)], "counted by Jo"));
            Check.Equal(noted.Status, StockStatus.Done, "an adjustment with a note");
            var adjusted = await context.ReadAsync(() => context.Engine.GetOperationAsync(context.Id("a2"), context.CancellationToken), view => view is not null);
            Check.Equal(adjusted?.Note, "counted by Jo", "the adjustment's note");
            var bare = await context.ReadAsync(() => context.Engine.GetOperationAsync(context.Id("a1"), context.CancellationToken), view => view is not null);
            Check.Equal(bare?.Note, null, "the note of an operation without one");
        }),
    ];

    private static Func<ConformanceContext, Task> Play(this string script) => context => context.PlayAsync(script);
}
