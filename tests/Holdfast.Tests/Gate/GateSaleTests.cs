using Holdfast.Testing;

namespace Holdfast.Tests.Gate;

/// <summary>A gate that acknowledges by itself, over a stock file and real Redis servers.</summary>
public sealed class GateSaleTests : IAsyncLifetime
{
    private readonly string _folder = Directory.CreateTempSubdirectory("holdfast-test-").FullName;
    private readonly RedisGateOptions _options = new();
    private RedisServer _server = null!;
    private SqliteEngine _store = null!;
    private GroupCommit _batched = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await RedisServer.StartAsync("appendfsync no");
        _store = SqliteEngine.Open(new() { Path = Path.Combine(_folder, "stock.db"), Synchronous = SqliteSynchronous.Normal });
        _batched = new(_store);
        _options.Redis = _server.Configuration;
        _options.Name = SharedGate.NewName();
        _options.Acknowledge = GateAcknowledgement.Gate;
        _options.Lease = TimeSpan.FromMilliseconds(200);
        _options.FollowInterval = TimeSpan.FromMilliseconds(20);
        _options.MaxLag = TimeSpan.FromSeconds(10);
        _options.ForgetAfter = TimeSpan.FromSeconds(2);
        _options.StoreLease = TimeSpan.FromSeconds(3);
        _options.CallTimeout = TimeSpan.FromSeconds(5);
        _options.IdBits = 20;
    }

    public async ValueTask DisposeAsync()
    {
        await _batched.DisposeAsync();
        await _server.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task The_gate_acknowledges_what_is_certain_and_the_store_has_it_before_it_is_read()
    {
        await using var gate = await OpenAsync();
        gate.Traits.ShouldBe(StockTraits.Exact);
        (await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Store);
        var sold = await gate.DeductAsync("o1", [("A", 2)], cancellationToken: Cancel);
        (sold.Status, sold.AcknowledgedBy).ShouldBe((StockStatus.Done, Acknowledgement.Gate));
        sold.Left.ShouldHaveSingleItem().ShouldBe(new LineBalance("A", 3));
        (await gate.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(3);
        (await gate.GetOperationAsync("o1", Cancel)).ShouldNotBeNull();
        gate.Sale!.Unsettled.ShouldBe(0);
    }

    /// <summary>A cancel, a confirmation or a refund right behind its order: it must not leave a tombstone before the order is there.</summary>
    [Fact]
    public async Task What_speaks_of_an_order_is_decided_behind_it()
    {
        await using var gate = await OpenAsync();
        await gate.RestockAsync("r1", [("A", 100)], cancellationToken: Cancel);
        for (var i = 0; i < 20; i++)
        {
            (await gate.DeductAsync($"c{i}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
            (await gate.CancelAsync($"c{i}", Cancel)).Left.ShouldHaveSingleItem("it found the order");
            (await gate.DeductAsync($"c{i}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Cancelled);
            (await gate.CancelAsync($"t{i}", Cancel)).Status.ShouldBe(StockStatus.Done);
            (await gate.DeductAsync($"t{i}", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Cancelled, "its tombstone stood first");
            (await gate.ReserveAsync($"h{i}", [("A", 1)], TimeSpan.FromMinutes(1), cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
            (await gate.ConfirmAsync($"h{i}", Cancel)).Status.ShouldBe(StockStatus.Done);
        }

        gate.Counts.Incidents.ShouldBe(0);
        (await gate.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(80);
    }

    [Fact]
    public async Task The_last_units_in_undecided_hands_are_neither_sold_twice_nor_refused()
    {
        await using var gate = await OpenAsync();
        await gate.RestockAsync("r1", [("A", 1)], cancellationToken: Cancel);
        gate.Sale!.Persister.IsPaused = true;
        (await gate.DeductAsync("o1", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        var second = gate.DeductAsync("o2", [("A", 1)], cancellationToken: Cancel).AsTask();
        var adjust = gate.AdjustAsync("j1", [("A", -1)], cancellationToken: Cancel).AsTask();
        await SharedGate.UntilAsync(async () => (await gate.Sale.Epochs.LookAsync(taken: false, Cancel)).Backlog == 3, "all three stand in the stream");
        second.IsCompleted.ShouldBeFalse();
        gate.Sale.Persister.IsPaused = false;
        (await second).Status.ShouldBe(StockStatus.Insufficient);
        (await adjust).Status.ShouldBe(StockStatus.Insufficient);
    }

    [Fact]
    public async Task The_stream_is_bounded_and_drains_afterwards()
    {
        _options.MaxBacklog = 50;
        await using var gate = await OpenAsync();
        await gate.RestockAsync("r1", [("A", 1_000)], cancellationToken: Cancel);
        gate.Sale!.Persister.IsPaused = true;
        var results = await gate.ExecuteAsync([.. Enumerable.Range(0, 80).Select(i => StockCommand.Deduct($"o{i}", [("A", 1)]))], Cancel);
        results.Count(result => result.Status == StockStatus.Done).ShouldBe(50);
        results.Count(result => result.Status == StockStatus.Busy).ShouldBe(30);
        gate.Sale.Persister.IsPaused = false;
        (await gate.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(950);
        (await gate.DeductAsync("o79", [("A", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>Something wrote into the store past the gate, so the gate has promised what is not there.</summary>
    [Fact]
    public async Task What_the_store_refuses_later_is_an_incident_and_never_dropped()
    {
        await using var gate = await OpenAsync();
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        gate.Sale!.Persister.IsPaused = true;
        (await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        await _batched.DeductAsync("past the gate", [("A", 3)], cancellationToken: Cancel);
        gate.Sale.Persister.IsPaused = false;
        await gate.SettleAsync(Cancel);
        var incident = (await ReadIncidentsAsync()).ShouldHaveSingleItem();
        (incident.Command.Id, incident.Outcome).ShouldBe(("o1", StockStatus.Insufficient));
        gate.Counts.Incidents.ShouldBe(1);
        var reconciler = await gate.OpenReconcilerAsync(cancellationToken: Cancel);
        await using (reconciler)
        {
            var comparison = await reconciler.RunAsync(cancellationToken: Cancel);
            (comparison.OpenIncidents, comparison.Differing, comparison.IsClean).ShouldBe((1, 0, false));

            // The gate has been put right: it sells what is there, and the order closes its incident when there is stock for it.
            (await gate.DeductAsync("o2", [("A", 2)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
            await gate.RestockAsync("r2", [("A", 5)], cancellationToken: Cancel);
            (await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
            (await reconciler.RunAsync(cancellationToken: Cancel)).OpenIncidents.ShouldBe(0);
        }
    }

    /// <summary>The process ends, as by kill -9, wherever its persister stands.</summary>
    [Theory]
    [InlineData("read")]
    [InlineData("executed")]
    [InlineData("reported")]
    [InlineData("looked")]
    [InlineData("settled")]
    public async Task A_process_that_is_killed_between_gate_and_store_strands_nothing(string place)
    {
        var one = await OpenAsync();
        await one.RestockAsync("r1", [("A", 100)], cancellationToken: Cancel);
        var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        one.Sale!.Persister.Failpoint = at =>
        {
            if (at != place)
            {
                return Task.CompletedTask;
            }

            reached.TrySetResult();
            throw new InvalidOperationException("gone");
        };
        var ids = Enumerable.Range(0, 40).Select(i => $"o{i}").ToArray();
        foreach (var id in ids)
        {
            (await one.DeductAsync(id, [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        }

        await reached.Task.WaitAsync(TimeSpan.FromSeconds(30), Cancel);
        await one.AbandonAsync();
        await using var two = await OpenAsync();
        (await two.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(60);
        foreach (var id in ids)
        {
            (await two.GetOperationAsync(id, Cancel)).ShouldNotBeNull(id);
        }

        two.Counts.Incidents.ShouldBe(0);
        (await LedgerAudit.RunAsync(two, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>What Redis has lost comes back from the processes that acknowledged it, in the order of the sale.</summary>
    [Fact]
    public async Task What_Redis_loses_is_carried_to_the_store_by_those_who_acknowledged_it()
    {
        await using var one = await OpenAsync();
        await using var two = await OpenAsync();
        await one.RestockAsync("r1", [("A", 1_000)], cancellationToken: Cancel);
        one.Sale!.Persister.IsPaused = two.Sale!.Persister.IsPaused = true;
        for (var i = 0; i < 100; i++)
        {
            (await (i % 2 == 0 ? one : two).DeductAsync($"o{i}", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        }

        await _server.CliAsync("FLUSHALL");
        one.Sale.Persister.IsPaused = two.Sale.Persister.IsPaused = false;
        await SharedGate.UntilAsync(() => one.Sale.Unsettled + two.Sale.Unsettled == 0, "nothing is left to be carried");
        (await one.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(900);
        var order = new List<string>();
        await foreach (var entry in two.ReadFlowAsync(new() { Sku = "A" }, Cancel))
        {
            order.Add(entry.OperationId);
        }

        order.ShouldBe(["r1", .. Enumerable.Range(0, 100).Select(i => $"o{i}")], "in the order in which it was acknowledged");
    }

    /// <summary>The only way to lose what was acknowledged: Redis and the process that acknowledged it, both.</summary>
    [Fact]
    public async Task What_Redis_and_the_process_lose_together_is_lost_and_the_rest_goes_on()
    {
        var one = await OpenAsync();
        await using var two = await OpenAsync();
        await one.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        one.Sale!.Persister.IsPaused = two.Sale!.Persister.IsPaused = true;
        (await one.DeductAsync("lost", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        (await two.DeductAsync("kept", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        await one.AbandonAsync();
        await _server.CliAsync("FLUSHALL");
        two.Sale.Persister.IsPaused = false;
        await SharedGate.UntilAsync(() => two.Sale.Epochs.GivenUp == 1, "the process was given up, and that was said");
        (await two.GetOperationAsync("kept", Cancel)).ShouldNotBeNull();
        (await two.GetOperationAsync("lost", Cancel)).ShouldBeNull();
        (await two.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(9);
    }

    /// <summary>A persister that stood still while an epoch was begun must not write on the new one's account.</summary>
    [Fact]
    public async Task What_an_ended_epoch_still_wants_to_write_is_fenced_off()
    {
        await using var gate = await OpenAsync();
        var before = gate.Sale!.Epochs.Current;
        var turn = await _store.TakeGateTurnAsync(_options.Name, before, Cancel);
        (await _store.ExecuteFromGateAsync(_options.Name, before, turn, [StockCommand.Restock("r1", [("A", 1)])], Cancel)).ShouldNotBeNull();
        (await _store.ExecuteFromGateAsync(_options.Name, before, turn - 1, [StockCommand.Restock("r0", [("A", 1)])], Cancel)).ShouldBeNull("another has the turn");
        await _server.CliAsync("FLUSHALL");
        await SharedGate.UntilAsync(() => gate.Sale.Epochs.Current > before, "a new epoch");
        (await _store.ExecuteFromGateAsync(_options.Name, before, turn, [StockCommand.Restock("r2", [("A", 1)])], Cancel)).ShouldBeNull();
        (await gate.GetOperationAsync("r2", Cancel)).ShouldBeNull();
    }

    [Fact]
    public async Task A_process_that_ends_in_order_leaves_nothing_behind()
    {
        await using (var gate = await OpenAsync())
        {
            await gate.RestockAsync("r1", [("A", 500)], cancellationToken: Cancel);
            for (var i = 0; i < 100; i++)
            {
                await gate.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Cancel);
            }
        }

        (await _server.CliAsync("XLEN", $"{{{_options.Name}}}:gate:stream")).ShouldBe("0");
        (await _store.GetGateMembersAsync(_options.Name, Cancel)).ShouldBeEmpty();
    }

    [Fact]
    public async Task A_store_that_can_not_fence_is_refused()
    {
        await using var memory = new MemoryEngine();
        (await Should.ThrowAsync<ArgumentException>(async () => await RedisGate.OpenAsync(memory, _options, cancellationToken: Cancel))).Message.ShouldContain("PostgreSQL and SQLite can");
    }

    [Theory]
    [InlineData("FLUSHALL")]
    [InlineData("SCRIPT FLUSH")]
    [InlineData("kill")]
    [InlineData("pause")]
    [InlineData("full")]
    [InlineData("wrong types")]
    public async Task A_sale_goes_on_and_loses_nothing_whatever_happens_to_Redis(string fault)
    {
        _options.CallTimeout = TimeSpan.FromSeconds(1);
        await using var one = await OpenAsync();
        await using var two = await OpenAsync();
        var gates = new RedisGateTests.Alternating(one, two);
        StormOptions options = new() { Callers = 16, CommandsPerCaller = 400, Truth = one, Patience = TimeSpan.FromSeconds(60) };
        var everything = StormRunner.RunAsync(gates, StormWorkload.AllVerbs("s-", 11, skus: 6, ids: 20_000), options with { OpeningUnits = 30 }, Cancel);
        var crowd = StormRunner.RunAsync(gates, StormWorkload.Carts("c-", 12, skus: 5, duplicates: 0.2), options with { OpeningUnits = 800 }, Cancel);
        var storms = Task.WhenAll(everything, crowd);
        for (var i = 0; i < 3 && !storms.IsCompleted; i++)
        {
            await Task.WhenAny(storms, Task.Delay(TimeSpan.FromMilliseconds(400), TimeProvider.System, Cancel));
            await RedisGateTests.StrikeAsync(_server, _options.Name, fault);
        }

        foreach (var report in await storms)
        {
            TestContext.Current.TestOutputHelper?.WriteLine(report.ToString());
            report.Audit.FirstDifference.ShouldBeNull();
            report.AnException.ShouldBeNull();
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"one {one.Counts}, two {two.Counts}");
        (await ReadIncidentsAsync()).ShouldBeEmpty();
        one.Counts.Acknowledged.ShouldBeGreaterThan(0);
    }

    private async Task<RedisGate> OpenAsync()
    {
        var gate = await RedisGate.OpenAsync(new RedisGateTests.Shared(_batched), _options, cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(gate);
        return gate;
    }

    private async Task<List<GateIncident>> ReadIncidentsAsync()
    {
        var incidents = new List<GateIncident>();
        await foreach (var incident in _store.ReadIncidentsAsync(_options.Name, Cancel))
        {
            incidents.Add(incident);
        }

        return incidents;
    }
}
