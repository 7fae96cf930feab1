using System.CommandLine;
using System.Globalization;
using Holdfast.Hosting;
using Holdfast.Wire;

namespace Holdfast.Cli;

/// <content><c>holdfast flow export</c>: copies the ledger, or what is new of it, into a file or a database.</content>
internal static partial class FlowCommand
{
    /// <summary>Entries that are added to a database in one transaction.</summary>
    private const int PartEntries = 5_000;

    private static Command CreateExport(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var json = DeploymentOptions.Json();
        var output = new Option<string?>("--out") { Description = "The file to write: gzip, one JSON entry a line. It must not exist, and has this name only once it is complete.", HelpName = "FILE" };
        var into = new Option<string?>("--into") { Description = "Instead of a file: the database to copy into, sqlite:PATH (a file of its own) or postgres:CONNECTION STRING. It remembers how far it came.", HelpName = "DATABASE" };
        var name = new Option<string>("--name") { Description = "What the ledger is called in that database, which may hold several. Default holdfast.", HelpName = "NAME", DefaultValueFactory = _ => "holdfast" };
        var after = new Option<string?>("--after") { Description = "Goes on after the entry with this cursor, which an export before has printed. For files.", HelpName = "CURSOR" };
        var limit = DeploymentOptions.Number("--limit", "At most so many entries; 0 exports to the present end.", 0, 0, int.MaxValue);
        var command = new Command("export", "Copies the ledger, or what is new of it, into a file or a database. The store keeps everything.")
        {
            deployment.Store, deployment.ApiKey, output, into, name, after, limit, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            Works over every store and over a running server; nothing is written there. The file has the form of 'holdfast flow
            archive', in the order of the whole ledger. The report ends with a cursor: with --after the next export goes on there, so
            that a file a night holds the ledger once. Stopped by Ctrl-C, or by a store that fails, it completes the file with what
            was read and prints the cursor of its last entry.
            With --into the entries go into a table of a database (SQLite: flow; PostgreSQL: holdfast_copy.flow), together with
            the place to go on from: each run adds what is new, a run that was killed is simply repeated, and no entry is there twice.
            For a store redis:… this is the copy that outlives the server.
            Exit code 0: exported to the present end, or to the limit. 1: stopped before.

            Examples:
              holdfast flow export --store redis:localhost:6379 --out flow-1.ndjson.gz
                  the whole ledger
              holdfast flow export --store redis:localhost:6379 --out flow-2.ndjson.gz --after CURSOR
                  what came later
              zcat flow-1.ndjson.gz | head -3
                  what is in it
              holdfast flow export --store redis:localhost:6379 --into "postgres:Host=db;Database=reports"
                  what is new since the last time, into a table
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) =>
        {
            var (choice, most, asJson) = (deployment.Read(parsed), parsed.GetValue(limit), parsed.GetValue(json));
            return (parsed.GetValue(output), parsed.GetValue(into)) switch
            {
                ({ } path, null) => ExportAsync(terminal, choice, path, parsed.GetValue(after), most, asJson, cancellationToken),
                (null, { } place) when parsed.GetValue(after) is null => ExportIntoAsync(terminal, choice, place, parsed.GetValue(name)!, most, asJson, cancellationToken),
                (null, not null) => throw new UsageException("--after: a database knows how far it was copied into; leave it out"),
                _ => throw new UsageException("--out or --into: give one of them, a file or a database"),
            };
        });
        return command;
    }

    private static async Task<int> ExportIntoAsync(Terminal terminal, DeploymentChoice choice, string place, string name, int limit, bool json, CancellationToken cancellationToken)
    {
        var deployment = await Deployment.OpenToReadAsync(choice, cancellationToken).ConfigureAwait(false);
        await using var disposing = deployment.ConfigureAwait(false);
        IFlowCopy copy;
        try
        {
            copy = await SchemeCatalog.OpenFlowCopyAsync(place, name, cancellationToken).ConfigureAwait(false);
        }
        catch (ArgumentException e)
        {
            throw new UsageException($"{(e.ParamName == "ledger" ? "--name" : "--into")}: {e.Message}");
        }

        await using var disposingToo = copy.ConfigureAwait(false);
        terminal.Note($"export: {deployment.Store}, into {copy.Location}");
        var entries = 0L;
        var cursor = await copy.GetCursorAsync(cancellationToken).ConfigureAwait(false);
        var stopped = await terminal.WithProgressAsync("export", 0, async progress =>
        {
            var part = new List<FlowEntry>(PartEntries);

            // A part that is under way is written whole, also when the export is stopped meanwhile.
            async Task AddAsync()
            {
                await copy.AddAsync(part, CancellationToken.None).ConfigureAwait(false);
                entries += part.Count;
                cursor = part[^1].Cursor;
                progress(entries);
                part.Clear();
            }

            try
            {
                await foreach (var entry in deployment.Engine.ReadFlowAsync(new() { After = cursor, Limit = limit == 0 ? null : limit }, cancellationToken).ConfigureAwait(false))
                {
                    part.Add(entry);
                    if (part.Count == PartEntries)
                    {
                        await AddAsync().ConfigureAwait(false);
                    }
                }

                if (part.Count > 0)
                {
                    await AddAsync().ConfigureAwait(false);
                }

                return (Exception?)null;
            }
            catch (ArgumentException) when (cursor is not null && entries == 0)
            {
                return new UsageException($"--into: the ledger '{name}' there is the copy of another store; give this one another --name");
            }
            catch (Exception e) when (entries > 0 && IsStop(e))
            {
                return e;
            }
        }).ConfigureAwait(false);
        if (stopped is UsageException)
        {
            throw stopped;
        }

        if (json)
        {
            terminal.Json(new { store = deployment.Store, complete = stopped is null, entries, into = copy.Location, next = cursor });
        }
        else
        {
            terminal.Line(string.Create(CultureInfo.InvariantCulture, $"exported {entries} entries into {copy.Location}"));
        }

        if (stopped is not null)
        {
            terminal.Note($"holdfast: stopped before the end: {(stopped is OperationCanceledException ? "interrupted" : stopped.Message)} The same command goes on from there.");
        }

        return stopped is null ? ExitCode.Success : ExitCode.Failed;
    }

    private static bool IsStop(Exception e) => e is OperationCanceledException or IOException or HttpRequestException or TimeoutException or System.Data.Common.DbException;

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
                catch (Exception e) when (IsStop(e))
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
