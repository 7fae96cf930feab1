using Holdfast.Testing;

namespace Holdfast.Tests.Kit;

/// <summary>The parts of the kit that other tests lean on.</summary>
public sealed class KitPartsTests
{
    [Fact]
    public void Zipf_asks_for_each_number_as_often_as_the_law_says()
    {
        const int Draws = 200_000;
        var zipf = new Zipf(100);
        var random = new Random(1);
        var counts = new int[100];
        for (var i = 0; i < Draws; i++)
        {
            counts[zipf.Next(random)]++;
        }

        Enumerable.Range(0, 100).Sum(zipf.Share).ShouldBe(1, 1e-9);
        foreach (var number in (int[])[0, 1])
        {
            ((double)counts[number] / Draws).ShouldBe(zipf.Share(number), 0.005);
        }

        // The method is an approximation beyond the first two numbers.
        ((double)counts[..10].Sum() / Draws).ShouldBe(Enumerable.Range(0, 10).Sum(zipf.Share), 0.03);
        counts.ShouldAllBe(count => count > 0);
    }

    [Fact]
    public void The_same_seed_gives_the_same_commands()
    {
        static List<string> Commands(int seed) => [.. StormWorkload.AllVerbs("w-", seed).Commands(3).Take(200).Select(command => $"{command} {string.Join(' ', command.Lines)}")];
        Commands(1).ShouldBe(Commands(1));
        Commands(1).ShouldNotBe(Commands(2));
    }

    [Fact]
    public void Callers_have_ids_of_their_own()
    {
        var workload = StormWorkload.Carts("w-", 1, duplicates: 0.3);
        var first = workload.Commands(0).Take(300).Select(command => command.Id).ToList();
        var second = workload.Commands(1).Take(300).Select(command => command.Id).ToList();
        first.Intersect(second).ShouldBeEmpty();
        first.Distinct().Count().ShouldBeInRange(150, 280, "three in ten are repetitions");
    }

    [Fact]
    public void A_timer_fires_when_the_clock_is_moved_past_its_time_and_not_before()
    {
        var clock = new ManualTimeProvider();
        var fired = new List<TimeSpan>();
        var start = clock.GetUtcNow();
        using var once = clock.CreateTimer(_ => fired.Add(clock.GetUtcNow() - start), null, TimeSpan.FromSeconds(2), Timeout.InfiniteTimeSpan);
        using var often = clock.CreateTimer(_ => fired.Add(clock.GetUtcNow() - start), null, TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(3));
        clock.Advance(TimeSpan.FromSeconds(0.5));
        fired.ShouldBeEmpty();
        clock.Advance(TimeSpan.FromSeconds(7));
        fired.Select(at => at.TotalSeconds).ShouldBe([1, 2, 4, 7]);
        often.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        clock.Advance(TimeSpan.FromDays(1));
        fired.Count.ShouldBe(4);
    }

    [Fact]
    public async Task A_faulty_engine_does_what_its_script_says()
    {
        await using var truth = new MemoryEngine();
        await using var faulty = new FaultyEngine(truth);
        await truth.RestockAsync("r1", [("A", 100)], cancellationToken: TestContext.Current.CancellationToken);
        faulty.Script(Fault.Busy, Fault.InDoubtBefore, Fault.InDoubtAfter, Fault.ThrowBefore, Fault.ThrowAfter, Fault.CancelBefore, Fault.CancelAfter);
        (await TryAsync("busy")).ShouldBe((StockStatus.Busy, false));
        (await TryAsync("before")).ShouldBe((StockStatus.InDoubt, false));
        (await TryAsync("after")).ShouldBe((StockStatus.InDoubt, true));
        (await TryAsync("throw before")).ShouldBe((StockStatus.None, false));
        (await TryAsync("throw after")).ShouldBe((StockStatus.None, true));
        (await TryAsync("cancel before")).ShouldBe((StockStatus.None, false));
        (await TryAsync("cancel after")).ShouldBe((StockStatus.None, true));
        (await TryAsync("well")).ShouldBe((StockStatus.Done, true));
        faulty.Script(Fault.ThrowHalfway);
        await Should.ThrowAsync<FaultException>(async () => await faulty.ExecuteAsync([StockCommand.Deduct("first", [("A", 1)]), StockCommand.Deduct("second", [("A", 1)])], TestContext.Current.CancellationToken));
        (await truth.GetOperationAsync("first", TestContext.Current.CancellationToken)).ShouldNotBeNull();
        (await truth.GetOperationAsync("second", TestContext.Current.CancellationToken)).ShouldBeNull();
        faulty.IsDown = true;
        (await TryAsync("down")).ShouldBe((StockStatus.Busy, false));
        await Should.ThrowAsync<FaultException>(async () => await faulty.GetStockAsync("A"));

        async Task<(StockStatus, bool)> TryAsync(string id)
        {
            StockStatus status = default;
            try
            {
                status = (await faulty.DeductAsync(id, [("A", 1)], cancellationToken: TestContext.Current.CancellationToken)).Status;
            }
            catch (Exception fault) when (fault is FaultException or OperationCanceledException)
            {
                status.ShouldBe(StockStatus.None);
            }

            return (status, await truth.GetOperationAsync(id, TestContext.Current.CancellationToken) is not null);
        }
    }

    [Fact]
    public async Task A_poison_command_takes_its_batch_down_and_nothing_else()
    {
        await using var faulty = new FaultyEngine(new MemoryEngine()) { IsPoison = command => command.Id == "poison" };
        await faulty.RestockAsync("r1", [("A", 100)], cancellationToken: TestContext.Current.CancellationToken);
        await Should.ThrowAsync<FaultException>(async () => await faulty.ExecuteAsync([StockCommand.Deduct("o1", [("A", 1)]), StockCommand.Deduct("poison", [("A", 1)])], TestContext.Current.CancellationToken));
        (await faulty.GetStockAsync("A", cancellationToken: TestContext.Current.CancellationToken)).Available.ShouldBe(100);
        (await faulty.DeductAsync("o1", [("A", 1)], cancellationToken: TestContext.Current.CancellationToken)).Status.ShouldBe(StockStatus.Done);
    }
}
