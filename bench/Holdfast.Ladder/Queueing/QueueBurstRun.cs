using System.Diagnostics;
using System.Globalization;
using Holdfast.Queueing;
using Holdfast.Testing;

namespace Holdfast.Ladder.Queueing;

/// <summary>Many orders at once for few units: each is answered in the end, and exactly the units are sold.</summary>
internal static class QueueBurstRun
{
    private const int VerdictsAtOnce = 1_000;
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(4);

    public static async Task<bool> RunAsync(int orders, int units, int callers, string transport, Output output, CancellationToken cancellationToken)
    {
        var setting = await QueueSetting.StartAsync(transport, QueueBench.Queues, cancellationToken).ConfigureAwait(false);
        await using var disposing = setting.ConfigureAwait(false);
        output.Heading(
            $"queue-burst: {orders:#,##0} orders for {units:#,##0} units through a queue ({transport})",
            $"{setting.Description}; {callers} callers offer one order a call and do not wait for verdicts; consumers in the same process",
            $"bounds: every order has a verdict after the drain, {units:#,##0} Done and the others Insufficient; nothing waits, is deferred or dead; audit passes");
        var queue = new CommandQueue(setting.Store, setting.Transport, setting.Verdicts);
        await using var disposingToo = queue.ConfigureAwait(false);
        await queue.Inner.RestockAsync("opening", [("hot", units)], cancellationToken: cancellationToken).ConfigureAwait(false);
        queue.Start();
        var next = -1;
        var busy = 0;
        var began = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, callers).Select(async _ =>
        {
            await Task.Yield();
            while (Interlocked.Increment(ref next) is var i && i < orders)
            {
                var order = StockCommand.Deduct(IdOf(i), [new("hot", 1)]);
                while ((await queue.ExecuteAsync(order, cancellationToken).ConfigureAwait(false)).Status != StockStatus.Pending)
                {
                    // Full, or in doubt: the same order again.
                    Interlocked.Increment(ref busy);
                    await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, cancellationToken).ConfigureAwait(false);
                }
            }
        })).ConfigureAwait(false);
        var accepted = Stopwatch.GetElapsedTime(began);
        CommandQueueState state;
        do
        {
            await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            state = await queue.MeasureAsync(cancellationToken).ConfigureAwait(false);
        }
        while ((state.Depth.Waiting > 0 || state.Depth.Deferred > 0 || state.InFlight > 0) && Stopwatch.GetElapsedTime(began) < s_patience);

        // The broker may count a moment late: the verdicts tell.
        var counts = new SortedDictionary<string, int>(StringComparer.Ordinal);
        for (var pending = orders; pending > 0 && Stopwatch.GetElapsedTime(began) < s_patience;)
        {
            counts = await CountAsync(setting.Verdicts, orders, cancellationToken).ConfigureAwait(false);
            pending = counts.GetValueOrDefault("Pending");
        }

        var drained = Stopwatch.GetElapsedTime(began);
        var sold = (await queue.Inner.GetStockAsync("hot", cancellationToken: cancellationToken).ConfigureAwait(false)).Sold;
        var audit = await LedgerAudit.RunAsync(queue.Inner, cancellationToken: cancellationToken).ConfigureAwait(false);
        var isRight = sold == units && counts.GetValueOrDefault("Done") == units && counts.GetValueOrDefault("Insufficient") == orders - units && state is { Depth: { Waiting: 0, Deferred: 0, Dead: 0 }, InFlight: 0 };
        output.Line($"accepted {orders:#,##0} in {accepted.TotalSeconds:0.0} s ({Output.Show(orders / accepted.TotalSeconds)}/s), {busy} offers were refused or in doubt and made again");
        output.Line($"decided  all in {drained.TotalSeconds:0.0} s ({Output.Show(orders / drained.TotalSeconds)}/s), from the first offer");
        output.Line($"verdicts {string.Join(", ", counts.Select(count => $"{count.Value:#,##0} {count.Key}"))}; {sold:#,##0} sold; left in the queue {state.Depth.Waiting} waiting, {state.Depth.Deferred} deferred, {state.Depth.Dead} dead, {state.InFlight} in flight");
        output.Line($"ledger   {audit}");
        output.Line($"bounds: {(isRight && audit.Passed ? "reached" : "NOT reached")}");
        await output.FinishAsync(new
        {
            run = "queue-burst",
            transport,
            orders,
            units,
            callers,
            acceptedPerSecond = Math.Round(orders / accepted.TotalSeconds, 1),
            decidedPerSecond = Math.Round(orders / drained.TotalSeconds, 1),
            verdicts = counts,
            sold,
            audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
            passed = isRight && audit.Passed,
        }).ConfigureAwait(false);
        return isRight && audit.Passed;
    }

    private static string IdOf(int i) => string.Create(CultureInfo.InvariantCulture, $"order-{i}");

    private static async Task<SortedDictionary<string, int>> CountAsync(IVerdictStore verdicts, int orders, CancellationToken cancellationToken)
    {
        var counts = new SortedDictionary<string, int>(StringComparer.Ordinal);
        foreach (var part in Enumerable.Range(0, orders).Select(IdOf).Chunk(VerdictsAtOnce))
        {
            foreach (var verdict in await verdicts.FindAsync(part, cancellationToken).ConfigureAwait(false))
            {
                var name = verdict?.Result.Status.ToString() ?? "Pending";
                counts[name] = counts.GetValueOrDefault(name) + 1;
            }
        }

        return counts;
    }
}
