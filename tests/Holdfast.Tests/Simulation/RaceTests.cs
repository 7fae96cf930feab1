using Holdfast.Testing;

namespace Holdfast.Tests.Simulation;

/// <summary>
/// Small races over several shards, in every order of their steps that differs from the plain one in at most
/// <see cref="Deviations"/> places, with what happens in between before every step.
/// </summary>
public sealed class RaceTests(ITestOutputHelper output)
{
    private const int Deviations = 2;

    private static readonly string[] Skus = RaceScenario.SkusApart(2);

    private static readonly StockCommand[] Stocked = [StockCommand.Restock("open", [new(Skus[0], 10), new(Skus[1], 10)])];

    private static readonly StockCommand Order = StockCommand.Deduct("o1", [new(Skus[0], 3), new(Skus[1], 2)]);

    private static readonly StockCommand Hold = StockCommand.Reserve("h1", [new(Skus[0], 3), new(Skus[1], 2)], TimeSpan.FromMinutes(1));

    [Fact]
    public Task Refund_against_cancel() =>
        ExploreAsync([.. Stocked, Order], [StockCommand.Refund("f1", "o1", [new(Skus[0], 2), new(Skus[1], 1)]), StockCommand.Cancel("o1")]);

    [Fact]
    public Task Refund_against_refund_over_the_cap() =>
        ExploreAsync([.. Stocked, Order], [StockCommand.Refund("f1", "o1", [new(Skus[0], 2), new(Skus[1], 1)]), StockCommand.Refund("f2", "o1", [new(Skus[0], 2), new(Skus[1], 1)])]);

    /// <summary>The refund that comes too early for its order was once refused for what its twin had given back meanwhile.</summary>
    [Fact]
    public Task Refund_against_itself_and_its_order()
    {
        var refund = StockCommand.Refund("f1", "o1", [new(Skus[0], 2)]);
        return ExploreAsync(Stocked, [Order, refund, refund]);
    }

    [Fact]
    public Task Cancel_against_deduct() => ExploreAsync(Stocked, [StockCommand.Cancel("o1"), Order]);

    [Fact]
    public Task Deduct_against_itself() => ExploreAsync(Stocked, [Order, Order]);

    [Fact]
    public Task Two_carts_that_want_the_last_units() =>
        ExploreAsync(Stocked, [StockCommand.Deduct("o1", [new(Skus[0], 6), new(Skus[1], 6)]), StockCommand.Deduct("o2", [new(Skus[0], 6), new(Skus[1], 6)])]);

    [Fact]
    public Task Confirm_against_cancel() => ExploreAsync([.. Stocked, Hold], [StockCommand.Confirm("h1"), StockCommand.Cancel("h1")]);

    [Fact]
    public Task Confirm_against_expiry() =>
        ExploreAsync([.. Stocked, Hold], [StockCommand.Confirm("h1"), StockCommand.Deduct("o2", [new(Skus[0], 8), new(Skus[1], 8)])], deviations: 1, passes: true);

    [Fact]
    public async Task A_coordinator_that_crashes_before_any_step()
    {
        (StockCommand[] Before, StockCommand Command)[] cases =
        [
            (Stocked, Order),
            (Stocked, Hold),
            ([.. Stocked, Hold], StockCommand.Confirm("h1")),
            ([.. Stocked, Order], StockCommand.Cancel("o1")),
            (Stocked, StockCommand.Cancel("o1")),
            ([.. Stocked, Order], StockCommand.Refund("f1", "o1", [new(Skus[0], 2), new(Skus[1], 1)])),
            (Stocked, StockCommand.Restock("r1", [new(Skus[0], 4), new(Skus[1], 4)])),
            (Stocked, StockCommand.Adjust("a1", [new(Skus[0], -4), new(Skus[1], 4)])),
        ];
        foreach (var (before, command) in cases)
        {
            // Somebody else wants what is left, on another node.
            StockCommand[] racing = [command, StockCommand.Deduct("o2", [new(Skus[0], 7), new(Skus[1], 8)])];
            await ForEachStepAsync(before, racing, step => new(before, racing, crashBefore: step), deviations: 1);
        }
    }

    private Task ExploreAsync(StockCommand[] before, StockCommand[] racing, int deviations = Deviations, bool passes = false) => passes
        ? ForEachStepAsync(before, racing, step => new(before, racing, passBefore: step), deviations)
        : ExploreAsync(() => new(before, racing), deviations);

    /// <summary>As many times as the race has steps, with something before another of them each time.</summary>
    private async Task ForEachStepAsync(StockCommand[] before, StockCommand[] racing, Func<int, RaceScenario> at, int deviations)
    {
        var runs = 0;
        RaceScenario? plain = null;
        (await Holdfast.Testing.Simulation.RunAsync(() => plain = new(before, racing), 0, new ExploringChooser(0))).Failure.ShouldBeNull();
        for (var step = 0; step < plain!.RacingSteps; step++)
        {
            runs += await RunAsync(() => at(step), deviations);
        }

        output.WriteLine($"{racing[0]}: {runs} orders, something before each of {plain.RacingSteps} steps");
    }

    private async Task ExploreAsync(Func<RaceScenario> scenario, int deviations) => output.WriteLine($"{await RunAsync(scenario, deviations)} orders");

    private static async Task<int> RunAsync(Func<RaceScenario> scenario, int deviations)
    {
        var chooser = new ExploringChooser(deviations);
        var runs = 0;
        do
        {
            runs++;
            var report = await Holdfast.Testing.Simulation.RunAsync(scenario, 0, chooser);
            if (!report.Passed)
            {
                Assert.Fail($"Order {runs}: {report}\n{string.Join('\n', report.Trace)}");
            }
        }
        while (chooser.MoveOn());

        return runs;
    }
}
