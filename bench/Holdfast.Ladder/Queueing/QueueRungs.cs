using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Holdfast.Cli.Bench;
using Holdfast.Ladder.Rungs;
using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.TestServers;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace Holdfast.Ladder.Queueing;

/// <summary>The queue against bare loops of the same driver on the same queues, one command a message, one hot SKU.</summary>
internal static class QueueRungs
{
    private const double LeastRatio = 0.6;

    private const string BothSides = "both: RabbitMQ of its own, 4 quorum queues made alike, persistent and mandatory messages of the same bytes, confirmed publishes";

    /// <summary>Accepting orders, nobody deciding them.</summary>
    public static Rung Intake(RungOptions options, RabbitMqServer server) => new()
    {
        Name = "queue-intake",
        Question = "orders accepted (Pending) a second against a loop of bare confirmed publishes",
        SubjectName = "CommandQueue",
        BaselineName = "bare publishes",
        Bound = LeastRatio,
        Settings = [options.Describe(), BothSides, "bare: one channel a queue, the driver's own tracking of confirmations, as many publishes under way as callers; each side's queues are new, and counted afterwards"],
        Prepare = token => IntakeAsync(options, server, token),
        Subject = token => IntakeAsync(options, server, token),
        Baseline = token => BareIntakeAsync(options, server, token),
    };

    /// <summary>From the order to its verdict.</summary>
    public static Rung Verdicts(RungOptions options, RabbitMqServer server, BenchDatabase database) => new()
    {
        Name = "queue-verdicts",
        Question = "from the order to its verdict, one hot SKU, one command a message, against a loop of bare publish, consume and acknowledge",
        SubjectName = "order to verdict",
        BaselineName = "bare round",
        Bound = LeastRatio,
        Settings =
        [
            options.Describe(), BothSides, $"queue: PostgreSQL behind it, {database.Description}; consumers in the same process, a verdict recorded before its message is acknowledged",
            "bare: a caller publishes, a consumer gets the message and acknowledges it by itself, the caller goes on; as many at once as callers",
        ],
        Prepare = token => VerdictsAsync(options, server, database, token),
        Subject = token => VerdictsAsync(options, server, database, token),
        Baseline = token => BareRoundAsync(options, server, token),
    };

    private static async Task<Measured> IntakeAsync(RungOptions options, RabbitMqServer server, CancellationToken cancellationToken)
    {
        var queues = QueueBench.NewQueues(server);
        var store = new MemoryEngine();
        var transport = await RabbitMqTransport.OpenAsync(queues, cancellationToken: cancellationToken).ConfigureAwait(false);
        var queue = new CommandQueue(store, transport, new MemoryVerdicts(store));
        await using var disposing = queue.ConfigureAwait(false);
        var load = await LoopAsync(options.Load, async id => (await queue.ExecuteAsync(StockCommand.Deduct(id, [new("hot", 1)]), cancellationToken).ConfigureAwait(false)).Status == StockStatus.Pending, cancellationToken).ConfigureAwait(false);
        var depth = await SettledDepthAsync(queue.Transport, load.All, cancellationToken).ConfigureAwait(false);
        await QueueBench.DeleteAsync(server, queues, cancellationToken).ConfigureAwait(false);
        return load.ToMeasured(depth == load.All && load.Failed == 0 ? "pass" : $"fail: {load.All} accepted, {depth} in the queues, {load.Failed} not accepted");
    }

    private static async Task<Measured> BareIntakeAsync(RungOptions options, RabbitMqServer server, CancellationToken cancellationToken)
    {
        var queues = QueueBench.NewQueues(server);
        await QueueBench.MakeAsync(queues, cancellationToken).ConfigureAwait(false);
        var connection = await QueueBench.ConnectAsync(server, cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var channels = await ChannelsAsync(connection, options.Load.Callers, cancellationToken).ConfigureAwait(false);
        var next = 0;
        var load = await LoopAsync(
            options.Load,
            async id =>
            {
                var queue = (uint)Interlocked.Increment(ref next) % QueueBench.Queues;
                await channels[queue].BasicPublishAsync(queues.Name, queue.ToString(CultureInfo.InvariantCulture), mandatory: true, new BasicProperties { DeliveryMode = DeliveryModes.Persistent }, QueueBench.MessageOf(id), cancellationToken).ConfigureAwait(false);
                return true;
            },
            cancellationToken).ConfigureAwait(false);
        await QueueBench.DeleteAsync(server, queues, cancellationToken).ConfigureAwait(false);
        return load.ToMeasured(audit: null);
    }

    private static async Task<Measured> VerdictsAsync(RungOptions options, RabbitMqServer server, BenchDatabase database, CancellationToken cancellationToken)
    {
        var queues = QueueBench.NewQueues(server);
        await database.RunSqlAsync("CHECKPOINT").ConfigureAwait(false);
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = database.ConnectionString, Schema = queues.Name }, cancellationToken: cancellationToken).ConfigureAwait(false);
        var transport = await RabbitMqTransport.OpenAsync(queues, cancellationToken: cancellationToken).ConfigureAwait(false);
        await store.RestockAsync("opening", [("hot", 1_000_000_000)], cancellationToken: cancellationToken).ConfigureAwait(false);
        var queue = new CommandQueue(store, transport, await store.OpenVerdictsAsync(cancellationToken).ConfigureAwait(false), new() { MaxVerdictWaiters = 100_000 });
        await using (queue.ConfigureAwait(false))
        {
            queue.Start();
            var load = await LoopAsync(
                options.Load,
                async id => (await queue.ExecuteAsync(StockCommand.Deduct(id, [new("hot", 1)]), cancellationToken).ConfigureAwait(false)).Status == StockStatus.Pending
                    && await queue.WaitForVerdictAsync(id, TimeSpan.FromMinutes(1), cancellationToken).ConfigureAwait(false) is { Result.Status: StockStatus.Done },
                cancellationToken).ConfigureAwait(false);
            var sold = (await store.GetStockAsync("hot", cancellationToken: cancellationToken).ConfigureAwait(false)).Sold;
            var audit = await LedgerAudit.RunAsync(store, new() { Skus = ["hot"] }, cancellationToken).ConfigureAwait(false);
            await queue.StopAsync().ConfigureAwait(false);
            await QueueBench.DeleteAsync(server, queues, cancellationToken).ConfigureAwait(false);
            await database.DropAsync(queues.Name).ConfigureAwait(false);
            return load.ToMeasured(!audit.Passed ? $"fail: {audit.FirstDifference}" : sold == load.All && load.Failed == 0 ? "pass" : $"fail: {load.All} told Done, {sold} sold, {load.Failed} failed");
        }
    }

    private static async Task<Measured> BareRoundAsync(RungOptions options, RabbitMqServer server, CancellationToken cancellationToken)
    {
        var queues = QueueBench.NewQueues(server);
        await QueueBench.MakeAsync(queues, cancellationToken).ConfigureAwait(false);
        var publishing = await QueueBench.ConnectAsync(server, cancellationToken).ConfigureAwait(false);
        await using var disposing = publishing.ConfigureAwait(false);
        var consuming = await QueueBench.ConnectAsync(server, cancellationToken).ConfigureAwait(false);
        await using var disposingToo = consuming.ConfigureAwait(false);
        var channels = await ChannelsAsync(publishing, options.Load.Callers, cancellationToken).ConfigureAwait(false);
        var waiting = new ConcurrentDictionary<string, TaskCompletionSource>(StringComparer.Ordinal);
        for (var i = 0; i < QueueBench.Queues; i++)
        {
            var channel = await consuming.CreateChannelAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
            await channel.BasicQosAsync(0, 2_000, global: false, cancellationToken).ConfigureAwait(false);
            var consumer = new AsyncEventingBasicConsumer(channel);
            consumer.ReceivedAsync += async (_, e) =>
            {
                var id = e.BasicProperties.MessageId!;
                await channel.BasicAckAsync(e.DeliveryTag, multiple: false, CancellationToken.None).ConfigureAwait(false);
                if (waiting.TryRemove(id, out var waiter))
                {
                    waiter.TrySetResult();
                }
            };
            await channel.BasicConsumeAsync(string.Create(CultureInfo.InvariantCulture, $"{queues.Name}.{i}"), autoAck: false, consumer, cancellationToken).ConfigureAwait(false);
        }

        var next = 0;
        var load = await LoopAsync(
            options.Load,
            async id =>
            {
                var queue = (uint)Interlocked.Increment(ref next) % QueueBench.Queues;
                var waiter = waiting[id] = new(TaskCreationOptions.RunContinuationsAsynchronously);
                await channels[queue].BasicPublishAsync(
                    queues.Name, queue.ToString(CultureInfo.InvariantCulture), mandatory: true, new BasicProperties { DeliveryMode = DeliveryModes.Persistent, MessageId = id }, QueueBench.MessageOf(id), cancellationToken).ConfigureAwait(false);
                await waiter.Task.WaitAsync(TimeSpan.FromMinutes(1), TimeProvider.System, cancellationToken).ConfigureAwait(false);
                return true;
            },
            cancellationToken).ConfigureAwait(false);
        await QueueBench.DeleteAsync(server, queues, cancellationToken).ConfigureAwait(false);
        return load.ToMeasured(audit: null);
    }

    /// <summary>A channel a queue, with the driver's own tracking and room for every caller.</summary>
    private static async Task<IChannel[]> ChannelsAsync(IConnection connection, int callers, CancellationToken cancellationToken)
    {
        var channels = new IChannel[QueueBench.Queues];
        for (var i = 0; i < channels.Length; i++)
        {
            var room = new ThrottlingRateLimiter(Math.Max(callers, 128));
            channels[i] = await connection.CreateChannelAsync(new CreateChannelOptions(publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true, room), cancellationToken).ConfigureAwait(false);
        }

        return channels;
    }

    /// <summary>The broker counts what it has a moment after it confirms it.</summary>
    private static async Task<long> SettledDepthAsync(ICommandTransport transport, long expected, CancellationToken cancellationToken)
    {
        long waiting = -1;
        for (var i = 0; i < 100 && waiting != expected; i++)
        {
            waiting = (await transport.MeasureAsync(cancellationToken).ConfigureAwait(false)).Waiting;
            await Task.Delay(TimeSpan.FromMilliseconds(waiting == expected ? 0 : 100), TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }

        return waiting;
    }

    /// <summary>Callers that go round until the time is over; what ends after the warm-up counts.</summary>
    private static async Task<LoopResult> LoopAsync(Load load, Func<string, Task<bool>> round, CancellationToken cancellationToken)
    {
        var result = new LoopResult();
        var began = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, load.Callers).Select(async caller =>
        {
            await Task.Yield();
            for (var i = 0; Stopwatch.GetElapsedTime(began) < load.WarmUp + load.Duration; i++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                var started = Stopwatch.GetTimestamp();
                var isGood = await round(string.Create(CultureInfo.InvariantCulture, $"o{caller:x}-{i:x}")).ConfigureAwait(false);
                var elapsed = Stopwatch.GetElapsedTime(began);
                result.Add(isGood, elapsed >= load.WarmUp && elapsed < load.WarmUp + load.Duration ? Stopwatch.GetElapsedTime(started) : null);
            }
        })).ConfigureAwait(false);
        result.Duration = load.Duration;
        return result;
    }

    private sealed class LoopResult
    {
        private readonly LatencyHistogram _latencies = new();
        private long _all, _failed;

        public long All => Interlocked.Read(ref _all);

        public long Failed => Interlocked.Read(ref _failed);

        public TimeSpan Duration { get; set; }

        public void Add(bool isGood, TimeSpan? counted)
        {
            Interlocked.Increment(ref isGood ? ref _all : ref _failed);
            if (isGood && counted is { } latency)
            {
                _latencies.Add(latency);
            }
        }

        public Measured ToMeasured(string? audit) => new(
            _latencies.Count / Duration.TotalSeconds,
            string.Create(CultureInfo.InvariantCulture, $"p50 {_latencies.Percentile(0.5).TotalMilliseconds:0.0} ms, p99 {_latencies.Percentile(0.99).TotalMilliseconds:0.0} ms"),
            audit);
    }
}
