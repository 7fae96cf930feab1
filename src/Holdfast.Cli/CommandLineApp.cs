using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.Data.Common;
using Holdfast.Cli.Advise;

namespace Holdfast.Cli;

/// <summary>The command line as a whole: its verbs, its help, and how errors become exit codes.</summary>
internal static class CommandLineApp
{
    // After Ctrl-C the commands under way are answered and the partial report is written; that takes a moment.
    private static readonly TimeSpan WindDown = TimeSpan.FromSeconds(40);

    /// <summary>Parses and runs.</summary>
    /// <param name="args">The arguments after the command's name.</param>
    /// <param name="terminal">Where to write.</param>
    /// <param name="cancellationToken">Stops like Ctrl-C.</param>
    /// <returns>See <see cref="ExitCode"/>.</returns>
    public static async Task<int> RunAsync(string[] args, Terminal terminal, CancellationToken cancellationToken = default)
    {
        var parsed = Build(terminal).Parse(args);
        if (parsed.Errors.Count > 0 && parsed.Action is not HelpAction and not ExamplesHelpAction)
        {
            foreach (var problem in parsed.Errors.Select(e => e.Message).Distinct(StringComparer.Ordinal))
            {
                terminal.Error.WriteLine($"holdfast: {problem}");
            }

            terminal.Error.WriteLine($"Try '{FullName(parsed.CommandResult.Command)} --help'.");
            return ExitCode.Usage;
        }

        var configuration = new InvocationConfiguration
        {
            Output = terminal.Output,
            Error = terminal.Error,
            EnableDefaultExceptionHandler = false,
            ProcessTerminationTimeout = WindDown,
        };
        try
        {
            return await parsed.InvokeAsync(configuration, cancellationToken).ConfigureAwait(false);
        }
        catch (UsageException e)
        {
            await terminal.Error.WriteLineAsync($"holdfast: {e.Message}").ConfigureAwait(false);
            return ExitCode.Usage;
        }
        catch (OperationCanceledException)
        {
            await terminal.Error.WriteLineAsync("holdfast: interrupted").ConfigureAwait(false);
            return ExitCode.Failed;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or DbException or HttpRequestException or TimeoutException or InvalidOperationException or NotSupportedException or InvalidDataException)
        {
            await terminal.Error.WriteLineAsync($"holdfast: {e.Message}").ConfigureAwait(false);
            return ExitCode.Failed;
        }
    }

    private static RootCommand Build(Terminal terminal)
    {
        var root = new RootCommand("Inventory deduction without overselling: replay real orders, verify a deployment, audit, compare and archive its ledger, measure and compare schemes, simulate their layers, and find the one for a shop.")
        {
            ReplayCommand.Create(terminal),
            VerifyCommand.Create(terminal),
            AuditCommand.Create(terminal),
            ReconcileCommand.Create(terminal),
            FlowCommand.Create(terminal),
            QueueCommand.Create(terminal),
            BenchCommand.Create(terminal),
            SimulateCommand.Create(terminal),
            AdviseCommand.Create(terminal),
        };
        AddExamples(
            root,
            """
            Examples:
              holdfast replay samples/online-retail-2010-12.csv.gz
                  deducts a month of a real shop's orders and shows what came of them
              holdfast verify --store http://127.0.0.1:5080
                  checks that a running server keeps the contract
              holdfast audit --store sqlite:holdfast-data/holdfast.db
                  replays the ledger against the stock rows
              holdfast reconcile --store "postgres:Host=db;Database=shop" --gate redis:6379
                  compares the gate's copies with the store
              holdfast queue peek --store http://127.0.0.1:5080
                  shows what a queue gave up, and why
              holdfast flow archive --store postgres:Host=db;Database=shop --before 2026-01-01 --out flow-2025.ndjson.gz
                  moves last year's ledger entries into a file
              holdfast bench --workload hot --callers 1024
                  a thousand buyers, one article
              holdfast simulate --seeds 10000
                  the layers in a simulated world of crashes and lost messages
              holdfast advise --peak 2000 --cart 3 --servers postgres,redis
                  which scheme, how configured, and why not the others

            Every command ends with exit code 0 (all well), 1 (something failed) or 2 (usage).
            'holdfast COMMAND --help' explains a command and shows examples.
            """);
        return root;
    }

    /// <summary>Prints a text after a command's help: examples and what the options mean together.</summary>
    public static void AddExamples(Command command, string text)
    {
        var help = command.Options.OfType<HelpOption>().FirstOrDefault();
        if (help is null)
        {
            help = new HelpOption();
            command.Options.Add(help);
        }

        help.Action = new ExamplesHelpAction(text);
    }

    /// <summary>Says what a command does.</summary>
    public static void SetAction(Command command, Func<ParseResult, CancellationToken, Task<int>> action) => command.SetAction(async (parsed, cancellationToken) =>
    {
        // The library listens for Ctrl-C only once the action has returned its task, and an engine that never waits (a
        // file is written on the caller's thread) would not return it before the end.
        await Task.Yield();
        return await action(parsed, cancellationToken).ConfigureAwait(false);
    });

    private static string FullName(Command command)
    {
        var parent = command.Parents.OfType<Command>().FirstOrDefault();
        return parent is null ? "holdfast" : $"{FullName(parent)} {command.Name}";
    }

    private sealed class ExamplesHelpAction(string text) : SynchronousCommandLineAction
    {
        private readonly HelpAction _help = new();

        public override bool ClearsParseErrors => true;

        public override int Invoke(ParseResult parseResult)
        {
            var code = _help.Invoke(parseResult);
            parseResult.InvocationConfiguration.Output.WriteLine(text);
            return code;
        }
    }
}
