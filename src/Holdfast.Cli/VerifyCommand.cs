using System.CommandLine;
using Holdfast.Testing;

namespace Holdfast.Cli;

/// <summary><c>holdfast verify</c>: the conformance cases of the contract against a deployment.</summary>
internal static class VerifyCommand
{
    public static Command Create(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var only = new Option<string?>("--case") { Description = "Runs only the cases whose name contains this.", HelpName = "TEXT" };
        var json = DeploymentOptions.Json();
        var command = new Command("verify", "Checks that a deployment keeps the contract, case by case.")
        {
            deployment.Scheme, deployment.Store, deployment.PreCheck, deployment.Gate, deployment.Acknowledge, deployment.ApiKey, only, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            The cases use SKUs and ids of their own (they begin with the run's name), so they may run on a store in use;
            what they write stays in its ledger. Reservations really expire, so it takes some seconds.

            Examples:
              holdfast verify --scheme batched
                  this build on a scratch SQLite file
              holdfast verify --store http://127.0.0.1:5080
                  a running server, through the client
              holdfast verify --store sqlite:copy-of-stock.db --case refund --json
                  the refund cases only, on a copy of a store, as JSON
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(terminal, deployment.Read(parsed), parsed.GetValue(only), parsed.GetValue(json), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(Terminal terminal, DeploymentChoice choice, string? only, bool json, CancellationToken cancellationToken)
    {
        var cases = ConformanceCases.All.Where(each => only is null || each.Name.Contains(only, StringComparison.OrdinalIgnoreCase)).ToList();
        if (cases.Count == 0)
        {
            throw new UsageException($"--case '{only}' fits none of the cases; they are: {string.Join(", ", ConformanceCases.All.Select(each => each.Name))}");
        }

        var deployment = await Deployment.OpenAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            var run = RunName.New(terminal.Time);
            terminal.Note($"verify: {cases.Count} cases on {deployment.Description}; names begin with {run}");
            var outcomes = await terminal.WithProgressAsync("verify", cases.Count, async progress =>
            {
                var done = new List<ConformanceOutcome>();
                try
                {
                    await foreach (var outcome in ConformanceCases.RunAsync(deployment.Engine, run, clock: null, cases, cancellationToken).ConfigureAwait(false))
                    {
                        done.Add(outcome);
                        progress(done.Count);
                    }
                }
                catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
                {
                    // What was checked until then is reported.
                }

                return done;
            }).ConfigureAwait(false);
            Write(terminal, deployment, cases.Count, outcomes, json);
            return outcomes.Count == cases.Count && outcomes.TrueForAll(outcome => outcome.Verdict != ConformanceVerdict.Failed) ? ExitCode.Success : ExitCode.Failed;
        }
    }

    private static void Write(Terminal terminal, Deployment deployment, int wanted, List<ConformanceOutcome> outcomes, bool json)
    {
        int Count(ConformanceVerdict verdict) => outcomes.Count(outcome => outcome.Verdict == verdict);
        if (json)
        {
            terminal.Json(new
            {
                scheme = deployment.Scheme,
                store = deployment.Store,
                traits = deployment.Engine.Traits.ToString().Split(", "),
                complete = outcomes.Count == wanted,
                passed = Count(ConformanceVerdict.Passed),
                failed = Count(ConformanceVerdict.Failed),
                notApplicable = Count(ConformanceVerdict.NotApplicable),
                cases = outcomes.Select(outcome => new { name = outcome.Case.Name, description = outcome.Case.Description, verdict = NameOf(outcome.Verdict), reason = outcome.Reason, ms = Math.Round(outcome.Elapsed.TotalMilliseconds, 1) }),
            });
            return;
        }

        var width = outcomes.Count == 0 ? 0 : outcomes.Max(outcome => outcome.Case.Name.Length);
        foreach (var outcome in outcomes)
        {
            var name = outcome.Case.Name.PadRight(width);
            terminal.Line($"{NameOf(outcome.Verdict),-15} {name}  {outcome.Elapsed.TotalMilliseconds,7:0} ms{(outcome.Reason is null ? "" : $"  {FirstLine(outcome.Reason)}")}");
        }

        terminal.Line();
        terminal.Line($"{deployment.Description}: {Count(ConformanceVerdict.Passed)} passed, {Count(ConformanceVerdict.Failed)} failed, {Count(ConformanceVerdict.NotApplicable)} not applicable{(outcomes.Count < wanted ? $", {wanted - outcomes.Count} not run (interrupted)" : "")}");
    }

    private static string NameOf(ConformanceVerdict verdict) => verdict switch
    {
        ConformanceVerdict.Passed => "pass",
        ConformanceVerdict.Failed => "fail",
        _ => "not applicable",
    };

    private static string FirstLine(string text) => text.AsSpan().IndexOfAny('\r', '\n') is >= 0 and var end ? text[..end] : text;
}
