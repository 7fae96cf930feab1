using Holdfast.Testing;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.Simulation;

/// <summary>Many callers at once over every scheme; each storm ends in an audit of the store and of what the callers saw.</summary>
public sealed class StormTests(ITestOutputHelper output)
{
    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task A_flash_sale_sells_every_unit_once_and_refuses_nobody_too_early(string scheme)
    {
        await using var store = await Schemes.Find(scheme).OpenAsync();
        var report = await RunAsync(store, StormWorkload.Hot("s-", 1), new() { Callers = 500, CommandsPerCaller = 4, OpeningUnits = 500 });
        report.Applied.ShouldBe(501, "the restock and each of the 500 units");
        report.Refused.ShouldBe(1_500);
    }

    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task Carts_with_repetitions_are_applied_whole_and_once(string scheme)
    {
        await using var store = await Schemes.Find(scheme).OpenAsync();
        var report = await RunAsync(store, StormWorkload.Carts("s-", 2, skus: 50, duplicates: 0.2), new() { CommandsPerCaller = 20, OpeningUnits = 60 });
        report.Refused.ShouldBeGreaterThan(0, "the stock is too small for all");
    }

    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task All_verbs_at_once(string scheme)
    {
        await using var store = await Schemes.Find(scheme).OpenAsync();
        await RunAsync(store, StormWorkload.AllVerbs("s-", 3, conflicts: store.Engine.Traits.HasFlag(StockTraits.GlobalIds)), new() { CommandsPerCaller = 40, Clock = store.Clock });
    }

    /// <summary>Faults before and after the write, halfway and by cancellation: retries with the same id lead to one effect.</summary>
    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task All_verbs_over_a_store_that_loses_acknowledgements(string scheme)
    {
        await using var store = await Schemes.Find(scheme).OpenAsync();
        var faulty = new FaultyEngine(store.Engine, FaultRates.Each(0.03), seed: 4);
        var report = await StormRunner.RunAsync(
            faulty, StormWorkload.AllVerbs("s-", 4, conflicts: store.Engine.Traits.HasFlag(StockTraits.GlobalIds)), new() { Callers = 32, CommandsPerCaller = 40, Clock = store.Clock, Truth = store.Engine }, TestContext.Current.CancellationToken);
        output.WriteLine(report.ToString());
        report.Audit.FirstDifference.ShouldBeNull();
        foreach (var fault in Enum.GetValues<Fault>())
        {
            faulty.Count(fault).ShouldBeGreaterThan(0, fault.ToString());
        }
    }

    /// <summary>Group commit between the callers and a faulty store: its own retries and bisections must not apply anything twice either.</summary>
    [Fact]
    public async Task Group_commit_over_a_store_that_loses_acknowledgements()
    {
        var clock = new ManualTimeProvider();
        await using var truth = new MemoryEngine(clock);
        var faulty = new FaultyEngine(truth, FaultRates.Each(0.03) with { CancelBefore = 0, CancelAfter = 0 }, seed: 5);
        await using var engine = new GroupCommit(faulty, new() { MaxBatchCommands = 16 });
        var report = await StormRunner.RunAsync(
            engine, StormWorkload.AllVerbs("s-", 5), new() { CommandsPerCaller = 60, Clock = clock, Truth = truth }, TestContext.Current.CancellationToken);
        output.WriteLine(report.ToString());
        report.Audit.FirstDifference.ShouldBeNull();
    }

    [Fact]
    public async Task A_store_that_applies_retries_again_is_found_out()
    {
        await using var truth = new MemoryEngine();
        var report = await StormRunner.RunAsync(new ForgetsIds(truth), StormWorkload.Carts("s-", 6, skus: 20), new() { Truth = truth, OpeningUnits = 1_000 }, TestContext.Current.CancellationToken);
        report.Audit.Differences.ShouldContain(difference => difference.Contains("nobody asked for", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_store_that_says_sold_out_too_early_is_found_out()
    {
        await using var truth = new MemoryEngine();
        var report = await StormRunner.RunAsync(new SellsOutEarly(truth), StormWorkload.Hot("s-", 7), new() { Truth = truth, OpeningUnits = 1_000 }, TestContext.Current.CancellationToken);
        report.Audit.Differences.ShouldContain(difference => difference.Contains("was refused although", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_store_that_acknowledges_before_it_writes_is_found_out()
    {
        await using var truth = new MemoryEngine();
        var report = await StormRunner.RunAsync(new AcknowledgesTooEarly(truth), StormWorkload.Uniform("s-", 8), new() { Truth = truth }, TestContext.Current.CancellationToken);
        report.Audit.Differences.ShouldContain(difference => difference.Contains("was acknowledged but is not in the ledger", StringComparison.Ordinal));
    }

    private async Task<StormReport> RunAsync(OpenScheme store, StormWorkload workload, StormOptions options)
    {
        var report = await StormRunner.RunAsync(store.Engine, workload, options, TestContext.Current.CancellationToken);
        output.WriteLine(report.ToString());
        report.Audit.FirstDifference.ShouldBeNull();
        report.AnException.ShouldBeNull();
        return report;
    }

    /// <summary>Now and then applies a deduction a second time, under an id of its own: an idempotency key that was lost.</summary>
    private sealed class ForgetsIds(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _count;

        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            if (commands[0].Verb == StockVerb.Deduct && Interlocked.Increment(ref _count) % 100 == 0)
            {
                await base.ExecuteAsync([StockCommand.Deduct(commands[0].Id + "'", commands[0].Lines.AsSpan())], cancellationToken);
            }

            return await base.ExecuteAsync(commands, cancellationToken);
        }
    }

    /// <summary>Refuses one buyer in a hundred although there is stock.</summary>
    private sealed class SellsOutEarly(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _count;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            commands[0].Verb == StockVerb.Deduct && Interlocked.Increment(ref _count) % 100 == 0
                ? new([StockResult.Refused(StockStatus.Insufficient, commands[0].Lines[0].Sku)])
                : base.ExecuteAsync(commands, cancellationToken);
    }

    /// <summary>Answers Done for one deduction in a hundred and forgets it.</summary>
    private sealed class AcknowledgesTooEarly(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _count;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            commands[0].Verb == StockVerb.Deduct && Interlocked.Increment(ref _count) % 100 == 0
                ? new([StockResult.Of(StockStatus.Done)])
                : base.ExecuteAsync(commands, cancellationToken);
    }
}
