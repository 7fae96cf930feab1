using Holdfast.Testing;

namespace Holdfast.Tests.Conformance;

/// <summary>The kit itself: a case that can't fail proves nothing.</summary>
public sealed class KitTests
{
    [Fact]
    public async Task A_wrong_expectation_is_reported_with_the_steps_so_far()
    {
        var failure = await Should.ThrowAsync<ConformanceException>(() => PlayAsync("""
            restock r1: A 5                 => Done: A 5
            deduct o1: A 2                  => Done: A 4
            """));
        failure.Message.ShouldContain("'deduct o1: A 2' answered 'Done: A 3'; expected 'Done: A 4'");
        failure.Message.ShouldContain("restock r1: A 5 => Done: A 5");
    }

    [Fact]
    public async Task Text_that_is_no_step_is_an_error() =>
        (await Should.ThrowAsync<FormatException>(() => PlayAsync("sell A 5"))).Message.ShouldContain("sell A 5");

    [Fact]
    public async Task A_case_whose_engine_lies_fails()
    {
        await using var liar = new Refuses(new MemoryEngine());
        var outcomes = new List<ConformanceOutcome>();
        await foreach (var outcome in ConformanceCases.RunAsync(liar, "liar", cases: ConformanceCases.All.Where(each => !each.UsesTime), cancellationToken: TestContext.Current.CancellationToken))
        {
            outcomes.Add(outcome);
        }

        outcomes.Count(outcome => outcome.Verdict == ConformanceVerdict.Failed).ShouldBeGreaterThan(outcomes.Count / 2);
    }

    [Fact]
    public async Task A_promise_that_is_not_given_is_not_applicable_and_says_so()
    {
        var each = ConformanceCases.All.First(each => each.NeedsManualClock);
        var outcome = await each.RunAsync(new(new MemoryEngine(), "t-", cancellationToken: TestContext.Current.CancellationToken));
        outcome.Verdict.ShouldBe(ConformanceVerdict.NotApplicable);
        outcome.Reason.ShouldNotBeNullOrEmpty();
    }

    /// <summary>What a scheme need not do is said by its traits alone: an exception is no way out of a case.</summary>
    [Fact]
    public async Task An_engine_that_throws_NotSupported_fails_its_cases()
    {
        await using var engine = new SupportsNothing(new MemoryEngine());
        foreach (var each in ConformanceCases.All.Where(each => each.HeldTo(engine.Traits, hasManualClock: false) != ConformanceScope.None && !each.UsesTime))
        {
            var outcome = await each.RunAsync(new(engine, "t-", cancellationToken: TestContext.Current.CancellationToken));
            outcome.Verdict.ShouldNotBe(ConformanceVerdict.NotApplicable, each.Name);
        }
    }

    private static Task PlayAsync(string script) => ContractScript.RunAsync(new(new MemoryEngine(), "t-"), script);

    /// <summary>Refuses every second deduction and reservation, whatever there is.</summary>
    private sealed class Refuses(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _count;

        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            return [.. results.Select((result, i) => commands[i].Verb is StockVerb.Deduct or StockVerb.Reserve && Interlocked.Increment(ref _count) % 2 == 0
                ? StockResult.Refused(StockStatus.Insufficient, commands[i].Lines[0].Sku)
                : result)];
        }
    }

    /// <summary>Supports no command.</summary>
    private sealed class SupportsNothing(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            throw new NotSupportedException("Not today.");
    }
}
