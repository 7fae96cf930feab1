using Holdfast.Client;
using Holdfast.Testing;
using Holdfast.Tests.Client;
using Npgsql;

namespace Holdfast.Tests.PostgreSql;

/// <summary>The pre-check on a real streaming standby, also while it lags, stands still, or is gone.</summary>
public sealed class StandbyPreCheckTests : IAsyncLifetime
{
    private PostgreSqlServer _primaryServer = null!;
    private PostgreSqlServer _standbyServer = null!;
    private PostgreSqlEngine _primary = null!;
    private CountingEngine _counting = null!;
    private StandbyPreCheck _engine = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _primaryServer = await SharedPostgreSql.StartOwnAsync();
        _standbyServer = await _primaryServer.StartStandbyAsync();
        _primary = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = _primaryServer.ConnectionString });
        _counting = new(_primary);
        _engine = new(_counting, _primary, new()
        {
            ConnectionString = _standbyServer.ConnectionString,
            HeartbeatInterval = TimeSpan.FromMilliseconds(20),
            MaxLag = TimeSpan.FromSeconds(1),
        });
    }

    public async ValueTask DisposeAsync()
    {
        await _engine.DisposeAsync();
        await _standbyServer.DisposeAsync();
        await _primaryServer.DisposeAsync();
    }

    [Fact]
    public async Task The_standby_answers_the_crowd_and_the_primary_never_hears_of_it()
    {
        await _engine.RestockAsync("r", [("A", 1)], cancellationToken: Token);
        (await _engine.DeductAsync("first", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        await UntilAtWorkAsync("A");

        var before = _counting.Commands;
        var crowd = await Task.WhenAll(Enumerable.Range(0, 50).Select(i => _engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask()));
        crowd.ShouldAllBe(result => result.Status == StockStatus.Insufficient && result.Sku == "A" && result.Available == 0);
        _counting.Commands.ShouldBe(before);

        // The retry of the success is not refused: the primary knows its id.
        (await _engine.DeductAsync("first", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Replayed);

        // A call of several keeps its order; what is not refused goes on.
        var mixed = await _engine.ExecuteAsync([StockCommand.Deduct("m1", [("A", 1)]), StockCommand.Deduct("first", [("A", 1)]), StockCommand.Deduct("m2", [("Z", 1)])], Token);
        mixed.Select(result => result.Status).ShouldBe([StockStatus.Insufficient, StockStatus.Replayed, StockStatus.UnknownSku]);
    }

    [Fact]
    public async Task What_this_process_gave_back_sells_at_once_however_far_the_standby_is_behind()
    {
        await _engine.RestockAsync("r", [("A", 0)], cancellationToken: Token);
        await UntilAtWorkAsync("A");
        await _standbyServer.PauseReplayAsync();

        // Within the bound the standby still shows nothing, but this process knows better.
        await _engine.RestockAsync("r2", [("A", 2)], cancellationToken: Token);
        (await _engine.DeductAsync("o1", [("A", 2)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        await _engine.CancelAsync("o1", cancellationToken: Token);
        (await _engine.DeductAsync("o2", [("A", 2)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        await _engine.RefundAsync("f", "o2", [("A", 1)], cancellationToken: Token);
        (await _engine.DeductAsync("o3", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>The refusal was right, but its number was as old as the standby: random commands under load found it.</summary>
    [Fact]
    public async Task What_this_process_took_is_not_counted_in_a_refusals_number()
    {
        await _engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await UntilJudgedAsync("A", 9);
        await _standbyServer.PauseReplayAsync();
        await _engine.DeductAsync("o1", [("A", 2)], cancellationToken: Token);
        (await _engine.DeductAsync("o2", [("A", 9)], cancellationToken: Token)).Available.ShouldBe(3);
    }

    [Fact]
    public async Task What_a_command_of_the_same_call_took_is_not_counted_in_a_refusals_number()
    {
        await _engine.RestockAsync("r", [("A", 5), ("B", 0)], cancellationToken: Token);
        await UntilJudgedAsync("A", 9);
        await UntilJudgedAsync("B", 1);
        var results = await _engine.ExecuteAsync(
            [StockCommand.Deduct("o1", [("A", 2)]), StockCommand.Deduct("o2", [("A", 9)]), StockCommand.Deduct("o3", [("B", 1)])], Token);
        results.Select(result => (result.Status, result.Available)).ShouldBe([(StockStatus.Done, 0), (StockStatus.Insufficient, 3), (StockStatus.Insufficient, 0)]);
    }

    /// <summary>Store time never goes back: what had expired by the latest entry is for sale, whatever the clock says since.</summary>
    [Fact]
    public async Task A_clock_that_jumped_back_hides_no_expired_hold()
    {
        var clock = new ManualTimeProvider();
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = _primaryServer.ConnectionString, Schema = "jumping", TestClock = clock }, cancellationToken: Token);
        await using var engine = new StandbyPreCheck(store, store, new() { ConnectionString = _standbyServer.ConnectionString, HeartbeatInterval = TimeSpan.FromMilliseconds(20) });
        await engine.RestockAsync("r", [("A", 1)], cancellationToken: Token);
        await engine.ReserveAsync("h", [("A", 1)], TimeSpan.FromSeconds(10), cancellationToken: Token);
        clock.Advance(TimeSpan.FromSeconds(20));
        await engine.RestockAsync("later", [("B", 1)], cancellationToken: Token);
        clock.Jump(clock.GetUtcNow() - TimeSpan.FromSeconds(20));
        var beat = (long)(await _primaryServer.RunSqlAsync("SELECT number FROM jumping.heartbeat"))!;
        await UntilOnStandbyAsync($"SELECT count(*) FROM jumping.heartbeat WHERE number > {beat + 1}", 1);
        await UntilAsync(() => engine.Lag < TimeSpan.FromMilliseconds(500));
        (await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task Units_that_another_process_gave_back_sell_within_the_stated_lag()
    {
        await _engine.RestockAsync("r", [("A", 0)], cancellationToken: Token);
        await UntilAtWorkAsync("A");
        await _standbyServer.PauseReplayAsync();
        await using var other = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = _primaryServer.ConnectionString }, cancellationToken: Token);
        await other.RestockAsync("r2", [("A", 1)], cancellationToken: Token);
        var stocked = TimeProvider.System.GetTimestamp();

        // Refusals after the bound would be wrong: the standby stays behind, so the pre-check must stand aside by then.
        StockResult result;
        while ((result = await _engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status == StockStatus.Insufficient)
        {
            TimeProvider.System.GetElapsedTime(stocked).ShouldBeLessThan(TimeSpan.FromSeconds(5), "the window of a false sold-out is the bound of 1 s, and what a slow machine adds");
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Token);
        }

        result.Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_sku_with_holds_that_may_have_expired_is_not_judged()
    {
        await _engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await _engine.ReserveAsync("h", [("A", 5)], TimeSpan.FromSeconds(1), cancellationToken: Token);
        await UntilAtWorkAsync(null);
        var before = _counting.Commands;
        (await _engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Insufficient);
        _counting.Commands.ShouldBe(before + 1, "the primary was asked");
        await _primaryServer.RunSqlAsync("SELECT pg_sleep(1.01)");
        (await _engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_standby_that_stands_still_or_is_gone_changes_no_answer()
    {
        await _engine.RestockAsync("r", [("A", 3)], cancellationToken: Token);
        await UntilAtWorkAsync(null);
        await _standbyServer.PauseAsync(true);
        try
        {
            (await _engine.DeductAsync("o1", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
            (await _engine.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.FromMilliseconds(1) }, Token))[0].Available.ShouldBe(2);
        }
        finally
        {
            await _standbyServer.PauseAsync(false);
        }

        await _standbyServer.StopAsync("immediate");
        (await _engine.DeductAsync("o2", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await _engine.DeductAsync("o3", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await _engine.DeductAsync("o4", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Insufficient);
        (await _engine.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.FromSeconds(5) }, Token))[0].Available.ShouldBe(0);

        // It is back by itself.
        await _standbyServer.StartAsync();
        await UntilAtWorkAsync("A");
        (await LedgerAudit.RunAsync(_engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task Reads_that_allow_staleness_are_served_by_the_standby_and_others_never()
    {
        await _engine.RestockAsync("r", [("A", 3)], cancellationToken: Token);
        await UntilShownAsync();
        await _standbyServer.PauseReplayAsync();
        await _engine.RestockAsync("r2", [("A", 1)], cancellationToken: Token);
        (await _engine.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.FromMinutes(1) }, Token))[0].Available.ShouldBe(3);
        (await _engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(4);
    }

    /// <summary>The driver's own way to give a question up takes a connection to the server that stands still, and with it many seconds.</summary>
    [Fact]
    public async Task A_standby_that_stands_still_holds_nobody_up_for_longer_than_the_bound()
    {
        await _engine.RestockAsync("r", [("A", 100)], cancellationToken: Token);
        await UntilAtWorkAsync(null);
        await _standbyServer.PauseAsync(true);
        try
        {
            var began = TimeProvider.System.GetTimestamp();
            var orders = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => _engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask()));
            orders.ShouldAllBe(order => order.Status == StockStatus.Done);
            (await _engine.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.FromMinutes(1) }, Token))[0].Available.ShouldBe(80);
            TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(6), "the bound is 1 s, and a slow machine adds to it");
        }
        finally
        {
            await _standbyServer.PauseAsync(false);
        }

        await UntilAtWorkAsync(null);
    }

    [Theory]
    [InlineData("A")]
    [InlineData(null)]
    public async Task A_ledger_that_may_be_stale_is_read_from_the_standby_and_gone_on_with_at_the_primary(string? sku)
    {
        await _engine.RestockAsync("r", [("A", 3)], cancellationToken: Token);
        await _engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
        var stale = new FlowQuery { Sku = sku, MaxStaleness = TimeSpan.FromMinutes(1) };
        await UntilShownAsync();
        await _standbyServer.PauseReplayAsync();
        await _engine.RestockAsync("r2", [("A", 1)], cancellationToken: Token);
        var old = await ReadAsync(stale);
        old.Select(entry => entry.OperationId).ShouldBe(["r", "o"]);
        (await ReadAsync(stale with { Limit = 1 })).Select(entry => entry.OperationId).ShouldBe(["r"]);
        (await ReadAsync(stale with { MaxStaleness = TimeSpan.Zero })).Select(entry => entry.OperationId).ShouldBe(["r", "o", "r2"]);
        (await ReadAsync(stale with { After = old[^1].Cursor, MaxStaleness = TimeSpan.Zero })).Select(entry => entry.OperationId).ShouldBe(["r2"]);
        (await ReadAsync(stale with { After = old[^1].Cursor })).ShouldBeEmpty();

        // A standby that is gone is left out, also while it is not known yet.
        await _standbyServer.StopAsync("immediate");
        (await ReadAsync(stale)).Select(entry => entry.OperationId).ShouldBe(["r", "o", "r2"]);
    }

    /// <summary>Positions commit out of order: a standby that shows the later block must not let a reader pass over the earlier one.</summary>
    [Fact]
    public async Task A_whole_ledger_that_may_be_stale_ends_before_what_another_transaction_still_writes()
    {
        await _engine.RestockAsync("r", [("A", 3), ("B", 3)], cancellationToken: Token);
        await using var connection = new NpgsqlConnection(_primaryServer.ConnectionString);
        await connection.OpenAsync(Token);
        var stale = new FlowQuery { MaxStaleness = TimeSpan.FromMinutes(1) };
        await using (var early = await connection.BeginTransactionAsync(Token))
        {
            // The earlier block is taken, and not committed while the later one is.
            (await _primary.ExecuteInTransactionAsync(early, [StockCommand.Deduct("early", [("A", 1)])], Token))[0].Status.ShouldBe(StockStatus.Done);
            await _engine.DeductAsync("late", [("B", 1)], cancellationToken: Token);
            await UntilShownAsync();
            await UntilOnStandbyAsync("SELECT count(*) FROM holdfast.flow WHERE operation = 'late'", 1);
            (await ReadAsync(stale)).Select(entry => entry.OperationId).ShouldBe(["r", "r"]);
            await early.CommitAsync(Token);
        }

        await UntilShownAsync();
        (await ReadAsync(stale)).Select(entry => entry.OperationId).ShouldBe(["r", "r", "early", "late"]);
    }

    [Fact]
    public async Task Over_http_a_client_may_say_so_too()
    {
        await _engine.RestockAsync("r", [("A", 3)], cancellationToken: Token);
        await using var server = await RunningServer.StartAsync(_engine);
        await using var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Token);
        var minute = TimeSpan.FromMinutes(1);
        await UntilShownAsync();
        await _standbyServer.PauseReplayAsync();
        await client.RestockAsync("r2", [("A", 1)], cancellationToken: Token);
        (await client.GetStockAsync(["A"], new() { MaxStaleness = minute }, Token))[0].Available.ShouldBe(3);
        (await client.GetStockAsync(["A"], new() { MaxStaleness = TimeSpan.MaxValue }, Token))[0].Available.ShouldBe(3);
        (await client.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(4);
        foreach (var sku in (string?[])["A", null])
        {
            (await client.ReadFlowAsync(new() { Sku = sku, MaxStaleness = minute }, Token).ToArrayAsync(Token)).Length.ShouldBe(1);
            (await client.ReadFlowAsync(new() { Sku = sku }, Token).ToArrayAsync(Token)).Length.ShouldBe(2);
        }

        using var http = new HttpClient { BaseAddress = server.Address };
        (await http.GetStringAsync("v1/stock/A?maxStalenessSeconds=60", Token)).ShouldContain("\"available\":3");
        (await http.GetStringAsync("v1/stock/A?maxStalenessSeconds=0", Token)).ShouldContain("\"available\":4");
        (await http.GetStringAsync("v1/stock/A/flow?maxStalenessSeconds=60.5", Token)).ShouldNotContain("r2");
        (await http.GetStringAsync("v1/stock/A/flow", Token)).ShouldContain("r2");
    }

    /// <summary>One connection string for both servers: the driver finds out who is who.</summary>
    [Fact]
    public async Task Both_hosts_in_one_connection_string_make_the_scheme()
    {
        var both = PostgreSqlServer.ConnectionStringOf(_standbyServer, _primaryServer);
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = both, Schema = "both" }, cancellationToken: Token);
        await using var engine = (StandbyPreCheck)new StockEngineBuilder(store).UseStandbyPreCheck().UseGroupCommit().Build();
        await engine.RestockAsync("r", [("A", 1)], cancellationToken: Token);
        (await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        await UntilAsync(() => engine.Lag < TimeSpan.FromSeconds(1));
        (await engine.DeductAsync("o2", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Insufficient);
    }

    /// <summary>Awaits that the standby answers: within the lag, and, for a sold-out SKU, past what this process gave back.</summary>
    private async Task UntilAtWorkAsync(string? soldOut)
    {
        await UntilAsync(() => _engine.Lag < TimeSpan.FromMilliseconds(500));
        if (soldOut is not null)
        {
            await UntilJudgedAsync(soldOut, 1);
        }
    }

    /// <summary>Awaits that the standby refuses somebody who asks for more units than there are.</summary>
    private async Task UntilJudgedAsync(string sku, long tooMany)
    {
        while (true)
        {
            var before = _counting.Commands;
            (await _engine.DeductAsync("probe", [(sku, tooMany)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Insufficient);
            if (_counting.Commands == before)
            {
                return;
            }
        }
    }

    /// <summary>Awaits that the standby is known to show all that has happened by now.</summary>
    private async Task UntilShownAsync()
    {
        var now = TimeProvider.System.GetTimestamp();
        await UntilAsync(() =>
        {
            var elapsed = TimeProvider.System.GetElapsedTime(now);
            return _engine.Lag < elapsed;
        });
    }

    private async Task<FlowEntry[]> ReadAsync(FlowQuery query) => await _engine.ReadFlowAsync(query, Token).ToArrayAsync(Token);

    private async Task UntilOnStandbyAsync(string sql, long count)
    {
        while ((long)(await _standbyServer.RunSqlAsync(sql))! != count)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Token);
        }
    }

    private static async Task UntilAsync(Func<bool> condition)
    {
        while (!condition())
        {
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Token);
        }
    }

    private sealed class CountingEngine(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private int _commands;

        public int Commands => Volatile.Read(ref _commands);

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            Interlocked.Add(ref _commands, commands.Count);
            return base.ExecuteAsync(commands, cancellationToken);
        }
    }
}
