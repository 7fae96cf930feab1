using System.CommandLine;
using Holdfast.Testing;

namespace Holdfast.Cli;

/// <summary><c>holdfast audit</c>: replays the ledger of a store against its stock rows and operations.</summary>
internal static class AuditCommand
{
    public static Command Create(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var json = DeploymentOptions.Json();
        var archives = new Option<string[]>("--archive")
        {
            Description = "An archive of this store's ledger; give all of them, and the audit begins with the first entry ever and proves every opening.",
            HelpName = "FILE",
            AllowMultipleArgumentsPerToken = true,
            DefaultValueFactory = _ => [],
        };
        var command = new Command("audit", "Replays the ledger of a store against its stock rows and operations, and names the first difference.")
        {
            deployment.Store, deployment.ApiKey, archives, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            Nothing is written. A stock file may be audited while a server is writing it, and so may a running server.
            Where older entries were archived, the audit starts from the opening balances that stand for them.
            Exit code 0: every entry adds up. 1: something differs, and the first difference is named.

            Examples:
              holdfast audit --store sqlite:holdfast-data/holdfast.db
                  the file of a server, running or not
              holdfast audit --store http://127.0.0.1:5080 --json
                  through a running server, as JSON
              holdfast audit --store "postgres:Host=db;Database=shop" --archive flow-2024.ndjson.gz flow-2025.ndjson.gz
                  with the archives, from the first entry on
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(terminal, deployment.Read(parsed), parsed.GetValue(archives) ?? [], parsed.GetValue(json), cancellationToken));
        return command;
    }

    /// <summary>Audits an engine, saying how far it is.</summary>
    public static Task<AuditReport> AuditAsync(Terminal terminal, IStockEngine engine, CancellationToken cancellationToken) =>
        terminal.WithProgressAsync("audit", 0, progress => LedgerAudit.RunAsync(engine, new() { Progress = new Forward(progress) }, cancellationToken));

    private static async Task<int> RunAsync(Terminal terminal, DeploymentChoice choice, string[] archives, bool json, CancellationToken cancellationToken)
    {
        if (archives.FirstOrDefault(file => !File.Exists(file)) is { } missing)
        {
            throw new UsageException($"--archive: there is no file '{Path.GetFullPath(missing)}'");
        }

        var deployment = await Deployment.OpenToReadAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            terminal.Note($"audit: {deployment.Store}{(archives.Length == 0 ? "" : $", after {archives.Length} archives")}");

            // Not disposed here: it would dispose the store, which is the deployment's.
            var engine = archives.Length == 0 ? deployment.Engine : await ArchivedLedger.OpenAsync(deployment.Engine, archives, cancellationToken).ConfigureAwait(false);
            var started = terminal.Time.GetTimestamp();
            var report = await AuditAsync(terminal, engine, cancellationToken).ConfigureAwait(false);
            var seconds = terminal.Time.GetElapsedTime(started).TotalSeconds;
            if (json)
            {
                terminal.Json(new
                {
                    store = deployment.Store,
                    audit = report.Passed ? "pass" : "fail",
                    skus = report.Skus,
                    entries = report.Entries,
                    operations = report.Operations,
                    differenceCount = report.DifferenceCount,
                    firstDifference = report.FirstDifference,
                    differences = report.Differences,
                    seconds = Math.Round(seconds, 3),
                });
            }
            else
            {
                terminal.Line($"audit {(report.Passed ? "pass" : "FAIL")}: {report.Skus} SKUs, {report.Entries} ledger entries, {report.Operations} operations in {seconds:0.0} s");
                foreach (var difference in report.Differences)
                {
                    terminal.Line($"  {difference}");
                }

                if (report.DifferenceCount > report.Differences.Length)
                {
                    terminal.Line($"  … {report.DifferenceCount} differences in all");
                }
            }

            return report.Passed ? ExitCode.Success : ExitCode.Failed;
        }
    }

    /// <summary>Progress without a detour over the thread pool, so that it never comes after the end.</summary>
    private sealed class Forward(Action<long> progress) : IProgress<AuditProgress>
    {
        public void Report(AuditProgress value) => progress(value.Count);
    }
}
