namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Confirm and Cancel: how orders and reservations end.</summary>
    private static IEnumerable<ConformanceCase> EndingCases() =>
    [
        new("confirm-sells-what-was-held", "Confirm turns held units into sold ones, once.", """
            restock r1: A 5, B 5            => Done: A 5, B 5
            reserve h1 for 600s: A 2, B 3   => Done: A 3, B 2
            confirm h1                      => Done: A 3, B 2
            stock A                         => 3 available, 0 reserved, 2 sold
            stock B                         => 2 available, 0 reserved, 3 sold
            operation h1                    => Reserve Confirmed: A 2, B 3
            confirm h1                      => Replayed: A 3, B 2
            reserve h1 for 600s: A 2, B 3   => Replayed: A 3, B 2
            flow A                          => Restock r1 +5 0; Reserve h1 -2 +2; Confirm h1 0 -2
            """),

        new("confirm-of-nothing-known", "Confirm of an unknown id is UnknownTarget and leaves no trace: the reservation may still come.", """
            restock r1: A 5                 => Done: A 5
            confirm h1                      => UnknownTarget
            operation h1                    => unknown
            reserve h1 for 600s: A 1        => Done: A 4
            confirm h1                      => Done: A 4
            """),

        new("confirm-of-what-is-no-reservation", "Only a live reservation can be confirmed.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 1                  => Done: A 4
            refund f1 of o1: A 1            => Done: A 5
            adjust a1: A 1                  => Done: A 6
            reserve h1 for 600s: A 1        => Done: A 5
            cancel h1                       => Done: A 6
            cancel t1                       => Done
            abandon t2                      => Done
            confirm o1                      => InvalidTargetState
            confirm f1                      => InvalidTargetState
            confirm a1                      => InvalidTargetState
            confirm r1                      => InvalidTargetState
            confirm h1                      => InvalidTargetState
            confirm t1                      => InvalidTargetState
            confirm t2                      => InvalidTargetState
            stock A                         => 6 available, 0 reserved, 0 sold
            """),

        new("cancel-gives-a-deduction-back", "Cancel of an order gives every unit back, once.", """
            restock r1: A 5, B 5            => Done: A 5, B 5
            deduct o1: A 2, B 3             => Done: A 3, B 2
            cancel o1                       => Done: A 5, B 5
            cancel o1                       => Replayed Cancelled: A 5, B 5
            operation o1                    => Deduct Cancelled: A 2, B 3
            deduct o1: A 2, B 3             => Cancelled
            stock A                         => 5 available, 0 reserved, 0 sold
            flow A                          => Restock r1 +5 0; Deduct o1 -2 0; Cancel o1 +2 0
            """),

        new("cancel-releases-a-reservation", "Cancel of a live reservation makes its units available, once.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 600s: A 2        => Done: A 3
            cancel h1                       => Done: A 5
            cancel h1                       => Replayed Cancelled: A 5
            reserve h1 for 600s: A 2        => Cancelled
            operation h1                    => Reserve Cancelled: A 2
            stock A                         => 5 available, 0 reserved, 0 sold
            flow A                          => Restock r1 +5 0; Reserve h1 -2 +2; Cancel h1 +2 -2
            """),

        new("cancel-undoes-a-confirmed-reservation", "Cancel of a confirmed reservation gives the sold units back.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 600s: A 2        => Done: A 3
            confirm h1                      => Done: A 3
            cancel h1                       => Done: A 5
            cancel h1                       => Replayed Cancelled: A 5
            confirm h1                      => InvalidTargetState
            reserve h1 for 600s: A 2        => Cancelled
            stock A                         => 5 available, 0 reserved, 0 sold
            """),

        new("cancel-after-a-partial-refund", "Cancel gives back what was not refunded yet.", """
            restock r1: A 9, B 9            => Done: A 9, B 9
            deduct o1: A 5, B 4             => Done: A 4, B 5
            refund f1 of o1: A 2            => Done: A 6
            refund f2 of o1: B 4            => Done: B 9
            cancel o1                       => Done: A 9, B 9
            stock A                         => 9 available, 0 reserved, 0 sold
            stock B                         => 9 available, 0 reserved, 0 sold
            operation o1                    => Deduct Cancelled: A 5 less 2, B 4 less 4
            refund f3 of o1: A 1            => InvalidTargetState
            refund f1 of o1: A 2            => Replayed: A 6
            """),

        new("cancel-after-everything-was-refunded", "Cancel of a wholly refunded order still closes it.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 600s: A 2        => Done: A 3
            confirm h1                      => Done: A 3
            refund f1 of h1: A 2            => Done: A 5
            cancel h1                       => Done: A 5
            cancel h1                       => Replayed Cancelled: A 5
            stock A                         => 5 available, 0 reserved, 0 sold
            """),

        new("cancel-of-what-cannot-be-cancelled", "Refunds, restocks and adjustments cannot be cancelled.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 2                  => Done: A 3
            refund f1 of o1: A 1            => Done: A 4
            adjust a1: A -1                 => Done: A 3
            cancel f1                       => InvalidTargetState
            cancel r1                       => InvalidTargetState
            cancel a1                       => InvalidTargetState
            stock A                         => 3 available, 0 reserved, 1 sold
            """),

        new("cancelled-units-sell-again", "What was cancelled is for sale at once.", """
            restock r1: A 1                 => Done: A 1
            deduct o1: A 1                  => Done: A 0
            deduct o2: A 1                  => Insufficient: A has 0
            cancel o1                       => Done: A 1
            deduct o3: A 1                  => Done: A 0
            """),
    ];
}
