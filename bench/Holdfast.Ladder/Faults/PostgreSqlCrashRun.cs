using System.Diagnostics;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// PostgreSQL is killed again and again while callers work, and then the Holdfast server is: every operation that was
/// acknowledged must be in the ledger exactly once, and traffic must resume by itself.
/// </summary>
internal static class PostgreSqlCrashRun
{
    private const string Scheme = "batched";

    /// <summary>From the restarted server's being ready to the first command that is applied; on a shared machine.</summary>
    private static readonly TimeSpan ResumeBound = TimeSpan.FromSeconds(10);

    public static async Task<bool> RunAsync(int kills, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        var postgres = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = postgres.ConfigureAwait(false);
        var store = new PostgreSqlOptions { ConnectionString = postgres.ConnectionString };
        output.Heading(
            $"crash: kill -9 of PostgreSQL (every process of it) {kills} times under load, then of the Holdfast server {kills} times",
            $"server: its own process, scheme {Scheme}, PostgreSQL {await postgres.RunSqlAsync("SHOW server_version").ConfigureAwait(false)}, fsync=on, synchronous_commit=on; {callers} callers of all verbs through one client that retries with the same ids; seed {seed}",
            $"bounds: every acknowledged operation in the ledger once, nothing half applied, audits pass; traffic resumes by itself within {ResumeBound.TotalSeconds:0} s of the restarted server's being ready");
        var port = ServerProcess.FreePort();
        var random = new Random(seed);
        var resumptions = new List<TimeSpan>();
        History history;
        int acknowledged, unknown;
        var server = await ServerProcess.StartAsync(Scheme, $"postgres:{store.ConnectionString}", port).ConfigureAwait(false);
        try
        {
            var load = await Callers.StartAsync(server, callers, seed, cancellationToken).ConfigureAwait(false);
            await using (load.ConfigureAwait(false))
            {
                history = load.History;
                output.Line($"{"killed",-12}{"kill",4}{"answered before it",20}{"down for",12}{"ready after",14}{"first applied after that",26}");
                for (var i = 0; i < 2 * kills; i++)
                {
                    var killsDatabase = i < kills;
                    var before = history.Count;
                    await load.WorkForAsync(TimeSpan.FromMilliseconds(random.Next(300, 1_200)), cancellationToken).ConfigureAwait(false);
                    var answered = history.Count - before;
                    if (killsDatabase)
                    {
                        await postgres.KillAsync().ConfigureAwait(false);
                    }
                    else
                    {
                        await server.KillAsync().ConfigureAwait(false);
                        await server.DisposeAsync().ConfigureAwait(false);
                    }

                    var down = TimeSpan.FromMilliseconds(random.Next(100, 600));
                    await load.WorkForAsync(down, cancellationToken).ConfigureAwait(false);
                    var restarted = Stopwatch.GetTimestamp();
                    var resumes = load.NextAppliedAsync(cancellationToken);
                    if (killsDatabase)
                    {
                        await postgres.StartAsync().ConfigureAwait(false);
                    }
                    else
                    {
                        server = await ServerProcess.StartAsync(Scheme, $"postgres:{store.ConnectionString}", port).ConfigureAwait(false);
                    }

                    var ready = Stopwatch.GetTimestamp();
                    var resumed = await resumes.ConfigureAwait(false);
                    var after = resumed > ready ? Stopwatch.GetElapsedTime(ready, resumed) : TimeSpan.Zero;
                    resumptions.Add(after);
                    output.Line($"{(killsDatabase ? "PostgreSQL" : "Holdfast"),-12}{(i % kills) + 1,4}{answered,20}{down.TotalSeconds,10:0.00} s{Stopwatch.GetElapsedTime(restarted, ready).TotalSeconds,12:0.00} s{after.TotalSeconds,24:0.00} s");
                }

                await load.StopAsync().ConfigureAwait(false);
                (acknowledged, unknown) = load.Count();
            }

            await server.StopAsync().ConfigureAwait(false);
        }
        finally
        {
            await server.DisposeAsync().ConfigureAwait(false);
        }

        await FencedStore.UntilAloneAsync(postgres, cancellationToken).ConfigureAwait(false);
        var audit = await FencedStore.AuditAsync(store, history, null, cancellationToken).ConfigureAwait(false);
        var slowest = resumptions.Max();
        var inTime = slowest < ResumeBound;
        output.Line();
        output.Line($"commands {history.Count:#,##0}: {acknowledged:#,##0} acknowledged as applied, {unknown} without an answer");
        output.Line($"ledger   {audit}");
        output.Line($"traffic  resumed by itself every time, at most {slowest.TotalSeconds:0.00} s after the server was ready (median {resumptions.Order().ElementAt(resumptions.Count / 2).TotalSeconds:0.00} s): {(inTime ? "within" : "NOT within")} {ResumeBound.TotalSeconds:0} s");
        await output.FinishAsync(new
        {
            run = "crash",
            store = "postgres",
            kills,
            callers,
            seed,
            commands = history.Count,
            applied = acknowledged,
            unknown,
            resumedSeconds = resumptions.Select(after => Math.Round(after.TotalSeconds, 3)),
            audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
            passed = audit.Passed && inTime,
        }).ConfigureAwait(false);
        return audit.Passed && inTime;
    }
}
