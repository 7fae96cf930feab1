using Holdfast.Hosting;
using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// A server that is killed again and again while callers work through the client, which retries with the same ids. Every
/// operation that was acknowledged must be in the ledger exactly once, whichever server acknowledged it.
/// </summary>
internal static class CrashRun
{
    private const int Shards = 4;

    /// <summary>Within what a server that was killed must be ready again on a machine that does nothing else.</summary>
    public static readonly TimeSpan RestartBound = TimeSpan.FromSeconds(3);

    private static readonly TimeSpan SettleBound = TimeSpan.FromSeconds(10);

    /// <param name="isSharded">Whether the server runs on four files instead of one; then what it dies of is mostly carts that cross them.</param>
    /// <param name="kills">How often.</param>
    /// <param name="callers">How many ask at once.</param>
    /// <param name="seed">What moments and commands hang on.</param>
    /// <param name="restartBound">Within what a restarted server must be ready.</param>
    /// <param name="output">Where it reports.</param>
    /// <param name="cancellationToken">Ends it early.</param>
    public static async Task<bool> RunAsync(bool isSharded, int kills, int callers, int seed, TimeSpan restartBound, Output output, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var scheme = isSharded ? "sharded" : "batched";
        string[] files = isSharded ? [.. Enumerable.Range(0, Shards).Select(shard => scratch.File($"shard-{shard}.db"))] : [scratch.File("stock.db")];
        var store = string.Join(SchemeCatalog.StoreSeparator, files.Select(file => $"sqlite:{file}"));
        output.Heading(
            $"crash: kill -9 of the server {kills} times under load, {(isSharded ? $"{Shards} SQLite files" : "one SQLite file")}",
            $"server: its own process, scheme {scheme}, {store}; {callers} callers of all verbs through one client that retries with the same ids; seed {seed}",
            $"bounds: every acknowledged operation in the ledger once, audits pass, ready again within {restartBound.TotalSeconds:0} s of each start{(isSharded ? $", nothing undecided {SettleBound.TotalSeconds:0} s after the last" : "")}");
        var port = ServerProcess.FreePort();
        var random = new Random(seed);
        var restarts = new List<TimeSpan>();
        History history;
        int acknowledged, unknown;
        var server = await ServerProcess.StartAsync(scheme, store, port).ConfigureAwait(false);
        var settled = TimeSpan.Zero;
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
                    server = await ServerProcess.StartAsync(scheme, store, port).ConfigureAwait(false);
                    restarts.Add(server.StartTime);
                    output.Line($"{i,-6}{answered,20}{server.StartTime.TotalSeconds,18:0.00} s");
                }

                settled = await SettleAsync(files, cancellationToken).ConfigureAwait(false);
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
        var opened = await SchemeCatalog.OpenAsync(scheme, store, readOnly: true, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            var ledger = await LedgerAudit.RunAsync(opened.Engine, cancellationToken: cancellationToken).ConfigureAwait(false);
            foreach (var shard in (opened.Engine as Sharding)?.Shards ?? [])
            {
                ledger = ledger.And(await LedgerAudit.RunAsync(shard, cancellationToken: cancellationToken).ConfigureAwait(false));
            }

            var audit = ledger.And(await HistoryAudit.RunAsync(opened.Engine, history, cancellationToken: cancellationToken).ConfigureAwait(false));
            var slowest = restarts.DefaultIfEmpty().Max();
            var inTime = restarts.Count == kills && slowest < restartBound && settled < SettleBound;
            output.Line();
            output.Line($"commands {history.Count:#,##0}: {acknowledged:#,##0} acknowledged as applied, {unknown} without an answer");
            output.Line($"ledger   {audit}");
            output.Line($"restart  slowest {slowest.TotalSeconds:0.00} s, median {restarts.Order().ElementAtOrDefault(restarts.Count / 2).TotalSeconds:0.00} s: {(inTime ? "within" : "NOT within")} {restartBound.TotalSeconds:0} s");
            output.Line($"settled  nothing of what the last kill left was undecided after {settled.TotalSeconds:0.00} s");
            await output.FinishAsync(new
            {
                run = isSharded ? "crash-sharded" : "crash",
                settledSeconds = Math.Round(settled.TotalSeconds, 3),
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

    /// <summary>How long it takes from now until nothing is undecided that is now.</summary>
    private static async Task<TimeSpan> SettleAsync(string[] files, CancellationToken cancellationToken)
    {
        var began = TimeProvider.System.GetTimestamp();
        var left = await UndecidedAsync().ConfigureAwait(false);
        while (left.Count > 0 && TimeProvider.System.GetElapsedTime(began) < 2 * SettleBound)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            left.IntersectWith(await UndecidedAsync().ConfigureAwait(false));
        }

        return TimeProvider.System.GetElapsedTime(began);

        async Task<HashSet<string>> UndecidedAsync()
        {
            var found = new HashSet<string>(StringComparer.Ordinal);
            foreach (var file in files)
            {
                var reader = SqliteEngine.Open(new() { Path = file, ReadOnly = true });
                await using (reader.ConfigureAwait(false))
                {
                    await foreach (var view in reader.ListOperationsAsync(new() { UndecidedOnly = true }, cancellationToken).ConfigureAwait(false))
                    {
                        found.Add($"{view.Id} {view.Pending?.Attempt ?? view.Cart?.Attempt}");
                    }
                }
            }

            return found;
        }
    }
}
