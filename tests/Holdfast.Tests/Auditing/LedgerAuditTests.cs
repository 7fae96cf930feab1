using Holdfast.Testing;

namespace Holdfast.Tests.Auditing;

/// <summary>Each kind of damage planted once: the audit of the whole store and the audit of single SKUs must both see it.</summary>
public sealed class LedgerAuditTests
{
    private const string Script = """
        restock r1: A 20, B 20
        deduct o1: A 2, B 3
        deduct o2: A 1
        reserve h1 for 10s: A 1, B 1
        reserve h2 for 600s: A 4
        reserve h3 for 600s: B 2
        reserve h4 for 600s: A 1
        refund f1 of o1: B 2
        cancel o2
        confirm h3
        refund f2 of h3: B 1
        adjust a1: A -5, B 1
        wait 10s
        cancel h1
        cancel h4
        reserve h5 for 5s: A 1
        wait 5s
        cancel t1
        restock r2: C 0
        """;

    [Fact]
    public async Task A_healthy_store_passes()
    {
        var store = await TamperedStore.AfterAsync(Script);
        var report = await LedgerAudit.RunAsync(store, cancellationToken: TestContext.Current.CancellationToken);
        report.FirstDifference.ShouldBeNull();
        (report.Skus, report.Entries, report.Operations).ShouldBe((3, store.Flow.Count, store.Operations.Count));
        (await LedgerAudit.RunAsync(store, new() { Skus = ["-A", "-B", "-C"] }, TestContext.Current.CancellationToken)).FirstDifference.ShouldBeNull();
    }

    [Fact]
    public Task An_entry_missing_in_the_middle() => FindsAsync(store => store.Flow.RemoveAt(store.Flow.FindIndex(entry => entry.Sku == "-A" && entry.Version == 3)), "version 2 is followed by version 4");

    [Fact]
    public Task An_entry_written_twice() => FindsAsync(store => store.Flow.Insert(3, store.Flow[2]), "is followed by version");

    [Fact]
    public Task The_latest_entry_lost() => FindsAsync(store => store.Flow.RemoveAt(store.Flow.FindLastIndex(entry => entry.Sku == "-B")), "-B: the stock row is at version");

    [Fact]
    public Task A_whole_ledger_lost() => FindsAsync(store => store.Flow.RemoveAll(entry => entry.Sku == "-C"), "-C: the stock row is at version 1, its ledger ends at version 0");

    [Fact]
    public Task A_stock_row_lost() => FindsAsync(store => store.Rows.RemoveAll(row => row.Sku == "-C"), "-C: the ledger has 1 entries, but there is no stock row");

    [Fact]
    public Task A_balance_that_does_not_add_up() => FindsAsync(store => store.Change("A", 2, entry => entry with { Available = entry.Available - 1 }), "-A: version 2 (Deduct of -o1) changes available 20 by -2");

    [Fact]
    public Task A_unit_that_vanishes_from_the_row() => FindsAsync(store => store.Change("A", row => row with { Available = row.Available - 1 }), "-A: the stock row says available");

    [Fact]
    public Task A_unit_that_appears_in_the_row() => FindsAsync(store => store.Change("B", row => row with { Available = row.Available + 1 }), "-B: the stock row says available");

    [Fact]
    public Task A_reserved_unit_that_vanishes() => FindsAsync(store => store.Change("A", row => row with { Reserved = row.Reserved - 1 }), "-A: the stock row says available");

    [Fact]
    public Task A_live_hold_counted_as_available() => FindsAsync(
        store => store.Change("A", row => row with { Available = row.Available + 4, Reserved = row.Reserved - 4 }), "are not those of reservations whose time has passed");

    [Fact]
    public Task An_expired_hold_not_counted_as_available_is_no_difference_of_the_ledger() => PassesAsync(
        store => store.Change("A", row => row with { Available = row.Available - 1, Reserved = row.Reserved + 1 }));

    [Fact]
    public Task A_restocked_total_that_is_wrong() => FindsAsync(store => store.Change("A", row => row with { Restocked = 21 }), "-A: the stock row says restocked 21");

    [Fact]
    public Task An_adjusted_total_that_is_wrong() => FindsAsync(store => store.Change("B", row => row with { Adjusted = 0 }), "-B: the stock row says restocked 20 and adjusted 0");

    [Fact]
    public Task An_oversold_sku() => FindsAsync(store =>
    {
        store.Append("C", FlowKind.Deduct, "o9", -1, 0);
        store.Operations.Add(store.Operations.Find(view => view.Id == "-o1")! with { Id = "-o9", Lines = [new("-C", 1, 0)] });
    }, "-C: version 2 (Deduct of -o9) leaves available -1");

    [Fact]
    public Task An_entry_that_moves_the_wrong_way() => FindsAsync(store =>
    {
        store.Append("C", FlowKind.Deduct, "o9", 1, 0);
        store.Operations.Add(store.Operations.Find(view => view.Id == "-o1")! with { Id = "-o9", Lines = [new("-C", -1, 0)] });
    }, "-C: version 2 is a Deduct of -o9 that changes available by 1");

    [Fact]
    public Task An_entry_that_belongs_to_no_operation() => FindsAsync(store => store.Append("A", FlowKind.Deduct, "ghost", -1, 0), "-ghost: has ledger entries");

    [Fact]
    public Task An_entry_written_again_with_the_next_version() => FindsAsync(store => store.Append("A", FlowKind.Deduct, "o1", -2, 0), "-o1 (Deduct, Applied): its Deduct entries change -A by available -4");

    [Fact]
    public Task A_restock_of_nothing_written_again() => FindsAsync(store => store.Append("C", FlowKind.Restock, "r2", 0, 0), "-r2 (Restock, Applied) has 2 entries for its line of 0 -C");

    [Fact]
    public Task Half_a_cart() => FindsAsync(store => store.RemoveLast("B"), "-a1 (Adjust, Applied) has no Adjust entry for -B: a cart is applied whole or not at all", script: """
        restock r1: A 20, B 20
        adjust a1: A -5, B 1
        """);

    [Fact]
    public Task An_operation_without_any_entry() => FindsAsync(
        store => store.Operations.Add(store.Operations.Find(view => view.Id == "-o1")! with { Id = "-o9", Lines = [new("-A", 1, 0)] }),
        "-o9 (Deduct, Applied) has no Deduct entry for -A.",
        bySku: false);

    [Fact]
    public Task A_reservation_that_ended_twice() => FindsAsync(store => store.Append("B", FlowKind.Expire, "h3", 2, -2), "ends 2 units of reservation -h3, 2 more than it holds");

    [Fact]
    public Task A_confirmation_that_never_happened() => FindsAsync(store => store.Change("h2", view => view with { State = OperationState.Confirmed }), "-h2 (Reserve, Confirmed) has no Confirm entry for -A");

    [Fact]
    public Task A_cancellation_that_gave_nothing_back() => FindsAsync(store => store.Change("o1", view => view with { State = OperationState.Cancelled }), "-o1 (Deduct, Cancelled) has no Confirm entry for -A");

    [Fact]
    public Task An_expiry_noted_as_a_cancellation() => FindsAsync(store => store.Change("h1", view => view with { State = OperationState.Cancelled }), "-h1 (Reserve, Cancelled)");

    [Fact]
    public Task A_refund_over_what_was_taken() => FindsAsync(store =>
    {
        store.Append("B", FlowKind.Refund, "f9", 2, 0);
        store.Operations.Add(store.Operations.Find(view => view.Id == "-f1")! with { Id = "-f9", Lines = [new("-B", 2, 0)] });
        store.Change("o1", view => view with { Lines = [view.Lines[0], view.Lines[1] with { Refunded = 4 }] });
    }, "-o1: 4 units of -B are marked as refunded, of 3");

    [Fact]
    public Task A_refund_that_its_order_does_not_know_of() => FindsAsync(
        store => store.Change("o1", view => view with { Lines = [view.Lines[0], view.Lines[1] with { Refunded = 0 }] }), "-o1: its refunds of -B add up to 2; it says 0");

    [Fact]
    public Task A_refund_noted_at_the_order_that_does_not_exist() => FindsAsync(
        store => store.Change("o1", view => view with { Lines = [view.Lines[0] with { Refunded = 1 }, view.Lines[1]] }), "-o1: its refunds of -A add up to 0; it says 1");

    [Fact]
    public Task A_refund_of_an_order_that_does_not_exist() => FindsAsync(
        store => store.Change("f1", view => view with { Target = "-gone" }), "-gone: 2 units of -B were refunded, but");

    [Fact]
    public Task A_tombstone_with_an_entry() => FindsAsync(store => store.Append("A", FlowKind.Deduct, "t1", -1, 0), "-t1 (Cancel, Cancelled) has Deduct entries for -A");

    [Fact]
    public Task A_state_that_cannot_be() => FindsAsync(store => store.Change("o1", view => view with { State = OperationState.Confirmed }), "-o1: a Deduct cannot be Confirmed");

    [Fact]
    public Task An_operation_listed_twice() => FindsAsync(store => store.Operations.Add(store.Operations[1]), "-o1: is listed twice", bySku: false);

    [Fact]
    public Task A_sku_listed_out_of_order() => FindsAsync(store => store.Rows.Reverse(), "SKUs are listed once, in byte order", bySku: false);

    [Fact]
    public async Task A_report_counts_all_differences_and_names_twenty()
    {
        var store = await TamperedStore.AfterAsync(string.Concat(Enumerable.Range(0, 30).Select(i => $"restock r{i}: S{i} 1\n")));
        for (var i = 0; i < 30; i++)
        {
            store.Change($"S{i}", row => row with { Available = 0 });
        }

        var report = await LedgerAudit.RunAsync(store, cancellationToken: TestContext.Current.CancellationToken);
        (report.DifferenceCount, report.Differences.Length).ShouldBe((30, AuditReport.MaxDifferences));
        report.ToString().ShouldBe($"audit failed: 30 differences over 30 SKUs, 30 ledger entries, 30 operations; the first: {report.FirstDifference}");
    }

    /// <summary>On a live store the audit finds nothing but what is really wrong.</summary>
    [Fact]
    public async Task A_live_store_passes_while_it_is_written_to()
    {
        var engine = new MemoryEngine();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        var workload = StormWorkload.AllVerbs("live-", 7, ids: 1_000_000);
        foreach (var opening in workload.Opening(1_000_000))
        {
            await engine.ExecuteAsync(opening, TestContext.Current.CancellationToken);
        }

        var writers = Parallel.ForEachAsync(Enumerable.Range(0, 2), TestContext.Current.CancellationToken, async (caller, cancellationToken) =>
        {
            var number = 0;
            foreach (var command in workload.Commands(caller).TakeWhile(_ => !stop.IsCancellationRequested))
            {
                await engine.ExecuteAsync(command, cancellationToken);
                if (++number % 50 == 0)
                {
                    await Task.Delay(TimeSpan.FromMilliseconds(1), TimeProvider.System, cancellationToken);
                }
            }
        });
        for (var audits = 0; audits < 5; audits++)
        {
            (await LedgerAudit.RunAsync(engine, cancellationToken: TestContext.Current.CancellationToken)).FirstDifference.ShouldBeNull();
            (await LedgerAudit.RunAsync(engine, new() { Skus = workload.Skus }, TestContext.Current.CancellationToken)).FirstDifference.ShouldBeNull();
        }

        await stop.CancelAsync();
        await writers;
        (await LedgerAudit.RunAsync(engine, cancellationToken: TestContext.Current.CancellationToken)).FirstDifference.ShouldBeNull();
    }

    private static async Task PassesAsync(Action<TamperedStore> plant)
    {
        var store = await TamperedStore.AfterAsync(Script);
        plant(store);
        (await LedgerAudit.RunAsync(store, cancellationToken: TestContext.Current.CancellationToken)).FirstDifference.ShouldBeNull();
    }

    private static async Task FindsAsync(Action<TamperedStore> plant, string difference, bool bySku = true, string script = Script)
    {
        var store = await TamperedStore.AfterAsync(script);
        plant(store);
        var whole = await LedgerAudit.RunAsync(store, cancellationToken: TestContext.Current.CancellationToken);
        whole.Differences.ShouldContain(found => found.Contains(difference, StringComparison.Ordinal), string.Join("\n", whole.Differences));
        if (bySku)
        {
            var single = await LedgerAudit.RunAsync(store, new() { Skus = ["-A", "-B", "-C"] }, TestContext.Current.CancellationToken);
            single.Differences.ShouldContain(found => found.Contains(difference, StringComparison.Ordinal), string.Join("\n", single.Differences));
        }
    }
}
