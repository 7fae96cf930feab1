using Holdfast.Testing;

namespace Holdfast.Tests.Layers;

/// <summary>Group commit over an inner engine whose calls wait until the test lets them go, so that batches are what the test makes them.</summary>
public sealed class GroupCommitTests
{
    private static readonly CancellationToken Token = TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_batch_is_what_came_while_the_one_before_it_committed()
    {
        var inner = new GatedEngine();
        await using var engine = new GroupCommit(inner);
        var first = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token);
        await inner.CallsReached(1);
        var others = Enumerable.Range(0, 5).Select(i => engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask()).ToList();
        inner.OpenForEver();
        (await first).Status.ShouldBe(StockStatus.Done);
        (await Task.WhenAll(others)).ShouldAllBe(result => result.Status == StockStatus.Done);
        inner.Calls.Select(call => call.Length).ShouldBe([1, 5]);
    }

    [Fact]
    public async Task A_full_queue_is_Busy_at_once_and_the_refused_command_never_reaches_the_store()
    {
        var inner = new GatedEngine();
        await using var engine = new GroupCommit(inner, new() { MaxQueuedCommands = 2 });
        var running = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask();
        await inner.CallsReached(1);
        var queued = new[] { engine.AbandonAsync("a", Token).AsTask(), engine.AbandonAsync("b", Token).AsTask() };
        var refused = await engine.AbandonAsync("c", Token);
        refused.Status.ShouldBe(StockStatus.Busy);
        refused.Detail.ShouldNotBeNull().ShouldContain("at most 2");
        inner.OpenForEver();
        await Task.WhenAll([running, .. queued]);
        inner.Calls.SelectMany(call => call).Select(command => command.Id).ShouldBe(["r", "a", "b"]);
    }

    [Fact]
    public async Task A_callers_batch_larger_than_the_bounds_is_executed_in_parts_in_order()
    {
        var inner = new GatedEngine();
        inner.OpenForEver();
        await using var engine = new GroupCommit(inner, new() { MaxQueuedCommands = 3, MaxBatchCommands = 4 });
        StockCommand[] commands = [.. Enumerable.Range(0, 10).Select(i => StockCommand.Restock($"r{i}", [("A", 1)]))];
        var results = await engine.ExecuteAsync(commands, Token);
        results.Select(result => result.Left[0].Available).ShouldBe(Enumerable.Range(1, 10).Select(i => (long)i));
        inner.Calls.Select(call => call.Length).ShouldBe([4, 4, 2]);
    }

    [Fact]
    public async Task A_caller_that_gives_up_before_its_turn_leaves_nothing_behind()
    {
        var inner = new GatedEngine();
        await using var engine = new GroupCommit(inner);
        using var patience = new CancellationTokenSource();
        var running = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask();
        await inner.CallsReached(1);
        var impatient = engine.DeductAsync("gone", [("A", 1)], cancellationToken: patience.Token).AsTask();
        await patience.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(impatient);
        inner.OpenForEver();
        await running;
        (await engine.GetOperationAsync("gone", Token)).ShouldBeNull();
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(10);
    }

    [Fact]
    public async Task A_caller_that_gives_up_after_its_turn_stops_waiting_and_its_command_stands()
    {
        var inner = new GatedEngine();
        await using var engine = new GroupCommit(inner);
        using var patience = new CancellationTokenSource();
        var impatient = engine.RestockAsync("r", [("A", 10)], cancellationToken: patience.Token).AsTask();
        await inner.CallsReached(1);
        await patience.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(impatient);
        inner.OpenForEver();
        (await engine.RestockAsync("r", [("A", 10)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Replayed);
    }

    [Fact]
    public async Task A_poison_command_harms_only_itself()
    {
        var inner = new GatedEngine { Fails = command => command.Id == "poison" };
        await using var engine = new GroupCommit(inner, new() { RetryTimeout = TimeSpan.Zero });
        var running = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask();
        await inner.CallsReached(1);
        var poison = engine.DeductAsync("poison", [("A", 1)], cancellationToken: Token).AsTask();
        var neighbours = Enumerable.Range(0, 7).Select(i => engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask()).ToList();
        inner.OpenForEver();
        (await Task.WhenAll(neighbours)).ShouldAllBe(result => result.Status == StockStatus.Done);
        var answer = await poison;
        answer.Status.ShouldBe(StockStatus.InDoubt);
        answer.Detail.ShouldNotBeNull().ShouldContain("poison");
        await running;
    }

    [Fact]
    public async Task A_call_that_fails_after_the_write_is_tried_again_and_applies_once()
    {
        var inner = new GatedEngine { LosesAnswers = 3 };
        inner.OpenForEver();
        await using var engine = new GroupCommit(inner);
        (await engine.RestockAsync("r", [("A", 10)], cancellationToken: Token)).IsApplied.ShouldBeTrue();
        inner.LosesAnswers = 2;
        (await engine.DeductAsync("o", [("A", 3)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Replayed);
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(7);
    }

    [Fact]
    public async Task A_store_that_never_answers_leaves_the_command_in_doubt_and_the_next_callers_Busy()
    {
        var clock = new ManualTimeProvider();
        var inner = new GatedEngine();
        var engine = new GroupCommit(inner, new() { CallTimeout = TimeSpan.FromSeconds(5), QueueTimeout = TimeSpan.FromSeconds(3), RetryTimeout = TimeSpan.Zero }, clock);
        var stuck = engine.RestockAsync("r", [("A", 10)], cancellationToken: Token).AsTask();
        await inner.CallsReached(1);
        var behind = engine.RestockAsync("s", [("A", 10)], cancellationToken: Token).AsTask();

        // The limit of a call begins a moment after the call, perhaps after the clock was moved on: then it has to be moved on again.
        var both = Task.WhenAll(stuck, behind).WaitAsync(TimeSpan.FromSeconds(30), Token);
        while (!both.IsCompleted)
        {
            clock.Advance(TimeSpan.FromSeconds(7));
            await Task.WhenAny(both, Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Token));
        }

        (await both).Select(result => result.Status).ShouldBe([StockStatus.InDoubt, StockStatus.Busy]);
        inner.OpenForEver();
        await engine.DisposeAsync();
    }

    [Fact]
    public async Task Disposal_answers_what_was_accepted_and_refuses_what_comes_later()
    {
        var inner = new GatedEngine();
        var engine = new GroupCommit(inner);
        var accepted = Enumerable.Range(0, 100).Select(i => engine.RestockAsync($"r{i}", [("A", 1)], cancellationToken: Token).AsTask()).ToList();
        var disposal = engine.DisposeAsync().AsTask();
        var late = await engine.RestockAsync("late", [("A", 1)], cancellationToken: Token);
        late.Status.ShouldBe(StockStatus.Busy);
        late.Detail.ShouldBe("shutting down");
        disposal.IsCompleted.ShouldBeFalse();
        inner.OpenForEver();
        (await Task.WhenAll(accepted)).ShouldAllBe(result => result.Status == StockStatus.Done);
        await disposal;
        inner.IsDisposed.ShouldBeTrue();
    }

    [Fact]
    public async Task Batches_at_once_never_share_an_id_nor_split_a_callers_batch()
    {
        var inner = new GatedEngine();
        inner.OpenForEver();
        await using var engine = new GroupCommit(inner, new() { MaxConcurrentBatches = 4, MaxBatchCommands = 8 });
        await engine.RestockAsync("stock", [("A", 1_000_000)], cancellationToken: Token);
        inner.YieldsInCalls = true;
        var callers = Enumerable.Range(0, 64).Select(async caller =>
        {
            for (var i = 0; i < 50; i++)
            {
                var id = $"o{(caller + i) % 16}-{i}";
                var results = await engine.ExecuteAsync([StockCommand.Deduct(id, [("A", 1)]), StockCommand.Cancel(id)], Token);
                results.ShouldAllBe(result => result.Status == StockStatus.Done || result.Status == StockStatus.Replayed || result.Status == StockStatus.Cancelled);
            }
        });
        await Task.WhenAll(callers);
        inner.Problems.ShouldBeEmpty();
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(1_000_000);
    }

    [Theory]
    [InlineData(nameof(GroupCommitOptions.MaxQueuedCommands), 0)]
    [InlineData(nameof(GroupCommitOptions.MaxBatchCommands), 0)]
    [InlineData(nameof(GroupCommitOptions.MaxBatchCommands), 100_000)]
    [InlineData(nameof(GroupCommitOptions.MaxConcurrentBatches), 65)]
    public void A_bound_out_of_range_is_refused_by_name(string name, int value)
    {
        var options = new GroupCommitOptions();
        typeof(GroupCommitOptions).GetProperty(name)!.SetValue(options, value);
        Should.Throw<ArgumentException>(() => new GroupCommit(new MemoryEngine(), options)).Message.ShouldContain($"GroupCommit.{name}");
    }

    /// <summary>A memory engine behind a gate, that records its calls and what must never happen.</summary>
    private sealed class GatedEngine() : DelegatingStockEngine(new MemoryEngine())
    {
        private readonly TaskCompletionSource _gate = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly SemaphoreSlim _callBegan = new(0);
        private readonly Lock _lock = new();
        private readonly HashSet<string> _idsUnderWay = [];

        public List<StockCommand[]> Calls { get; } = [];

        public List<string> Problems { get; } = [];

        public Func<StockCommand, bool> Fails { get; init; } = _ => false;

        public int LosesAnswers { get; set; }

        public bool YieldsInCalls { get; set; }

        public bool IsDisposed { get; private set; }

        public void OpenForEver() => _gate.TrySetResult();

        public async Task CallsReached(int count)
        {
            for (var i = 0; i < count; i++)
            {
                (await _callBegan.WaitAsync(TimeSpan.FromSeconds(10), Token)).ShouldBeTrue();
            }
        }

        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var ids = commands.Select(command => command.Id).Distinct().ToList();
            lock (_lock)
            {
                Calls.Add([.. commands]);
                Problems.AddRange(ids.Where(id => !_idsUnderWay.Add(id)).Select(id => $"{id} is in two batches at once"));
            }

            _callBegan.Release();
            await _gate.Task;
            if (YieldsInCalls)
            {
                await Task.Yield();
            }

            try
            {
                if (commands.FirstOrDefault(Fails) is { } poison)
                {
                    throw new InvalidOperationException($"{poison.Id} is poison");
                }

                var results = await Inner.ExecuteAsync(commands, CancellationToken.None);
                return LosesAnswers-- > 0 ? throw new IOException("The answer was lost.") : results;
            }
            finally
            {
                lock (_lock)
                {
                    _idsUnderWay.ExceptWith(ids);
                }
            }
        }

        public override ValueTask DisposeAsync()
        {
            IsDisposed = true;
            return base.DisposeAsync();
        }
    }
}
