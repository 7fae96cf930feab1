using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Queueing;

/// <summary>
/// Orders over HTTP to a server that only accepts them, while the server that decides them is stopped: accepted up to the
/// bound, then 429; when it is back, all are decided, and in the order in which they were accepted.
/// </summary>
internal static class QueueStoppedRun
{
    private static readonly TimeSpan s_before = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    public static async Task<bool> RunAsync(int seconds, int bound, int callers, Output output, CancellationToken cancellationToken)
    {
        var postgres = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = postgres.ConfigureAwait(false);
        var broker = await RabbitMqServer.StartAsync().ConfigureAwait(false);
        await using var disposingToo = broker.ConfigureAwait(false);
        output.Heading(
            $"queue-stopped: the consumer is stopped for {seconds} s while {callers} callers go on ordering",
            $"two server processes, scheme queued, on one RabbitMQ 3.10 (1 queue, at most {bound:#,##0} messages) and one PostgreSQL: one accepts orders, the other decides them",
            "bounds: accepted up to the bound (RabbitMQ refuses a little late), then 429 with Retry-After and never anything else; every accepted order Done after the consumer is back; the ledger in the order of acceptance; audit passes");
        var store = $"postgres:{postgres.ConnectionString}";
        (string, string)[] settings = [("Queues", "1"), ("MaxMessages", bound.ToString(CultureInfo.InvariantCulture))];
        var intake = await ServerProcess.StartQueuedAsync(store, broker.Uri, consumes: false, settings).ConfigureAwait(false);
        await using var disposingIntake = intake.ConfigureAwait(false);
        var consumer = await ServerProcess.StartQueuedAsync(store, broker.Uri, consumes: true, settings).ConfigureAwait(false);
        using var http = new HttpClient { BaseAddress = intake.Address, Timeout = TimeSpan.FromSeconds(30) };
        (await http.PostAsJsonAsync("v1/restocks", new { restockId = "opening", lines = new[] { new { sku = "hot", quantity = 1_000_000_000L } } }, cancellationToken).ConfigureAwait(false)).EnsureSuccessStatusCode();
        var orders = new Orders(http);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var work = Task.WhenAll(Enumerable.Range(0, callers).Select(caller => orders.WorkAsync(caller, stop.Token)));
        await Faults.Callers.WorkForAsync(work, s_before, cancellationToken).ConfigureAwait(false);
        await consumer.StopAsync().ConfigureAwait(false);
        await consumer.DisposeAsync().ConfigureAwait(false);
        var before = orders.Accepted;
        var stopped = Stopwatch.GetTimestamp();
        await Faults.Callers.WorkForAsync(work, TimeSpan.FromSeconds(seconds), cancellationToken).ConfigureAwait(false);
        var (acceptedMeanwhile, refused) = (orders.Accepted - before, orders.Refused);
        var depth = await WaitingAsync(http, cancellationToken).ConfigureAwait(false);
        var down = Stopwatch.GetElapsedTime(stopped);
        await stop.CancelAsync().ConfigureAwait(false);
        await work.ConfigureAwait(false);
        var back = Stopwatch.GetTimestamp();
        consumer = await ServerProcess.StartQueuedAsync(store, broker.Uri, consumes: true, settings).ConfigureAwait(false);
        long sold;
        await using (consumer.ConfigureAwait(false))
        {
            do
            {
                await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken).ConfigureAwait(false);
                sold = (await http.GetFromJsonAsync<JsonElement>("v1/stock/hot", cancellationToken).ConfigureAwait(false)).GetProperty("sold").GetInt64();
            }
            while (sold < orders.Accepted && Stopwatch.GetElapsedTime(back) < s_patience);
        }

        var drained = Stopwatch.GetElapsedTime(back);
        var engine = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = postgres.ConnectionString, ReadOnly = true }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingEngine = engine.ConfigureAwait(false);
        var audit = await LedgerAudit.RunAsync(engine, cancellationToken: cancellationToken).ConfigureAwait(false);
        var (known, disorder) = await orders.CheckOrderAsync(engine, cancellationToken).ConfigureAwait(false);

        // What had not been decided when the consumer stopped takes of the bound too: a full queue then accepts nothing at all.
        var isRight = sold == orders.Accepted && known == orders.Accepted && disorder is null && refused > 0 && orders.Odd is null && depth >= bound;
        output.Line($"accepted {before:#,##0} before the stop, {acceptedMeanwhile:#,##0} in the {down.TotalSeconds:0} s without a consumer (bound {bound:#,##0}, {depth:#,##0} waiting at its end), {refused:#,##0} answers 429{(orders.Odd is null ? "" : $"; and {orders.Odd}")}");
        output.Line($"decided  {sold:#,##0} of {orders.Accepted:#,##0} accepted, the last {drained.TotalSeconds:0.0} s after the consumer was started again ({Output.Show(acceptedMeanwhile / drained.TotalSeconds)}/s, its start included)");
        output.Line($"order    {disorder ?? "as accepted: none was decided before one that was accepted before it was sent"}");
        output.Line($"ledger   {audit}");
        output.Line($"bounds: {(isRight && audit.Passed ? "reached" : "NOT reached")}");
        await output.FinishAsync(new
        {
            run = "queue-stopped",
            seconds,
            bound,
            callers,
            acceptedMeanwhile,
            refused,
            accepted = orders.Accepted,
            sold,
            drainedSeconds = Math.Round(drained.TotalSeconds, 2),
            disorder,
            audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
            passed = isRight && audit.Passed,
        }).ConfigureAwait(false);
        return isRight && audit.Passed;
    }

    private static async Task<long> WaitingAsync(HttpClient http, CancellationToken cancellationToken) =>
        (await http.GetFromJsonAsync<JsonElement>("v1/queue", cancellationToken).ConfigureAwait(false)).GetProperty("waiting").GetInt64();

    /// <summary>Callers who order one unit after the other, and when each order was sent and accepted.</summary>
    private sealed class Orders(HttpClient http)
    {
        private readonly Dictionary<string, (long SentAt, long AnsweredAt)> _accepted = new(StringComparer.Ordinal);
        private int _refused;

        public int Accepted
        {
            get
            {
                lock (_accepted)
                {
                    return _accepted.Count;
                }
            }
        }

        public int Refused => Volatile.Read(ref _refused);

        /// <summary>The first answer that is neither 202 nor 429 with Retry-After.</summary>
        public string? Odd { get; private set; }

        public async Task WorkAsync(int caller, CancellationToken stop)
        {
            await Task.Yield();
            for (var i = 0; !stop.IsCancellationRequested; i++)
            {
                var id = string.Create(CultureInfo.InvariantCulture, $"o{caller:x}-{i:x}");
                var sentAt = Stopwatch.GetTimestamp();
                using var answer = await http.PostAsJsonAsync("v1/orders", new { orderId = id, lines = new[] { new { sku = "hot", quantity = 1 } } }, CancellationToken.None).ConfigureAwait(false);
                if (answer.StatusCode == HttpStatusCode.Accepted)
                {
                    lock (_accepted)
                    {
                        _accepted.Add(id, (sentAt, Stopwatch.GetTimestamp()));
                    }
                }
                else if (answer.StatusCode == HttpStatusCode.TooManyRequests && answer.Headers.RetryAfter is not null)
                {
                    Interlocked.Increment(ref _refused);
                    await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
                }
                else
                {
                    Odd ??= $"{(int)answer.StatusCode} {await answer.Content.ReadAsStringAsync(CancellationToken.None).ConfigureAwait(false)}";
                }
            }
        }

        /// <summary>Whether the ledger has the orders as they were accepted: none stands after one that was sent only when it had been answered.</summary>
        public async Task<(int Known, string? Disorder)> CheckOrderAsync(PostgreSqlEngine engine, CancellationToken cancellationToken)
        {
            var known = 0;
            var (latestSent, latest) = (long.MinValue, "");
            await foreach (var entry in engine.ReadFlowAsync(new() { Sku = "hot" }, cancellationToken).ConfigureAwait(false))
            {
                if (entry.Kind != FlowKind.Deduct || !_accepted.TryGetValue(entry.OperationId, out var times))
                {
                    continue;
                }

                known++;
                if (times.AnsweredAt < latestSent)
                {
                    return (known, $"{entry.OperationId} was accepted before {latest} was sent, and decided after it");
                }

                (latestSent, latest) = times.SentAt > latestSent ? (times.SentAt, entry.OperationId) : (latestSent, latest);
            }

            return (known, null);
        }
    }
}
