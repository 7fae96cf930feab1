using Holdfast.Testing;

namespace Holdfast.Tests.Rules;

/// <summary>The rules as tables: one step a line, what it answers after the arrow.</summary>
public sealed class StockRulesTests
{
    [Fact]
    public Task A_deduction_takes_all_lines_or_none() => RunAsync("""
        restock r1: A 5, B 3            => Done: A 5, B 3
        deduct o1: A 2, B 1             => Done: A 3, B 2
        deduct o2: A 1, B 3             => Insufficient: B has 2
        deduct o3: A 1, Z 1             => UnknownSku: Z
        stock A                         => 3 available, 0 reserved, 2 sold
        stock B                         => 2 available, 0 reserved, 1 sold
        flow A                          => Restock r1 +5 0; Deduct o1 -2 0
        """);

    [Fact]
    public Task A_repetition_answers_what_was_answered_then_even_when_the_SKU_has_sold_out() => RunAsync("""
        restock r1: A 2                 => Done: A 2
        deduct o1: A 1                  => Done: A 1
        deduct o2: A 1                  => Done: A 0
        deduct o1: A 1                  => Replayed: A 1
        deduct o1: A 2                  => KeyConflict
        deduct o3: A 1                  => Insufficient: A has 0
        """);

    [Fact]
    public Task A_reservation_ends_once() => RunAsync("""
        restock r1: A 5                 => Done: A 5
        reserve h1 for 10s: A 2         => Done: A 3
        reserve h2 for 10s: A 2         => Done: A 1
        confirm h1                      => Done: A 1
        confirm h1                      => Replayed: A 1
        stock A                         => 1 available, 2 reserved, 2 sold
        wait 10s
        stock A                         => 3 available, 0 reserved, 2 sold
        confirm h2                      => Expired
        cancel h2                       => Replayed Expired
        operation h2                    => Reserve Expired: A 2
        deduct o1: A 4                  => Insufficient: A has 3
        deduct o2: A 3                  => Done: A 0
        """);

    [Fact]
    public Task Refunds_never_exceed_what_was_deducted_and_a_cancel_gives_back_the_rest() => RunAsync("""
        restock r1: A 5                 => Done: A 5
        deduct o1: A 3                  => Done: A 2
        refund f1 of o1: A 1            => Done: A 3
        refund f2 of o1: A 3            => ExceedsDeducted: A has 2
        operation o1                    => Deduct Applied: A 3 less 1
        cancel o1                       => Done: A 5
        cancel o1                       => Replayed Cancelled: A 5
        refund f3 of o1: A 1            => InvalidTargetState
        deduct o1: A 3                  => Cancelled
        """);

    private static Task RunAsync(string script)
    {
        var clock = new ManualTimeProvider();
        return ContractScript.RunAsync(new(new MemoryEngine(clock), "t-", clock), script);
    }
}
