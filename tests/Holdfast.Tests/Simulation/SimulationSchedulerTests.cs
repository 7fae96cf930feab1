using Holdfast.Testing;

namespace Holdfast.Tests.Simulation;

/// <summary>The one thread of a simulated world.</summary>
public sealed class SimulationSchedulerTests
{
    private static readonly CancellationToken Token = TestContext.Current.CancellationToken;

    [Fact]
    public async Task Time_passes_only_when_nothing_else_can_happen()
    {
        (await RunAsync(async world =>
        {
            var began = world.Scheduler.Clock.GetUtcNow();
            await Task.Delay(TimeSpan.FromDays(30), world.Scheduler.Clock, CancellationToken.None).ConfigureAwait(false);
            (world.Scheduler.Clock.GetUtcNow() - began).ShouldBe(TimeSpan.FromDays(30));
        })).Passed.ShouldBeTrue();
    }

    [Fact]
    public async Task What_waits_for_ever_is_a_standstill_that_is_told()
    {
        var report = await RunAsync(_ => new TaskCompletionSource().Task);
        report.Failure.ShouldNotBeNull().ShouldContain("Standstill");
    }

    [Fact]
    public async Task What_never_comes_to_rest_is_told()
    {
        var report = await RunAsync(async world =>
        {
            while (true)
            {
                await world.Scheduler.YieldAsync().ConfigureAwait(false);
            }
        });
        report.Failure.ShouldNotBeNull().ShouldContain("No rest");
    }

    [Fact]
    public async Task What_goes_on_in_the_thread_pool_is_told()
    {
        var report = await RunAsync(async world =>
        {
            var back = new TaskCompletionSource();
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);

            // On another thread now: a simulated clock answers nobody there.
            Should.Throw<InvalidOperationException>(() => world.Scheduler.Clock.GetUtcNow());
            await back.Task.ConfigureAwait(false);
        });
        report.Failure.ShouldNotBeNull().ShouldMatch("Standstill|outside of the simulation");
    }

    [Fact]
    public async Task What_waits_in_a_process_that_crashes_never_goes_on()
    {
        var wentOn = new List<string>();
        var report = await RunAsync(async world =>
        {
            var process = world.AddMortal("mortal");
            _ = world.Scheduler.Start(process, "waits", async () =>
            {
                wentOn.Add("before");
                await Task.Delay(TimeSpan.FromSeconds(2), world.Scheduler.Clock, CancellationToken.None).ConfigureAwait(false);
                wentOn.Add("after");
            });
            await Task.Delay(TimeSpan.FromSeconds(1), world.Scheduler.Clock, CancellationToken.None).ConfigureAwait(false);
            process.Crash();
            process.Restart();
            await Task.Delay(TimeSpan.FromSeconds(9), world.Scheduler.Clock, CancellationToken.None).ConfigureAwait(false);
        });
        report.Failure.ShouldBeNull();
        wentOn.ShouldBe(["before"]);
    }

    [Fact]
    public async Task A_call_over_a_broken_connection_is_in_doubt_and_both_fates_of_it_occur()
    {
        var fates = new HashSet<bool>();
        for (var seed = 1; seed <= 40; seed++)
        {
            (await RunAsync(
                async world =>
                {
                    var server = world.AddMortal("store");
                    var store = world.NewMemory();
                    var connection = new SimulatedConnection(world.Scheduler.Running, server, () => store, new(world.Random));
                    var call = connection.RestockAsync("r", [("A", 1)], cancellationToken: CancellationToken.None).AsTask();
                    await Task.Delay(TimeSpan.FromMilliseconds(12), world.Scheduler.Clock, CancellationToken.None).ConfigureAwait(false);
                    server.Crash();
                    if ((await call.ConfigureAwait(false)).Status == StockStatus.InDoubt)
                    {
                        fates.Add(await store.GetOperationAsync("r", CancellationToken.None).ConfigureAwait(false) is not null);
                    }
                },
                seed)).Failure.ShouldBeNull();
        }

        fates.Count.ShouldBe(2);
    }

    private static Task<SimulationReport> RunAsync(Func<SimulatedWorld, Task> activity, int seed = 1) =>
        Holdfast.Testing.Simulation.RunAsync(() => new OneActivity(activity), seed).WaitAsync(TimeSpan.FromSeconds(60), Token);

    private sealed class OneActivity(Func<SimulatedWorld, Task> activity) : SimulationScenario
    {
        private IStockEngine? _store;

        public override string Name => "one activity";

        public override IStockEngine Truth => _store!;

        public override IReadOnlyCollection<string> Skus => [];

        public override void Build(SimulatedWorld world)
        {
            _store = world.NewMemory();
            world.Run("activity", () => activity(world), TimeSpan.FromDays(60));
        }
    }
}
