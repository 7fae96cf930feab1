namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Refund: what it gives back, and never more than was taken.</summary>
    private static IEnumerable<ConformanceCase> RefundCases() =>
    [
        new("refund-gives-units-back", "A refund makes units available again and is kept with its order.", """
            restock r1: A 5, B 5            => Done: A 5, B 5
            deduct o1: A 3, B 2             => Done: A 2, B 3
            refund f1 of o1: A 1, B 2       => Done: A 3, B 5
            operation o1                    => Deduct Applied: A 3 less 1, B 2 less 2
            operation f1                    => Refund Applied of o1: A 1, B 2
            stock A                         => 3 available, 0 reserved, 2 sold
            flow B                          => Restock r1 +5 0; Deduct o1 -2 0; Refund f1 +2 0
            """),

        new("refunds-never-exceed-what-was-deducted", "Over all refunds of an order and SKU no more comes back than was taken; a refund applies whole or not at all.", """
            restock r1: A 9, B 9, C 9       => Done: A 9, B 9, C 9
            deduct o1: A 3, B 1             => Done: A 6, B 8
            refund f1 of o1: A 2            => Done: A 8
            refund f2 of o1: A 2            => ExceedsDeducted: A has 1
            refund f3 of o1: A 1, B 2       => ExceedsDeducted: B has 1
            refund f4 of o1: C 1            => ExceedsDeducted: C has 0
            refund f5 of o1: A 1, A 1       => ExceedsDeducted: A has 1
            stock A                         => 8 available, 0 reserved, 1 sold
            refund f7 of o1: A 1            => Done: A 9
            refund f6 of o1: A 1            => ExceedsDeducted: A has 0
            refund f8 of o1: B 1            => Done: B 9
            operation o1                    => Deduct Applied: A 3 less 3, B 1 less 1
            """),

        new("refund-of-nothing-known", "A refund of an unknown order never credits; once the order has come it does.", """
            restock r1: A 5                 => Done: A 5
            refund f1 of o1: A 1            => UnknownTarget
            operation f1                    => unknown | Abandon Abandoned
            stock A                         => 5 available, 0 reserved, 0 sold
            deduct o1: A 1                  => Done: A 4
            refund f2 of o1: A 1            => Done: A 5
            """),

        new("refund-of-what-cannot-be-refunded", "Only a deduction, or a confirmed reservation, can be refunded.", """
            restock r1: A 9                 => Done: A 9
            deduct o1: A 1                  => Done: A 8
            deduct o2: A 1                  => Done: A 7
            refund f1 of o1: A 1            => Done: A 8
            cancel o2                       => Done: A 9
            adjust a1: A -1                 => Done: A 8
            reserve h1 for 600s: A 1        => Done: A 7
            cancel t1                       => Done
            abandon t2                      => Done
            refund f2 of o2: A 1            => InvalidTargetState
            refund f3 of f1: A 1            => InvalidTargetState
            refund f4 of a1: A 1            => InvalidTargetState
            refund f5 of r1: A 1            => InvalidTargetState
            refund f6 of h1: A 1            => InvalidTargetState
            refund f7 of t1: A 1            => InvalidTargetState
            refund f8 of t2: A 1            => InvalidTargetState
            confirm h1                      => Done: A 7
            refund f9 of h1: A 1            => Done: A 8
            """),

        new("refund-of-a-confirmed-reservation", "A confirmed reservation is refunded like an order.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 600s: A 3        => Done: A 2
            confirm h1                      => Done: A 2
            refund f1 of h1: A 2            => Done: A 4
            refund f2 of h1: A 2            => ExceedsDeducted: A has 1
            confirm h1                      => Replayed: A 2
            cancel h1                       => Done: A 5
            stock A                         => 5 available, 0 reserved, 0 sold
            flow A                          => Restock r1 +5 0; Reserve h1 -3 +3; Confirm h1 0 -3; Refund f1 +2 0; Cancel h1 +1 0
            """),

        new("refunded-units-sell-again", "What was refunded is for sale at once.", """
            restock r1: A 1                 => Done: A 1
            deduct o1: A 1                  => Done: A 0
            refund f1 of o1: A 1            => Done: A 1
            deduct o2: A 1                  => Done: A 0
            deduct o1: A 1                  => Replayed: A 0
            stock A                         => 0 available, 0 reserved, 1 sold
            """),

        new("refund-merges-lines-of-one-sku", "Lines of one SKU in a refund count as one.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 3                  => Done: A 2
            refund f1 of o1: A 1, A 1       => Done: A 4
            refund f1 of o1: A 2            => Replayed: A 4
            """),
    ];
}
