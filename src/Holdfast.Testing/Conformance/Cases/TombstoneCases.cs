namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Closing an id: before its command has come, and after.</summary>
    private static IEnumerable<ConformanceCase> TombstoneCases() =>
    [
        new("cancel-before-arrival", "Cancel of an id not seen yet leaves a tombstone: whatever comes late with that id is refused.", """
            restock r1: A 5                 => Done: A 5
            deduct o0: A 1                  => Done: A 4
            cancel o1                       => Done
            cancel h1                       => Done
            cancel f1                       => Done
            cancel r2                       => Done
            cancel a1                       => Done
            deduct o1: A 1                  => Cancelled
            reserve h1 for 60s: A 1         => Cancelled
            refund f1 of o0: A 1            => Cancelled
            restock r2: A 1                 => Cancelled
            adjust a1: A 1                  => Cancelled
            cancel o1                       => Replayed Cancelled
            operation o1                    => Cancel Cancelled
            stock A                         => 4 available, 0 reserved, 1 sold
            """),

        new("abandon-before-arrival", "Abandon of an id not seen yet leaves a tombstone: whatever comes late with that id is refused.", """
            restock r1: A 5                 => Done: A 5
            deduct o0: A 1                  => Done: A 4
            abandon o1                      => Done
            abandon h1                      => Done
            abandon f1                      => Done
            abandon r2                      => Done
            abandon a1                      => Done
            deduct o1: A 1                  => Cancelled
            reserve h1 for 60s: A 1         => Cancelled
            refund f1 of o0: A 1            => Cancelled
            restock r2: A 1                 => Cancelled
            adjust a1: A 1                  => Cancelled
            abandon o1                      => Replayed Cancelled
            operation o1                    => Abandon Abandoned
            stock A                         => 4 available, 0 reserved, 1 sold
            """),

        new("tombstones-of-both-kinds-agree", "Cancel and Abandon of an id that the other has closed are Replayed.", """
            cancel t1                       => Done
            abandon t1                      => Replayed Cancelled
            abandon t2                      => Done
            cancel t2                       => Replayed Cancelled
            operation t1                    => Cancel Cancelled
            operation t2                    => Abandon Abandoned
            """),

        new("abandon-keeps-its-note", "What an Abandon notes stands in the tombstone that it leaves, and changes nothing where it leaves none.", async context =>
        {
            await context.PlayAsync("restock r1: A 1 => Done: A 1");
            Check.Equal((await context.ExecuteAsync(StockCommand.Abandon(context.Id("o1"), "gave up"))).Status, StockStatus.Done, "the first Abandon");
            Check.Equal((await context.ExecuteAsync(StockCommand.Abandon(context.Id("o1"), "once more"))).Status, StockStatus.Replayed, "the second Abandon");
            Check.Equal((await context.ExecuteAsync(StockCommand.Abandon(context.Id("r1"), "too late"))).Status, StockStatus.Replayed, "the Abandon of what was applied");
            var closed = await context.ReadAsync(() => context.Engine.GetOperationAsync(context.Id("o1"), context.CancellationToken), view => view is not null);
            Check.Equal(closed?.Note, "gave up", "the tombstone's note");
            Check.Equal((await context.Engine.GetOperationAsync(context.Id("r1"), context.CancellationToken))?.Note, null, "the note of what was applied");
        }),

        new("a-refused-id-can-be-closed", "Abandon after a refusal makes it final, also when stock comes later.", """
            restock r1: A 1                 => Done: A 1
            deduct o1: A 2                  => Insufficient: A has 1
            abandon o1                      => Done | Replayed Cancelled
            restock r2: A 5                 => Done: A 6
            deduct o1: A 2                  => Cancelled | Replayed Insufficient: A
            stock A                         => 6 available, 0 reserved, 0 sold
            """),

        new("abandon-undoes-nothing", "Abandon of an id that was applied changes nothing and answers with the original outcome.", """
            restock r1: A 9                 => Done: A 9
            deduct o1: A 1                  => Done: A 8
            reserve h1 for 600s: A 2        => Done: A 6
            reserve h2 for 600s: A 1        => Done: A 5
            confirm h2                      => Done: A 5
            refund f1 of o1: A 1            => Done: A 6
            adjust a1: A 4                  => Done: A 10
            abandon o1                      => Replayed: A 8
            abandon h1                      => Replayed: A 6
            abandon h2                      => Replayed: A 5
            abandon f1                      => Replayed: A 6
            abandon a1                      => Replayed: A 10
            abandon r1                      => Replayed: A 9
            operation h1                    => Reserve Reserved: A 2
            deduct o1: A 1                  => Replayed: A 8
            confirm h1                      => Done: A 10
            stock A                         => 10 available, 0 reserved, 3 sold
            """),

        new("abandon-of-what-was-cancelled", "Abandon of a cancelled order answers that it is cancelled.", """
            restock r1: A 5                 => Done: A 5
            deduct o1: A 1                  => Done: A 4
            cancel o1                       => Done: A 5
            abandon o1                      => Replayed Cancelled
            operation o1                    => Deduct Cancelled: A 1
            """),
    ];
}
