using System.Text.RegularExpressions;
using Holdfast.Cli;
using Holdfast.Client;
using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// Killing a process proves nothing about a loss of power, since the system keeps what was written. So the flushes are
/// counted: at least one of the log for every commit, as strace sees the server make them.
/// </summary>
internal static partial class DurabilityRun
{
    private const int ManyCallers = 256;

    public static async Task<bool> RunAsync(int orders, Output output, CancellationToken cancellationToken)
    {
        if (Find("strace") is not { } strace)
        {
            output.Line("durability: strace is not installed, and nothing else counts a process's flushes; on Debian: apt-get install strace");
            await output.FinishAsync(new { run = "durability", passed = false, problem = "strace is missing" }).ConfigureAwait(false);
            return false;
        }

        output.Heading(
            "durability: the server's flushes to disk against its commits",
            $"counted: fdatasync and fsync by strace -f, by file; {orders} orders a part",
            "bound: at least one flush of SQLite's log a commit, where commits can be counted from outside");
        output.Line($"{"scheme",-10}{"callers",8}{"operations",12}{"commits",14}{"log flushes",13}{"file flushes",14}   settings");
        var parts = new List<object>();
        var passed = true;
        foreach (var (scheme, callers) in ((string, int)[])[("database", 16), ("batched", 1), ("batched", ManyCallers)])
        {
            var part = await PartAsync(strace, scheme, callers, orders, cancellationToken).ConfigureAwait(false);

            // One transaction a command, or one caller who waits for each answer: as many commits as operations. With many
            // callers group commit makes fewer, which nobody outside can count; the flushes then say how many at most.
            var commits = scheme == "database" || callers == 1 ? part.Operations : (long?)null;
            var isGood = part.Audit == "pass" && part.LogFlushes >= (commits ?? 1);
            passed &= isGood;
            output.Line($"{scheme,-10}{callers,8}{part.Operations,12}{commits?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? $"at most {part.LogFlushes}",14}{part.LogFlushes,13}{part.FileFlushes,14}   {part.Durability}; audit {part.Audit}{(isGood ? "" : "   NOT enough")}");
            parts.Add(new { scheme, callers, operations = part.Operations, commits, logFlushes = part.LogFlushes, fileFlushes = part.FileFlushes, durability = part.Durability, audit = part.Audit, passed = isGood });
        }

        output.Line();
        output.Line(passed ? "at least one flush a commit" : "NOT one flush a commit");
        await output.FinishAsync(new { run = "durability", orders, parts, passed }).ConfigureAwait(false);
        return passed;
    }

    private static async Task<Part> PartAsync(string strace, string scheme, int callers, int orders, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var path = scratch.File("stock.db");
        var trace = scratch.File("trace.txt");
        string durability;

        // -D: the tracer is the server's grandchild, so that the server stays ours to stop. -y: descriptors with their paths.
        var server = await ServerProcess.StartAsync(scheme, $"sqlite:{path}", port: null, strace, "-D", "-f", "-y", "-e", "trace=fdatasync,fsync", "-o", trace).ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                durability = (await client.GetServerInfoAsync(cancellationToken).ConfigureAwait(false)).Durability;
                var run = RunName.New(TimeProvider.System);
                await client.RestockAsync($"{run}-opening", [new(run, orders)], cancellationToken: cancellationToken).ConfigureAwait(false);
                await Parallel.ForEachAsync(
                    Enumerable.Range(0, orders),
                    new ParallelOptions { MaxDegreeOfParallelism = callers, CancellationToken = cancellationToken },
                    async (i, token) =>
                    {
                        var result = await client.DeductAsync($"{run}-{i}", [new(run, 1)], cancellationToken: token).ConfigureAwait(false);
                        if (!result.IsApplied)
                        {
                            throw new InvalidOperationException($"Order {i} was answered {result}.");
                        }
                    }).ConfigureAwait(false);
            }

            await server.StopAsync().ConfigureAwait(false);
        }

        var store = SqliteEngine.Open(new() { Path = path, ReadOnly = true });
        await using (store.ConfigureAwait(false))
        {
            var audit = await LedgerAudit.RunAsync(store, cancellationToken: cancellationToken).ConfigureAwait(false);
            var flushed = (await File.ReadAllLinesAsync(trace, cancellationToken).ConfigureAwait(false)).Select(line => Flush().Match(line)).Where(match => match.Success).Select(match => match.Groups["file"].Value).ToList();
            return new(
                audit.Operations,
                flushed.Count(file => file.EndsWith("-wal", StringComparison.Ordinal)),
                flushed.Count(file => !file.EndsWith("-wal", StringComparison.Ordinal)),
                durability,
                audit.Passed ? "pass" : $"fail: {audit.FirstDifference}");
        }
    }

    private static string? Find(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);

    [GeneratedRegex(@"\b(?:fdatasync|fsync)\(\d+<(?<file>.*?)>", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1_000)]
    private static partial Regex Flush();

    private sealed record Part(long Operations, int LogFlushes, int FileFlushes, string Durability, string Audit);
}
