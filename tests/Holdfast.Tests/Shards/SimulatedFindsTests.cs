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
}
