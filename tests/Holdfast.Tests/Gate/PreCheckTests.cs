using Holdfast.Hosting;
using Holdfast.Tests.Cli;

namespace Holdfast.Tests.Gate;

/// <summary>Redis as a pre-check in front of a scheme of one's choice: it refuses, and the scheme decides everything else.</summary>
public sealed class PreCheckTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("database")]
    [InlineData("batched")]
    public async Task The_sold_out_crowd_is_refused_before_the_scheme_is_asked(string scheme)
    {
        using var folder = new TestFolder();
        var options = new HoldfastOptions { PreCheck = StockPreCheck.Redis, Gate = SharedGate.Quick(await SharedGate.ServerAsync()) };
        await using var opened = await SchemeCatalog.OpenAsync(scheme, $"sqlite:{folder.File("stock.db")}", options, cancellationToken: Cancel);
        opened.Scheme.ShouldBe(scheme);
        opened.Location.ShouldContain("behind a gate in");
        var gate = FindGate(opened.Engine);
        await SharedGate.UntilSureAsync(gate);
        await opened.Engine.RestockAsync("in", [("apple", 1)], cancellationToken: Cancel);
        (await opened.Engine.DeductAsync("o1", [("apple", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);

        // This process's own change is refused by the store's numbers until the copies have it.
        await gate.CatchUpAsync(Cancel);
        var passed = gate.Counts.Passed;
        (await opened.Engine.DeductAsync("o2", [("apple", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Insufficient);
        gate.Counts.Passed.ShouldBe(passed);
        (gate.Counts.Refused + gate.Counts.Confirmed).ShouldBe(1, "by its copies, or by one question about the stock");
        (await opened.Engine.DeductAsync("o1", [("apple", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Replayed);
    }

    [Theory]
    [InlineData("memory", null)]
    [InlineData("batched", "memory")]
    [InlineData("cached", "sqlite:x.db")]
    [InlineData("replica", null)]
    [InlineData("redis", null)]
    public async Task Schemes_with_a_check_of_their_own_or_without_SQL_take_none(string scheme, string? store)
    {
        var options = new HoldfastOptions { Scheme = scheme, Store = store, PreCheck = StockPreCheck.Redis };
        options.Problems().ShouldContain(problem => problem.StartsWith("Holdfast:PreCheck is Redis, which the scheme", StringComparison.Ordinal));
        var refused = await Should.ThrowAsync<ArgumentException>(async () => await SchemeCatalog.OpenAsync(scheme, store, options, cancellationToken: Cancel));
        refused.Message.ShouldContain("PreCheck");
    }

    private static RedisGate FindGate(IStockEngine engine)
    {
        while (engine is DelegatingStockEngine layer and not RedisGate)
        {
            engine = layer.Inner;
        }

        return engine.ShouldBeOfType<RedisGate>();
    }
}
