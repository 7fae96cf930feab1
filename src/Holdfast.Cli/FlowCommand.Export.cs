using System.CommandLine;
using System.Globalization;
using Holdfast.Wire;

namespace Holdfast.Cli;

/// <content><c>holdfast flow export</c>: copies the ledger, or what is new of it, into a file.</content>
internal static partial class FlowCommand
{
    private static Command CreateExport(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var json = DeploymentOptions.Json();
        var output = new Option<string>("--out") { Description = "The file to write: gzip, one JSON entry a line. It must not exist, and has this name only once it is complete.", HelpName = "FILE", Required = true };
        var after = new Option<string?>("--after") { Description = "Goes on after the entry with this cursor, which an export before has printed.", HelpName = "CURSOR" };
        var limit = DeploymentOptions.Number("--limit", "At most so many entries; 0 exports to the present end.", 0, 0, int.MaxValue);
        var command = new Command("export", "Copies the ledger, or what is new of it, into a file. The store keeps everything.")
        {
            deployment.Store, deployment.ApiKey, output, after, limit, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            Works over every store and over a running server; nothing is written there. The file has the form of 'holdfast flow
            archive', in the order of the whole ledger. The report ends with a cursor: with --after the next export goes on there, so
            that a file a night holds the ledger once. Stopped by Ctrl-C, or by a store that fails, it completes the file with what
            was read and prints the cursor of its last entry.
            For a store redis:… this is the copy that outlives the server.
            Exit code 0: exported to the present end, or to the limit. 1: stopped before.

            Examples:
              holdfast flow export --store redis:localhost:6379 --out flow-1.ndjson.gz
                  the whole ledger
              holdfast flow export --store redis:localhost:6379 --out flow-2.ndjson.gz --after CURSOR
                  what came later
              zcat flow-1.ndjson.gz | head -3
                  what is in it
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => ExportAsync(
            terminal, deployment.Read(parsed), parsed.GetValue(output)!, parsed.GetValue(after), parsed.GetValue(limit), parsed.GetValue(json), cancellationToken));
        return command;
    }

    private static async Task<int> ExportAsync(Terminal terminal, DeploymentChoice choice, string path, string? after, int limit, bool json, CancellationToken cancellationToken)
    {
        CheckFolder(path);
        if (File.Exists(path))
        {
            throw new UsageException($"--out: '{path}' exists; give another name");
        }

        var deployment = await Deployment.OpenToReadAsync(choice, cancellationToken).ConfigureAwait(false);
        await using var disposing = deployment.ConfigureAwait(false);
        terminal.Note($"export: {deployment.Store}");
        var temporary = path + ".partial";
        var cursor = after;
        string hash;
        long entries;
        Exception? stopped = null;
        var writer = new FlowArchiveWriter(temporary);
        await using (writer.ConfigureAwait(false))
        {
            stopped = await terminal.WithProgressAsync("export", 0, async progress =>
            {
                try
                {
                    await foreach (var entry in deployment.Engine.ReadFlowAsync(new() { After = after, Limit = limit == 0 ? null : limit }, cancellationToken).ConfigureAwait(false))
                    {
                        // An entry half written would spoil the file: it is written whole, also when the export is stopped meanwhile.
                        await writer.WriteAsync(entry, CancellationToken.None).ConfigureAwait(false);
                        cursor = entry.Cursor ?? cursor;
                        progress(writer.Entries);
                    }

                    return null;
                }
                catch (ArgumentException) when (after is not null && writer.Entries == 0)
                {
                    return new UsageException("--after: this is no cursor of this store's ledger");
                }
                catch (Exception e) when (e is OperationCanceledException or IOException or HttpRequestException or TimeoutException or System.Data.Common.DbException)
                {
                    return (Exception)e;
                }
            }).ConfigureAwait(false);
            entries = writer.Entries;
            hash = await writer.FinishAsync(CancellationToken.None).ConfigureAwait(false);
        }

        if (entries == 0)
        {
            File.Delete(temporary);
            if (stopped is not null)
            {
                throw stopped;
            }
        }
        else
        {
            File.Move(temporary, path);
        }

        if (json)
        {
            terminal.Json(new
            {
                store = deployment.Store,
                complete = stopped is null,
                entries,
                file = entries == 0 ? null : Path.GetFullPath(path),
                sha256 = entries == 0 ? null : hash,
                next = cursor,
            });
        }
        else
        {
            terminal.Line(entries == 0
                ? "nothing to export: the ledger has no entries after that; no file was written"
                : string.Create(CultureInfo.InvariantCulture, $"exported {entries} entries into {path}\nsha256 of its lines: {hash}"));
            if (cursor is not null)
            {
                terminal.Line($"go on with --after {cursor}");
            }
        }

        if (stopped is not null)
        {
            terminal.Note($"holdfast: stopped before the end: {(stopped is OperationCanceledException ? "interrupted" : stopped.Message)}");
        }

        return stopped is null ? ExitCode.Success : ExitCode.Failed;
    }
}
