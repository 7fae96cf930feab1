namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Deduct and Reserve: what they take, and what they leave alone when they refuse.</summary>
    private static IEnumerable<ConformanceCase> TakingCases() =>
    [
        new("deduct-takes-all-lines-or-none", "A deduction takes every line, or, where one line is short, nothing at all.", """
            restock r1: A 5, B 3            => Done: A 5, B 3
            deduct o1: A 2, B 1             => Done: A 3, B 2
            deduct o2: A 1, B 3             => Insufficient: B has 2
            stock A                         => 3 available, 0 reserved, 2 sold
            stock B                         => 2 available, 0 reserved, 1 sold
            operation o1                    => Deduct Applied: A 2, B 1
            operation o2                    => unknown | Abandon Abandoned
            flow A                          => Restock r1 +5 0; Deduct o1 -2 0
            flow B                          => Restock r1 +3 0; Deduct o1 -1 0
            """),

        new("deduct-sells-the-last-unit-and-no-more", "Stock goes down to zero, and not below it.", """
            restock r1: A 3                 => Done: A 3
            deduct o1: A 4                  => Insufficient: A has 3
            deduct o2: A 3                  => Done: A 0
            deduct o3: A 1                  => Insufficient: A has 0
            stock A                         => 0 available, 0 reserved, 3 sold
            """),

        new("deduct-names-a-short-sku", "A refusal names a SKU that is short, and what it has.", """
            restock r1: A 1, B 2, C 9       => Done: A 1, B 2, C 9
            deduct o1: A 2, B 3, C 9        => Insufficient: A has 1 | Insufficient: B has 2
            deduct o2: A 1, B 3, C 9        => Insufficient: B has 2
            """),

        new("deduct-of-an-unknown-sku", "A SKU that was never stocked is unknown, not sold out; the other lines are left alone.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: Z 1                  => UnknownSku: Z
            deduct o2: A 1, Z 1             => UnknownSku: Z
            reserve h1 for 60s: A 1, Z 1    => UnknownSku: Z
            stock A                         => 5 available, 0 reserved, 0 sold
            stock Z                         => unknown
            """),

        new("deduct-merges-lines-of-one-sku", "Lines of one SKU count as one line, in whatever order they come.", """
            restock r1: A 5, B 1            => Done: A 5, B 1
            deduct o1: A 3, B 1, A 3        => Insufficient: A has 5
            deduct o2: A 2, B 1, A 3        => Done: A 0, B 0
            deduct o2: B 1, A 5             => Replayed: A 0, B 0
            operation o2                    => Deduct Applied: A 5, B 1
            """),

        new("deduct-of-the-largest-quantity", "A line may carry 10^12 units.", """
            restock r1: A 1000000000000     => Done: A 1000000000000
            restock r2: A 1                 => Done: A 1000000000001
            deduct o1: A 1000000000000      => Done: A 1
            cancel o1                       => Done: A 1000000000001
            """),

        new("reserve-holds-all-lines-or-none", "A reservation holds every line, or nothing.", """
            restock r1: A 5, B 3            => Done: A 5, B 3
            reserve h1 for 600s: A 2, B 1   => Done: A 3, B 2
            reserve h2 for 600s: A 1, B 3   => Insufficient: B has 2
            stock A                         => 3 available, 2 reserved, 0 sold
            stock B                         => 2 available, 1 reserved, 0 sold
            operation h1                    => Reserve Reserved: A 2, B 1
            operation h2                    => unknown | Abandon Abandoned
            flow A                          => Restock r1 +5 0; Reserve h1 -2 +2
            """),

        new("reserved-units-are-not-for-sale", "What is held is neither available nor sold.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 600s: A 4        => Done: A 1
            deduct o1: A 2                  => Insufficient: A has 1
            reserve h2 for 600s: A 2        => Insufficient: A has 1
            adjust a1: A -2                 => Insufficient: A has 1
            deduct o2: A 1                  => Done: A 0
            stock A                         => 0 available, 4 reserved, 1 sold
            """),

        new("a-refusal-is-not-remembered", "A refused id may be tried again, also with another cart, and applies once there is stock. A queue remembers: refused once is refused for good.", """
            restock r1: A 1                 => Done: A 1
            deduct o1: A 2                  => Insufficient: A has 1
            deduct o2: Z 1                  => UnknownSku: Z
            operation o1                    => unknown
            restock r2: A 2                 => Done: A 3
            deduct o1: A 2                  => Done: A 1
            deduct o2: A 1                  => Done: A 0
            """.Play(), """
            restock r1: A 1                 => Done: A 1
            deduct o1: A 2                  => Insufficient: A has 1
            deduct o2: Z 1                  => UnknownSku: Z
            operation o1                    => Abandon Abandoned
            restock r2: A 2                 => Done: A 3
            deduct o1: A 2                  => Replayed Insufficient: A
            deduct o2: A 1                  => Replayed UnknownSku: Z
            stock A                         => 3 available, 0 reserved, 0 sold
            """.Play())
        {
            Needs = StockTraits.ImmediateVerdict,
        },

        new("applied-answers-say-who-vouches", "An applied command says by whom it was acknowledged; a refusal is acknowledged by nobody.", async context =>
        {
            var restocked = await context.ExecuteAsync(StockCommand.Restock(context.Id("r1"), [context.Line("A", 1)]));
            var refused = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o1"), [context.Line("A", 2)]));
            var applied = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o2"), [context.Line("A", 1)]));
            var repeated = await context.ExecuteAsync(StockCommand.Deduct(context.Id("o2"), [context.Line("A", 1)]));
            Check.That(restocked.AcknowledgedBy != Acknowledgement.None, "A restock was acknowledged by nobody.");
            Check.That(applied.AcknowledgedBy != Acknowledgement.None, "A deduction was acknowledged by nobody.");
            Check.That(repeated.AcknowledgedBy != Acknowledgement.None, "A replay was acknowledged by nobody.");
            Check.Equal(refused.AcknowledgedBy, Acknowledgement.None, "who vouches for a refusal");
        }),
    ];
}
