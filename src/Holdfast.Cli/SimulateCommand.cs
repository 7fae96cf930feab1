using System.Collections.Concurrent;
using System.CommandLine;
using Holdfast.Testing;

namespace Holdfast.Cli;

/// <summary><c>holdfast simulate</c>: the layers of this build in a simulated world of crashes and lost messages, seed after seed.</summary>
internal static class SimulateCommand
{
    /// <summary>So many failures are told in full; the others by their seeds.</summary>
    private const int ToldInFull = 3;

    public static Command Create(Terminal terminal)
    {
        var seeds = DeploymentOptions.Number("--seeds", "How many seeds are run.", 2_000, 1, int.MaxValue);
        var first = new Option<int?>("--seed") { Description = "The first seed; without --seeds, the only one, told in full.", HelpName = "N" };
        var layer = new Option<string?>("--layer") { Description = $"What is simulated: {string.Join(", ", SimulationLayers.Names)}. All of them by default.", HelpName = "NAME" };
        layer.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && !SimulationLayers.Names.Contains(result.Tokens[0].Value))
            {
                result.AddError($"--layer '{result.Tokens[0].Value}' is not known; known are: {string.Join(", ", SimulationLayers.Names)}.");
            }
        });
        var trace = DeploymentOptions.Number("--trace", "How many of the last steps are shown of a failure, or of a single seed.", 40, 0, SimulationReport.LongestTrace);
        var json = DeploymentOptions.Json();
        var command = new Command("simulate", "Runs the layers in a simulated world where processes crash and messages are lost, one seed after the other.")
        {
            layer, seeds, first, trace, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            One thread takes one step after the other, chosen by the seed; time is simulated, and so are stores, nodes, callers
            and everything that goes wrong with them. Each run ends in an audit. The same seed is the same run, to the last
            step, on every machine: its trace number says so.

            Examples:
              holdfast simulate --seeds 100000
                  looks for trouble in every layer
              holdfast simulate --layer group-commit --seed 4711
                  repeats one run and shows its last steps
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) =>
        {
            var only = parsed.GetValue(first);
            var isSingle = only is not null && parsed.GetResult(seeds) is null or { Implicit: true };
            var choice = new Choice(
                parsed.GetValue(layer) is { } name ? [name] : SimulationLayers.Names,
                only ?? 1,
                isSingle ? 1 : parsed.GetRequiredValue(seeds),
                parsed.GetRequiredValue(trace),
                IsSingle: only is not null && isSingle,
                parsed.GetValue(json));
            return RunAsync(terminal, choice, cancellationToken);
        });
        return command;
    }

    private sealed record Choice(IReadOnlyCollection<string> Layers, int First, int Seeds, int Trace, bool IsSingle, bool Json);

    /// <summary>What became of one layer's seeds.</summary>
    private sealed record Outcome(string Layer, int Run, double Seconds, IReadOnlyList<SimulationReport> Told, IReadOnlyList<int> FailedSeeds);

    private static async Task<int> RunAsync(Terminal terminal, Choice choice, CancellationToken cancellationToken)
    {
        var outcomes = new List<Outcome>();
        foreach (var layer in choice.Layers)
        {
            outcomes.Add(await RunAsync(terminal, layer, choice, cancellationToken).ConfigureAwait(false));
            if (!choice.Json)
            {
                Write(terminal, outcomes[^1], choice);
            }
        }

        if (choice.Json)
        {
            terminal.Json(outcomes.Select(outcome => new
            {
                layer = outcome.Layer,
                firstSeed = choice.First,
                seeds = outcome.Run,
                complete = outcome.Run == choice.Seeds,
                failed = outcome.FailedSeeds.Count,
                failedSeeds = outcome.FailedSeeds,
                seconds = Math.Round(outcome.Seconds, 3),
                reports = outcome.Told.Select(report => new
                {
                    seed = report.Seed, passed = report.Passed, failure = report.Failure, commands = report.Commands, steps = report.Steps,
                    simulatedSeconds = report.Elapsed.TotalSeconds, traceHash = $"{report.TraceHash:x16}", trace = report.Trace.TakeLast(choice.Trace),
                }),
            }));
        }

        return outcomes.TrueForAll(outcome => outcome.Run == choice.Seeds && outcome.FailedSeeds.Count == 0) ? ExitCode.Success : ExitCode.Failed;
    }

    private static async Task<Outcome> RunAsync(Terminal terminal, string layer, Choice choice, CancellationToken cancellationToken)
    {
        var scenario = SimulationLayers.Find(layer);
        var told = new ConcurrentQueue<SimulationReport>();
        var failed = new ConcurrentQueue<int>();
        var run = 0;
        var started = terminal.Time.GetTimestamp();
        await terminal.WithProgressAsync($"simulate {layer}", choice.Seeds, async progress =>
        {
            try
            {
                await Parallel.ForEachAsync(
                    Enumerable.Range(choice.First, choice.Seeds),
                    new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount, CancellationToken = cancellationToken },
                    async (seed, _) =>
                    {
                        var report = await Simulation.RunAsync(scenario, seed).ConfigureAwait(false);
                        if (!report.Passed)
                        {
                            failed.Enqueue(seed);
                        }

                        if (choice.IsSingle || (!report.Passed && told.Count < ToldInFull))
                        {
                            told.Enqueue(report);
                        }

                        progress(Interlocked.Increment(ref run));
                    }).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                // What was run until then is reported.
            }

            return run;
        }).ConfigureAwait(false);
        return new(layer, run, terminal.Time.GetElapsedTime(started).TotalSeconds, [.. told], [.. failed.Order()]);
    }

    private static void Write(Terminal terminal, Outcome outcome, Choice choice)
    {
        foreach (var report in outcome.Told)
        {
            foreach (var line in report.Trace.TakeLast(choice.Trace))
            {
                terminal.Line(line);
            }

            terminal.Line(report.ToString());
            if (!report.Passed)
            {
                terminal.Line($"repeat it with: holdfast simulate --layer {outcome.Layer} --seed {report.Seed}");
            }

            terminal.Line();
        }

        terminal.Line($"{outcome.Layer}: {outcome.Run - outcome.FailedSeeds.Count} of {outcome.Run} seeds passed{(outcome.Run < choice.Seeds ? $", {choice.Seeds - outcome.Run} not run (interrupted)" : "")}, {outcome.Run / Math.Max(outcome.Seconds, 0.001):0} a second");
        if (outcome.FailedSeeds.Count > outcome.Told.Count)
        {
            terminal.Line($"  all that failed: {string.Join(", ", outcome.FailedSeeds.Take(100))}");
        }
    }
}
