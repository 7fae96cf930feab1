namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>The order of precedence: where several outcomes are true, the first of the contract's table is the answer.</summary>
    private static IEnumerable<ConformanceCase> PrecedenceCases() =>
    [
        new("precedence-of-keyconflict", "KeyConflict comes before Cancelled, Expired, UnknownTarget, UnknownSku and Insufficient.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 1                  => Done: A 4
            deduct o2: A 1                  => Done: A 3
            cancel o2                       => Done: A 4
            reserve h1 for 1s: A 1          => Done: A 3
            wait 1s
            deduct o2: A 2                  => KeyConflict    # not Cancelled
            reserve h1 for 1s: A 2          => KeyConflict    # not Expired
            refund o1 of gone: A 1          => KeyConflict    # not UnknownTarget
            refund o1 of o2: A 1            => KeyConflict    # not InvalidTargetState
            adjust o1: A 1, Z 1             => KeyConflict    # not UnknownSku
            deduct o1: A 99                 => KeyConflict    # not Insufficient
            """),

        new("precedence-of-cancelled", "Cancelled comes before UnknownTarget, UnknownSku and Insufficient.", """
            restock r1: A 5                 => Done: A 5
            abandon t1                      => Done
            cancel t2                       => Done
            refund t1 of gone: A 1          => Cancelled      # not UnknownTarget
            refund t2 of r1: A 1            => Cancelled      # not InvalidTargetState
            deduct t1: Z 1                  => Cancelled      # not UnknownSku
            deduct t2: A 99                 => Cancelled      # not Insufficient
            """),

        new("precedence-of-replayed", "Replayed comes before anything that looks at the target or at stock.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 3                  => Done: A 2
            refund f1 of o1: A 3            => Done: A 5
            refund f1 of o1: A 3            => Replayed: A 5  # not ExceedsDeducted
            cancel o1                       => Done: A 5
            refund f1 of o1: A 3            => Replayed: A 5  # not InvalidTargetState
            deduct o2: A 5                  => Done: A 0
            deduct o2: A 5                  => Replayed: A 0  # not Insufficient
            adjust a1: A 1                  => Done: A 1
            adjust a2: A -1                 => Done: A 0
            adjust a2: A -1                 => Replayed: A 0  # not Insufficient
            """),

        new("precedence-of-the-target", "UnknownTarget and InvalidTargetState come before UnknownSku and ExceedsDeducted.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 3                  => Done: A 2
            cancel o1                       => Done: A 5
            refund f1 of gone: Z 1          => UnknownTarget       # not UnknownSku
            refund f2 of gone: A 99         => UnknownTarget       # not ExceedsDeducted
            refund f3 of o1: Z 1            => InvalidTargetState  # not UnknownSku
            refund f4 of o1: A 99           => InvalidTargetState  # not ExceedsDeducted
            """),

        new("precedence-of-unknown-skus", "UnknownSku comes before ExceedsLimit, ExceedsDeducted and Insufficient; over several shards Insufficient may be answered too.", """
                restock r1: A 5                 => Done: A 5
                deduct o1: A 3                  => Done: A 2
                refund f1 of o1: A 9, Z 1       => UnknownSku: Z
                deduct o2: A 9, Z 1             => UnknownSku: Z
                reserve h1 for 60s: A 9, Z 1    => UnknownSku: Z
                adjust a1: A -9, Z 1            => UnknownSku: Z
                """.Play(),
            """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 3                  => Done: A 2
            refund f1 of o1: A 9, Z 1       => UnknownSku: Z
            deduct o2: A 9, Z 1             => UnknownSku: Z | Insufficient: A has 2
            reserve h1 for 60s: A 9, Z 1    => UnknownSku: Z | Insufficient: A has 2
            adjust a1: A -9, Z 1            => UnknownSku: Z | Insufficient: A has 2
            """.Play()) { Needs = StockTraits.GlobalIds },
    ];
}
