using System.Globalization;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Npgsql;

namespace Holdfast.Tests.PostgreSql;

/// <summary>The sharp corners: each a real fault on a real server, and what the caller is told.</summary>
public sealed class PostgreSqlFaultTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task A_connection_lost_before_the_commit_was_sent_is_tried_again_inside(PostgreSqlTransactions transactions)
    {
        await using var proxied = await Proxied.StartAsync(transactions);
        await proxied.Engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);

        proxied.Proxy.CutNext(Cut.Before, "nextval(");
        var result = await proxied.Engine.DeductAsync("o", [("A", 2)], cancellationToken: Token);

        proxied.Proxy.Cuts.ShouldBe(1);
        result.Status.ShouldBe(StockStatus.Done);
        (await proxied.Engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(3);
        await proxied.AuditAsync();
    }

    [Theory]
    [InlineData(PostgreSqlTransactions.Call, Cut.Before)]
    [InlineData(PostgreSqlTransactions.Call, Cut.After)]
    [InlineData(PostgreSqlTransactions.Command, Cut.Before)]
    [InlineData(PostgreSqlTransactions.Command, Cut.After)]
    [InlineData(PostgreSqlTransactions.Version, Cut.Before)]
    [InlineData(PostgreSqlTransactions.Version, Cut.After)]
    public async Task A_connection_lost_around_the_commit_is_in_doubt_and_resolved_by_id(PostgreSqlTransactions transactions, Cut cut)
    {
        await using var proxied = await Proxied.StartAsync(transactions);
        await proxied.Engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);

        proxied.Proxy.CutNext(cut, "COMMIT\0");
        var result = await proxied.Engine.DeductAsync("o", [("A", 2)], cancellationToken: Token);

        proxied.Proxy.Cuts.ShouldBe(1);
        result.Status.ShouldBe(StockStatus.InDoubt);
        result.Detail.ShouldNotBeNull().ShouldContain("same id");
        result.Detail.ShouldNotContain("correct-horse");

        // The same id again: what was applied is replayed, what was lost is applied now.
        var again = await proxied.Engine.DeductAsync("o", [("A", 2)], cancellationToken: Token);
        again.Status.ShouldBe(cut == Cut.After ? StockStatus.Replayed : StockStatus.Done);
        (await proxied.Engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(3);
        await proxied.AuditAsync();
    }

    [Fact]
    public async Task Under_group_commit_a_lost_commit_is_resolved_before_the_caller_hears_of_it()
    {
        await using var proxied = await Proxied.StartAsync(PostgreSqlTransactions.Call);
        var batched = new GroupCommit(proxied.Engine);
        await batched.RestockAsync("r", [("A", 500)], cancellationToken: Token);

        proxied.Proxy.CutNext(Cut.After, "COMMIT\0");
        var results = await Task.WhenAll(Enumerable.Range(0, 50).Select(i => batched.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask()));

        proxied.Proxy.Cuts.ShouldBe(1);
        results.ShouldAllBe(result => result.IsApplied);
        (await batched.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(450);
        await proxied.AuditAsync();
    }

    [Fact]
    public async Task Sessions_that_an_administrator_ends_under_load_cost_nobody_an_order()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        store = store with { ConnectionString = store.ConnectionString + ";Application Name=" + store.Schema };
        await using var engine = new GroupCommit(await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token), new() { MaxConcurrentBatches = 2 });
        await engine.RestockAsync("r", [("A", 100_000)], cancellationToken: Token);

        const int callers = 16, orders = 40;
        var buying = Task.WhenAll(Enumerable.Range(0, callers).Select(caller => BuyAsync(engine, caller, orders)));
        while (!buying.IsCompleted)
        {
            await SharedPostgreSql.RunSqlAsync(store, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{s}' AND pid <> pg_backend_pid()");
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Token);
        }

        await buying;
        (await engine.GetStockAsync("A", cancellationToken: Token)).Sold.ShouldBe(callers * orders);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    public async Task A_deadlock_with_somebody_elses_transaction_is_retried_inside(PostgreSqlTransactions transactions)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start, transactions);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 50), ("B", 50)], cancellationToken: Token);

        // Ours begins to wait first, so the server ends ours, unless the machine is so slow that the other waits only after
        // the server has looked at ours: then it ends the other, which proves nothing, and we begin again.
        var ended = false;
        for (var attempt = 1; !ended; attempt++)
        {
            attempt.ShouldBeLessThanOrEqualTo(20, "the server never ended our side");
            await using var other = await ForeignTransaction.BeginAsync(store);
            await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'B'");
            var deducting = engine.DeductAsync($"o{attempt}", [("A", 1), ("B", 1)], cancellationToken: Token).AsTask();
            await other.UntilSomebodyWaitsAsync();
            try
            {
                // Ours waits for B; now the other waits for A.
                await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
                await other.CommitAsync();
                ended = true;
            }
            catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.DeadlockDetected)
            {
                await other.DisposeAsync();
            }

            (await deducting).Status.ShouldBe(StockStatus.Done);
        }

        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>The store's own isolation level knows none; a trigger of somebody else's, or an extension, may raise one.</summary>
    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task A_serialization_failure_is_retried_inside(PostgreSqlTransactions transactions)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start, transactions);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await SharedPostgreSql.RunSqlAsync(
            store,
            """
            CREATE SEQUENCE {s}.tries;
            CREATE FUNCTION {s}.fail_once() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF nextval('{s}.tries') = 1 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER fail_once BEFORE INSERT ON {s}.operation FOR EACH ROW EXECUTE FUNCTION {s}.fail_once()
            """);

        (await engine.DeductAsync("o", [("A", 2)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await SharedPostgreSql.RunSqlAsync(store, "SELECT last_value FROM {s}.tries")).ShouldBe(2L);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task A_row_that_another_transaction_holds_too_long_makes_Busy_and_not_a_hang()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { LockTimeout = TimeSpan.FromMilliseconds(100) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);

        await using (var other = await ForeignTransaction.BeginAsync(store))
        {
            await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
            var busy = await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
            busy.Status.ShouldBe(StockStatus.Busy);
            busy.Detail.ShouldNotBeNull().ShouldContain("another transaction holds the rows");
        }

        (await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>It would be a lease on an epoch that has ended, given after its end was awaited.</summary>
    [Fact]
    public async Task A_process_of_a_gate_can_not_renew_its_lease_on_an_epoch_that_is_being_ended()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        var epoch = await engine.AdvanceGateAsync("g", Token);
        (await engine.KeepGateAsync("g", "one", 0, TimeSpan.FromMinutes(1), Token)).ShouldBe(epoch);
        await using var ending = await ForeignTransaction.BeginAsync(store);
        await ending.RunAsync("UPDATE {s}.gate SET epoch = epoch + 1 WHERE name = 'g'");
        var keeping = engine.KeepGateAsync("g", "one", 0, TimeSpan.FromMinutes(1), Token).AsTask();
        await ending.UntilSomebodyWaitsAsync().WaitAsync(TimeSpan.FromSeconds(20), Token);
        await ending.CommitAsync();
        (await keeping).ShouldBe(epoch + 1);
    }

    [Fact]
    public async Task A_statement_that_takes_too_long_is_stopped_and_Busy()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { StatementTimeout = TimeSpan.FromMilliseconds(150), LockTimeout = TimeSpan.FromSeconds(30) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);

        await using var other = await ForeignTransaction.BeginAsync(store);
        await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
        var busy = await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
        busy.Status.ShouldBe(StockStatus.Busy);
        busy.Detail.ShouldNotBeNull().ShouldContain("statement timeout");
    }

    [Fact]
    public async Task A_pool_with_no_connection_left_makes_Busy_and_not_a_hang()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        store = store with { ConnectionString = store.ConnectionString + ";Maximum Pool Size=1", ConnectTimeout = TimeSpan.FromSeconds(1) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);

        await using var other = await ForeignTransaction.BeginAsync(store);
        await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
        var waiting = engine.DeductAsync("o1", [("A", 1)], cancellationToken: Token).AsTask();
        await other.UntilSomebodyWaitsAsync();
        var busy = await engine.DeductAsync("o2", [("A", 1)], cancellationToken: Token);
        busy.Status.ShouldBe(StockStatus.Busy);
        busy.Detail.ShouldNotBeNull().ShouldContain("connections of the pool");

        await other.CommitAsync();
        (await waiting).Status.ShouldBe(StockStatus.Done);
    }

    [Theory]
    [InlineData("fast")]
    [InlineData("immediate")]
    [InlineData("kill")]
    public async Task A_restart_of_the_server_under_load_costs_nobody_an_order(string mode)
    {
        await using var server = await SharedPostgreSql.StartOwnAsync();
        await using var engine = new GroupCommit(await PostgreSqlEngine.OpenAsync(new() { ConnectionString = server.ConnectionString }, cancellationToken: Token));
        await engine.RestockAsync("r", [("A", 100_000)], cancellationToken: Token);

        const int callers = 16, orders = 60;
        var bought = 0;
        var restart = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var buying = Task.WhenAll(Enumerable.Range(0, callers).Select(caller => BuyAsync(engine, caller, orders, () =>
        {
            if (Interlocked.Increment(ref bought) == callers * orders / 4)
            {
                restart.SetResult();
            }
        })));
        await restart.Task.WaitAsync(TimeSpan.FromSeconds(60), TimeProvider.System, Token);
        await (mode == "kill" ? server.KillAsync() : server.StopAsync(mode));
        await server.StartAsync();
        await buying;

        (await engine.GetStockAsync("A", cancellationToken: Token)).Sold.ShouldBe(callers * orders);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task A_server_that_is_down_makes_Busy_that_names_it_and_never_the_password()
    {
        await using var server = await SharedPostgreSql.StartOwnAsync();
        await using var engine = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = server.ConnectionString }, cancellationToken: Token);
        await server.StopAsync("immediate");

        var busy = await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
        busy.Status.ShouldBe(StockStatus.Busy);
        busy.Detail.ShouldNotBeNull().ShouldContain(string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{server.Port}"));
        busy.Detail.ShouldNotContain("correct-horse");

        var read = await Should.ThrowAsync<PostgreSqlStoreException>(async () => await engine.GetStockAsync("A", cancellationToken: Token));
        read.MayPass.ShouldBeTrue();
        read.ToString().ShouldNotContain("correct-horse");

        var open = await Should.ThrowAsync<PostgreSqlStoreException>(() => PostgreSqlEngine.OpenAsync(new() { ConnectionString = server.ConnectionString }, cancellationToken: Token));
        open.ToString().ShouldNotContain("correct-horse");
    }

    [Fact]
    public async Task A_server_with_no_connection_left_makes_Busy()
    {
        await using var server = await SharedPostgreSql.StartOwnAsync("max_connections=6", "superuser_reserved_connections=0", "max_wal_senders=0");
        await using var engine = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = server.ConnectionString + ";Pooling=false" }, cancellationToken: Token);
        var others = new Stack<NpgsqlConnection>();
        try
        {
            for (var i = 0; i < 6; i++)
            {
                var other = new NpgsqlConnection(server.ConnectionString + ";Pooling=false");
                others.Push(other);
                try
                {
                    await other.OpenAsync(Token);
                }
                catch (PostgresException)
                {
                    // The last one found no room: then there is none.
                }
            }

            var busy = await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
            busy.Status.ShouldBe(StockStatus.Busy);
            busy.Detail.ShouldNotBeNull().ShouldContain("no connection left");
        }
        finally
        {
            while (others.TryPop(out var other))
            {
                await other.DisposeAsync();
            }
        }
    }

    [Fact]
    public async Task A_guard_of_the_schema_that_trips_is_an_error_and_not_Busy()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await SharedPostgreSql.RunSqlAsync(store, "ALTER TABLE {s}.stock ADD CONSTRAINT of_others CHECK (available >= 4)");

        var e = await Should.ThrowAsync<PostgreSqlStoreException>(async () => await engine.DeductAsync("o", [("A", 3)], cancellationToken: Token));
        e.MayPass.ShouldBeFalse();
        e.Message.ShouldContain("run the audit");
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(5);
    }

    [Fact]
    public async Task The_ledger_is_never_altered()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await Should.ThrowAsync<PostgresException>(() => SharedPostgreSql.RunSqlAsync(store, "UPDATE {s}.flow SET available = 7"));
        await Should.ThrowAsync<PostgresException>(() => SharedPostgreSql.RunSqlAsync(store, "DELETE FROM {s}.flow"));
    }

    /// <summary>Buys one unit after the other, each with one id however often it must be sent.</summary>
    private static async Task BuyAsync(IStockEngine engine, int caller, int orders, Action? bought = null)
    {
        for (var order = 0; order < orders; order++)
        {
            var id = string.Create(CultureInfo.InvariantCulture, $"o{caller}-{order}");
            StockResult result;
            while ((result = await engine.DeductAsync(id, [("A", 1)], cancellationToken: Token)).IsRetryable)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, Token);
            }

            result.IsApplied.ShouldBeTrue(result.ToString());
            bought?.Invoke();
        }
    }

    /// <summary>A store behind a proxy that cuts.</summary>
    private sealed class Proxied(SchemeStart start, CuttingProxy proxy, PostgreSqlEngine engine, PostgreSqlOptions direct) : IAsyncDisposable
    {
        public CuttingProxy Proxy { get; } = proxy;

        public PostgreSqlEngine Engine { get; } = engine;

        public static async Task<Proxied> StartAsync(PostgreSqlTransactions transactions)
        {
            var start = new SchemeStart(new());
            var direct = await SharedPostgreSql.NewStoreAsync(start, transactions);
            var builder = new NpgsqlConnectionStringBuilder(direct.ConnectionString);
            var proxy = new CuttingProxy(builder.Port);
            builder.Host = "127.0.0.1";
            builder.Port = proxy.Port;
            builder.MaxAutoPrepare = 0;
            var engine = await PostgreSqlEngine.OpenAsync(direct with { ConnectionString = builder.ConnectionString }, cancellationToken: Token);
            return new(start, proxy, engine, direct);
        }

        public async Task AuditAsync()
        {
            await using var beside = await PostgreSqlEngine.OpenAsync(direct with { ReadOnly = true }, cancellationToken: Token);
            (await LedgerAudit.RunAsync(beside, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
        }

        public async ValueTask DisposeAsync()
        {
            await Engine.DisposeAsync();
            await Proxy.DisposeAsync();
            await start.DisposeAsync();
        }
    }
}

/// <summary>Somebody else's transaction on a store's tables.</summary>
public sealed class ForeignTransaction : IAsyncDisposable
{
    private readonly NpgsqlConnection _connection;
    private readonly PostgreSqlOptions _store;

    private ForeignTransaction(NpgsqlConnection connection, PostgreSqlOptions store)
    {
        _connection = connection;
        _store = store;
    }

    public static async Task<ForeignTransaction> BeginAsync(PostgreSqlOptions store, string begin = "BEGIN")
    {
        var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(store.ConnectionString) { Pooling = false }.ConnectionString);
        await connection.OpenAsync();
        var transaction = new ForeignTransaction(connection, store);
        await transaction.RunAsync(begin);
        return transaction;
    }

    public async Task<object?> RunAsync(string sql)
    {
        await using var command = new NpgsqlCommand(sql.Replace("{s}", _store.Schema, StringComparison.Ordinal), _connection);
        return await command.ExecuteScalarAsync();
    }

    public Task CommitAsync() => RunAsync("COMMIT");

    /// <summary>Awaits that some session waits for this one.</summary>
    public async Task UntilSomebodyWaitsAsync()
    {
        var mine = _connection.ProcessID;
        while ((long)(await SharedPostgreSql.RunSqlAsync(_store, $"SELECT count(*) FROM pg_stat_activity WHERE {mine} = ANY(pg_blocking_pids(pid))"))! == 0)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, TestContext.Current.CancellationToken);
        }
    }

    public ValueTask DisposeAsync() => _connection.DisposeAsync();
}
