using System.Diagnostics;
using Holdfast.Cli;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// Two servers of the scheme <c>replica</c> sell out of what little there is, again and again restocked through either,
/// while their standby lags, stands still and is down. A refusal may rest on a state as old as the stated lag bound and no
/// older; no repetition of a success is refused; everything else is as without a standby.
/// </summary>
internal static class ReplicaRun
{
    private const string Scheme = "replica";
    private const int Skus = 6;
    private static readonly TimeSpan Bound = new StandbyOptions { ConnectionString = "" }.MaxLag;

    public static async Task<bool> RunAsync(int seconds, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            $"replica: a standby that lags, stands still and is down under load, {seconds} s each",
            $"servers: two processes, scheme {Scheme}, on one primary with one streaming standby; {callers} buyers of {Skus} SKUs that are nearly always sold out, restocked through either server; every third success is sent again with the same id; seed {seed}",
            $"bounds: a refusal rests on a state at most {Bound.TotalSeconds:0.#} s old (false sold-outs only inside that window); no retry of a success refused; audits pass");
        var history = new History();
        var phases = new List<(string Name, long Began)>();
        var primary = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = primary.ConfigureAwait(false);
        var standby = await primary.StartStandbyAsync().ConfigureAwait(false);
        await using var disposingToo = standby.ConfigureAwait(false);
        var store = $"postgres:{PostgreSqlServer.ConnectionStringOf(primary, standby)}";
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var one = await ServerProcess.StartAsync(Scheme, store).ConfigureAwait(false);
        await using var disposingOne = one.ConfigureAwait(false);
        var two = await ServerProcess.StartAsync(Scheme, store).ConfigureAwait(false);
        await using var disposingTwo = two.ConfigureAwait(false);
        var clients = new[] { await Callers.ConnectAsync(one, cancellationToken).ConfigureAwait(false), await Callers.ConnectAsync(two, cancellationToken).ConfigureAwait(false) };
        try
        {
            IStockEngine[] engines = [.. clients.Select(history.Record)];
            var run = RunName.New(TimeProvider.System);
            await engines[0].RestockAsync($"{run}-opening", [.. Enumerable.Range(0, Skus).Select(i => new StockLine($"{run}-{i}", 5))], cancellationToken: cancellationToken).ConfigureAwait(false);
            var load = Task.WhenAll(
                [.. Enumerable.Range(0, callers).Select(i => BuyAsync(engines[i % 2], run, i, seed, stop.Token)),
                .. Enumerable.Range(0, 2).Select(i => RestockAsync(engines[i], run, i, seed, stop.Token))]);
            async Task PhaseAsync(string name, Func<Task>? begin = null)
            {
                phases.Add((name, Stopwatch.GetTimestamp()));
                if (begin is not null)
                {
                    await begin().ConfigureAwait(false);
                }

                await Callers.WorkForAsync(load, TimeSpan.FromSeconds(seconds), cancellationToken).ConfigureAwait(false);
            }

            try
            {
                await PhaseAsync("at work").ConfigureAwait(false);
                await PhaseAsync("lags 0.5 s", () => standby.SetAsync("recovery_min_apply_delay", "500ms")).ConfigureAwait(false);
                await PhaseAsync("lags 5 s", () => standby.SetAsync("recovery_min_apply_delay", "5s")).ConfigureAwait(false);
                await PhaseAsync("catches up", () => standby.SetAsync("recovery_min_apply_delay", "0")).ConfigureAwait(false);
                await PhaseAsync("replays nothing", () => standby.RunSqlAsync("SELECT pg_wal_replay_pause()")).ConfigureAwait(false);
                await PhaseAsync("replays again", () => standby.RunSqlAsync("SELECT pg_wal_replay_resume()")).ConfigureAwait(false);
                await PhaseAsync("stands still", () => standby.PauseAsync(true)).ConfigureAwait(false);
                await PhaseAsync("goes on", () => standby.PauseAsync(false)).ConfigureAwait(false);
                await PhaseAsync("is shut down", () => standby.StopAsync()).ConfigureAwait(false);
                await PhaseAsync("is back", standby.StartAsync).ConfigureAwait(false);
            }
            finally
            {
                await stop.CancelAsync().ConfigureAwait(false);
                await load.WaitAsync(Callers.WindDown, TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            foreach (var client in clients)
            {
                await client.DisposeAsync().ConfigureAwait(false);
            }
        }

        await one.StopAsync().ConfigureAwait(false);
        await two.StopAsync().ConfigureAwait(false);
        await FencedStore.UntilAloneAsync(primary, cancellationToken).ConfigureAwait(false);
        var options = new PostgreSqlOptions { ConnectionString = primary.ConnectionString };
        var audit = await FencedStore.AuditAsync(options, history, new() { RefusalLag = Bound }, cancellationToken).ConfigureAwait(false);
        output.Line($"{"the standby",-18}{"sold",8}{"refused",10}{"false sold-outs",17}{"slowest answer",17}");
        var rows = new List<object>();
        for (var i = 0; i < phases.Count; i++)
        {
            var (from, to) = (phases[i].Began, i + 1 < phases.Count ? phases[i + 1].Began : long.MaxValue);
            var sent = history.Events.Where(sent => sent.SentAt >= from && sent.SentAt < to).ToList();
            var sold = sent.Count(sent => sent.Command.Verb == StockVerb.Deduct && sent.Result.Status == StockStatus.Done);
            var refused = sent.Count(sent => sent.Result.Status == StockStatus.Insufficient);
            var slowest = sent.Select(sent => Stopwatch.GetElapsedTime(sent.SentAt, sent.AnsweredAt)).DefaultIfEmpty().Max();
            var unexplained = await CountFalseAsync(options, history, from, to, cancellationToken).ConfigureAwait(false);
            output.Line($"{phases[i].Name,-18}{sold,8:#,##0}{refused,10:#,##0}{unexplained,17:#,##0}{slowest.TotalSeconds,15:0.00} s");
            rows.Add(new { standby = phases[i].Name, sold, refused, falseSoldOuts = unexplained, slowestSeconds = Math.Round(slowest.TotalSeconds, 3) });
        }

        var retries = history.Events.Count(sent => sent.Result.Status == StockStatus.Replayed);
        output.Line();
        output.Line("false sold-outs: refusals that no instant between their sending and their answer explains");
        output.Line($"commands {history.Count:#,##0}, of them {retries:#,##0} retries of a success, each answered Replayed");
        output.Line($"ledger   {audit}{(audit.Passed ? $"; with {Bound.TotalSeconds:0.#} s allowed every refusal is explained" : "")}");
        await output.FinishAsync(new { run = "replica", seconds, callers, seed, commands = history.Count, retries, phases = rows, audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}", passed = audit.Passed }).ConfigureAwait(false);
        return audit.Passed;
    }

    /// <summary>How many refusals of a stretch of time an exact audit finds wrong.</summary>
    private static async Task<long> CountFalseAsync(PostgreSqlOptions options, History history, long from, long to, CancellationToken cancellationToken)
    {
        var stretch = new History();
        foreach (var sent in history.Events)
        {
            if (sent.Result.Status != StockStatus.Insufficient || (sent.SentAt >= from && sent.SentAt < to))
            {
                stretch.Add(sent);
            }
        }

        var engine = await PostgreSqlEngine.OpenAsync(options with { ReadOnly = true }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposing = engine.ConfigureAwait(false);
        return (await HistoryAudit.RunAsync(engine, stretch, cancellationToken: cancellationToken).ConfigureAwait(false)).DifferenceCount;
    }

    private static async Task BuyAsync(IStockEngine engine, string run, int caller, int seed, CancellationToken stop)
    {
        var random = new Random(unchecked((seed * 1_000_003) + caller));
        await Task.Yield();
        for (var i = 0; !stop.IsCancellationRequested; i++)
        {
            var command = StockCommand.Deduct($"{run}-{caller:x}-{i:x}", [new($"{run}-{random.Next(Skus)}", random.Next(1, 3))]);
            var result = await engine.ExecuteAsync(command, CancellationToken.None).ConfigureAwait(false);
            if (result.IsApplied && random.Next(3) == 0)
            {
                await engine.ExecuteAsync(command, CancellationToken.None).ConfigureAwait(false);
            }

            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(1, 10)), TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
        }
    }

    private static async Task RestockAsync(IStockEngine engine, string run, int who, int seed, CancellationToken stop)
    {
        var random = new Random(unchecked((seed * 1_000_003) - who - 1));
        for (var i = 0; !stop.IsCancellationRequested; i++)
        {
            await engine.RestockAsync($"{run}-back-{who}-{i}", [new($"{run}-{random.Next(Skus)}", random.Next(1, 20))], cancellationToken: CancellationToken.None).ConfigureAwait(false);
            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(20, 200)), TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
        }
    }
}
