using System.Collections.Concurrent;
using System.Text;
using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.PostgreSql;
using Npgsql;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace Holdfast.Tests.Queueing;

/// <summary>What went wrong once: stores and brokers that fail at the wrong moment, each under the name of its bug.</summary>
public sealed class QueueFaultTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(1);

    private static readonly CommandQueueOptions s_quick = new() { RetryDelay = TimeSpan.FromMilliseconds(20) };

    public static TheoryData<string> Transports => QueuedSchemes.Names;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    /// <summary>The consumer holds orders while the store is away; when it is back their deadline has passed, and they are not executed any more. What was executed stands.</summary>
    [Fact]
    public async Task A_deadline_that_passes_while_the_store_is_down_is_kept()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["memory"](start, 1);
        var engine = new Scripted(parts.Store);
        await using var queue = parts.Open(s_quick, engine, new MemoryTransport(queues: 1));
        await queue.Inner.RestockAsync("r1", [("A", 10)], cancellationToken: Stop);
        await queue.Inner.ReserveAsync("h1", [("A", 1)], TimeSpan.FromMinutes(5), cancellationToken: Stop);
        var calls = 0;
        engine.Answer = async commands =>
        {
            if (Interlocked.Increment(ref calls) == 1)
            {
                // The connection is lost after the first of them was committed.
                await parts.Store.ExecuteAsync([commands[0]], Stop);
            }

            return [.. commands.Select(static _ => StockResult.Of(StockStatus.InDoubt))];
        };
        var sent = TimeProvider.System.GetUtcNow();
        await queue.EnqueueAsync(StockCommand.Deduct("kept", [new("A", 1)]), timeToDecide: TimeSpan.FromSeconds(1), cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Deduct("late", [new("A", 1)]), timeToDecide: TimeSpan.FromSeconds(1), cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Confirm("h1"), "confirm-late", TimeSpan.FromSeconds(1), Stop);
        queue.Start();
        await UntilAsync(() => Task.FromResult(Volatile.Read(ref calls) > 1 && TimeProvider.System.GetUtcNow() - sent > TimeSpan.FromSeconds(1.5)));
        engine.Answer = null;
        (await VerdictAsync(queue, "kept")).Result.Status.ShouldBe(StockStatus.Done);
        var late = (await VerdictAsync(queue, "late")).Result;
        (late.Status, late.Detail?.Contains("deadline", StringComparison.Ordinal)).ShouldBe((StockStatus.Cancelled, true));
        (await VerdictAsync(queue, "confirm-late")).Result.Status.ShouldBe(StockStatus.Cancelled);
        (await queue.Inner.GetOperationAsync("h1", Stop))!.State.ShouldBe(OperationState.Reserved);
        (await queue.Inner.GetStockAsync("A", cancellationToken: Stop)).Sold.ShouldBe(1);
    }

    /// <summary>A Confirm is put aside since the store was busy for a moment; the refund behind it must not be refused for good because of that.</summary>
    [Theory]
    [MemberData(nameof(Transports))]
    public async Task A_refund_waits_for_the_confirm_before_it(string transport)
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports[transport](start, 2);
        var engine = new Scripted(parts.Store);
        await using var queue = parts.Open(s_quick, engine);
        await queue.Inner.RestockAsync("r1", [("A", 10)], cancellationToken: Stop);
        await queue.Inner.ReserveAsync("h1", [("A", 2)], TimeSpan.FromMinutes(5), cancellationToken: Stop);
        var busy = 0;
        engine.Answer = async commands => commands.Any(static command => command.Verb == StockVerb.Confirm && command.Id == "h1") && Interlocked.Increment(ref busy) == 1
            ? [.. commands.Select(static _ => StockResult.Of(StockStatus.Busy))]
            : await parts.Store.ExecuteAsync(commands, Stop);
        await queue.EnqueueAsync(StockCommand.Confirm("h1"), "c1", cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Refund("f1", "h1", [new("A", 1)]), cancellationToken: Stop);
        queue.Start();
        (await VerdictAsync(queue, "c1")).Result.Status.ShouldBe(StockStatus.Done);
        (await VerdictAsync(queue, "f1")).Result.Status.ShouldBe(StockStatus.Done);

        // One that can't come right any more is refused at once.
        await queue.Inner.CancelAsync("h1", cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Refund("f2", "h1", [new("A", 1)]), cancellationToken: Stop);
        (await VerdictAsync(queue, "f2")).Result.Status.ShouldBe(StockStatus.InvalidTargetState);
    }

    /// <summary>The acknowledgement is lost, and before the message comes again the order is cancelled, or the reservation expires: the verdict on the command stays Done, told and asked for.</summary>
    [Theory]
    [MemberData(nameof(Transports))]
    public async Task A_verdict_does_not_change_with_what_becomes_of_the_order(string transport)
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports[transport](start, 1);
        await using var queue = parts.Open(new() { RetryDelay = TimeSpan.FromMilliseconds(20), Announce = true });
        await queue.Inner.RestockAsync("r1", [("A", 10)], cancellationToken: Stop);
        var falls = 0;
        queue.Failpoint = async step =>
        {
            if (step == ConsumerStep.Executed && Interlocked.Increment(ref falls) == 1)
            {
                (await queue.Inner.CancelAsync("o1", cancellationToken: Stop)).Status.ShouldBe(StockStatus.Done);
                start.Clock.Advance(TimeSpan.FromMinutes(1));
                (await queue.Inner.GetOperationAsync("h1", Stop))!.State.ShouldBe(OperationState.Expired);
                throw new InvalidOperationException("The process ends.");
            }
        };
        await queue.DeductAsync("o1", [("A", 1)], cancellationToken: Stop);
        await queue.ReserveAsync("h1", [("A", 1)], TimeSpan.FromSeconds(1), cancellationToken: Stop);
        queue.Start();
        var announced = new ConcurrentDictionary<string, StockStatus>();
        await UntilAsync(async () =>
        {
            foreach (var each in await queue.Verdicts.TakeAnnouncementsAsync(10, TimeSpan.FromMinutes(5), Stop))
            {
                announced[each.Verdict.Id] = each.Verdict.Result.Status;
                await queue.Verdicts.SettleAnnouncementAsync(each.Verdict.Id, isDelivered: true, cancellationToken: Stop);
            }

            return announced.Count == 2;
        });
        foreach (var id in new[] { "o1", "h1" })
        {
            (await VerdictAsync(queue, id)).Result.Status.ShouldBe(StockStatus.Done);
            announced[id].ShouldBe(StockStatus.Done);
        }

        await queue.Verdicts.PurgeAsync(DateTimeOffset.MaxValue, 10, Stop);
        (await VerdictAsync(queue, "o1")).Result.Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>A Confirm or Refund whose target never came says so when its time is over.</summary>
    [Fact]
    public async Task An_unknown_target_is_the_verdict_also_at_the_deadline()
    {
        await using var start = new SchemeStart(new());
        await using var queue = (await QueuedSchemes.Transports["memory"](start, 2)).Open(s_quick);
        queue.Start();
        await queue.EnqueueAsync(StockCommand.Refund("f1", "never", [new("A", 1)]), timeToDecide: TimeSpan.FromSeconds(1), cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Confirm("never"), "c1", TimeSpan.FromSeconds(1), Stop);
        (await VerdictAsync(queue, "f1")).Result.Status.ShouldBe(StockStatus.UnknownTarget);
        (await VerdictAsync(queue, "c1")).Result.Status.ShouldBe(StockStatus.UnknownTarget);
    }

    /// <summary>What is refused, and whose id can't be closed, is poison like any other and not tried for ever.</summary>
    [Fact]
    public async Task An_id_that_cannot_be_closed_is_given_up()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["memory"](start, 1);
        var engine = new Scripted(parts.Store);
        await using var queue = parts.Open(s_quick, engine);
        engine.Answer = async commands => commands.Any(static command => command.Verb == StockVerb.Abandon)
            ? throw new InvalidOperationException("The engine stumbles over the tombstone.")
            : await parts.Store.ExecuteAsync(commands, Stop);
        queue.Start();
        await queue.DeductAsync("o1", [("A", 1)], cancellationToken: Stop);
        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth is { Dead: 1, Waiting: 0, Deferred: 0 });
        var letter = (await queue.Transport.PeekDeadAsync(1, Stop))[0];
        letter.Reason.ShouldContain("could not be closed");

        // Requeued under the id that it has, or one that is used, it would be lost.
        engine.Answer = null;
        await queue.Inner.RestockAsync("r1", [("A", 1)], cancellationToken: Stop);
        (await Should.ThrowAsync<InvalidCommandException>(async () => await queue.RequeueDeadAsync(letter.Letter, "o1", Stop))).Field.ShouldBe("id");
        (await Should.ThrowAsync<InvalidCommandException>(async () => await queue.RequeueDeadAsync(letter.Letter, "r1", Stop))).Field.ShouldBe("id");
        (await queue.RequeueDeadAsync(letter.Letter, "o2", Stop)).Status.ShouldBe(StockStatus.Pending);
        (await VerdictAsync(queue, "o2")).Result.Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>The command line sends letters again without knowing how many queues the server was started with: none may end in a queue that nobody reads.</summary>
    [Fact]
    public async Task A_letter_that_is_sent_again_goes_to_a_queue_that_is_read()
    {
        await using var start = new SchemeStart(new());
        var store = await PostgreSqlEngine.OpenAsync(await SharedPostgreSql.NewStoreAsync(start), cancellationToken: Stop);
        var verdicts = await store.OpenVerdictsAsync(Stop);
        await using var queue = new CommandQueue(store, await store.OpenQueueAsync(queues: 1, cancellationToken: Stop), verdicts, new() { RetryDelay = TimeSpan.FromMilliseconds(20), MaxTries = 1 }, new Scripted(store)
        {
            Answer = async commands => commands.Any(static command => command.Id.StartsWith("bad", StringComparison.Ordinal) && command.Verb == StockVerb.Deduct)
                ? throw new InvalidOperationException("The engine stumbles.")
                : await store.ExecuteAsync(commands, Stop),
        });
        await store.RestockAsync("r1", [("A", 10)], cancellationToken: Stop);
        for (var i = 0; i < 5; i++)
        {
            await queue.DeductAsync($"bad{i}", [("A", 1)], cancellationToken: Stop);
        }

        queue.Start();
        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth.Dead == 5);
        var elsewhere = new CommandQueue(store, await store.OpenQueueAsync(queues: 16, cancellationToken: Stop), verdicts);
        foreach (var letter in await elsewhere.Transport.PeekDeadAsync(10, Stop))
        {
            (await elsewhere.RequeueDeadAsync(letter.Letter, $"good{letter.Letter}", Stop)).Status.ShouldBe(StockStatus.Pending);
            (await VerdictAsync(queue, $"good{letter.Letter}")).Result.Status.ShouldBe(StockStatus.Done);
        }

        await elsewhere.Transport.DisposeAsync();
    }

    /// <summary>A Confirm that was executed, and whose acknowledgement was lost again and again, is not told as given up.</summary>
    [Fact]
    public async Task A_confirm_that_was_executed_is_no_poison()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["memory"](start, 1);
        await using var queue = parts.Open(new() { RetryDelay = TimeSpan.FromMilliseconds(20), MaxDeliveries = 2 });
        await queue.Inner.RestockAsync("r1", [("A", 1)], cancellationToken: Stop);
        await queue.Inner.ReserveAsync("h1", [("A", 1)], TimeSpan.FromMinutes(5), cancellationToken: Stop);
        var falls = 0;
        queue.Failpoint = step => step == ConsumerStep.Executed && Interlocked.Increment(ref falls) <= 2 ? throw new InvalidOperationException("The process ends.") : ValueTask.CompletedTask;
        await queue.EnqueueAsync(StockCommand.Confirm("h1"), "c1", cancellationToken: Stop);
        queue.Start();
        (await VerdictAsync(queue, "c1")).Result.IsApplied.ShouldBeTrue();
        (await queue.MeasureAsync(Stop)).Depth.Dead.ShouldBe(0);
    }

    /// <summary>Whoever waits a moment is told what is known, not only who waits long or not at all.</summary>
    [Fact]
    public async Task A_short_wait_finds_a_verdict_that_is_there()
    {
        await using var start = new SchemeStart(new());
        await using var queue = (await QueuedSchemes.Transports["memory"](start, 1)).Open(s_quick);
        queue.Start();
        await queue.EnqueueAsync(StockCommand.Abandon("o1"), "q1", cancellationToken: Stop);
        (await VerdictAsync(queue, "q1")).Result.Status.ShouldBe(StockStatus.Done);
        (await queue.WaitForVerdictAsync("q1", TimeSpan.FromMilliseconds(1), Stop)).ShouldNotBeNull();
    }

    /// <summary>Consumers hold a connection each while they need another: with as many queues as the pool has connections all would wait for each other.</summary>
    [Fact]
    public async Task Consumers_leave_connections_of_a_small_pool_to_the_engine()
    {
        await using var start = new SchemeStart(new());
        var options = await SharedPostgreSql.NewStoreAsync(start);
        var store = await PostgreSqlEngine.OpenAsync(options with { ConnectionString = new NpgsqlConnectionStringBuilder(options.ConnectionString) { MaxPoolSize = 4 }.ConnectionString }, cancellationToken: Stop);
        await using var queue = new CommandQueue(store, await store.OpenQueueAsync(queues: 16, cancellationToken: Stop), await store.OpenVerdictsAsync(Stop), new() { RetryDelay = TimeSpan.FromMilliseconds(20), MaxBatchCommands = 5 });
        await store.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        for (var i = 0; i < 500; i += 50)
        {
            (await queue.ExecuteAsync([.. Enumerable.Range(i, 50).Select(static each => StockCommand.Deduct($"o{each}", [new("A", 1)]))], Stop)).ShouldAllBe(static result => result.Status == StockStatus.Pending);
        }

        queue.Start();
        await UntilAsync(async () => (await store.GetStockAsync("A", cancellationToken: Stop)).Sold == 500);
        (await LedgerAudit.RunAsync(store, cancellationToken: Stop)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>Somebody deletes a queue at the broker: what was in it is gone, but it is made anew for what comes, without a restart.</summary>
    [Fact]
    public async Task A_queue_that_was_deleted_is_made_anew()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["sqlite"](start, 1);
        var options = (await SharedRabbitMq.NewQueuesAsync()) with { Queues = 1 };
        await using var queue = parts.Open(s_quick, transport: await RabbitMqTransport.OpenAsync(options, cancellationToken: Stop));
        await queue.Inner.RestockAsync("r1", [("A", 10)], cancellationToken: Stop);
        (await queue.DeductAsync("o1", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
        await AtBrokerAsync(options, async channel => await channel.QueueDeleteAsync($"{options.Name}.0", cancellationToken: Stop));
        var answers = new List<StockStatus>();
        await UntilAsync(async () =>
        {
            answers.Add((await queue.DeductAsync("o2", [("A", 1)], cancellationToken: Stop)).Status);
            return answers[^1] == StockStatus.Pending;
        });
        answers[0].ShouldBe(StockStatus.InDoubt);
        queue.Start();
        (await VerdictAsync(queue, "o2")).Result.Status.ShouldBe(StockStatus.Done);

        // And under its consumer.
        await AtBrokerAsync(options, async channel => await channel.QueueDeleteAsync($"{options.Name}.0", cancellationToken: Stop));
        await UntilAsync(async () =>
        {
            await queue.DeductAsync("o3", [("A", 1)], cancellationToken: Stop);
            return await queue.WaitForVerdictAsync("o3", TimeSpan.FromMilliseconds(500), Stop) is { Result.Status: StockStatus.Done };
        });
        (await queue.Inner.GetStockAsync("A", cancellationToken: Stop)).Sold.ShouldBe(2);
    }

    /// <summary>RabbitMQ 4 drops what was handed out more than twenty times, unless a queue says otherwise; ours do, in words that 3.10 takes, too.</summary>
    [Fact]
    public async Task No_queue_is_left_to_the_brokers_own_delivery_limit()
    {
        var options = await SharedRabbitMq.NewQueuesAsync();
        await using var transport = await RabbitMqTransport.OpenAsync(options, cancellationToken: Stop);
        foreach (var (name, bound) in new[] { ("0", 500_000L), ("1", 500_000L), ("dead", 100_000L) })
        {
            // A broker compares the arguments, and names the first that differs: here all are right but the limit.
            var refused = await Should.ThrowAsync<OperationInterruptedException>(() => AtBrokerAsync(options, async channel =>
            {
                var arguments = new Dictionary<string, object?> { ["x-queue-type"] = "quorum", ["x-max-length"] = bound, ["x-overflow"] = "reject-publish", ["x-delivery-limit"] = 1 };
                if (name != "dead")
                {
                    arguments["x-single-active-consumer"] = true;
                }

                await channel.QueueDeclareAsync($"{options.Name}.{name}", durable: true, exclusive: false, autoDelete: false, arguments, cancellationToken: Stop);
            }));
            var text = refused.ShutdownReason!.ReplyText;
            text.ShouldContain("x-delivery-limit");
            text.ShouldContain("2147483647");
        }
    }

    /// <summary>The dead letters are full: what should become one stays in the queue, and its neighbours are decided.</summary>
    [Fact]
    public async Task Full_dead_letters_harm_no_neighbours()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["sqlite"](start, 1);
        var options = (await SharedRabbitMq.NewQueuesAsync()) with { Queues = 1, MaxDeadLetters = 1, Prefetch = 20 };
        var rabbit = await RabbitMqTransport.OpenAsync(options, cancellationToken: Stop);
        await using var queue = parts.Open(new() { RetryDelay = TimeSpan.FromMilliseconds(50), MaxBatchCommands = 5, MaxDeliveries = 3 }, transport: rabbit);
        await queue.Inner.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        for (var i = 0; i < 40; i++)
        {
            if (i % 2 == 0)
            {
                (await rabbit.SendAsync([new(0, Encoding.UTF8.GetBytes($"no JSON {i}"))], Stop)).ShouldBe([SendStatus.Accepted]);
            }

            await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop);
        }

        queue.Start();
        for (var i = 0; i < 40; i++)
        {
            (await VerdictAsync(queue, $"o{i}")).Result.Status.ShouldBe(StockStatus.Done, $"o{i}");
        }

        // Every letter comes in as there is room.
        var dropped = 0;
        await UntilAsync(async () =>
        {
            foreach (var letter in await rabbit.PeekDeadAsync(10, Stop))
            {
                dropped += await rabbit.DropDeadAsync(letter.Letter, Stop) ? 1 : 0;
            }

            return dropped >= 20;
        });
        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth is { Waiting: 0, Deferred: 0 });
    }

    /// <summary>What is to be put aside can't be: its neighbours are finished, and what waits behind is not handed out again and again until it counts as poison.</summary>
    [Fact]
    public async Task What_cannot_be_put_aside_harms_no_neighbours()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["sqlite"](start, 1);
        var options = (await SharedRabbitMq.NewQueuesAsync()) with { Queues = 1, MaxMessages = 60, RetryDelay = TimeSpan.FromHours(1) };
        var rabbit = await RabbitMqTransport.OpenAsync(options, cancellationToken: Stop);
        var fails = new FailsToSettle(rabbit);
        await using var queue = parts.Open(new() { RetryDelay = TimeSpan.FromMilliseconds(20), MaxBatchCommands = 2, MaxDeliveries = 2 }, transport: fails);
        await queue.Inner.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        await AtBrokerAsync(options, async channel =>
        {
            for (var full = false; !full;)
            {
                try
                {
                    await channel.BasicPublishAsync($"{options.Name}.later", "0", mandatory: true, new BasicProperties { DeliveryMode = DeliveryModes.Persistent }, "filler"u8.ToArray(), Stop);
                }
                catch (PublishException)
                {
                    full = true;
                }
            }
        });
        await queue.EnqueueAsync(StockCommand.Refund("f1", "o20", [new("A", 1)]), cancellationToken: Stop);
        for (var i = 1; i <= 20; i++)
        {
            await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop);
        }

        queue.Start();
        (await VerdictAsync(queue, "o1")).Result.Status.ShouldBe(StockStatus.Done);

        // For a while it can't be put aside: as often as it would take to be taken for poison.
        var began = TimeProvider.System.GetTimestamp();
        await UntilAsync(() => Task.FromResult(fails.Failures > 4 || TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromSeconds(2)));
        await AtBrokerAsync(options, async channel => await channel.QueuePurgeAsync($"{options.Name}.later", Stop));
        for (var i = 1; i <= 20; i++)
        {
            (await VerdictAsync(queue, $"o{i}")).Result.Status.ShouldBe(StockStatus.Done, $"o{i}");
        }

        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth is { Waiting: 0, Deferred: 1, Dead: 0 });
    }

    private static async Task AtBrokerAsync(RabbitMqOptions options, Func<IChannel, Task> work)
    {
        await using var connection = await new ConnectionFactory { Uri = new(options.Uri) }.CreateConnectionAsync(Stop);
        await using var channel = await connection.CreateChannelAsync(new(publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true), Stop);
        await work(channel);
    }

    private static async Task<Verdict> VerdictAsync(CommandQueue queue, string id) =>
        await queue.WaitForVerdictAsync(id, s_patience, Stop) ?? throw new InvalidOperationException($"There is no verdict on {id} after {s_patience}.");

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            if (TimeProvider.System.GetElapsedTime(began) > s_patience)
            {
                throw new TimeoutException("Waited in vain.");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Stop);
        }
    }

    /// <summary>Answers as a test says.</summary>
    private sealed class Scripted(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public Func<IReadOnlyList<StockCommand>, ValueTask<IReadOnlyList<StockResult>>>? Answer { get; set; }

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            Answer is { } answer ? answer(commands) : base.ExecuteAsync(commands, cancellationToken);
    }

    /// <summary>Counts settlements that fail.</summary>
    private sealed class FailsToSettle(ICommandTransport inner) : DelegatingTransport(inner)
    {
        private int _failures;
        private bool _hadFullBatch;

        public int Failures => Volatile.Read(ref _failures);

        /// <summary>The first batch is a full one, so that there is a neighbour in it.</summary>
        public override async ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default)
        {
            var deliveries = new List<QueueDelivery>();
            do
            {
                deliveries.AddRange(await base.ReceiveAsync(queue, most - deliveries.Count, cancellationToken));
            }
            while (!_hadFullBatch && deliveries.Count < most);

            _hadFullBatch = true;
            return deliveries;
        }

        public override async ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default)
        {
            try
            {
                await base.SettleAsync(queue, settlements, cancellationToken);
            }
            catch (CommandTransportException)
            {
                Interlocked.Increment(ref _failures);
                throw;
            }
        }
    }
}
