using System.CommandLine;
using System.Globalization;
using Holdfast.Cli.Bench;
using Holdfast.Cli.Compare;

namespace Holdfast.Cli;

/// <summary><c>holdfast bench</c>: how many deductions a second a scheme takes, audited after the run.</summary>
internal static class BenchCommand
{
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);

    public static Command Create(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var workload = new Option<string>("--workload")
        {
            Description = $"What is bought: {Workload.Explained}.",
            HelpName = string.Join('|', Workload.Names),
            DefaultValueFactory = _ => "hot",
        };
        workload.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && !Workload.Names.Contains(result.Tokens[0].Value))
            {
                result.AddError($"--workload '{result.Tokens[0].Value}' is not known; known are: {string.Join(", ", Workload.Names)}.");
            }
        });
        var callers = DeploymentOptions.Number("--callers", "How many ask at once, each waiting for its answer before it asks again.", 64, 1, 1_000_000);
        var seconds = DeploymentOptions.Number("--seconds", $"How long it is measured, after {WarmUp.TotalSeconds:0} s of warm-up.", 10, 1, 86_400);
        var rate = new Option<double?>("--rate")
        {
            Description = "Requests per second, sent at times set in advance (open loop): latency counts from the intended time, timers included. Without it callers ask as fast as answers come.",
            HelpName = "N",
            CustomParser = result =>
            {
                if (!double.TryParse(result.Tokens[0].Value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var value) || value is not (> 0 and <= 10_000_000))
                {
                    result.AddError($"--rate '{result.Tokens[0].Value}' must be a number of requests per second, more than 0 and at most 10000000.");
                }

                return value;
            },
        };
        var stock = new Option<long?>("--stock")
        {
            Description = "Units that each SKU of the workload is stocked with first; few units make a sell-out. Default: what the workload means, plenty in most.",
            HelpName = "UNITS",
            CustomParser = result =>
            {
                if (!long.TryParse(result.Tokens[0].Value, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value > StockLimits.MaxQuantity)
                {
                    result.AddError($"--stock '{result.Tokens[0].Value}' must be a whole number of units from 0 to {StockLimits.MaxQuantity}.");
                }

                return value;
            },
        };
        var seed = DeploymentOptions.Number("--seed", "What the choice of SKUs hangs on.", 1, 0, int.MaxValue);
        var json = DeploymentOptions.Json();
        var command = new Command("bench", "Measures the deductions per second of a scheme, and audits the ledger afterwards.")
        {
            deployment.Scheme, deployment.Store, deployment.PreCheck, deployment.Gate, deployment.Acknowledge, deployment.ApiKey, workload, callers, seconds, rate, stock, seed, json,
            CompareCommand.Create(terminal),
        };
        CommandLineApp.AddExamples(
            command,
            """
            Accepted, refused and unknown (busy, in doubt) answers are counted apart. After the run the whole ledger is
            audited and must hold what was acknowledged; if it does not, no rate is shown and the exit code is 1.
            SKUs and ids are new in every run, so a store that stays can be measured again and again.

            Examples:
              holdfast bench --scheme batched --workload hot --callers 1024 --seconds 10
                  everybody wants the same article, one fsync serves many
              holdfast bench --scheme database --workload carts --callers 16 --json
                  one transaction a cart, as JSON
              holdfast bench --workload hot --callers 256 --rate 5000 --store sqlite:bench.db
                  5,000 orders a second, whatever the answers: what latency do buyers see?
              holdfast bench --store http://127.0.0.1:5080 --workload zipf --callers 1024
                  through the client, against a running server
              holdfast bench compare --start-servers
                  every scheme under every workload, as a page with tables and plots
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(
            terminal,
            deployment.Read(parsed),
            new(parsed.GetRequiredValue(workload), parsed.GetValue(stock), parsed.GetRequiredValue(seed), parsed.GetValue(json)),
            new(parsed.GetRequiredValue(callers), WarmUp, TimeSpan.FromSeconds(parsed.GetRequiredValue(seconds)), parsed.GetValue(rate)),
            cancellationToken));
        return command;
    }

    private sealed record Options(string Workload, long? Stock, int Seed, bool Json);

    private static async Task<int> RunAsync(Terminal terminal, DeploymentChoice choice, Options options, Load load, CancellationToken cancellationToken)
    {
        var deployment = await Deployment.OpenAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            var workload = Workload.Of(options.Workload, RunName.New(terminal.Time), options.Seed);
            terminal.Note($"bench: {workload.Name}, seed {options.Seed}, {load.Callers} callers, {(load.Rate is { } rate ? $"{rate} requests/s" : "closed loop")}, {load.Duration.TotalSeconds:0} s on {deployment.Description}, {deployment.Durability}");
            await EngineLoad.OpenAsync(deployment.Engine, workload, options.Stock ?? workload.UnitsFor(load.Callers), terminal.Time, cancellationToken).ConfigureAwait(false);
            var result = await terminal.WithProgressAsync(
                "bench",
                (long)(load.WarmUp + load.Duration).TotalSeconds,
                progress => LoadGenerator.RunAsync(load, EngineLoad.Callers(deployment.Engine, workload), terminal.Time, progress, cancellationToken)).ConfigureAwait(false);
            var audit = cancellationToken.IsCancellationRequested
                ? "not run"
                : await LoadAudit.RunAsync(terminal, deployment.Engine, workload, result, cancellationToken).ConfigureAwait(false);
            var report = BenchReport.Of(deployment.Scheme, deployment.Durability, workload, load, result, audit);
            Write(terminal, report, deployment.Store, options.Json);
            return report.IsGood ? ExitCode.Success : ExitCode.Failed;
        }
    }

    private static void Write(Terminal terminal, BenchReport report, string store, bool json)
    {
        if (json)
        {
            terminal.Json(report);
            return;
        }

        terminal.Line($"scheme {report.Scheme} on {store}, workload {report.Workload}, {report.Callers} callers, {report.Seconds:0.0} s");
        terminal.Line($"durability: {report.Durability}");
        terminal.Line();
        if (report.IsGood)
        {
            terminal.Line($"accepted  {report.Accepted,12}  {report.AcceptedPerSecond,12:0} per second");
            terminal.Line($"refused   {report.Refused,12}  {report.RefusedPerSecond,12:0} per second");
            if (report.Repeated > 0)
            {
                terminal.Line($"repeated  {report.Repeated,12}");
            }

            terminal.Line($"unknown   {report.Unknown,12}");
            terminal.Line($"latency   p50 {report.P50Ms:0.000} ms   p99 {report.P99Ms:0.000} ms   p99.9 {report.P999Ms:0.000} ms   max {report.MaxMs:0.000} ms");
        }
        else
        {
            terminal.Line("No figures: they are worth nothing without a passing audit.");
        }

        terminal.Line($"audit     {report.Audit}");
    }
}
