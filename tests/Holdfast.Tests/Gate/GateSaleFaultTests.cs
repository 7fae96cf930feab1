using Microsoft.Data.Sqlite;

namespace Holdfast.Tests.Gate;

/// <summary>A gate that acknowledges by itself, where processes, Redis and the store don't see the same of each other.</summary>
public sealed class GateSaleFaultTests : IAsyncLifetime
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
        _options.Name = SharedGate.NewName();
        _options.Acknowledge = GateAcknowledgement.Gate;
        _options.Lease = TimeSpan.FromMilliseconds(200);
        _options.FollowInterval = TimeSpan.FromMilliseconds(20);
        _options.MaxLag = TimeSpan.FromSeconds(10);
        _options.ForgetAfter = TimeSpan.FromSeconds(2);
        _options.StoreLease = TimeSpan.FromSeconds(2);
        _options.CallTimeout = TimeSpan.FromSeconds(5);
        _options.IdBits = 20;
    }

    public async ValueTask DisposeAsync()
    {
        await _batched.DisposeAsync();
        await _server.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>It renews its lease of the store all the while, but none on the epoch that has ended.</summary>
    [Fact]
    public async Task A_process_that_reaches_the_store_and_not_Redis_does_not_keep_the_gate_closed()
    {
        await using var way = new RedirectedServer(_server.Port);
        await using var one = await OpenAsync(_server.Configuration);
        await using var two = await OpenAsync(way.Configuration);
        await one.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        one.Sale!.Persister.IsPaused = two.Sale!.Persister.IsPaused = true;
        (await two.DeductAsync("kept", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        var before = one.Sale.Epochs.Current;
        way.Lead(null);
        await _server.CliAsync("FLUSHALL");
        one.Sale.Persister.IsPaused = two.Sale.Persister.IsPaused = false;
        var began = TimeProvider.System.GetTimestamp();
        await UntilAsync(() => one.Sale.Epochs.Current > before, TimeSpan.FromSeconds(20), "one sells again");
        TimeProvider.System.GetElapsedTime(began).ShouldBeGreaterThan(TimeSpan.FromSeconds(1), "the lease on the epoch before has run out");
        (await one.GetOperationAsync("kept", Cancel)).ShouldBeNull("only two has it");
        way.Lead(_server.Port);
        await UntilAsync(async () => await one.GetOperationAsync("kept", Cancel) is not null, TimeSpan.FromSeconds(20), "two has sent it again");
        one.Sale.Epochs.GivenUp.ShouldBe(1);
    }

    /// <summary>The old primary is cut off from the other processes, and there what is handed over is seen by nobody.</summary>
    [Fact]
    public async Task What_is_handed_over_to_a_server_where_no_epoch_is_begun_is_not_forgotten()
    {
        await using var other = await RedisServer.StartAsync("appendfsync no");
        await using var wayOfOne = new RedirectedServer(_server.Port);
        await using var wayOfTwo = new RedirectedServer(_server.Port);
        await using var one = await OpenAsync(wayOfOne.Configuration);
        await using var two = await OpenAsync(wayOfTwo.Configuration);
        await one.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        one.Sale!.Persister.IsPaused = two.Sale!.Persister.IsPaused = true;
        (await two.DeductAsync("kept", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        var before = one.Sale.Epochs.Current;

        // On the old primary two can't begin an epoch of its own.
        await _server.CliAsync("SET", $"{{{_options.Name}}}:gate:begins", "another");
        wayOfOne.Lead(other.Port);
        one.Sale.Persister.IsPaused = false;
        await UntilAsync(() => one.Sale.Epochs.Current > before, TimeSpan.FromSeconds(20), "one sells on the new primary");
        wayOfTwo.Lead(other.Port);
        two.Sale.Persister.IsPaused = false;
        await UntilAsync(() => two.Sale.Epochs.Current == one.Sale.Epochs.Current, TimeSpan.FromSeconds(20), "two has come over");
        await UntilAsync(async () => await one.GetOperationAsync("kept", Cancel) is not null, TimeSpan.FromSeconds(10), "what two had acknowledged is in the store");
        (await one.GetStockAsync("A", cancellationToken: Cancel)).Available.ShouldBe(9);
    }

    /// <summary>What a process has handed over outlives it, and an epoch that is never begun.</summary>
    [Fact]
    public async Task What_was_handed_over_to_an_epoch_that_never_began_goes_to_the_next()
    {
        var gone = await OpenAsync(_server.Configuration);
        await using var one = await OpenAsync(_server.Configuration);
        var two = await OpenAsync(_server.Configuration);
        await one.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        one.Sale!.Persister.IsPaused = two.Sale!.Persister.IsPaused = gone.Sale!.Persister.IsPaused = true;
        (await two.DeductAsync("kept", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);

        // Whoever begins the epoch waits for the process that is gone, and meanwhile two hands over and is gone, too.
        await gone.AbandonAsync();
        var before = one.Sale.Epochs.Current;
        await _server.CliAsync("FLUSHALL");
        await UntilAsync(async () => (await _store.GetGateMembersAsync(_options.Name, Cancel)).Count(member => member.Carried > before) == 2, TimeSpan.FromSeconds(20), "both have handed over");
        await two.AbandonAsync();
        await _server.CliAsync("DEL", $"{{{_options.Name}}}:gate:begins");
        one.Sale.Persister.IsPaused = false;
        await UntilAsync(() => one.Sale.Epochs.Current > before, TimeSpan.FromSeconds(30), "one sells again");
        (await one.GetOperationAsync("kept", Cancel)).ShouldNotBeNull();
        (await KeysAsync("gate:carry*")).ShouldBeEmpty();
    }

    /// <summary>Else nothing would ever be sold again.</summary>
    [Fact]
    public async Task A_command_that_fails_the_store_by_itself_does_not_keep_an_epoch_from_beginning()
    {
        await using var gate = await OpenAsync(_server.Configuration);
        await gate.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        gate.Sale!.Persister.IsPaused = true;
        foreach (var id in (string[])["o1", "poison", "o2"])
        {
            (await gate.DeductAsync(id, [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        }

        await using (var connection = new SqliteConnection($"Data Source={Path.Combine(_folder, "stock.db")};Pooling=False"))
        {
            await connection.OpenAsync(Cancel);
            await using var command = connection.CreateCommand();
            command.CommandText = "CREATE TRIGGER poison BEFORE INSERT ON operation WHEN NEW.id = 'poison' BEGIN SELECT RAISE(ABORT, 'poison'); END";
            await command.ExecuteNonQueryAsync(Cancel);
        }

        var before = gate.Sale.Epochs.Current;
        await _server.CliAsync("FLUSHALL");
        gate.Sale.Persister.IsPaused = false;
        await UntilAsync(() => gate.Sale.Epochs.Current > before, TimeSpan.FromSeconds(20), "the gate sells again");
        (await gate.GetOperationAsync("o1", Cancel)).ShouldNotBeNull();
        (await gate.GetOperationAsync("o2", Cancel)).ShouldNotBeNull();
        var incidents = new List<GateIncident>();
        await foreach (var incident in _store.ReadIncidentsAsync(_options.Name, Cancel))
        {
            incidents.Add(incident);
        }

        incidents.Select(each => (each.Command.Id, each.Outcome)).ShouldHaveSingleItem().ShouldBe(("poison", StockStatus.InDoubt));
    }

    /// <summary>The row was read for the settlement before something wrote past the gate, and the pass that followed that write was not taken over.</summary>
    [Fact]
    public async Task What_is_written_past_the_gate_while_units_are_taken_is_overlooked_for_a_moment_only()
    {
        await using var gate = await OpenAsync(_server.Configuration);
        await gate.RestockAsync("r1", [("A", 1)], cancellationToken: Cancel);
        await gate.CatchUpAsync(Cancel);
        var isFirst = true;
        gate.Sale!.Persister.Failpoint = async at =>
        {
            if (at == "looked" && isFirst)
            {
                isFirst = false;
                await _batched.RestockAsync("past the gate", [("A", 7)], cancellationToken: Cancel);
                await gate.CatchUpAsync(Cancel);
            }
        };
        (await gate.DeductAsync("o1", [("A", 1)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        await gate.SettleAsync(Cancel);
        isFirst.ShouldBeFalse();
        await gate.CatchUpAsync(Cancel);
        (await gate.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.FromMinutes(1) }, Cancel)).ShouldHaveSingleItem().Available.ShouldBe(7);
        (await gate.DeductAsync("o2", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_read_is_no_older_than_it_may_be_although_the_store_is_behind()
    {
        await using var gate = await OpenAsync(_server.Configuration);
        await gate.RestockAsync("r1", [("A", 10)], cancellationToken: Cancel);
        await gate.ReserveAsync("h1", [("A", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel);
        await gate.SettleAsync(Cancel);
        gate.Sale!.Persister.IsPaused = true;
        (await gate.DeductAsync("o1", [("A", 2)], cancellationToken: Cancel)).AcknowledgedBy.ShouldBe(Acknowledgement.Gate);
        ReadOptions options = new() { MaxStaleness = TimeSpan.FromMilliseconds(20) };
        await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, Cancel);
        var reading = gate.GetStockAsync(["A"], options, Cancel).AsTask();
        await Task.WhenAny(reading, Task.Delay(TimeSpan.FromMilliseconds(200), TimeProvider.System, Cancel));
        gate.Sale.Persister.IsPaused = false;
        (await reading).ShouldHaveSingleItem().Available.ShouldBe(7);
    }

    /// <summary>More values than Redis takes in one call, which ends the connection.</summary>
    [Fact]
    public async Task A_call_of_many_large_carts_is_decided_in_parts()
    {
        var lines = Enumerable.Range(0, 1_100).Select(i => new StockLine($"sku{i}", 1)).ToArray();
        await using var gate = await OpenAsync(_server.Configuration);
        await gate.ExecuteAsync([StockCommand.Restock("r1", [.. lines.Select(line => line with { Quantity = 0 })])], Cancel);
        await gate.CatchUpAsync(Cancel);
        var results = await gate.ExecuteAsync([.. Enumerable.Range(0, 512).Select(i => StockCommand.Deduct($"o{i}", lines))], Cancel);
        results.ShouldAllBe(result => result.Status == StockStatus.Insufficient);
    }

    private async Task<RedisGate> OpenAsync(string redis)
    {
        var gate = await RedisGate.OpenAsync(
            new RedisGateTests.Shared(_batched),
            new()
            {
                Redis = redis,
                Name = _options.Name,
                Acknowledge = _options.Acknowledge,
                Lease = _options.Lease,
                FollowInterval = _options.FollowInterval,
                MaxLag = _options.MaxLag,
                ForgetAfter = _options.ForgetAfter,
                StoreLease = _options.StoreLease,
                CallTimeout = _options.CallTimeout,
                IdBits = _options.IdBits,
            },
            cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(gate);
        return gate;
    }

    private async Task<string[]> KeysAsync(string pattern) =>
        (await _server.CliAsync("KEYS", $"{{{_options.Name}}}:{pattern}")).Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private static Task UntilAsync(Func<bool> condition, TimeSpan limit, string what) => UntilAsync(() => Task.FromResult(condition()), limit, what);

    private static async Task UntilAsync(Func<Task<bool>> condition, TimeSpan limit, string what)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(limit, $"waited in vain until {what}");
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancel);
        }
    }
}
