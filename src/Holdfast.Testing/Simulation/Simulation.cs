namespace Holdfast.Testing;

/// <summary>Runs scenarios, each on a thread of its own that it owns to the end.</summary>
internal static class Simulation
{
    private const int TraceLines = 60;

    /// <summary>How long late messages may be under way when everything is healed.</summary>
    private static readonly TimeSpan s_settling = TimeSpan.FromMinutes(2);

    /// <summary>Runs one seed, and waits for its end.</summary>
    public static SimulationReport Run(Func<SimulationScenario> scenario, int seed) => Run(scenario, seed, new RandomChooser(seed));

    /// <summary>Runs one seed with steps chosen by somebody else.</summary>
    public static SimulationReport Run(Func<SimulationScenario> scenario, int seed, ISimulationChooser chooser)
    {
        SimulationReport? report = null;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                report = RunHere(scenario(), seed, chooser);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        return report ?? throw new InvalidOperationException($"The simulation of seed {seed} failed by itself.", failure);
    }

    private static SimulationReport RunHere(SimulationScenario scenario, int seed, ISimulationChooser chooser)
    {
        using var scheduler = new SimulationScheduler(chooser);
        var world = new SimulatedWorld(scheduler, seed);
        string? failure;
        try
        {
            scenario.Build(world);
            world.RunToEnd();
            world.Run("rest", scenario.RestAsync);
            world.Settle(s_settling);
            failure = null;
            world.Run("auditor", async () => failure = await AuditAsync(scenario, world).ConfigureAwait(false));
        }
        catch (SimulationException e)
        {
            failure = e.Message;
        }

        return new()
        {
            Layer = scenario.Name,
            Seed = seed,
            Steps = scheduler.Steps,
            Elapsed = TimeSpan.FromTicks(scheduler.Clock.Ticks),
            Commands = world.History.Count,
            TraceHash = scheduler.TraceHash,
            Failure = failure,
            Trace = failure is null ? [] : scheduler.Tail(TraceLines),
        };
    }

    private static async Task<string?> AuditAsync(SimulationScenario scenario, SimulatedWorld world)
    {
        if (world.Callers.FirstOrDefault(caller => caller.Unexpected is not null) is { } caller)
        {
            return $"A caller saw {caller.Unexpected}";
        }

        if (await scenario.FindProblemAsync().ConfigureAwait(false) is { } problem)
        {
            return problem;
        }

        var truth = scenario.Truth;
        var ledger = await LedgerAudit.RunAsync(truth, new() { Skus = scenario.Skus }).ConfigureAwait(false);
        if (!ledger.Passed)
        {
            return ledger.FirstDifference;
        }

        var history = await HistoryAudit.RunAsync(truth, world.History).ConfigureAwait(false);
        return history.FirstDifference ?? await BatchOrderAudit.FindDisorderAsync(truth, world.Callers, scenario.Skus).ConfigureAwait(false);
    }
}
