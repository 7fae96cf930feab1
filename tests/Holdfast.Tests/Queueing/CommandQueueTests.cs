using System.Collections.Concurrent;
using System.Text;
using Holdfast.Queueing;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Holdfast.Wire;

namespace Holdfast.Tests.Queueing;

/// <summary>The queue's own promises, over every transport.</summary>
public sealed class CommandQueueTests(ITestOutputHelper output)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(1);

    private static readonly CommandQueueOptions s_quick = new() { RetryDelay = TimeSpan.FromMilliseconds(20), TargetPatience = TimeSpan.FromMinutes(1) };

    public static TheoryData<string> Transports => QueuedSchemes.Names;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Theory]
    [MemberData(nameof(Transports))]
    public async Task An_order_is_pending_and_then_has_one_verdict_for_good(string transport)
    {
        await using var start = new SchemeStart(new());
        await using var queue = await OpenAsync(start, transport);
        await queue.Inner.RestockAsync("r1", [("A", 1)], cancellationToken: Stop);
        (await queue.DeductAsync("o1", [("A", 1)], cancellationToken: Stop)).ShouldBe(new() { Status = StockStatus.Pending, AcknowledgedBy = Acknowledgement.Queue });
        (await VerdictAsync(queue, "o1")).Result.Status.ShouldBe(StockStatus.Done);
        (await queue.DeductAsync("o2", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
        var refused = await VerdictAsync(queue, "o2");
        Told(refused).ShouldBe((StockStatus.Insufficient, StockStatus.None, "A", 0));

        // Final on every way, also when there is stock again.
        await queue.Inner.RestockAsync("r2", [("A", 5)], cancellationToken: Stop);
        (await queue.Inner.DeductAsync("o2", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Cancelled);
        (await queue.EnqueueAsync(StockCommand.Deduct("o2", [new("A", 1)]), "again", cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
        Told(await VerdictAsync(queue, "again")).ShouldBe((StockStatus.Replayed, StockStatus.Insufficient, "A", 0));
        Told(await VerdictAsync(queue, "o2")).ShouldBe(Told(refused));
        (await queue.Inner.GetStockAsync("A", cancellationToken: Stop)).Sold.ShouldBe(1);
    }

    [Theory]
    [MemberData(nameof(Transports))]
    public async Task A_confirm_is_asked_for_by_its_request_id(string transport)
    {
        await using var start = new SchemeStart(new());
        await using var queue = await OpenAsync(start, transport);
        await queue.Inner.RestockAsync("r1", [("A", 1)], cancellationToken: Stop);
        await queue.Inner.ReserveAsync("h1", [("A", 1)], TimeSpan.FromMinutes(5), cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Confirm("h1"), "request-1", cancellationToken: Stop);
        var verdict = await VerdictAsync(queue, "request-1");
        (verdict.Verb, verdict.OperationId, verdict.Result.Status).ShouldBe((StockVerb.Confirm, "h1", StockStatus.Done));
        (await queue.Verdicts.PurgeAsync(DateTimeOffset.MaxValue, 10, Stop)).ShouldBe(1);
        (await queue.WaitForVerdictAsync("request-1", TimeSpan.Zero, Stop)).ShouldBeNull();
    }

    /// <summary>The acknowledgement was lost after the commit, and the order comes again when its time is over.</summary>
    [Theory]
    [MemberData(nameof(Transports))]
    public async Task An_applied_order_that_comes_again_after_its_deadline_stands(string transport)
    {
        await using var start = new SchemeStart(new());
        await using var queue = await OpenAsync(start, transport);
        await queue.Inner.RestockAsync("r1", [("A", 2)], cancellationToken: Stop);
        var order = StockCommand.Deduct("o1", [new("A", 1)]);
        (await queue.Inner.ExecuteAsync(order, Stop)).Status.ShouldBe(StockStatus.Done);
        await SendAsync(queue, Late(order) with { RequestId = "q1" });
        (await VerdictAsync(queue, "q1")).Result.IsApplied.ShouldBeTrue();
        (await VerdictAsync(queue, "o1")).Result.Status.ShouldBe(StockStatus.Done);
        (await queue.Inner.GetOperationAsync("o1", Stop))!.State.ShouldBe(OperationState.Applied);

        // And one that was never applied is closed, and says why.
        await SendAsync(queue, Late(StockCommand.Deduct("o2", [new("A", 1)])));
        var late = (await VerdictAsync(queue, "o2")).Result;
        late.Status.ShouldBe(StockStatus.Cancelled);
        late.Detail!.ShouldContain("deadline");
        (await queue.Inner.DeductAsync("o2", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Cancelled);
        (await queue.Inner.GetStockAsync("A", cancellationToken: Stop)).Sold.ShouldBe(1);

        // A Cancel that is late cancels nothing.
        await SendAsync(queue, Late(StockCommand.Cancel("o1")) with { RequestId = "q2" });
        (await VerdictAsync(queue, "q2")).Result.Status.ShouldBe(StockStatus.Cancelled);
        (await queue.Inner.GetOperationAsync("o1", Stop))!.State.ShouldBe(OperationState.Applied);
    }

    [Theory]
    [MemberData(nameof(Transports))]
    public async Task Poison_goes_to_the_dead_letters_and_harms_nobody(string transport)
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports[transport](start, 2);
        var engine = new ThrowsFor(parts.Store, "poison");
        await using var queue = parts.Open(s_quick, engine);
        await queue.Inner.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        var manyLines = string.Join(',', Enumerable.Range(0, 5_000).Select(i => $$"""{"sku":"S{{i}}","quantity":1}"""));
        string[] poison =
        [
            "this is no JSON",
            """{"v":1,"at":1,"deadline":9000000000000,"command":{"verb":"steal","id":"x","lines":[{"sku":"A","quantity":1}]}}""",
            """{"v":1,"at":1,"deadline":9000000000000,"command":{"verb":"deduct","id":"many","lines":[""" + manyLines + "]}}",
        ];
        for (var i = 0; i < 100; i++)
        {
            (await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
            if (i < poison.Length)
            {
                await queue.Transport.SendAsync([new(i % queue.Transport.Queues, Encoding.UTF8.GetBytes(poison[i]))], Stop);
            }
            else if (i == 50)
            {
                await queue.DeductAsync("bad", [("A", 1), ("poison", 1)], cancellationToken: Stop);
            }
        }

        queue.Start();
        for (var i = 0; i < 100; i++)
        {
            (await VerdictAsync(queue, $"o{i}")).Result.Status.ShouldBe(StockStatus.Done);
        }

        // It was given up after the stated number of tries, and its id is closed.
        var given = (await VerdictAsync(queue, "bad")).Result;
        given.Status.ShouldBe(StockStatus.Cancelled);
        given.Detail!.ShouldContain("5 times");
        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth is { Dead: 4, Waiting: 0, Deferred: 0 });
        var dead = await queue.Transport.PeekDeadAsync(10, Stop);
        foreach (var letter in dead)
        {
            output.WriteLine($"{letter.Letter}: {letter.Reason}");
        }

        dead.Select(static letter => letter.Reason).ShouldContain(reason => reason.Contains("not valid JSON", StringComparison.Ordinal));
        dead.Select(static letter => letter.Reason).ShouldContain(reason => reason.Contains("verb", StringComparison.Ordinal));
        dead.Select(static letter => letter.Reason).ShouldContain(reason => reason.Contains("5000 after merging", StringComparison.Ordinal));
        var bad = dead.Single(static letter => letter.Reason.Contains("made the engine fail 5 times", StringComparison.Ordinal));
        (await queue.MeasureAsync(Stop)).DeadLetters.ShouldBe(4);

        // It may be sent again under a new id; what is no command can only be dropped.
        await Should.ThrowAsync<InvalidCommandException>(async () => await queue.RequeueDeadAsync(dead.First(letter => letter != bad).Letter, "o-new", Stop));
        engine.IsMended = true;
        await queue.Inner.RestockAsync("r2", [("poison", 1)], cancellationToken: Stop);
        (await queue.RequeueDeadAsync(bad.Letter, "better", Stop)).Status.ShouldBe(StockStatus.Pending);
        (await queue.RequeueDeadAsync(bad.Letter, "better", Stop)).Status.ShouldBe(StockStatus.UnknownTarget);
        (await VerdictAsync(queue, "better")).Result.Status.ShouldBe(StockStatus.Done);
        foreach (var letter in await queue.Transport.PeekDeadAsync(10, Stop))
        {
            (await queue.Transport.DropDeadAsync(letter.Letter, Stop)).ShouldBeTrue();
            (await queue.Transport.DropDeadAsync(letter.Letter, Stop)).ShouldBeFalse();
        }

        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Depth.Dead == 0);
        (await LedgerAudit.RunAsync(parts.Store, cancellationToken: Stop)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>The consumer breaks off after each of its steps, again and again; whatever it did is done again and has one effect.</summary>
    [Theory]
    [MemberData(nameof(Transports))]
    public async Task A_consumer_may_end_anywhere(string transport)
    {
        await using var start = new SchemeStart(new());
        await using var queue = (await QueuedSchemes.Transports[transport](start, 2)).Open(new() { RetryDelay = TimeSpan.FromMilliseconds(20), MaxBatchCommands = 20, TargetPatience = TimeSpan.FromMinutes(1) });
        var breaks = new ConcurrentDictionary<ConsumerStep, int>();
        queue.Failpoint = step => breaks.AddOrUpdate(step, 1, static (_, count) => count + 1) <= 3 ? throw new InvalidOperationException($"The consumer ends after {step}.") : ValueTask.CompletedTask;
        await queue.Inner.RestockAsync("r1", [("A", 60)], cancellationToken: Stop);
        queue.Start();
        for (var i = 0; i < 120; i++)
        {
            (await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
            await queue.EnqueueAsync(StockCommand.Refund($"f{i}", $"o{i}", [new("A", 1)]), cancellationToken: Stop);
        }

        for (var i = 0; i < 120; i++)
        {
            // An order and its refund are in one queue, in order: a unit comes back before the next is taken, or the order was short.
            var order = (await VerdictAsync(queue, $"o{i}")).Result;
            var refund = (await VerdictAsync(queue, $"f{i}")).Result;
            order.Status.ShouldBeOneOf(StockStatus.Done, StockStatus.Insufficient);
            refund.Status.ShouldBe(order.Status == StockStatus.Done ? StockStatus.Done : StockStatus.InvalidTargetState);
        }

        Enum.GetValues<ConsumerStep>().ShouldAllBe(step => breaks[step] > 3);
        (await queue.Inner.GetStockAsync("A", cancellationToken: Stop)).Sold.ShouldBe(0);
        await UntilAsync(async () => await queue.MeasureAsync(Stop) is { Depth: { Waiting: 0, Deferred: 0, Dead: 0 }, InFlight: 0 });
        (await LedgerAudit.RunAsync(queue.Inner, cancellationToken: Stop)).ToString().ShouldStartWith("audit passed");
    }

    [Theory]
    [MemberData(nameof(Transports))]
    public async Task A_refund_waits_for_its_order_and_holds_nobody_up(string transport)
    {
        await using var start = new SchemeStart(new());
        await using var queue = await OpenAsync(start, transport);
        await queue.Inner.RestockAsync("r1", [("A", 5)], cancellationToken: Stop);
        await queue.EnqueueAsync(StockCommand.Refund("f1", "o1", [new("A", 1)]), cancellationToken: Stop);
        await UntilAsync(async () => (await queue.MeasureAsync(Stop)).Retries > 1);
        for (var i = 2; i < 5; i++)
        {
            await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop);
            (await VerdictAsync(queue, $"o{i}")).Result.Status.ShouldBe(StockStatus.Done);
        }

        (await queue.WaitForVerdictAsync("f1", TimeSpan.Zero, Stop)).ShouldBeNull();
        await queue.DeductAsync("o1", [("A", 2)], cancellationToken: Stop);
        (await VerdictAsync(queue, "f1")).Result.Status.ShouldBe(StockStatus.Done);

        // One whose order never comes is refused when its time is over, and that is final.
        await queue.EnqueueAsync(StockCommand.Refund("f2", "never", [new("A", 1)]), timeToDecide: TimeSpan.FromSeconds(1), cancellationToken: Stop);
        (await VerdictAsync(queue, "f2")).Result.Status.ShouldBeOneOf(StockStatus.UnknownTarget, StockStatus.Cancelled);
        (await queue.Inner.RefundAsync("f2", "o1", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Cancelled);
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("sqlite")]
    [InlineData("postgres")]
    public async Task A_full_queue_refuses_and_drains_in_order(string transport)
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports[transport](start, 2);
        ICommandTransport small = parts.Store switch
        {
            SqliteEngine sqlite => await sqlite.OpenQueueAsync(queues: 1, maxMessages: 50, cancellationToken: Stop),
            PostgreSqlEngine postgres => await postgres.OpenQueueAsync(queues: 1, maxMessages: 50, cancellationToken: Stop),
            _ => new MemoryTransport(queues: 1, maxMessages: 50),
        };
        await using var queue = parts.Open(s_quick, transport: small);
        await queue.Inner.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        await FillAsync(queue, 50);
    }

    /// <summary>RabbitMQ refuses a little late; it never drops.</summary>
    [Fact]
    public async Task A_full_rabbitmq_refuses_and_drains_in_order()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["sqlite"](start, 2);
        var small = await RabbitMqTransport.OpenAsync((await SharedRabbitMq.NewQueuesAsync()) with { Queues = 1, MaxMessages = 50 }, cancellationToken: Stop);
        await using var queue = parts.Open(s_quick, transport: small);
        await queue.Inner.RestockAsync("r1", [("A", 1_000)], cancellationToken: Stop);
        await FillAsync(queue, 50);
    }

    [Fact]
    public async Task Who_waits_is_woken_also_by_another_process()
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports["memory"](start, 2);
        await using var here = parts.Open(new() { VerdictInterval = TimeSpan.FromMilliseconds(20) });
        await using var elsewhere = parts.Open();
        elsewhere.Start();
        var waiters = Enumerable.Range(0, 50).Select(i => here.WaitForVerdictAsync($"o{i % 10}", s_patience, Stop).AsTask()).ToArray();
        await here.RestockAsync("o0", [("A", 5)], cancellationToken: Stop);
        await waiters[0];
        for (var i = 1; i < 10; i++)
        {
            await here.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop);
        }

        (await Task.WhenAll(waiters)).Count(static verdict => verdict!.Result.Status == StockStatus.Done).ShouldBe(30);
        (await here.WaitForVerdictAsync("never", TimeSpan.FromMilliseconds(30), Stop)).ShouldBeNull();
    }

    /// <summary>A store that fails, cancels and loses acknowledgements under the consumers: one effect and one verdict each.</summary>
    [Theory]
    [InlineData("memory")]
    [InlineData("postgres")]
    [InlineData("rabbitmq")]
    public async Task A_storm_over_a_store_that_fails_under_the_consumers(string transport)
    {
        await using var start = new SchemeStart(new());
        var parts = await QueuedSchemes.Transports[transport](start, 2);
        var faulty = new FaultyEngine(parts.Store, FaultRates.Each(0.05) with { CancelBefore = 0, CancelAfter = 0 }, seed: 4);
        var queue = parts.Open(new() { RetryDelay = TimeSpan.FromMilliseconds(5), TargetPatience = TimeSpan.Zero, MaxTries = 100 }, faulty);
        queue.Start();
        await using var engine = new AwaitedVerdicts(queue);
        var report = await StormRunner.RunAsync(engine, StormWorkload.AllVerbs("s-", 4), new() { Callers = 32, CommandsPerCaller = 20, Clock = start.Clock, Truth = parts.Store }, Stop);
        output.WriteLine(report.ToString());
        report.Audit.FirstDifference.ShouldBeNull();
    }

    [Fact]
    public async Task A_stopped_queue_takes_orders_and_a_started_one_decides_them()
    {
        await using var start = new SchemeStart(new());
        await using var queue = await OpenAsync(start, "memory");
        await queue.Inner.RestockAsync("r1", [("A", 100)], cancellationToken: Stop);
        await queue.StopAsync();
        for (var i = 0; i < 100; i++)
        {
            (await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop)).Status.ShouldBe(StockStatus.Pending);
        }

        var state = await queue.MeasureAsync(Stop);
        (state.Depth.Waiting, state.IsConsuming).ShouldBe((100, false));
        queue.Start();
        (await VerdictAsync(queue, "o99")).Result.Status.ShouldBe(StockStatus.Done);
    }

    private static async Task<CommandQueue> OpenAsync(SchemeStart start, string transport)
    {
        var queue = (await QueuedSchemes.Transports[transport](start, 2)).Open(s_quick);
        queue.Start();
        return queue;
    }

    private static async Task<Verdict> VerdictAsync(CommandQueue queue, string id) =>
        await queue.WaitForVerdictAsync(id, s_patience, Stop) ?? throw new InvalidOperationException($"There is no verdict on {id} after {s_patience}.");

    private static (StockStatus, StockStatus, string?, long) Told(Verdict verdict) => (verdict.Result.Status, verdict.Result.Original, verdict.Result.Sku, verdict.Result.Available);

    private static QueuedCommand Late(StockCommand command)
    {
        var now = TimeProvider.System.GetUtcNow();
        return new() { Command = command, AcceptedAt = now - TimeSpan.FromMinutes(2), Deadline = now - TimeSpan.FromMinutes(1) };
    }

    private static async Task SendAsync(CommandQueue queue, QueuedCommand queued) =>
        (await queue.Transport.SendAsync([new(queued.QueueOf(queue.Transport.Queues), QueuedCommandJson.Write(queued))], Stop)).ShouldBe([SendStatus.Accepted]);

    /// <summary>Fills a queue to its bound and past it, and drains it.</summary>
    private static async Task FillAsync(CommandQueue queue, int bound)
    {
        var accepted = new List<string>();
        StockResult last = default;
        for (var i = 0; i < bound * 20 && last.Status != StockStatus.Busy; i++)
        {
            last = await queue.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Stop);
            if (last.Status == StockStatus.Pending)
            {
                accepted.Add($"o{i}");
            }
        }

        last.Status.ShouldBe(StockStatus.Busy);
        accepted.Count.ShouldBeGreaterThanOrEqualTo(bound);
        queue.Start();
        foreach (var id in accepted)
        {
            (await VerdictAsync(queue, id)).Result.Status.ShouldBe(StockStatus.Done);
        }

        // One queue, one consumer: the ledger has them in the order in which they were accepted.
        var sold = new List<string>();
        await foreach (var entry in queue.Inner.ReadFlowAsync(new() { Sku = "A" }, Stop))
        {
            if (entry.Kind == FlowKind.Deduct)
            {
                sold.Add(entry.OperationId);
            }
        }

        sold.ShouldBe(accepted);
        await UntilAsync(async () => (await queue.DeductAsync("after", [("A", 1)], cancellationToken: Stop)).Status == StockStatus.Pending);
    }

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

    /// <summary>Fails as a whole where a command names a SKU, until it is mended.</summary>
    private sealed class ThrowsFor(IStockEngine inner, string sku) : DelegatingStockEngine(inner)
    {
        public bool IsMended { get; set; }

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            !IsMended && commands.Any(command => command.Lines.Any(line => line.Sku == sku)) ? throw new InvalidOperationException($"The engine stumbles over {sku}.") : base.ExecuteAsync(commands, cancellationToken);
    }
}
