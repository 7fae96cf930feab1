using Holdfast.Cli;
using Holdfast.Client;
using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// A server that is killed again and again while callers work through the client, which retries with the same ids. Every
/// operation that was acknowledged must be in the ledger exactly once, whichever server acknowledged it.
/// </summary>
internal static class CrashRun
{
    private const string Scheme = "batched";
    private const int Skus = 8;
    private static readonly TimeSpan RestartBound = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WindDown = TimeSpan.FromMinutes(2);

    public static async Task<bool> RunAsync(int kills, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var store = $"sqlite:{scratch.File("stock.db")}";
        output.Heading(
            $"crash: kill -9 of the server {kills} times under load, one SQLite file",
            $"server: its own process, scheme {Scheme}, {store}; {callers} callers of all verbs through one client that retries with the same ids; seed {seed}",
            $"bounds: every acknowledged operation in the ledger once, audits pass, ready again within {RestartBound.TotalSeconds:0} s of each start");
        var history = new History();
        var port = ServerProcess.FreePort();
        var random = new Random(seed);
        var restarts = new List<TimeSpan>();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var server = await ServerProcess.StartAsync(Scheme, store, port).ConfigureAwait(false);
        try
        {
            var client = await HoldfastClient.ConnectAsync(
                new() { Addresses = { server.Address }, Deadline = TimeSpan.FromSeconds(60), RestAfterFailure = TimeSpan.FromMilliseconds(50), MaxRetryDelay = TimeSpan.FromMilliseconds(200) },
                cancellationToken).ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                var run = RunName.New(TimeProvider.System);
                var engine = history.Record(client);
                await engine.RestockAsync($"{run}-opening", [.. Enumerable.Range(0, Skus).Select(i => new StockLine($"{run}-{i}", 100_000))], cancellationToken: cancellationToken).ConfigureAwait(false);
                var load = Task.WhenAll(Enumerable.Range(0, callers).Select(i => WorkAsync(engine, run, i, seed, stop.Token)));
                output.Line($"{"kill",-6}{"answered before it",20}{"ready again after",20}");
                for (var i = 1; i <= kills; i++)
                {
                    var before = history.Count;
                    await Task.WhenAny(load, Task.Delay(TimeSpan.FromMilliseconds(random.Next(300, 1_200)), TimeProvider.System, cancellationToken)).ConfigureAwait(false);
                    if (load.IsFaulted)
                    {
                        break;
                    }

                    var answered = history.Count - before;
                    await server.KillAsync().ConfigureAwait(false);
                    await server.DisposeAsync().ConfigureAwait(false);
                    server = await ServerProcess.StartAsync(Scheme, store, port).ConfigureAwait(false);
                    restarts.Add(server.StartTime);
                    output.Line($"{i,-6}{answered,20}{server.StartTime.TotalSeconds,18:0.00} s");
                }

                await stop.CancelAsync().ConfigureAwait(false);
                await load.WaitAsync(WindDown, TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
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
            var applied = history.Events.Count(sent => sent.Result.IsApplied);
            var unknown = history.Events.Count(sent => sent.Result.IsRetryable || sent.Result.Status == StockStatus.None);
            var slowest = restarts.DefaultIfEmpty().Max();
            var inTime = restarts.Count == kills && slowest < RestartBound;
            output.Line();
            output.Line($"commands {history.Count:#,##0}: {applied:#,##0} acknowledged as applied, {unknown} without an answer");
            output.Line($"ledger   {audit}");
            output.Line($"restart  slowest {slowest.TotalSeconds:0.00} s, median {restarts.Order().ElementAtOrDefault(restarts.Count / 2).TotalSeconds:0.00} s: {(inTime ? "within" : "NOT within")} {RestartBound.TotalSeconds:0} s");
            await output.FinishAsync(new
            {
                run = "crash",
                kills,
                callers,
                seed,
                commands = history.Count,
                applied,
                unknown,
                restartSeconds = restarts.Select(restart => Math.Round(restart.TotalSeconds, 3)),
                audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
                passed = audit.Passed && inTime,
            }).ConfigureAwait(false);
            return audit.Passed && inTime;
        }
    }

    /// <summary>One caller: orders, and now and then what follows them.</summary>
    private static async Task WorkAsync(IStockEngine engine, string run, int caller, int seed, CancellationToken stop)
    {
        var random = new Random(unchecked((seed * 1_000_003) + caller));
        await Task.Yield();
        for (var i = 0; !stop.IsCancellationRequested; i++)
        {
            var id = $"{run}-{caller:x}-{i:x}";
            StockLine[] cart = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => new StockLine($"{run}-{random.Next(Skus)}", random.Next(1, 4)))];
            switch (random.Next(10))
            {
                case < 6:
                    await SendAsync(StockCommand.Deduct(id, cart)).ConfigureAwait(false);
                    break;
                case < 8:
                    await SendAsync(StockCommand.Deduct(id, cart)).ConfigureAwait(false);
                    await SendAsync(random.Next(3) == 0 ? StockCommand.Cancel(id) : StockCommand.Refund($"{id}-back", id, [cart[0] with { Quantity = 1 }])).ConfigureAwait(false);
                    break;
                case 8:
                    await SendAsync(StockCommand.Reserve(id, cart, TimeSpan.FromHours(1))).ConfigureAwait(false);
                    await SendAsync(random.Next(2) == 0 ? StockCommand.Confirm(id) : StockCommand.Cancel(id)).ConfigureAwait(false);
                    break;
                default:
                    await SendAsync(StockCommand.Restock(id, [cart[0]])).ConfigureAwait(false);
                    break;
            }
        }

        // Never cancelled in flight: an answer that comes late is still an answer.
        async ValueTask SendAsync(StockCommand command) => await engine.ExecuteAsync(command, CancellationToken.None).ConfigureAwait(false);
    }
}
