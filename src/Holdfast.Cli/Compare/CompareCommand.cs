using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Holdfast.Cli.Bench;

namespace Holdfast.Cli.Compare;

/// <summary><c>holdfast bench compare</c>: every scheme under every workload in one run, audited, as a page with plots.</summary>
internal static class CompareCommand
{
    /// <summary>The columns; <c>carts</c> is left to those who ask for it.</summary>
    private static readonly string[] s_workloads = ["hot", "zipf", "uniform", "carts-10", "selling-out", "sold-out", "duplicates"];

    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web) { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create(Terminal terminal)
    {
        var schemes = List("--schemes", $"Which rows, with commas between: {string.Join(", ", ComparedScheme.All.Select(scheme => scheme.Name))}. Default all.", [.. ComparedScheme.All.Select(scheme => scheme.Name)]);
        var workloads = List("--workloads", $"Which columns, with commas between: {Workload.Explained}. Default {string.Join(',', s_workloads)}.", Workload.Names);
        var seconds = DeploymentOptions.Number("--seconds", "How long each load is measured. With 3 all of it takes less than half an hour.", 3, 1, 3_600);
        var callers = DeploymentOptions.Number("--callers", "How many ask at once.", 256, 1, 100_000);
        var seed = DeploymentOptions.Number("--seed", "What the choice of SKUs hangs on.", 1, 0, int.MaxValue);
        var start = new Option<bool>("--start-servers") { Description = "Starts PostgreSQL, a standby, Redis and RabbitMQ of its own, in temporary folders on free ports, and removes them afterwards. Their programs have to be installed." };
        var postgres = new Option<string?>("--postgres") { Description = "A database to measure in, which is best empty; Host=PRIMARY,STANDBY names a standby too.", HelpName = "CONNECTION STRING" };
        var redis = new Option<string?>("--redis") { Description = "A Redis server to measure with.", HelpName = "HOST:PORT" };
        var rabbitMq = new Option<string?>("--rabbitmq") { Description = "A RabbitMQ broker to measure with.", HelpName = "amqp://…" };
        var output = new Option<string>("--out") { Description = "The folder for compare.md, compare.json and the plots; made where it is missing.", HelpName = "DIR", DefaultValueFactory = _ => "holdfast-compare" };
        var json = DeploymentOptions.Json();
        var command = new Command("compare", "Measures every scheme that this machine can run under every workload, audits each, and writes a page with tables and plots.")
        {
            schemes, workloads, seconds, callers, seed, start, postgres, redis, rabbitMq, output, json,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(start) && (result.GetValue(postgres) ?? result.GetValue(redis) ?? result.GetValue(rabbitMq)) is not null)
            {
                result.AddError("--start-servers starts its own; leave --postgres, --redis and --rabbitmq out, or leave --start-servers out.");
            }
        });
        CommandLineApp.AddExamples(
            command,
            """
            Each scheme and workload gets a store of its own, the capacity in a closed loop, the latency at 50, 75 and 90 %
            of that capacity in an open one, and an audit; a row whose audit fails has no figures. Schemes whose servers are
            not there are listed with what they lack. Ctrl-C ends it with what was measured until then.

            Examples:
              holdfast bench compare --start-servers --out results/compare
                  everything, on servers of its own: about 25 minutes on two cores
              holdfast bench compare --schemes batched,cached --workloads hot,sold-out --start-servers
                  does a gate pay when most buyers are refused?
              holdfast bench compare --postgres "Host=db;Database=scratch" --seconds 10
                  on a database that is there; schemes that need Redis or RabbitMQ are left out
            """);
        CommandLineApp.SetAction(command, async (parsed, cancellationToken) =>
        {
            var names = parsed.GetValue(schemes) ?? [];
            var options = new CompareOptions
            {
                Schemes = [.. ComparedScheme.All.Where(scheme => names.Length == 0 || names.Contains(scheme.Name))],
                Workloads = parsed.GetValue(workloads) is { Length: > 0 } chosen ? chosen : s_workloads,
                Callers = parsed.GetRequiredValue(callers),
                Seconds = parsed.GetRequiredValue(seconds),
                Seed = parsed.GetRequiredValue(seed),
                Command = $"holdfast bench compare {string.Join(' ', parsed.Tokens.Select(token => token.Value).Skip(2).Select(Quoted))}".TrimEnd(),
            };
            var servers = new CompareServers(new(parsed.GetValue(start), parsed.GetValue(postgres), parsed.GetValue(redis), parsed.GetValue(rabbitMq)), terminal);
            await using (servers.ConfigureAwait(false))
            {
                return await RunAsync(terminal, options, servers, parsed.GetRequiredValue(output), parsed.GetValue(json), cancellationToken).ConfigureAwait(false);
            }
        });
        return command;
    }

    private static async Task<int> RunAsync(Terminal terminal, CompareOptions options, CompareServers servers, string folder, bool json, CancellationToken cancellationToken)
    {
        // Before half an hour of work, not after it.
        Directory.CreateDirectory(folder);
        var report = await new CompareRun(terminal, options, servers).RunAsync(cancellationToken).ConfigureAwait(false);
        var page = CompareMarkdown.Write(report, ComparePlots.Write(report, folder));
        await File.WriteAllTextAsync(Path.Combine(folder, "compare.md"), page, CancellationToken.None).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(folder, "compare.json"), JsonSerializer.Serialize(report, s_json) + "\n", CancellationToken.None).ConfigureAwait(false);
        if (json)
        {
            terminal.Json(report);
        }
        else
        {
            terminal.Line(page);
        }

        terminal.Note($"written to {Path.GetFullPath(Path.Combine(folder, "compare.md"))}");
        var measured = report.Rows.Any(row => row.Cells.Count > 0);
        return report.Passed && measured && !report.IsCutShort ? ExitCode.Success : ExitCode.Failed;
    }

    /// <summary>An option whose value is a list of known names.</summary>
    private static Option<string[]?> List(string name, string description, IReadOnlyList<string> known) => new(name)
    {
        Description = description,
        HelpName = "A,B,…",
        CustomParser = result =>
        {
            var values = result.Tokens[0].Value.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Distinct(StringComparer.Ordinal).ToArray();
            foreach (var value in values.Where(value => !known.Contains(value)))
            {
                result.AddError($"{name} '{value}' is not known; known are: {string.Join(", ", known)}.");
            }

            return values;
        },
    };

    /// <summary>An argument as a shell would have to be given it. What may be a password is not written down.</summary>
    private static string Quoted(string argument) =>
        argument.Contains("assword", StringComparison.OrdinalIgnoreCase) || argument.Contains('@', StringComparison.Ordinal) ? "…"
        : argument.Contains(' ', StringComparison.Ordinal) ? string.Create(CultureInfo.InvariantCulture, $"\"{argument}\"")
        : argument;
}
