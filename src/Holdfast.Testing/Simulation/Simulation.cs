namespace Holdfast.Testing;

/// <summary>Runs scenarios, each on a thread of its own that it owns to the end.</summary>
internal static class Simulation
{
    /// <summary>Runs one seed.</summary>
    public static Task<SimulationReport> RunAsync(Func<SimulationScenario> scenario, int seed) => RunAsync(scenario, seed, new RandomChooser(seed));

    /// <summary>Runs one seed with steps chosen by somebody else.</summary>
    public static Task<SimulationReport> RunAsync(Func<SimulationScenario> scenario, int seed, ISimulationChooser chooser)
    {
        // A thread of the pool would do as well, but for what others left on it.
        var report = new TaskCompletionSource<SimulationReport>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                report.SetResult(Run(scenario(), seed, chooser));
            }
            catch (Exception e)
            {
                report.SetException(new InvalidOperationException($"The simulation of seed {seed} failed by itself.", e));
            }
        })
        {
            IsBackground = true,
        };
        thread.Start();
        return report.Task;
    }

    private static SimulationReport Run(SimulationScenario scenario, int seed, ISimulationChooser chooser)
    {
        using var scheduler = new SimulationScheduler(chooser);
        var world = new SimulatedWorld(scheduler, seed, scenario.IsCalm);
        string? failure;
        try
        {
            scenario.Build(world);
            world.RunToEnd();
            world.Settle(scenario.Settling);
            world.Run("rest", scenario.RestAsync);
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
            Outcomes = world.History.Events.CountBy(sent => (sent.Command.Verb, sent.Result.Status)).ToDictionary(),
            TraceHash = scheduler.TraceHash,
            Failure = failure,
            Trace = scheduler.Tail(),
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
