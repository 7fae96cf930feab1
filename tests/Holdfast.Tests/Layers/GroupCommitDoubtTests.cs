using System.Diagnostics;
using Holdfast.Testing;

namespace Holdfast.Tests.Layers;

/// <summary>What group commit makes of an attempt in doubt.</summary>
public sealed class GroupCommitDoubtTests
{
    [Fact]
    public async Task A_command_in_doubt_stays_in_doubt_when_the_next_attempt_is_Busy()
    {
        var attempts = 0;
        await using var store = new Scripted(() => ++attempts == 1 ? StockStatus.InDoubt : StockStatus.Busy);
        await using var group = new GroupCommit(store, new() { RetryTimeout = TimeSpan.FromMilliseconds(200) });

        var result = await group.DeductAsync("o1", [("a", 1)], cancellationToken: TestContext.Current.CancellationToken);

        result.Status.ShouldBe(StockStatus.InDoubt, "the first attempt may have applied");
        attempts.ShouldBeGreaterThan(1);
    }

    [Fact]
    public async Task A_command_in_doubt_is_tried_again_past_a_Busy_answer_until_it_is_decided()
    {
        var attempts = 0;
        await using var store = new Scripted(() => ++attempts switch { 1 => StockStatus.InDoubt, < 4 => StockStatus.Busy, _ => StockStatus.Replayed });
        await using var group = new GroupCommit(store);

        (await group.DeductAsync("o1", [("a", 1)], cancellationToken: TestContext.Current.CancellationToken)).Status.ShouldBe(StockStatus.Replayed);
        attempts.ShouldBe(4);
    }

    [Fact]
    public async Task What_was_refused_behind_a_command_in_doubt_is_decided_anew_behind_it()
    {
        // The restock fails with its batch and then alone, while the deduction behind it is decided without it.
        var failures = 2;
        await using var store = new Failing(commands => commands[0].Id == "restock" && failures-- > 0);
        await using var group = new GroupCommit(store);
        var token = TestContext.Current.CancellationToken;
        (await group.RestockAsync("known", [("A", 0)], cancellationToken: token)).Status.ShouldBe(StockStatus.Done);

        var results = await group.ExecuteAsync([StockCommand.Restock("restock", [("A", 5)]), StockCommand.Deduct("o1", [("A", 5)]), StockCommand.Deduct("o2", [("A", 1)])], token);

        results.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.Done, StockStatus.Insufficient]);
    }

    [Fact]
    public async Task An_engine_that_fails_slowly_is_not_asked_for_each_half_of_a_batch_without_end()
    {
        var clock = new ManualTimeProvider();
        var calls = 0;
        await using var store = new Failing(_ =>
        {
            calls++;
            clock.Advance(TimeSpan.FromSeconds(10));
            return true;
        });
        await using var group = new GroupCommit(store, new() { CallTimeout = TimeSpan.FromSeconds(30), RetryTimeout = TimeSpan.Zero }, clock);

        var results = await group.ExecuteAsync([.. Enumerable.Range(0, 1_000).Select(i => StockCommand.Cancel($"o{i}"))], TestContext.Current.CancellationToken);

        results.ShouldAllBe(result => result.Status == StockStatus.InDoubt);
        calls.ShouldBeLessThan(10);
    }

    [Fact]
    public async Task Commands_that_wait_in_doubt_for_their_next_try_count_towards_the_bound()
    {
        // Time stands still, so nothing that paused is tried again.
        var clock = new ManualTimeProvider();
        var attempts = 0;
        await using var store = new Scripted(() =>
        {
            Interlocked.Increment(ref attempts);
            return StockStatus.InDoubt;
        });
        await using var group = new GroupCommit(store, new() { MaxQueuedCommands = 10 }, clock);
        var token = TestContext.Current.CancellationToken;
        var inDoubt = new List<Task<StockResult>>();
        StockResult? refused = null;
        for (var i = 0; refused is null; i++)
        {
            i.ShouldBeLessThan(1_000, "the bound never stopped a caller");
            var call = group.DeductAsync($"o{i}", [("a", 1)], cancellationToken: token).AsTask();
            if (call.IsCompleted)
            {
                refused = await call;
                break;
            }

            // Tried twice, it pauses and stands in no queue: without being counted it would never stop the next caller.
            inDoubt.Add(call);
            var patience = Stopwatch.StartNew();
            while (Volatile.Read(ref attempts) < 2 * inDoubt.Count)
            {
                patience.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60));
                await Task.Delay(1, token);
            }
        }

        refused.Value.Status.ShouldBe(StockStatus.Busy);
        refused.Value.Detail.ShouldNotBeNull().ShouldContain("at most 10");
        clock.Advance(TimeSpan.FromHours(1));
        (await Task.WhenAll(inDoubt)).ShouldAllBe(result => result.Status == StockStatus.InDoubt);
    }

    /// <summary>Found by simulation: the confirmation was tried again behind the reservation, and both were done.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(100)]
    public async Task What_stands_behind_a_command_in_doubt_waits_for_it_so_that_the_batch_keeps_its_order(int largestBatch)
    {
        // The call fails as a whole, then its first command alone; without an answer each time, and without an effect.
        var failures = largestBatch == 1 ? 1 : 2;
        await using var store = new Failing(commands => commands[0].Verb == StockVerb.Confirm && failures-- > 0);
        await using var group = new GroupCommit(store, new() { MaxBatchCommands = largestBatch });
        var token = TestContext.Current.CancellationToken;
        await group.RestockAsync("r", [("A", 5)], cancellationToken: token);

        var results = await group.ExecuteAsync([StockCommand.Confirm("h1"), StockCommand.Reserve("h1", [("A", 1)], TimeSpan.FromHours(1)), StockCommand.Deduct("o1", [("A", 1)])], token);

        results.Select(result => result.Status).ShouldBe([StockStatus.UnknownTarget, StockStatus.Done, StockStatus.Done]);
        failures.ShouldBeLessThan(1);
    }

    /// <summary>Found by simulation: the second try was Busy, and the rest of the batch went on as if that had settled it.</summary>
    [Fact]
    public async Task A_command_in_doubt_that_is_then_Busy_still_holds_what_stands_behind_it()
    {
        var attempts = 0;
        await using var store = new Refusing(commands => commands[0].Id == "r2" ? ++attempts switch { 1 => StockStatus.InDoubt, 2 => StockStatus.Busy, _ => null } : null);
        await using var group = new GroupCommit(store, new() { MaxBatchCommands = 1 });
        var token = TestContext.Current.CancellationToken;
        await group.RestockAsync("r1", [("A", 5)], cancellationToken: token);

        var results = await group.ExecuteAsync([StockCommand.Restock("r2", [("A", 5)]), StockCommand.Deduct("o1", [("A", 1)])], token);

        results.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.Done]);
        results.Select(result => result.Left[0].Available).ShouldBe([10, 9]);
    }

    [Fact]
    public async Task A_command_that_stays_in_doubt_does_not_take_its_callers_other_commands_down()
    {
        await using var store = new Failing(commands => commands.Any(command => command.Id == "poison"));
        await using var group = new GroupCommit(store, new() { RetryTimeout = TimeSpan.FromMilliseconds(50) });
        var token = TestContext.Current.CancellationToken;

        var results = await group.ExecuteAsync([StockCommand.Restock("r", [("A", 5)]), StockCommand.Cancel("poison"), StockCommand.Deduct("o1", [("A", 1)]), StockCommand.Deduct("o2", [("A", 9)])], token);

        results.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.InDoubt, StockStatus.Done, StockStatus.Insufficient]);
    }

    /// <summary>Found by simulation: the try beside it was refused and answered so, and then the first call was done after all.</summary>
    [Fact]
    public async Task A_call_that_goes_on_past_its_limit_is_not_tried_again_beside_itself()
    {
        var clock = new ManualTimeProvider();
        var calls = 0;
        var stuck = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var store = new Stuck(() =>
        {
            calls++;
            return stuck.Task;
        });
        await using var group = new GroupCommit(store, new() { CallTimeout = TimeSpan.FromSeconds(1), RetryTimeout = TimeSpan.FromMinutes(10) }, clock);
        var call = group.DeductAsync("o1", [("A", 1)], cancellationToken: TestContext.Current.CancellationToken).AsTask();
        var patience = Stopwatch.StartNew();
        while (!call.IsCompleted)
        {
            patience.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60));
            clock.Advance(TimeSpan.FromSeconds(1));
            await Task.Delay(1, TestContext.Current.CancellationToken);
        }

        (await call).Status.ShouldBe(StockStatus.InDoubt);
        calls.ShouldBe(1);
        stuck.SetResult();
    }

    /// <summary>Waits for something before it executes, whatever its token says.</summary>
    private sealed class Stuck(Func<Task> wait) : DelegatingStockEngine(new MemoryEngine())
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            await wait();
            return await Inner.ExecuteAsync(commands, CancellationToken.None);
        }
    }

    /// <summary>Answers with a status instead of executing, where it is told one.</summary>
    private sealed class Refusing(Func<IReadOnlyList<StockCommand>, StockStatus?> answer) : DelegatingStockEngine(new MemoryEngine())
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            answer(commands) is { } status ? new([.. commands.Select(_ => StockResult.Of(status))]) : Inner.ExecuteAsync(commands, cancellationToken);
    }

    /// <summary>Throws instead of executing, where it is told to.</summary>
    private sealed class Failing(Func<IReadOnlyList<StockCommand>, bool> fails) : DelegatingStockEngine(new MemoryEngine())
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            fails(commands) ? throw new IOException("Failed on demand.") : Inner.ExecuteAsync(commands, cancellationToken);
    }

    private sealed class Scripted(Func<StockStatus> answer) : DelegatingStockEngine(new MemoryEngine())
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            new([.. commands.Select(_ => StockResult.Of(answer()))]);
    }
}
