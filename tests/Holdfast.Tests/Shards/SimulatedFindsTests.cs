using Holdfast.Testing;

namespace Holdfast.Tests.Shards;

/// <summary>What the simulation of the sharding layer found, each told in a few steps.</summary>
public sealed class SimulatedFindsTests
{
    private static readonly string[] Skus = RaceScenario.SkusApart(2);

    /// <summary>The cancelled order came between the look and the cancellation, and the batch changed its SKU first.</summary>
    [Fact]
    public void A_cancellation_of_what_is_not_known_yet_keeps_its_order_with_all_others()
    {
        StockCommand[] batch =
        [
            StockCommand.Deduct("o1", [new(Skus[0], 1)]),
            StockCommand.Cancel("unknown"),
            StockCommand.Deduct("o2", [new(Skus[1], 1)]),
        ];
        var waves = new ShardWaves(SlotMap.Even(2), batch, new Dictionary<string, OperationView>()).Waves;
        waves.Select(wave => string.Join(',', wave.ByShard.Values.SelectMany(places => places).Concat(wave.Across))).ShouldBe(["0", "1", "2"]);
    }

    /// <summary>One shard had released its part of an expired reservation, and the audit missed the other's entry.</summary>
    [Fact]
    public async Task A_reservation_that_is_due_and_released_on_one_shard_only_passes_the_audit()
    {
        var clock = new ManualTimeProvider();
        await using var engine = new Sharding([new MemoryEngine(clock), new MemoryEngine(clock)], new() { Recovery = false }, clock);
        var token = TestContext.Current.CancellationToken;
        await engine.RestockAsync("r", [(Skus[0], 5), (Skus[1], 5)], cancellationToken: token);
        await engine.ReserveAsync("h1", [(Skus[0], 2), (Skus[1], 2)], TimeSpan.FromSeconds(10), cancellationToken: token);
        clock.Advance(TimeSpan.FromSeconds(11));

        // Whoever needs the units releases them; nobody needs those of the other shard.
        (await engine.DeductAsync("o1", [(Skus[0], 5)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);

        (await engine.GetOperationAsync("h1", token)).ShouldNotBeNull().State.ShouldBe(OperationState.Expired);
        (await LedgerAudit.RunAsync(engine, cancellationToken: token)).FirstDifference.ShouldBeNull();
        (await LedgerAudit.RunAsync(engine, new() { Skus = Skus }, token)).FirstDifference.ShouldBeNull();
    }
    /// <summary>What a cart held was let go behind the refusal, and the order was tried again behind what followed it in its batch.</summary>
    [Fact]
    public async Task An_order_that_met_what_is_undecided_is_not_put_behind_what_followed_it_in_its_batch()
    {
        var token = TestContext.Current.CancellationToken;
        var (first, second) = (new MemoryEngine(), new MemoryEngine());
        var map = SlotMap.Even(2);
        var beside = Enumerable.Range(1_000, 1_000).Select(number => $"sku{number}").First(sku => map.ShardOf(sku) == 0);
        var (prepared, letGo) = (new TaskCompletionSource(), new TaskCompletionSource());
        await using var other = new Sharding([first, new Interrupted(second) { BeforeExecute = () => { prepared.TrySetResult(); return letGo.Task; } }], new() { Recovery = false });
        await first.RestockAsync("r1", [(Skus[0], 5), (beside, 5)], cancellationToken: token);
        await second.RestockAsync("r2", [(Skus[1], 1)], cancellationToken: token);
        var cart = other.DeductAsync("cart", [(Skus[0], 5), (Skus[1], 2)], cancellationToken: token).AsTask();
        await prepared.Task.WaitAsync(TimeSpan.FromSeconds(30), TimeProvider.System, token);
        await using var engine = new Sharding(
            [
                new Interrupted(first)
                {
                    AfterExecute = async () =>
                    {
                        letGo.TrySetResult();
                        (await cart).Status.ShouldBe(StockStatus.Insufficient);
                    },
                },
                second,
            ],
            new() { Recovery = false });

        var results = await engine.ExecuteAsync([StockCommand.Deduct("o1", [new(Skus[0], 1), new(beside, 1)]), StockCommand.Deduct("o2", [new(beside, 1)])], token);

        results.Select(result => result.Status).ShouldBe([StockStatus.Busy, StockStatus.Done]);
        (await engine.DeductAsync("o1", [(Skus[0], 1), (beside, 1)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>A look that met a cart before its home was decided was repeated, and the second look was the one that met it half.</summary>
    [Fact]
    public async Task An_order_that_was_not_decided_at_the_first_look_is_not_seen_half_at_a_second()
    {
        var token = TestContext.Current.CancellationToken;
        var (home, other) = (new MemoryEngine(), new MemoryEngine());
        await using var seller = new Sharding([home, other], new() { Recovery = false });
        await seller.RestockAsync("r", [(Skus[0], 5), (Skus[1], 5)], cancellationToken: token);
        await seller.DeductAsync("o1", [(Skus[0], 2), (Skus[1], 2)], cancellationToken: token);

        await using var reader = new Sharding(
            [
                new Interrupted(home) { Seen = (look, view) => look == 1 ? view! with { State = OperationState.Undecided } : view },
                new Interrupted(other) { Seen = (look, view) => look <= 2 ? null : view },
            ],
            new() { Recovery = false });

        var order = await reader.GetOperationAsync("o1", token);

        (order is null || order.Lines.Length == 2).ShouldBeTrue($"seen: {order?.Lines.Length} line");
    }

    /// <summary>Lets something happen before or after a call, or be seen at another time.</summary>
    private sealed class Interrupted(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _looks;

        public Func<Task>? BeforeExecute { get; init; }

        public Func<Task>? AfterExecute { get; set; }

        public Func<int, OperationView?, OperationView?>? Seen { get; init; }

        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            if (BeforeExecute is { } wait)
            {
                await wait();
            }

            var results = await base.ExecuteAsync(commands, cancellationToken);
            if (AfterExecute is { } interruption)
            {
                AfterExecute = null;
                await interruption();
            }

            return results;
        }

        public override async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
        {
            var view = await base.GetOperationAsync(id, cancellationToken);
            return Seen is null ? view : Seen(++_looks, view);
        }
    }
}
