using Holdfast.Testing;

namespace Holdfast.Tests.Shards;

/// <summary>What is special about several shards, beside what every engine promises.</summary>
public sealed class ShardingTests(ITestOutputHelper output)
{
    private static readonly ShardingOptions s_impatient = new()
    {
        DecideTimeout = TimeSpan.FromMilliseconds(100),
        RecoverAfter = TimeSpan.FromMilliseconds(1),
        Recovery = false,
    };

    [Fact]
    public void A_SKU_stays_on_its_shard()
    {
        // The hash is stored with every stock row there is: these numbers never change.
        string[] skus = ["85123A", "85123a", "71053", "é", "中文", "🧸 teddy"];
        skus.Select(SlotMap.SlotOf).ShouldBe([6_750, 13_525, 13_536, 10_477, 14_637, 7_652]);
        var counts = new int[4];
        foreach (var i in Enumerable.Range(0, 10_000))
        {
            counts[SlotMap.Even(4).ShardOf($"sku-{i}")]++;
        }

        counts.ShouldAllBe(count => count > 2_300 && count < 2_700);
    }

    [Fact]
    public async Task Units_that_a_cart_may_still_get_are_neither_sold_nor_short()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(2);
        var node = store.Node(s_impatient);
        await node.RestockAsync("r", [store.On(0, 5), store.On(1, 5)], cancellationToken: token);
        await DieAsync(store, "all prepared", StockCommand.Deduct("cart", [store.On(0, 4), store.On(1, 4)]));

        (await node.GetStockAsync(store.Sku(1), cancellationToken: token)).Available.ShouldBe(5, "nothing is sold yet");
        (await node.GetOperationAsync("cart", token)).ShouldBeNull();
        (await node.DeductAsync("fits", [store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        var undecided = await node.DeductAsync("waits", [store.On(1, 1)], cancellationToken: token);
        (undecided.Status, undecided.IsUndecided, undecided.Sku).ShouldBe((StockStatus.Busy, true, store.Sku(1)));
        (await node.DeductAsync("short", [store.On(1, 9)], cancellationToken: token)).Status.ShouldBe(StockStatus.Insufficient, "even with the cart's units there are not enough");
        (await node.DeductAsync("cart", [store.On(0, 4), store.On(1, 4)], cancellationToken: token)).Status.ShouldBe(StockStatus.Busy);
        (await node.CancelAsync("cart", token)).Status.ShouldBe(StockStatus.Busy);

        await store.RecoverAsync(node);
        (await node.DeductAsync("waits", [store.On(1, 4)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        await store.AuditAsync(node);
    }

    [Fact]
    public async Task While_a_shard_is_down_carts_that_touch_it_are_Busy_and_all_others_go_on()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(3);
        var node = store.Node(s_impatient);
        await node.RestockAsync("r", [store.On(0, 9), store.On(1, 9), store.On(2, 9)], cancellationToken: token);
        await node.DeductAsync("before", [store.On(0, 1), store.On(1, 1)], cancellationToken: token);
        store.Shards[1].IsDown = true;

        (await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1), store.On(2, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Busy);
        (await node.DeductAsync("o2", [store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Busy);
        (await node.CancelAsync("before", token)).Status.ShouldBe(StockStatus.Busy);
        (await node.CancelAsync("never seen", token)).Status.ShouldBe(StockStatus.Busy, "not every shard has the tombstone");
        (await node.DeductAsync("o3", [store.On(0, 1), store.On(2, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        (await node.DeductAsync("o4", [store.On(2, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        var batch = await node.ExecuteAsync([StockCommand.Deduct("o5", [store.On(0, 1)]), StockCommand.Deduct("o6", [store.On(1, 1)])], token);
        batch.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.Busy]);

        store.Shards[1].IsDown = false;
        await store.RecoverAsync(node);
        (await node.CancelAsync("never seen", token)).Status.ShouldBe(StockStatus.Done);
        (await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1), store.On(2, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        (await node.CancelAsync("before", token)).Status.ShouldBe(StockStatus.Done);
        await store.AuditAsync(node);
    }

    /// <summary>The home has decided, and another shard is away: the caller is not told Done before everybody would see it.</summary>
    [Fact]
    public async Task What_is_decided_and_not_applied_everywhere_is_in_doubt_until_it_is()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(2);
        var node = store.Node(s_impatient);
        await node.RestockAsync("r", [store.On(0, 9), store.On(1, 9)], cancellationToken: token);
        node.Failpoint = step =>
        {
            store.Shards[1].IsDown |= step == "home committed";
            return ValueTask.CompletedTask;
        };

        (await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.InDoubt);
        node.Failpoint = null;
        store.Shards[1].IsDown = false;
        await store.RecoverAsync(node);
        (await node.GetStockAsync(store.Sku(1), cancellationToken: token)).Sold.ShouldBe(1, "recovery commits what its home has committed");
        (await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Replayed);
        await store.AuditAsync(node);
    }

    [Fact]
    public async Task An_id_that_is_used_for_a_cart_on_another_shard_is_not_noticed_and_the_audit_finds_it()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(2);
        var node = store.Node();
        node.Traits.HasFlag(StockTraits.GlobalIds).ShouldBeFalse();
        await node.RestockAsync("r", [store.On(0, 9), store.On(1, 9)], cancellationToken: token);
        (await node.DeductAsync("o1", [store.On(0, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        (await node.DeductAsync("o1", [store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
        (await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.KeyConflict, "a cart that shares a shard is noticed");
        var audit = await LedgerAudit.RunAsync(node, cancellationToken: token);
        audit.Differences.ShouldContain(difference => difference.StartsWith("o1: ", StringComparison.Ordinal));
    }

    /// <summary>A part of a cart over several shards is not to be ended by itself, whoever opens a shard's store directly.</summary>
    [Fact]
    public async Task A_part_of_a_cart_is_not_cancelled_by_itself()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(2);
        var node = store.Node();
        await node.RestockAsync("r", [store.On(0, 9), store.On(1, 9)], cancellationToken: token);
        await node.DeductAsync("o1", [store.On(0, 1), store.On(1, 1)], cancellationToken: token);
        (await store.Stores[0].CancelAsync("o1", token)).Status.ShouldBe(StockStatus.Busy);
        (await store.Stores[0].RefundAsync("f1", "o1", [store.On(0, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done, "a refund of one shard's lines is that shard's affair");
        (await node.CancelAsync("o1", token)).Left.ShouldBe([new(store.Sku(0), 9), new(store.Sku(1), 9)], ignoreOrder: true);
        await store.AuditAsync(node);
    }

    /// <summary>A step has no form on the wire; as JSON it would be the whole command, and would be applied at once.</summary>
    [Fact]
    public void A_step_of_a_cart_is_not_sent_as_the_cart()
    {
        var command = StockCommand.Deduct("o1", [new("A", 1)]);
        using var writer = new System.Text.Json.Utf8JsonWriter(Stream.Null);
        Should.Throw<NotSupportedException>(() => Holdfast.Wire.StockJson.WriteCommand(writer, command.OnShard(BranchPhase.Prepare, new("attempt", [0, 1]), command.Lines)));
    }

    /// <summary>Several processes over shards that lose acknowledgements, whose coordinators die, with recovery beside them.</summary>
    [Theory]
    [InlineData(11)]
    [InlineData(12)]
    public async Task All_verbs_from_several_processes_over_faulty_shards(int seed)
    {
        var clock = new ManualTimeProvider();
        await using var store = new ShardedStore(4, clock);
        var faulty = store.Stores.Select((engine, shard) => new FaultyEngine(engine, FaultRates.Each(0.01) with { CancelBefore = 0, CancelAfter = 0 }, seed + shard)).ToArray();
        var options = new ShardingOptions { RecoverAfter = TimeSpan.FromMilliseconds(30), RecoverInterval = TimeSpan.FromMilliseconds(10) };
        var nodes = Enumerable.Range(0, 3).Select(_ => new Sharding([.. faulty.Select(shard => new GroupCommit(shard, new() { RetryTimeout = TimeSpan.FromMilliseconds(50) }))], options)).ToArray();
        var random = new Random(seed);
        foreach (var node in nodes)
        {
            // Dies somewhere once in a while: its caller sends the same command again.
            node.Failpoint = _ =>
            {
                lock (random)
                {
                    return random.Next(200) == 0 ? throw new FaultException("The coordinator died, on purpose.") : ValueTask.CompletedTask;
                }
            };
        }

        var truth = store.Node();
        var report = await StormRunner.RunAsync(
            new RoundRobin(nodes), StormWorkload.AllVerbs("s-", seed, conflicts: false), new() { Callers = 32, CommandsPerCaller = 40, Clock = clock, Truth = truth }, TestContext.Current.CancellationToken);
        output.WriteLine(report.ToString());
        foreach (var node in nodes)
        {
            node.Failpoint = null;
        }

        await store.RecoverAsync(truth);
        report.Audit.FirstDifference.ShouldBeNull();
        await store.AuditAsync(truth);
        foreach (var node in nodes)
        {
            await node.DisposeAsync();
        }
    }

    /// <summary>Carts of the last units, from many callers: they get through one after the other, and all units are sold.</summary>
    [Fact]
    public async Task Carts_that_fight_for_the_last_units_sell_them_all()
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore(4);
        var node = new Sharding([.. store.Stores.Select(engine => new GroupCommit(engine))]);
        StockLine[] all = [.. Enumerable.Range(0, 4).Select(shard => store.On(shard, 1))];
        await node.RestockAsync("r", [.. all.Select(line => line with { Quantity = 50 })], cancellationToken: token);
        var sold = new int[4];
        await Parallel.ForEachAsync(Enumerable.Range(0, 300), new ParallelOptions { MaxDegreeOfParallelism = 64, CancellationToken = token }, async (i, _) =>
        {
            // Pairs of shards in every combination, in either order.
            StockLine[] cart = [all[i % 4], all[(i + 1 + (i / 4 % 3)) % 4]];
            var result = await node.DeductAsync($"o{i}", cart, cancellationToken: token);
            result.Status.ShouldBeOneOf(StockStatus.Done, StockStatus.Insufficient);
            if (result.Status == StockStatus.Done)
            {
                Interlocked.Increment(ref sold[i % 4]);
            }
        });
        var left = await node.GetStockAsync([.. all.Select(line => line.Sku)], cancellationToken: token);
        left.Sum(level => level.Sold).ShouldBe(2 * sold.Sum());
        left.Count(level => level.Available > 0).ShouldBeLessThanOrEqualTo(1, "while two shards have units a cart of them can be served");
        await store.AuditAsync(node);
        await node.DisposeAsync();
    }

    private static async Task DieAsync(ShardedStore store, string step, StockCommand command)
    {
        var dying = store.Node();
        dying.Failpoint = at => at == step ? throw new FaultException("died") : ValueTask.CompletedTask;
        await Should.ThrowAsync<FaultException>(async () => await dying.ExecuteAsync(command, TestContext.Current.CancellationToken));
    }

    /// <summary>Each call by the next process.</summary>
    private sealed class RoundRobin(Sharding[] nodes) : DelegatingStockEngine(nodes[0])
    {
        private int _next;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            nodes[(uint)Interlocked.Increment(ref _next) % nodes.Length].ExecuteAsync(commands, cancellationToken);
    }
}
