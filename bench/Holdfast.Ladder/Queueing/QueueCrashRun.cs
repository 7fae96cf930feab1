using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Queueing;

/// <summary>What a consumer process is told.</summary>
/// <param name="Database">The store's connection string.</param>
/// <param name="Broker">The broker's address.</param>
/// <param name="Name">The name of the queues.</param>
/// <param name="Step">The step that it ends itself after (kill -9), or 0.</param>
/// <param name="Passes">How often it passes that step before.</param>
internal sealed record ConsumeOrder(string Database, string Broker, string Name, int Step, int Passes);

/// <summary>
/// RabbitMQ, the process of the consumers (at each of its steps) and PostgreSQL are killed again and again while callers order,
/// refund and cancel: what was accepted is resolved, with one effect and one verdict each.
/// </summary>
internal static class QueueCrashRun
{
    public const string ConsumeCommand = "queue-consume";
    private const int Skus = 8;
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    private static readonly string s_dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";

    public static async Task<bool> RunAsync(int kills, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        var postgres = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = postgres.ConfigureAwait(false);
        var broker = await RabbitMqServer.StartAsync().ConfigureAwait(false);
        await using var disposingToo = broker.ConfigureAwait(false);
        output.Heading(
            $"queue-crash: kill -9 of RabbitMQ, of the consumers' process (after each of its steps in turn) and of PostgreSQL, {kills} times each, under load",
            $"RabbitMQ 3.10, PostgreSQL {await postgres.RunSqlAsync("SHOW server_version").ConfigureAwait(false)} with fsync=on; {callers} callers: orders, and refunds and cancellations of them, each sent again with the same id until accepted; seed {seed}",
            "bounds: every accepted command has a verdict, one effect each; the audits of ledger and history pass; no dead letter");
        var queues = QueueBench.NewQueues(broker);
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = postgres.ConnectionString }, cancellationToken: cancellationToken).ConfigureAwait(false);
        var transport = await RabbitMqTransport.OpenAsync(queues, cancellationToken: cancellationToken).ConfigureAwait(false);
        var queue = new CommandQueue(store, transport, await store.OpenVerdictsAsync(cancellationToken).ConfigureAwait(false));
        await using var disposingThree = queue.ConfigureAwait(false);
        var opening = await store.RestockAsync("opening", [.. Enumerable.Range(0, Skus).Select(static i => new StockLine($"sku-{i}", 20_000))], cancellationToken: cancellationToken).ConfigureAwait(false);
        if (!opening.IsApplied)
        {
            throw new InvalidOperationException($"The opening stock was answered {opening}.");
        }

        var random = new Random(seed);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var load = new Load(queue, seed);
        var consumer = Start(new(postgres.ConnectionString, broker.Uri, queues.Name, 0, 0));
        var longest = TimeSpan.Zero;
        try
        {
            var work = Task.WhenAll(Enumerable.Range(0, callers).Select(caller => load.WorkAsync(caller, stop.Token)));
            while (load.Verdicts == 0)
            {
                await Faults.Callers.WorkForAsync(work, TimeSpan.FromMilliseconds(10), cancellationToken).ConfigureAwait(false);
            }

            output.Line($"{"killed",-24}{"kill",6}{"verdicts before it",22}{"next verdict after",22}");
            foreach (var killed in (string[])["RabbitMQ", "consumer", "PostgreSQL"])
            {
                for (var i = 0; i < kills; i++)
                {
                    var before = load.Verdicts;
                    var name = killed;
                    await Faults.Callers.WorkForAsync(work, TimeSpan.FromMilliseconds(random.Next(300, 1_200)), cancellationToken).ConfigureAwait(false);
                    switch (killed)
                    {
                        case "RabbitMQ":
                            await broker.KillAsync().ConfigureAwait(false);
                            break;
                        case "PostgreSQL":
                            await postgres.KillAsync().ConfigureAwait(false);
                            break;
                        default:
                            // It is ended and one comes in its place that ends itself at the step.
                            var step = (ConsumerStep)((i % 5) + 1);
                            name = $"consumer, {step}";
                            await EndAsync(consumer).ConfigureAwait(false);
                            consumer = Start(new(postgres.ConnectionString, broker.Uri, queues.Name, (int)step, random.Next(1, 8)));
                            using (var limit = new CancellationTokenSource(s_patience, TimeProvider.System))
                            {
                                await consumer.WaitForExitAsync(limit.Token).ConfigureAwait(false);
                            }

                            break;
                    }

                    var count = load.Verdicts - before;
                    var since = Stopwatch.GetTimestamp();
                    var at = load.Verdicts;
                    if (killed == "RabbitMQ")
                    {
                        await broker.StartAgainAsync().ConfigureAwait(false);
                    }
                    else if (killed == "PostgreSQL")
                    {
                        await postgres.StartAsync().ConfigureAwait(false);
                    }
                    else
                    {
                        consumer = Start(new(postgres.ConnectionString, broker.Uri, queues.Name, 0, 0));
                    }

                    while (load.Verdicts == at && Stopwatch.GetElapsedTime(since) < s_patience)
                    {
                        await Faults.Callers.WorkForAsync(work, TimeSpan.FromMilliseconds(10), cancellationToken).ConfigureAwait(false);
                    }

                    var took = Stopwatch.GetElapsedTime(since);
                    longest = took > longest ? took : longest;
                    output.Line($"{name,-24}{i + 1,6}{count,22:#,##0}{took.TotalSeconds,20:0.00} s");
                }
            }

            await stop.CancelAsync().ConfigureAwait(false);
            await work.WaitAsync(s_patience * 2, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            await EndAsync(consumer).ConfigureAwait(false);
        }

        var dead = await transport.PeekDeadAsync(100, cancellationToken).ConfigureAwait(false);
        var audit = (await LedgerAudit.RunAsync(store, cancellationToken: cancellationToken).ConfigureAwait(false))
            .And(await HistoryAudit.RunAsync(store, load.History, new() { IsForeign = static id => id == "opening" }, cancellationToken).ConfigureAwait(false));
        var isRight = load.Unresolved == 0 && dead.Count == 0 && load.Accepted == load.Verdicts;
        output.Line();
        output.Line($"accepted {load.Accepted:#,##0} commands ({load.Again:#,##0} times one was sent again), resolved {load.Verdicts:#,##0}: {load.Tally}; unresolved {load.Unresolved}; dead letters {dead.Count}");
        output.Line($"verdicts came again by themselves every time, at most {longest.TotalSeconds:0.0} s after the kill (the restart included)");
        output.Line($"audit    {audit}");
        output.Line($"bounds: {(isRight && audit.Passed ? "reached" : "NOT reached")}");
        await output.FinishAsync(new
        {
            run = "queue-crash",
            kills,
            callers,
            seed,
            accepted = load.Accepted,
            resolved = load.Verdicts,
            unresolved = load.Unresolved,
            dead = dead.Count,
            longestSeconds = Math.Round(longest.TotalSeconds, 2),
            audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}",
            passed = isRight && audit.Passed,
        }).ConfigureAwait(false);
        return isRight && audit.Passed;
    }

    /// <summary>The consumers, in this process.</summary>
    public static async Task<int> ConsumeAsync(ConsumeOrder order, CancellationToken cancellationToken)
    {
        var queue = await OpenAsync(order, cancellationToken).ConfigureAwait(false);
        await using var disposing = queue.ConfigureAwait(false);
        var passes = 0;
        queue.Failpoint = step =>
        {
            if ((int)step == order.Step && Interlocked.Increment(ref passes) > order.Passes)
            {
                using var self = Process.GetCurrentProcess();
                self.Kill();
            }

            return ValueTask.CompletedTask;
        };
        queue.Start();
        await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return 0;
    }

    /// <summary>Opens store and queue, again and again while either is down: they are killed here, too.</summary>
    private static async Task<CommandQueue> OpenAsync(ConsumeOrder order, CancellationToken cancellationToken)
    {
        var began = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = order.Database }, cancellationToken: cancellationToken).ConfigureAwait(false);
                var transport = await RabbitMqTransport.OpenAsync(Queues(order), cancellationToken: cancellationToken).ConfigureAwait(false);
                return new(store, transport, await store.OpenVerdictsAsync(cancellationToken).ConfigureAwait(false), new() { RetryDelay = TimeSpan.FromMilliseconds(200) });
            }
            catch (IOException) when (Stopwatch.GetElapsedTime(began) < s_patience)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(200), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static RabbitMqOptions Queues(ConsumeOrder order) => new()
    {
        Uri = order.Broker,
        Name = order.Name,
        Queues = QueueBench.Queues,
        MaxMessages = 10_000_000,
        RetryDelay = TimeSpan.FromMilliseconds(200),
    };

    private static Process Start(ConsumeOrder order) =>
        Process.Start(new ProcessStartInfo(s_dotnet, [Assembly.GetExecutingAssembly().Location, ConsumeCommand, JsonSerializer.Serialize(order)]))!;

    private static async Task EndAsync(Process consumer)
    {
        if (!consumer.HasExited)
        {
            consumer.Kill();
            await consumer.WaitForExitAsync().ConfigureAwait(false);
        }

        consumer.Dispose();
    }

    /// <summary>Callers who each order, refund and cancel, and wait for every verdict.</summary>
    private sealed class Load(CommandQueue queue, int seed)
    {
        private readonly Dictionary<string, int> _tally = new(StringComparer.Ordinal);
        private int _accepted, _verdicts, _unresolved, _again;

        public History History { get; } = new();

        public int Accepted => Volatile.Read(ref _accepted);

        public int Verdicts => Volatile.Read(ref _verdicts);

        public int Unresolved => Volatile.Read(ref _unresolved);

        public int Again => Volatile.Read(ref _again);

        public string Tally
        {
            get
            {
                lock (_tally)
                {
                    return string.Join(", ", _tally.OrderBy(static each => each.Key, StringComparer.Ordinal).Select(static each => string.Create(CultureInfo.InvariantCulture, $"{each.Value:#,##0} {each.Key}")));
                }
            }
        }

        public async Task WorkAsync(int caller, CancellationToken stop)
        {
            await Task.Yield();
            var random = new Random(unchecked((seed * 1_000_003) + caller));
            for (var i = 0; !stop.IsCancellationRequested; i++)
            {
                var id = string.Create(CultureInfo.InvariantCulture, $"o{caller:x}-{i:x}");
                StockLine[] cart = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => new StockLine($"sku-{random.Next(Skus)}", random.Next(1, 4)))];
                await SendAsync(StockCommand.Deduct(id, cart), null).ConfigureAwait(false);
                switch (random.Next(4))
                {
                    case 0:
                        await SendAsync(StockCommand.Refund(id + "-back", id, [cart[0] with { Quantity = 1 }]), null).ConfigureAwait(false);
                        break;
                    case 1:
                        await SendAsync(StockCommand.Cancel(id), id + "-cancel").ConfigureAwait(false);
                        break;
                }
            }
        }

        /// <summary>Sends one until it is accepted, and waits for its verdict; never stopped in between.</summary>
        private async Task SendAsync(StockCommand command, string? request)
        {
            var sentAt = Stopwatch.GetTimestamp();
            while ((await queue.EnqueueAsync(command, request).ConfigureAwait(false)).Status != StockStatus.Pending)
            {
                Interlocked.Increment(ref _again);
                await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System).ConfigureAwait(false);
            }

            Interlocked.Increment(ref _accepted);
            var verdict = await AwaitAsync(request ?? command.Id).ConfigureAwait(false);
            History.Add(new() { Command = command, SentAt = sentAt, AnsweredAt = Stopwatch.GetTimestamp(), Result = verdict?.Result ?? default });
            Interlocked.Increment(ref verdict is null ? ref _unresolved : ref _verdicts);
            var name = verdict?.Result.Status.ToString() ?? "none";
            lock (_tally)
            {
                _tally[name] = _tally.GetValueOrDefault(name) + 1;
            }
        }

        private async Task<Verdict?> AwaitAsync(string id)
        {
            var began = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(began) < s_patience)
            {
                try
                {
                    if (await queue.WaitForVerdictAsync(id, TimeSpan.FromSeconds(20)).ConfigureAwait(false) is { } verdict)
                    {
                        return verdict;
                    }
                }
                catch (IOException)
                {
                    // The store is down just now.
                    await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System).ConfigureAwait(false);
                }
            }

            return null;
        }
    }
}
