namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Time: a reservation counts as expired from the instant its time has passed, swept or not.</summary>
    private static IEnumerable<ConformanceCase> ExpiryCases() =>
    [
        new("expiry-counts-in-reads", "Units of a reservation whose time has passed read as available, and the reservation as expired, with no sweeper.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 1s: A 2          => Done: A 3
            reserve h2 for 600s: A 1        => Done: A 2
            wait 1s
            stock A                         => 4 available, 1 reserved, 0 sold
            operation h1                    => Reserve Expired: A 2
            operation h2                    => Reserve Reserved: A 1
            """),

        new("an-expired-reservation-has-ended", "After its time a reservation can be neither confirmed, cancelled, refunded nor taken up again.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 1s: A 2          => Done: A 3
            reserve h2 for 1s: A 1          => Done: A 2
            reserve h3 for 1s: A 1          => Done: A 1
            reserve h4 for 1s: A 1          => Done: A 0
            wait 1s
            confirm h1                      => Expired
            confirm h1                      => Expired
            cancel h2                       => Replayed Expired
            cancel h1                       => Replayed Expired
            abandon h3                      => Replayed Expired
            refund f1 of h4: A 1            => InvalidTargetState
            reserve h1 for 1s: A 2          => Expired
            reserve h4 for 1s: A 1          => Expired
            reserve h4 for 1s: A 2          => KeyConflict
            operation h2                    => Reserve Expired: A 1
            stock A                         => 5 available, 0 reserved, 0 sold
            """),

        new("expired-units-are-sold-before-anyone-is-refused", "Before a line is refused, expired reservations of its SKU are released.", """
            restock r1: A 5                 => Done: A 5
            reserve h1 for 1s: A 2          => Done: A 3
            reserve h2 for 1s: A 2          => Done: A 1
            wait 1s
            deduct o1: A 6                  => Insufficient: A has 5
            deduct o2: A 5                  => Done: A 0
            deduct o3: A 1                  => Insufficient: A has 0
            stock A                         => 0 available, 0 reserved, 5 sold
            """),

        new("expired-units-can-be-held-again", "Expired units serve a new reservation.", """
            restock r1: A 2                 => Done: A 2
            reserve h1 for 1s: A 2          => Done: A 0
            reserve h2 for 600s: A 1        => Insufficient: A has 0
            wait 1s
            reserve h3 for 600s: A 2        => Done: A 0
            confirm h3                      => Done: A 0
            confirm h1                      => Expired
            stock A                         => 0 available, 0 reserved, 2 sold
            """),

        new("expired-units-can-be-adjusted-away", "Expired units count when the stock is corrected.", """
            restock r1: A 2                 => Done: A 2
            reserve h1 for 1s: A 2          => Done: A 0
            wait 1s
            adjust a1: A -2                 => Done: A 0
            stock A                         => 0 available, 0 reserved, 0 sold
            """),

        new("several-holds-over-several-skus-expire", "Holds that overlap over several SKUs expire each by itself and as a whole.", """
            restock r1: A 10, B 10, C 10    => Done: A 10, B 10, C 10
            reserve h1 for 1s: A 1, B 2     => Done: A 9, B 8
            reserve h2 for 1s: B 3, C 4     => Done: B 5, C 6
            reserve h3 for 600s: A 1, C 1   => Done: A 8, C 5
            reserve h4 for 600s: B 1        => Done: B 4
            wait 1s
            deduct o1: B 10                 => Insufficient: B has 9
            deduct o2: B 9                  => Done: B 0
            stock A                         => 9 available, 1 reserved, 0 sold
            stock B                         => 0 available, 1 reserved, 9 sold
            stock C                         => 9 available, 1 reserved, 0 sold
            confirm h1                      => Expired
            confirm h2                      => Expired
            confirm h3                      => Done: A 9, C 9
            operation h4                    => Reserve Reserved: B 1
            """),

        new("answers-count-expired-units", "What an answer says is left counts expired units, as a read does.", """
            restock r1: A 9, B 9, C 9, D 9, E 9, F 9 => Done: A 9, B 9, C 9, D 9, E 9, F 9
            reserve h1 for 600s: A 2        => Done: A 7
            reserve h2 for 600s: B 2        => Done: B 7
            deduct o3: C 2                  => Done: C 7
            deduct o4: D 2                  => Done: D 7
            reserve x1 for 1s: A 1          => Done: A 6
            reserve x2 for 1s: B 1          => Done: B 6
            reserve x3 for 1s: C 1          => Done: C 6
            reserve x4 for 1s: D 1          => Done: D 6
            reserve x5 for 1s: E 1          => Done: E 8
            reserve x6 for 1s: F 1          => Done: F 8
            wait 1s
            confirm h1                      => Done: A 7
            cancel h2                       => Done: B 9
            refund f1 of o3: C 1            => Done: C 8
            cancel o4                       => Done: D 9
            restock r2: E 1                 => Done: E 10
            adjust a1: F 1                  => Done: F 10
            stock A                         => 7 available, 0 reserved, 2 sold
            stock B                         => 9 available, 0 reserved, 0 sold
            stock C                         => 8 available, 0 reserved, 1 sold
            """),

        new("expired-reservations-are-listed-until-released", "The sweeper's question names what is due, in order of expiry, and forgets what was released.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 9                 => Done: A 9
                reserve h2 for 2s: A 1          => Done: A 8
                reserve h1 for 1s: A 1          => Done: A 7
                reserve h3 for 600s: A 1        => Done: A 6
                """);
            Check.Sequence(await DueAsync(context), [], "what is due before any time has passed");
            await context.AdvanceAsync(TimeSpan.FromSeconds(2));
            Check.Sequence(await DueAsync(context), ["h1", "h2"], "what is due");

            // Any command on the reservation releases it: the sweeper abandons it, which undoes nothing.
            await context.PlayAsync("""
                abandon h1                      => Replayed Expired
                stock A                         => 8 available, 1 reserved, 0 sold
                """);
            Check.Sequence(await DueAsync(context), ["h2"], "what is due after one was swept");
            await context.PlayAsync("deduct o1: A 8 => Done: A 0");
            Check.Sequence(await DueAsync(context), [], "what is due after the rest was released for a buyer");
            var entries = (await context.FlowAsync("A")).Where(entry => entry.Kind == FlowKind.Expire).Select(entry => context.Name(entry.OperationId));
            Check.Sequence(entries.Order(StringComparer.Ordinal), ["h1", "h2"], "the reservations that the ledger has expired");
        }) { UsesTime = true },

        new("a-reservation-lives-to-its-last-millisecond", "One millisecond before its time a reservation can be confirmed; at its time it has expired.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 5                 => Done: A 5
                reserve h1 for 10s: A 1         => Done: A 4
                reserve h2 for 10s: A 1         => Done: A 3
                wait 9.999s
                stock A                         => 3 available, 2 reserved, 0 sold
                deduct o1: A 4                  => Insufficient: A has 3
                confirm h1                      => Done: A 3
                wait 0.001s
                stock A                         => 4 available, 0 reserved, 1 sold
                confirm h2                      => Expired
                confirm h1                      => Replayed: A 3
                """);
        }) { UsesTime = true, NeedsManualClock = true },

        new("a-clock-that-jumps-back-does-no-harm", "Store time never goes back: what has expired stays expired, and the ledger's times do not fall.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 5                 => Done: A 5
                reserve h1 for 10s: A 1         => Done: A 4
                reserve h2 for 30s: A 1         => Done: A 3
                wait 10s
                confirm h1                      => Expired
                """);
            context.Clock!.Jump(context.Clock.GetUtcNow() - TimeSpan.FromHours(1));
            await context.PlayAsync("""
                confirm h1                      => Expired
                operation h1                    => Reserve Expired: A 1
                stock A                         => 4 available, 1 reserved, 0 sold
                deduct o1: A 1                  => Done: A 3
                confirm h2                      => Done: A 3
                """);
            var times = (await context.FlowAsync("A")).Select(entry => entry.At).ToArray();
            Check.Sequence(times, times.Order(), "the ledger's times");

            // The clock comes back to where it was, for the cases that share it.
            context.Clock.Advance(TimeSpan.FromHours(1));
        }) { UsesTime = true, NeedsManualClock = true },

        new("an-operation-says-when", "An operation tells when it was applied, when it expires and when it ended; an entry of the ledger has the store's time.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 5                 => Done: A 5
                reserve h1 for 600s: A 1        => Done: A 4
                reserve h2 for 600s: A 1        => Done: A 3
                """);
            var live = await ViewAsync(context, "h1");
            Check.Equal(live.ExpiresAt, live.CreatedAt + TimeSpan.FromSeconds(600), "when the reservation expires");
            Check.Equal(live.EndedAt, null, "when the live reservation ended");
            await context.AdvanceAsync(TimeSpan.FromSeconds(1));
            await context.PlayAsync("""
                confirm h1                      => Done: A 3
                cancel h2                       => Done: A 4
                deduct o1: A 1                  => Done: A 3
                """);
            foreach (var name in (string[])["h1", "h2"])
            {
                var ended = await ViewAsync(context, name);
                Check.That(ended.EndedAt >= ended.CreatedAt + TimeSpan.FromSeconds(1), $"{name} should have ended a second after it was made, but ended at {ended.EndedAt:O}, made at {ended.CreatedAt:O}.");
            }

            var order = await ViewAsync(context, "o1");
            Check.Equal((order.ExpiresAt, order.EndedAt), (null, null), "when a deduction expires and ended");
            var entry = (await context.FlowAsync("A"))[^1];
            Check.Equal(entry.At, order.CreatedAt, "the time of the ledger's entry");
            Check.Sequence(order.Left, [new LineBalance(context.Sku("A"), 3)], "what the order's view says was left");
        }) { UsesTime = true },
    ];

    private static async Task<List<string>> DueAsync(ConformanceContext context)
    {
        var due = new List<string>();
        await foreach (var view in context.Engine.ListOperationsAsync(new() { DueOnly = true }, context.CancellationToken))
        {
            if (view.Id.StartsWith(context.Prefix, StringComparison.Ordinal))
            {
                Check.Equal(view.State, OperationState.Expired, $"the state of {context.Name(view.Id)}, which is due,");
                due.Add(context.Name(view.Id));
            }
        }

        return due;
    }

    private static async Task<OperationView> ViewAsync(ConformanceContext context, string id) =>
        await context.ReadAsync(() => context.Engine.GetOperationAsync(context.Id(id), context.CancellationToken), view => view is not null)
            ?? throw new ConformanceException($"There is no operation {id}.");
}
