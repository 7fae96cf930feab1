using System.Diagnostics;
using System.Globalization;
using Holdfast.Ladder.Rungs;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// A gate over a full catalogue loses everything (FLUSHALL) while buyers buy the last units, give some back and find the rest
/// sold out. The sale must not pause, nobody may be refused a unit that was left, and the gate must be at work again.
/// </summary>
internal static class GateRebuildRun
{
    private const int HotSkus = 8;

    public static async Task<bool> RunAsync(int skus, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            string.Create(CultureInfo.InvariantCulture, $"gate-rebuild: FLUSHALL under a gate with {skus:#,##0} SKUs while the sale goes on"),
            $"one process, PostgreSQL with group commit behind the gate, {callers} buyers of {HotSkus} SKUs that are nearly always sold out, a unit restocked now and then; every third success is sent again, every fourth given back; seed {seed}",
            "bounds: audits pass (no oversell, no false sold-out, no retry refused), the gate equals the store again");
        var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
        await using var disposing = database.ConfigureAwait(false);
        var redis = await RedisServer.StartAsync().ConfigureAwait(false);
        await using var disposingToo = redis.ConfigureAwait(false);
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using var disposingThree = store.ConfigureAwait(false);
        foreach (var (lines, i) in Enumerable.Range(0, skus).Select(i => new StockLine(Text($"cat-{i:d6}"), 5)).Chunk(4_000).Select((chunk, i) => (chunk, i)))
        {
            await store.Engine.RestockAsync(Text($"catalogue-{i}"), lines, cancellationToken: cancellationToken).ConfigureAwait(false);
        }

        var gate = await RedisGate.OpenAsync(new GateRungs.KeptOpen(store.Engine), new() { Redis = redis.Configuration }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingFour = gate.ConfigureAwait(false);
        var first = await UntilSureAsync(gate, cancellationToken).ConfigureAwait(false);
        var history = new History();
        var engine = history.Record(gate);
        await engine.RestockAsync("opening", [.. Enumerable.Range(0, HotSkus).Select(i => new StockLine($"hot-{i}", 20))], cancellationToken: cancellationToken).ConfigureAwait(false);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var load = Task.WhenAll([.. Enumerable.Range(0, callers).Select(i => BuyAsync(engine, i, seed, stop.Token)), RestockAsync(engine, stop.Token)]);
        await Callers.WorkForAsync(load, TimeSpan.FromSeconds(4), cancellationToken).ConfigureAwait(false);
        var before = gate.Counts;
        var flushedAt = Stopwatch.GetTimestamp();
        await redis.CliAsync("FLUSHALL").ConfigureAwait(false);
        await UntilAsync(() => !gate.IsSure, cancellationToken).ConfigureAwait(false);
        await UntilSureAsync(gate, cancellationToken).ConfigureAwait(false);
        var rebuilt = Stopwatch.GetElapsedTime(flushedAt);
        var rebuiltAt = Stopwatch.GetTimestamp();
        var during = gate.Counts;
        await Callers.WorkForAsync(load, TimeSpan.FromSeconds(4), cancellationToken).ConfigureAwait(false);
        await stop.CancelAsync().ConfigureAwait(false);
        await load.WaitAsync(Callers.WindDown, cancellationToken).ConfigureAwait(false);
        var after = gate.Counts;

        var audit = (await LedgerAudit.RunAsync(store.Engine, cancellationToken: cancellationToken).ConfigureAwait(false))
            .And(await HistoryAudit.RunAsync(store.Engine, history, cancellationToken: cancellationToken).ConfigureAwait(false));
        var reconciler = await gate.OpenReconcilerAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingFive = reconciler.ConfigureAwait(false);
        await UntilAsync(async () => await reconciler.RunAsync(cancellationToken: cancellationToken).ConfigureAwait(false) is { IsClean: true, Lagging: 0, Unloaded: 0 }, cancellationToken).ConfigureAwait(false);
        var pause = LongestPause(history, flushedAt, rebuiltAt);
        var usual = LongestPause(history, long.MinValue, flushedAt);
        output.Line(Text($"first loading of {skus:#,##0} SKUs: {first.TotalSeconds:0.0} s"));
        output.Line(Text($"FLUSHALL until the gate refuses by itself again: {rebuilt.TotalSeconds:0.0} s; meanwhile {during.Passed - before.Passed:#,##0} commands were decided by the store, {during.Refused - before.Refused:#,##0} refused by what was left of the gate"));
        output.Line(Text($"longest pause between two answers to buyers: {pause.TotalMilliseconds:0} ms meanwhile, {usual.TotalMilliseconds:0} ms before"));
        output.Line(Text($"refused by the gate itself: {before.Refused:#,##0} before, {after.Refused - during.Refused:#,##0} after, of {history.Count:#,##0} commands"));
        output.Line($"audit: {audit}; reconcile: pass, nothing behind");
        await output.FinishAsync(new
        {
            run = "gate-rebuild", skus, firstLoadingSeconds = first.TotalSeconds, rebuildSeconds = rebuilt.TotalSeconds, longestPauseMs = pause.TotalMilliseconds,
            usualPauseMs = usual.TotalMilliseconds, commands = history.Count, audit = audit.ToString(), passed = audit.Passed,
        }).ConfigureAwait(false);
        return audit.Passed;
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private static async Task BuyAsync(IStockEngine engine, int number, int seed, CancellationToken stop)
    {
        var random = new Random(unchecked((seed * 1_000_003) + number));
        for (var i = 0; !stop.IsCancellationRequested; i++)
        {
            var (id, sku) = (Text($"o{number}-{i}"), $"hot-{random.Next(HotSkus)}");
            var sold = await DecideAsync(engine, StockCommand.Deduct(id, [new(sku, 1)])).ConfigureAwait(false);
            if (sold.IsApplied && random.Next(3) == 0)
            {
                await DecideAsync(engine, StockCommand.Deduct(id, [new(sku, 1)])).ConfigureAwait(false);
            }

            if (sold.IsApplied && random.Next(4) == 0)
            {
                await DecideAsync(engine, StockCommand.Refund(Text($"f{number}-{i}"), id, [new(sku, 1)])).ConfigureAwait(false);
            }
        }
    }

    private static async Task RestockAsync(IStockEngine engine, CancellationToken stop)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(250));
        try
        {
            for (var i = 0; await timer.WaitForNextTickAsync(stop).ConfigureAwait(false); i++)
            {
                await DecideAsync(engine, StockCommand.Restock(Text($"restock-{i}"), [new($"hot-{i % HotSkus}", 1)])).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // The sale is over.
        }
    }

    private static async Task<StockResult> DecideAsync(IStockEngine engine, StockCommand command)
    {
        while (true)
        {
            var result = await engine.ExecuteAsync(command).ConfigureAwait(false);
            if (!result.IsRetryable)
            {
                return result;
            }

            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System).ConfigureAwait(false);
        }
    }

    private static async Task<TimeSpan> UntilSureAsync(RedisGate gate, CancellationToken cancellationToken)
    {
        var began = Stopwatch.GetTimestamp();
        await UntilAsync(() => gate.IsSure, cancellationToken).ConfigureAwait(false);
        return Stopwatch.GetElapsedTime(began);
    }

    private static Task UntilAsync(Func<bool> condition, CancellationToken cancellationToken) => UntilAsync(() => Task.FromResult(condition()), cancellationToken);

    private static async Task UntilAsync(Func<Task<bool>> condition, CancellationToken cancellationToken)
    {
        var began = Stopwatch.GetTimestamp();
        while (!await condition().ConfigureAwait(false))
        {
            if (Stopwatch.GetElapsedTime(began) > TimeSpan.FromMinutes(5))
            {
                throw new TimeoutException("The gate did not get there within 5 minutes.");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The longest time within an interval in which no buyer was answered with a verdict.</summary>
    private static TimeSpan LongestPause(History history, long from, long to)
    {
        var answers = history.Events.Where(sent => !sent.Result.IsRetryable && sent.AnsweredAt >= from && sent.AnsweredAt <= to).Select(sent => sent.AnsweredAt).Order().ToArray();
        return answers.Length < 2 ? TimeSpan.Zero : answers.Zip(answers.Skip(1), Stopwatch.GetElapsedTime).Max();
    }
}
