using Holdfast.Testing;

namespace Holdfast.Tests.Simulation;

/// <summary>Bugs that were planted on purpose: a simulation that does not find them proves nothing by passing.</summary>
public sealed class PlantedBugTests(ITestOutputHelper output)
{
    private const int Seeds = 300;

    [Fact]
    public Task Group_commit_that_answers_before_the_commit_is_found_out() =>
        IsFoundAsync(() => new GroupCommitScenario(1, (store, group) => group(new AnswersBeforeCommit(store))));

    [Fact]
    public Task Group_commit_that_retries_with_a_new_id_is_found_out() =>
        IsFoundAsync(() => new GroupCommitScenario(1, (store, group) => group(new RetriesWithNewId(store))));

    [Fact]
    public Task Group_commit_with_one_id_in_two_batches_at_once_is_found_out() =>
        IsFoundAsync(() => new GroupCommitScenario(1, (store, group) => new TakesTurns(group(store), group(store))));

    [Fact]
    public Task Group_commit_that_takes_doubt_for_a_refusal_is_found_out() =>
        IsFoundAsync(() => new GroupCommitScenario(1, (store, group) => group(new TakesDoubtForRefusal(store))));

    private async Task IsFoundAsync(Func<SimulationScenario> scenario)
    {
        for (var seed = 1; seed <= Seeds; seed++)
        {
            var report = await Holdfast.Testing.Simulation.RunAsync(scenario, seed);
            if (!report.Passed)
            {
                output.WriteLine(report.ToString());
                return;
            }
        }

        Assert.Fail($"{Seeds} seeds did not find it.");
    }

    /// <summary>A restock can't be refused, so why wait for it?</summary>
    private sealed class AnswersBeforeCommit(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            if (commands.Any(command => command.Verb != StockVerb.Restock))
            {
                return base.ExecuteAsync(commands, cancellationToken);
            }

            _ = base.ExecuteAsync(commands, CancellationToken.None).AsTask();
            return new([.. commands.Select(_ => StockResult.Of(StockStatus.Done))]);
        }
    }

    /// <summary>The id was used up by the attempt in doubt, so it takes another.</summary>
    private sealed class RetriesWithNewId(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            return results.Any(result => result.Status == StockStatus.InDoubt)
                ? await base.ExecuteAsync([.. commands.Select(command => command.Verb == StockVerb.Deduct ? StockCommand.Deduct(command.Id + "'", command.Lines.AsSpan()) : command)], cancellationToken)
                : results;
        }
    }

    /// <summary>Group commit that does not look at the ids under way comes down to two that know nothing of each other.</summary>
    private sealed class TakesTurns(IStockEngine inner, IStockEngine other) : DelegatingStockEngine(inner)
    {
        private int _calls;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            (++_calls % 2 == 0 ? Inner : other).ExecuteAsync(commands, cancellationToken);
    }

    /// <summary>Tells the buyer that it is sold out where it does not know.</summary>
    private sealed class TakesDoubtForRefusal(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            return [.. results.Select((result, i) => result.Status == StockStatus.InDoubt && commands[i].Verb == StockVerb.Deduct
                ? StockResult.Refused(StockStatus.Insufficient, commands[i].Lines[0].Sku)
                : result)];
        }
    }
}
