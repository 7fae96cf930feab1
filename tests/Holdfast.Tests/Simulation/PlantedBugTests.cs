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

    [Fact]
    public Task A_cart_that_is_answered_before_the_commit_point_is_found_out() => IsFoundAsync(() => new ShardingScenario(shard => new AnswersBeforeDeciding(shard)));

    [Fact]
    public Task Parts_of_a_cart_that_expire_before_it_is_decided_are_found_out() => IsFoundAsync(() => new ShardingScenario(shard => new ForgetsPrepared(shard)));

    [Fact]
    public Task Sharding_that_retries_with_a_new_id_is_found_out() => IsFoundAsync(() => new ShardingScenario(shard => new RetriesWithNewId(shard.Engine)));

    [Fact]
    public Task Recovery_that_commits_a_cart_that_was_let_go_is_found_out() => IsFoundAsync(() => new ShardingScenario(shard => new CommitsWhatWasLetGo(shard)));

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

    /// <summary>All parts are prepared, so nothing can go wrong any more: the home need not be waited for.</summary>
    private sealed class AnswersBeforeDeciding(ShardConnection shard) : DelegatingStockEngine(shard.Engine)
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            if (commands is not [{ Branch: { Phase: BranchPhase.Commit } branch }] || branch.Cart.Home != shard.Shard)
            {
                return base.ExecuteAsync(commands, cancellationToken);
            }

            _ = base.ExecuteAsync(commands, CancellationToken.None).AsTask();
            return new([StockResult.Of(StockStatus.Done)]);
        }
    }

    /// <summary>A shard that lets go of what has been prepared for two seconds, as if that had a time to live.</summary>
    private sealed class ForgetsPrepared(ShardConnection shard) : DelegatingStockEngine(shard.Engine)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            foreach (var (command, _) in commands.Zip(results).Where(pair => pair.First.Branch?.Phase == BranchPhase.Prepare && pair.Second.Status == StockStatus.Done))
            {
                _ = LetGoAsync(command.InPhase(BranchPhase.Abort));
            }

            return results;
        }

        private async Task LetGoAsync(StockCommand abort)
        {
            await Task.Delay(TimeSpan.FromSeconds(2), shard.Clock, CancellationToken.None);
            await base.ExecuteAsync([abort], CancellationToken.None);
        }
    }

    /// <summary>Where the home has nothing of a cart any more, its other parts are committed.</summary>
    private sealed class CommitsWhatWasLetGo(ShardConnection shard) : DelegatingStockEngine(shard.Engine)
    {
        public override async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
        {
            var view = await base.GetOperationAsync(id, cancellationToken);
            if (view is null)
            {
                shard.Memory.Add($"{shard.Shard} {id}");
            }

            return view;
        }

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            base.ExecuteAsync([.. commands.Select(Changed)], cancellationToken);

        private StockCommand Changed(StockCommand command) =>
            command.Branch is { Phase: BranchPhase.Abort } branch && branch.Cart.Home != shard.Shard && shard.Memory.Contains($"{branch.Cart.Home} {command.Id}")
                ? command.InPhase(BranchPhase.Commit)
                : command;
    }
}
