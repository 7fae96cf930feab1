using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// A server that is killed again and again while callers work through the client, which retries with the same ids. Every
/// operation that was acknowledged must be in the ledger exactly once, whichever server acknowledged it.
/// </summary>
internal static class CrashRun
{
    private const string Scheme = "batched";
    private static readonly TimeSpan RestartBound = TimeSpan.FromSeconds(3);

    public static async Task<bool> RunAsync(int kills, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var store = $"sqlite:{scratch.File("stock.db")}";
        output.Heading(
            $"crash: kill -9 of the server {kills} times under load, one SQLite file",
            $"server: its own process, scheme {Scheme}, {store}; {callers} callers of all verbs through one client that retries with the same ids; seed {seed}",
            $"bounds: every acknowledged operation in the ledger once, audits pass, ready again within {RestartBound.TotalSeconds:0} s of each start");
        var port = ServerProcess.FreePort();
        var random = new Random(seed);
        var restarts = new List<TimeSpan>();
        History history;
        int acknowledged, unknown;
        var server = await ServerProcess.StartAsync(Scheme, store, port).ConfigureAwait(false);
        try
        {
            var load = await Callers.StartAsync(server, callers, seed, cancellationToken).ConfigureAwait(false);
            await using (load.ConfigureAwait(false))
            {
                history = load.History;
                output.Line($"{"kill",-6}{"answered before it",20}{"ready again after",20}");
                for (var i = 1; i <= kills; i++)
                {
                    var before = history.Count;
                    await load.WorkForAsync(TimeSpan.FromMilliseconds(random.Next(300, 1_200)), cancellationToken).ConfigureAwait(false);
                    var answered = history.Count - before;
                    await server.KillAsync().ConfigureAwait(false);
                    await server.DisposeAsync().ConfigureAwait(false);
                    server = await ServerProcess.StartAsync(Scheme, store, port).ConfigureAwait(false);
                    restarts.Add(server.StartTime);
                    output.Line($"{i,-6}{answered,20}{server.StartTime.TotalSeconds,18:0.00} s");
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

        // The server has ended, so no command can land behind the audit's back.
        var file = SqliteEngine.Open(new() { Path = scratch.File("stock.db"), ReadOnly = true });
        await using (file.ConfigureAwait(false))
        {
            var ledger = await LedgerAudit.RunAsync(file, cancellationToken: cancellationToken).ConfigureAwait(false);
            var audit = ledger.And(await HistoryAudit.RunAsync(file, history, cancellationToken: cancellationToken).ConfigureAwait(false));
            var slowest = restarts.DefaultIfEmpty().Max();
            var inTime = restarts.Count == kills && slowest < RestartBound;
            output.Line();
            output.Line($"commands {history.Count:#,##0}: {acknowledged:#,##0} acknowledged as applied, {unknown} without an answer");
            output.Line($"ledger   {audit}");
            output.Line($"restart  slowest {slowest.TotalSeconds:0.00} s, median {restarts.Order().ElementAtOrDefault(restarts.Count / 2).TotalSeconds:0.00} s: {(inTime ? "within" : "NOT within")} {RestartBound.TotalSeconds:0} s");
            await output.FinishAsync(new
            {
                run = "crash",
                kills,
                callers,
                seed,
                commands = history.Count,
                applied = acknowledged,
                unknown,
                restartSeconds = restarts.Select(restart => Math.Round(restart.TotalSeconds, 3)),
                audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
                passed = audit.Passed && inTime,
            }).ConfigureAwait(false);
            return audit.Passed && inTime;
        }
    }
}
