using System.CommandLine;
using System.Globalization;

namespace Holdfast.Cli;

/// <summary><c>holdfast flow</c>: moves old entries of the ledger into a file, or copies the ledger into one.</summary>
internal static partial class FlowCommand
{
    public static Command Create(Terminal terminal) => new("flow", "Looks after the ledger: moves old entries into an archive, or copies entries into a file.") { CreateArchive(terminal), CreateExport(terminal) };

    private static Command CreateArchive(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var json = DeploymentOptions.Json();
        var before = new Option<string>("--before")
        {
            Description = "Entries before this instant are archived: a date (its midnight, UTC) or a date and time with its offset.",
            HelpName = "DATE",
            Required = true,
        };
        var output = new Option<string>("--out") { Description = "The file to write: gzip, one JSON entry a line. It has this name only once it is complete.", HelpName = "FILE", Required = true };
        var dryRun = new Option<bool>("--dry-run") { Description = "Only says what would be archived; changes nothing." };
        var command = new Command("archive", "Moves the ledger's entries before an instant into a file, and leaves an opening balance for each SKU.")
        {
            deployment.Store, before, output, dryRun, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            For PostgreSQL. Servers may run and sell meanwhile. Operations stay in the store: ids stay unique, and refunds,
            cancellations and repetitions of old orders work as before. Reads of the ledger, and audits, then begin with the
            openings. First the file is written and put on the disk, then one transaction records the openings and takes the
            entries away. Stopped or killed at any point, the same command goes on with it; repeated afterwards it changes
            nothing. The first of a month is the best DATE: whole months are dropped at once, a part is deleted row by row.
            Keep the files: 'holdfast audit --archive' proves the ledger from the first entry with them.
            Exit code 0: archived, or nothing to archive. 1: it could not be done, or the connection was lost before the database
            said whether it was: give the same command again.

            Examples:
              holdfast flow archive --store "postgres:Host=db;Database=shop" --before 2026-01-01 --out flow-2025.ndjson.gz --dry-run
                  how many entries that would be
              holdfast flow archive --store "postgres:Host=db;Database=shop" --before 2026-01-01 --out flow-2025.ndjson.gz
                  the year 2025 and what was before it
              zcat flow-2025.ndjson.gz | head -3
                  what is in it
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => ArchiveAsync(
            terminal, deployment.Read(parsed), ParseInstant(parsed.GetValue(before)!), parsed.GetValue(output)!, parsed.GetValue(dryRun), parsed.GetValue(json), cancellationToken));
        return command;
    }

    private static async Task<int> ArchiveAsync(Terminal terminal, DeploymentChoice choice, DateTimeOffset before, string path, bool dryRun, bool json, CancellationToken cancellationToken)
    {
        CheckFolder(path);
        var engine = await Deployment.OpenPostgreSqlAsync(choice, cancellationToken).ConfigureAwait(false);
        await using var disposing = engine.ConfigureAwait(false);
        terminal.Note(string.Create(CultureInfo.InvariantCulture, $"archive: {engine.Server}, before {before:yyyy-MM-dd HH:mm:ss}Z"));
        FlowArchiveResult result;
        try
        {
            result = await terminal.WithProgressAsync("archive", 0, progress => engine.ArchiveFlowAsync(
                new() { Before = before, Path = path, DryRun = dryRun, Progress = new Forward(progress) }, cancellationToken)).ConfigureAwait(false);
        }
        catch (ArgumentException e)
        {
            throw new UsageException($"--before: {e.Message}");
        }

        if (json)
        {
            terminal.Json(new
            {
                store = engine.Server,
                before,
                dryRun,
                archived = !dryRun && !result.WasDone,
                entries = result.Entries,
                skus = result.Skus,
                first = result.First,
                last = result.Last,
                file = result.Sha256 is null ? null : Path.GetFullPath(path),
                sha256 = result.Sha256,
            });
            return ExitCode.Success;
        }

        terminal.Line(result switch
        {
            { Sha256: not null, WasDone: true } => $"done before: {result.Entries} entries of {result.Skus} SKUs are in {path}; nothing was changed",
            { Entries: 0 } => "nothing to archive: no entries before that instant; no file was written",
            _ => string.Create(
                CultureInfo.InvariantCulture,
                $"{(dryRun ? "would archive" : "archived")} {result.Entries} entries of {result.Skus} SKUs, {result.First:yyyy-MM-dd HH:mm:ss}Z to {result.Last:yyyy-MM-dd HH:mm:ss}Z{(dryRun ? "" : $", into {path}")}"),
        });
        if (result is { Sha256: not null })
        {
            terminal.Line($"sha256 of its lines: {result.Sha256}");
        }

        return ExitCode.Success;
    }

    private static void CheckFolder(string path)
    {
        if (Path.GetDirectoryName(Path.GetFullPath(path)) is { } folder && !Directory.Exists(folder))
        {
            throw new UsageException($"--out: there is no folder '{folder}'");
        }
    }

    private static DateTimeOffset ParseInstant(string text) =>
        DateTimeOffset.TryParseExact(
            text,
            ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFK"],
            CultureInfo.InvariantCulture,
            DateTimeStyles.AssumeUniversal,
            out var instant)
            ? instant.ToUniversalTime()
            : throw new UsageException($"--before: '{text}' is no instant; write a date such as 2026-01-01, or 2026-01-01T06:00:00+01:00");

    /// <summary>Progress without a detour over the thread pool, so that it never comes after the end.</summary>
    private sealed class Forward(Action<long> progress) : IProgress<long>
    {
        public void Report(long value) => progress(value);
    }
}
