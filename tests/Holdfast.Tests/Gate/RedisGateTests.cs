using Holdfast.Testing;

namespace Holdfast.Tests.Gate;

/// <summary>The gate in front of a store in memory, over real Redis servers that are killed, paused, flushed and filled up.</summary>
public sealed class RedisGateTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_sold_out_crowd_never_reaches_the_store()
    {
        await using var server = await RedisServer.StartAsync();
        await using var truth = new Counting(new MemoryEngine());
        var options = SharedGate.Quick(server);
        options.Lease = TimeSpan.FromSeconds(2);
        options.ForgetAfter = TimeSpan.FromSeconds(10);
        await using var gate = await RedisGate.OpenAsync(truth, options, cancellationToken: Cancel);
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        (await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        var tries = 0;
        await SharedGate.UntilAsync(
            async () =>
            {
                (await gate.DeductAsync($"early{tries++}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Insufficient);
                return gate.Counts.Refused > 0;
            },
            "the gate refuses by itself");
        var before = (truth.Commands, gate.Counts.Refused);
        for (var i = 0; i < 100; i++)
        {
            var refused = await gate.DeductAsync($"late{i}", [("A", 1)], cancellationToken: Cancel);
            refused.Status.ShouldBe(StockStatus.Insufficient);
            refused.Available.ShouldBe(0);
        }

        (truth.Commands, gate.Counts.Refused).ShouldBe((before.Commands, before.Refused + 100));
    }

    [Fact]
    public async Task A_retry_of_a_success_is_replayed_although_the_SKU_has_sold_out()
    {
        await using var server = await RedisServer.StartAsync();
        await using var gate = await OpenAsync(new MemoryEngine(), server);
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel);
        await gate.CancelAsync("o2", Cancel);
        await gate.CatchUpAsync(Cancel);
        (await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Replayed);
        (await gate.DeductAsync("o1", [("A", 4)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.KeyConflict);
        (await gate.DeductAsync("o2", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Cancelled, "tombstones have no entry in the ledger");
    }

    [Fact]
    public async Task What_another_process_gives_back_is_seen_by_the_first_who_asks_after_its_answer()
    {
        await using var server = await RedisServer.StartAsync();
        var options = SharedGate.Quick(server);
        await using var truth = new MemoryEngine();
        await using var one = await RedisGate.OpenAsync(new Shared(truth), options, cancellationToken: Cancel);
        await using var two = await RedisGate.OpenAsync(new Shared(truth), options, cancellationToken: Cancel);
        await one.RestockAsync("r0", [("A", 1)], cancellationToken: Cancel);
        await one.DeductAsync("o0", [("A", 1)], cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(two);
        for (var i = 1; i <= 50; i++)
        {
            (await two.DeductAsync($"none{i}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Insufficient);
            (await one.RefundAsync($"f{i}", $"o{i - 1}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
            (await two.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done, $"round {i}");
        }
    }

    [Fact]
    public async Task Reserved_units_that_come_due_are_sold()
    {
        var clock = new ManualTimeProvider();
        await using var server = await RedisServer.StartAsync();
        await using var gate = await OpenAsync(new MemoryEngine(clock), server);
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        await gate.ReserveAsync("h1", [("A", 5)], TimeSpan.FromSeconds(60), cancellationToken: Cancel);
        await gate.CatchUpAsync(Cancel);
        (await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Insufficient);
        gate.Counts.Refused.ShouldBe(0, "only the store can tell what is due");
        clock.Advance(TimeSpan.FromSeconds(61));
        (await gate.DeductAsync("o2", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task Pages_are_read_from_Redis_within_the_age_they_allow()
    {
        await using var server = await RedisServer.StartAsync();
        await using var truth = new Counting(new MemoryEngine());
        await using var gate = await OpenAsync(truth, server);
        await gate.RestockAsync("r1", [("A", 5), ("B", 7)], cancellationToken: Cancel);
        await gate.DeductAsync("o1", [("A", 2)], cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(gate);
        await gate.CatchUpAsync(Cancel);
        var before = truth.Reads;
        var levels = await gate.GetStockAsync(["A", "B"], new ReadOptions { MaxStaleness = TimeSpan.FromSeconds(30) }, Cancel);
        levels.ShouldBe(await truth.Inner.GetStockAsync(["A", "B"], cancellationToken: Cancel));
        truth.Reads.ShouldBe(before);
        (await gate.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(3);
        truth.Reads.ShouldBe(before + 1);
    }

    [Theory]
    [InlineData("FLUSHALL")]
    [InlineData("SCRIPT FLUSH")]
    [InlineData("kill")]
    [InlineData("pause")]
    [InlineData("full")]
    [InlineData("wrong types")]
    public async Task A_sale_goes_on_exactly_whatever_happens_to_Redis(string fault)
    {
        await using var server = await RedisServer.StartAsync("appendfsync no");
        var options = SharedGate.Quick(server);
        options.CallTimeout = TimeSpan.FromSeconds(1);
        await using var truth = new MemoryEngine();
        await using var one = await RedisGate.OpenAsync(new Shared(truth), options, cancellationToken: Cancel);
        await using var two = await RedisGate.OpenAsync(new Shared(truth), options, cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(one);
        await SharedGate.UntilSureAsync(two);
        var gates = new Alternating(one, two);
        var everything = StormRunner.RunAsync(gates, StormWorkload.AllVerbs("s-", 11, skus: 6, ids: 20_000), new() { Callers = 16, CommandsPerCaller = 1_000, OpeningUnits = 30, Truth = truth, Patience = TimeSpan.FromSeconds(60) }, Cancel);
        var crowd = StormRunner.RunAsync(gates, StormWorkload.Carts("c-", 12, skus: 5, duplicates: 0.2), new() { Callers = 16, CommandsPerCaller = 2_000, OpeningUnits = 200, Truth = truth, Patience = TimeSpan.FromSeconds(60) }, Cancel);
        var storms = Task.WhenAll(everything, crowd);
        for (var i = 0; i < 3 && !storms.IsCompleted; i++)
        {
            await StrikeAsync(server, options.Name, fault);
            await Task.WhenAny(storms, Task.Delay(TimeSpan.FromMilliseconds(700), TimeProvider.System, Cancel));
        }

        foreach (var report in await storms)
        {
            TestContext.Current.TestOutputHelper?.WriteLine(report.ToString());
            report.Audit.FirstDifference.ShouldBeNull();
            report.AnException.ShouldBeNull();
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"one {one.Counts}, back after {one.LastRecovery}; two {two.Counts}, back after {two.LastRecovery}");
        await SharedGate.UntilSureAsync(one);
        await SharedGate.UntilSureAsync(two);

        // In the end every copy is the store's own row, but for reservations that have come due since.
        await one.CatchUpAsync(Cancel);
        var rows = new List<StockLevel>();
        await foreach (var level in truth.ListStockAsync(cancellationToken: Cancel))
        {
            rows.Add(level);
        }

        var copies = await one.GetStockAsync([.. rows.Select(row => row.Sku)], new ReadOptions { MaxStaleness = TimeSpan.FromSeconds(30) }, Cancel);
        copies.Select(copy => copy with { Available = copy.Available + copy.Reserved, Reserved = 0 }).ShouldBe(rows.Select(row => row with { Available = row.Available + row.Reserved, Reserved = 0 }));
    }

    /// <summary>Copies that commands missed are loaded between two looks at the ledger, not instead of them.</summary>
    [Fact]
    public async Task A_stream_of_unknown_SKUs_does_not_keep_the_ledger_from_being_followed()
    {
        await using var server = await RedisServer.StartAsync();
        await using var asked = new AskedForMore(new MemoryEngine());
        await using var gate = await OpenAsync(asked, server);
        asked.Gate = gate;
        for (var i = 0; asked.PassesAtLoads.Count < 10; i++)
        {
            (await gate.DeductAsync($"again{i}", [($"unknown again {i}", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.UnknownSku);
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancel);
        }

        asked.Gate = null;
        asked.PassesAtLoads.Take(10).Distinct().Count().ShouldBe(10, "the ledger was looked at between any two loads");
    }

    /// <summary>A renewal that waited behind another one while the process was cut off: granted now, it would vouch for what goes around.</summary>
    [Fact]
    public async Task While_commands_go_around_the_gate_no_lease_is_granted()
    {
        await using var server = await RedisServer.StartAsync();
        var options = SharedGate.Quick(server);
        await using var redis = await Holdfast.Redis.RedisConnection.OpenAsync(options.Redis, TimeSpan.FromSeconds(20), 100, TimeProvider.System, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance, Cancel);
        await using var node = new Holdfast.Redis.GateNode(redis, options, TimeProvider.System, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance);
        await node.StartAsync(_ => new(""), (_, _, _) => new(true), Cancel);
        await server.PauseAsync();
        var renewals = Enumerable.Range(0, 3).Select(async _ =>
        {
            await node.RefreshAsync(Cancel);
            return node.Latest.Sure;
        }).ToList();
        node.Detach(new RedisStoreException("as if a call had failed"));
        await SharedGate.UntilAsync(() => node.TryGoAround([StockCommand.Deduct("o1", [("A", 1)])], out _), "the lease has run out");
        await server.ResumeAsync();
        (await Task.WhenAll(renewals))[1..].ShouldBe([0, 0]);
        node.EndAround();
        await SharedGate.UntilAsync(() => node.Latest.Sure > 0, "it is back");
    }

    /// <summary>While it is asked for an unknown SKU, somebody wants another.</summary>
    private sealed class AskedForMore(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _passes;

        public RedisGate? Gate { get; set; }

        /// <summary>How often the ledger had been looked at, when SKUs were asked for.</summary>
        public System.Collections.Concurrent.ConcurrentQueue<int> PassesAtLoads { get; } = [];

        public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
        {
            if (Gate is { } gate)
            {
                PassesAtLoads.Enqueue(Volatile.Read(ref _passes));
                await gate.DeductAsync($"more{PassesAtLoads.Count}", [($"unknown {PassesAtLoads.Count}", 1)], cancellationToken: CancellationToken.None);
            }

            return await base.GetStockAsync(skus, options, cancellationToken);
        }

        public override IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
        {
            Interlocked.Increment(ref _passes);
            return base.ReadFlowAsync(query, cancellationToken);
        }
    }

    /// <summary>A stock file that was deleted and made again, or set back to an older copy: the gate knows later versions than there are.</summary>
    [Fact]
    public async Task A_gate_that_has_followed_another_store_is_begun_anew()
    {
        await using var server = await RedisServer.StartAsync();
        var options = SharedGate.Quick(server);
        await using (var gate = await RedisGate.OpenAsync(new MemoryEngine(), options, cancellationToken: Cancel))
        {
            await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
            await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel);
            await SharedGate.UntilSureAsync(gate);
            await gate.CatchUpAsync(Cancel);
        }

        await using var next = await RedisGate.OpenAsync(new MemoryEngine(), options, cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(next);
        (await next.RestockAsync("r1", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        await next.CatchUpAsync(Cancel);
        (await next.DeductAsync("o2", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_server_that_may_throw_keys_away_is_not_used()
    {
        await using var server = await RedisServer.StartAsync("maxmemory-policy allkeys-lru");
        await using var truth = new MemoryEngine();
        var failure = await Should.ThrowAsync<RedisStoreException>(async () => await RedisGate.OpenAsync(truth, SharedGate.Quick(server), cancellationToken: Cancel));
        failure.Message.ShouldContain("noeviction");
        (await truth.RestockAsync("r1", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done, "the engine is still its owner's");
    }

    [Fact]
    public async Task While_Redis_is_down_the_policy_Busy_spares_the_store()
    {
        await using var server = await RedisServer.StartAsync();
        var options = SharedGate.Quick(server);
        options.WhenDown = GateDownPolicy.Busy;
        await using var truth = new Counting(new MemoryEngine());
        await using var gate = await RedisGate.OpenAsync(truth, options, cancellationToken: Cancel);
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        await server.KillAsync();
        await SharedGate.UntilAsync(async () => (await gate.DeductAsync("o1", [("A", 1)], cancellationToken: Cancel)).Status == StockStatus.Busy, "the gate has noticed");
        var before = truth.Commands;
        for (var i = 0; i < 50; i++)
        {
            (await gate.DeductAsync($"o{i + 2}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Busy);
        }

        truth.Commands.ShouldBe(before);
        await server.StartAsync();
        await SharedGate.UntilAsync(async () => (await gate.DeductAsync("o9", [("A", 1)], cancellationToken: Cancel)).IsApplied, "the gate is back");
        gate.LastRecovery.ShouldNotBeNull();
    }

    internal static async Task<RedisGate> OpenAsync(IStockEngine truth, RedisServer server)
    {
        var gate = await RedisGate.OpenAsync(truth, SharedGate.Quick(server), cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(gate);
        return gate;
    }

    internal static async Task StrikeAsync(RedisServer server, string name, string fault)
    {
        switch (fault)
        {
            case "FLUSHALL":
                await server.CliAsync("FLUSHALL");
                break;
            case "SCRIPT FLUSH":
                await server.CliAsync("SCRIPT", "FLUSH");
                break;
            case "kill":
                await server.RestartAsync();
                break;
            case "pause":
                await server.PauseAsync();
                await Task.Delay(TimeSpan.FromSeconds(2), TimeProvider.System, Cancel);
                await server.ResumeAsync();
                break;
            case "full":
                await server.CliAsync("CONFIG", "SET", "maxmemory", "1mb");
                await Task.Delay(TimeSpan.FromSeconds(1), TimeProvider.System, Cancel);
                await server.CliAsync("CONFIG", "SET", "maxmemory", "0");
                break;
            default:
                foreach (var key in (string[])["gate", "gate:nodes", "gate:ids", "gate:s:s-sku0", "gate:stream", "gate:taken"])
                {
                    var full = $"{{{name}}}:{key}";
                    await server.CliAsync("DEL", full);
                    await server.CliAsync("RPUSH", full, "nonsense");
                }

                break;
        }
    }

    /// <summary>An engine that several gates share: disposing one of them leaves it open.</summary>
    internal sealed class Shared(IStockEngine inner) : DelegatingStockEngine(inner)
    {
#pragma warning disable CA2215 // That is what it is for.
        public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
#pragma warning restore CA2215
    }

    /// <summary>Sends calls to two engines in turn, as a load balancer does.</summary>
    internal sealed class Alternating(IStockEngine one, IStockEngine two) : DelegatingStockEngine(one)
    {
        private int _calls;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            (Interlocked.Increment(ref _calls) % 2 == 0 ? Inner : two).ExecuteAsync(commands, cancellationToken);
    }

    /// <summary>Counts what reaches the store.</summary>
    internal sealed class Counting(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _commands;
        private int _reads;

        public int Commands => Volatile.Read(ref _commands);

        public int Reads => Volatile.Read(ref _reads);

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            Interlocked.Add(ref _commands, commands.Count);
            return base.ExecuteAsync(commands, cancellationToken);
        }

        public override ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
        {
            Interlocked.Increment(ref _reads);
            return base.GetStockAsync(skus, options, cancellationToken);
        }
    }
}
