namespace Holdfast.Tests.Layers;

/// <summary>What one caller does to its own list must not reach its neighbours in a batch.</summary>
public sealed class GroupCommitCallersTests
{
    private static readonly CancellationToken Token = TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_caller_that_gives_up_and_reuses_its_list_does_not_shift_the_answers_of_others()
    {
        var inner = new Gate();
        await using var engine = new GroupCommit(inner);
        var running = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask();
        await inner.Began(1);
        using var patience = new CancellationTokenSource();
        List<StockCommand> list = [StockCommand.Deduct("o1", [("A", 1)]), StockCommand.Deduct("o2", [("A", 1)])];
        var impatient = engine.ExecuteAsync(list, patience.Token).AsTask();
        var refused = engine.DeductAsync("too-many", [("A", 100)], cancellationToken: Token).AsTask();
        inner.Open();
        await running;

        // The second batch is under way.
        await inner.Began(1);
        await patience.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(impatient);
        list.Clear();
        inner.Open();
        (await refused.WaitAsync(TimeSpan.FromSeconds(10), Token)).Status.ShouldBe(StockStatus.Insufficient);
    }

    [Fact]
    public async Task A_list_with_a_hole_is_its_callers_mistake_and_stops_nobody()
    {
        await using var engine = new GroupCommit(new MemoryEngine(), new() { MaxConcurrentBatches = 2 });
        (await Should.ThrowAsync<ArgumentException>(async () => await engine.ExecuteAsync([StockCommand.Cancel("o1"), null!], Token).AsTask().WaitAsync(TimeSpan.FromSeconds(10), Token)))
            .Message.ShouldContain("commands[1]");
        (await engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask().WaitAsync(TimeSpan.FromSeconds(10), Token)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_caller_that_was_answered_goes_on_although_the_loop_and_all_other_threads_stay_busy()
    {
        var stop = 0;
        var isOn = 0;
        var wentOn = false;
        var inner = new Blocking();
        await using var engine = new GroupCommit(inner);
        var firstBegan = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var firstMayEnd = new ManualResetEventSlim();
        inner.OnCall = commands =>
        {
            if (commands[0].Id == "first")
            {
                firstBegan.SetResult();
                firstMayEnd.Wait(TimeSpan.FromSeconds(10), Token).ShouldBeTrue();
            }
            else
            {
                wentOn = SpinWait.SpinUntil(() => Volatile.Read(ref isOn) == 1, TimeSpan.FromSeconds(5));
            }
        };
        var first = GoOnAsync(engine.CancelAsync("first", Token));
        await firstBegan.Task.WaitAsync(TimeSpan.FromSeconds(10), Token);
        var second = engine.CancelAsync("second", Token).AsTask();
        var others = Enumerable.Range(0, 8).Select(_ => Yielding()).ToArray();
        firstMayEnd.Set();
        await second;
        Volatile.Write(ref stop, 1);
        await Task.WhenAll([first, .. others]);
        wentOn.ShouldBeTrue();

        async Task GoOnAsync(ValueTask<StockResult> answer)
        {
            await answer.ConfigureAwait(false);
            Volatile.Write(ref isOn, 1);
        }

        async Task Yielding()
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            while (Volatile.Read(ref stop) == 0)
            {
                await Task.Yield();
            }
        }
    }

    /// <summary>Works on its caller's thread, as an engine over a file does.</summary>
    private sealed class Blocking() : DelegatingStockEngine(new MemoryEngine())
    {
        public Action<IReadOnlyList<StockCommand>> OnCall { get; set; } = _ => { };

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            OnCall(commands);
            return Inner.ExecuteAsync(commands, CancellationToken.None);
        }
    }

    /// <summary>Every call waits to be let through.</summary>
    private sealed class Gate() : DelegatingStockEngine(new MemoryEngine())
    {
        private readonly SemaphoreSlim _began = new(0);
        private readonly SemaphoreSlim _open = new(0);

        public void Open() => _open.Release();

        public async Task Began(int calls)
        {
            for (var i = 0; i < calls; i++)
            {
                (await _began.WaitAsync(TimeSpan.FromSeconds(10), Token)).ShouldBeTrue();
            }
        }

        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            _began.Release();
            (await _open.WaitAsync(TimeSpan.FromSeconds(10), CancellationToken.None)).ShouldBeTrue();
            return await Inner.ExecuteAsync(commands, CancellationToken.None);
        }
    }
}
