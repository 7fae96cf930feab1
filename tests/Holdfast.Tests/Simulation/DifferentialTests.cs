using System.Globalization;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.Simulation;

/// <summary>
/// Every scheme against the reference model, with random commands. <c>HOLDFAST_SEED=n</c> runs that seed only, and
/// <c>HOLDFAST_SEEDS=n</c> runs so many.
/// </summary>
public sealed class DifferentialTests(ITestOutputHelper output)
{
    private const int Seeds = 4;

    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task Engine_and_model_agree(string name)
    {
        var scheme = Schemes.Find(name);
        if (scheme.FollowsRealClock)
        {
            output.WriteLine("The store follows a real clock; only its conformance cases let time pass.");
            return;
        }

        await using var probe = await scheme.OpenAsync();
        var hasGlobalIds = probe.Engine.Traits.HasFlag(StockTraits.GlobalIds);
        foreach (var seed in TheSeeds(scheme.IsSlow ? Seeds / 2 : Seeds))
        {
            var report = await DifferentialTest.RunAsync(
                async clock => await scheme.OpenEngineAsync(clock), seed, new() { Commands = 1_500, BatchesBetweenReads = 60, IsOneStore = hasGlobalIds }, TestContext.Current.CancellationToken);
            output.WriteLine($"Seed {seed}: {report.Commands} commands, {string.Join(", ", report.Outcomes.Select(outcome => $"{outcome.Value} {outcome.Key}"))}");
        }
    }

    /// <summary>A generator that never reaches an outcome would prove nothing about it.</summary>
    [Fact]
    public async Task Random_commands_reach_every_outcome_but_the_limit()
    {
        var report = await DifferentialTest.RunAsync(clock => new(new MemoryEngine(clock)), 1, new() { Commands = 3_000 }, TestContext.Current.CancellationToken);
        StockStatus[] reached =
        [
            StockStatus.Done, StockStatus.KeyConflict, StockStatus.Cancelled, StockStatus.Expired, StockStatus.Replayed, StockStatus.UnknownTarget,
            StockStatus.InvalidTargetState, StockStatus.UnknownSku, StockStatus.ExceedsDeducted, StockStatus.Insufficient,
        ];
        report.Outcomes.Keys.ShouldBe(reached);
        report.Outcomes.ShouldAllBe(outcome => outcome.Value >= 10);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_refund_that_forgets_its_cap_is_found_and_shrunk_to_a_few_steps(int seed)
    {
        var failure = await Should.ThrowAsync<ConformanceException>(
            () => DifferentialTest.RunAsync(clock => new(new ForgetsRefunds(new MemoryEngine(clock))), seed, cancellationToken: TestContext.Current.CancellationToken));
        output.WriteLine(failure.Message);
        failure.Message.ShouldStartWith($"Seed {seed}: ");
        failure.Message.Split('\n').Length.ShouldBeLessThan(10);
    }

    [Fact]
    public async Task A_lost_unit_is_found()
    {
        var failure = await Should.ThrowAsync<ConformanceException>(
            () => DifferentialTest.RunAsync(clock => new(new MiscountsReads(new MemoryEngine(clock))), 3, cancellationToken: TestContext.Current.CancellationToken));
        failure.Message.ShouldContain("The stock of");
    }

    /// <summary>Over a slow store the search for fewer steps once took hours, and looked like a hang.</summary>
    [Fact]
    public async Task A_failure_over_a_slow_store_is_reported_in_time()
    {
        var runs = 0;
        var failure = await Should.ThrowAsync<ConformanceException>(() => DifferentialTest.RunAsync(
            clock => new(new MiscountsReads(Interlocked.Increment(ref runs) == 1 ? new MemoryEngine(clock) : new NeverAnswers(new MemoryEngine(clock)))),
            3,
            new() { MostShrinking = TimeSpan.FromMilliseconds(100) },
            TestContext.Current.CancellationToken));
        failure.Message.ShouldContain("The stock of");
        runs.ShouldBe(2);
    }

    private static IEnumerable<int> TheSeeds(int seeds)
    {
        static int? Number(string name) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out var number) ? number : null;
        return Number("HOLDFAST_SEED") is { } one ? [one] : Enumerable.Range(1, Number("HOLDFAST_SEEDS") ?? seeds);
    }

    /// <summary>Answers a refund over the cap as if it had been applied.</summary>
    private sealed class ForgetsRefunds(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            return [.. results.Select(result => result.Status == StockStatus.ExceedsDeducted ? StockResult.Of(StockStatus.Done) : result)];
        }
    }

    /// <summary>Waits until it is cancelled.</summary>
    private sealed class NeverAnswers(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken);
            return await base.ExecuteAsync(commands, cancellationToken);
        }
    }

    /// <summary>Shows one unit less of a SKU once it has been sold down to two.</summary>
    private sealed class MiscountsReads(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
        {
            var levels = await base.GetStockAsync(skus, options, cancellationToken);
            return [.. levels.Select(level => level.Available == 2 ? level with { Available = 1 } : level)];
        }
    }
}
