using Holdfast.PostgreSql;
using Holdfast.Tests.Conformance;
using Npgsql;

namespace Holdfast.Tests.PostgreSql;

/// <summary>What becomes of a connection string, of the pool, and of the time-outs made for sales where something else runs.</summary>
public sealed class PostgreSqlConnectionsTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>The driver's ContainsKey says whether it knows a keyword, not whether it was given: statements were never kept prepared.</summary>
    [Theory]
    [InlineData("Host=a", 128, 20)]
    [InlineData("Host=a;Max Auto Prepare=0;MaxPoolSize=100", 0, 100)]
    [InlineData("Host=a;max auto prepare=7;Minimum Pool Size=30", 7, 30)]
    [InlineData("Host=a;Maximum Pool Size=3", 128, 3)]
    public async Task What_the_connection_string_says_of_pooling_counts_and_only_that(string text, int prepared, int connections)
    {
        var options = new PostgreSqlOptions { ConnectionString = text };
        var (source, owner) = PostgreSqlEngine.SourceOf(options.Parse(), options);
        await using var disposing = owner;
        var made = new NpgsqlConnectionStringBuilder(source.ConnectionString);
        (made.MaxAutoPrepare, made.MaxPoolSize).ShouldBe((prepared, connections));
    }

    [Theory]
    [InlineData("Host=a,b", 60)]
    [InlineData("Host=a,b;Host Recheck Seconds=10", 10)]
    public async Task Hosts_are_looked_at_again_each_minute_unless_the_connection_string_says_otherwise(string text, int seconds)
    {
        var options = new PostgreSqlOptions { ConnectionString = text };
        var (source, owner) = PostgreSqlEngine.SourceOf(options.Parse(), options);
        await using var disposing = owner;
        new NpgsqlConnectionStringBuilder(source.ConnectionString).HostRecheckSeconds.ShouldBe(seconds);
    }

    /// <summary>When all connections are in use they are sound: to renew them would make it worse at the worst time.</summary>
    [Fact]
    public async Task An_exhausted_pool_keeps_its_connections()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        store = store with { ConnectionString = $"{store.ConnectionString};Maximum Pool Size=1;Application Name={store.Schema}", ConnectTimeout = TimeSpan.FromSeconds(1) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        Task<object?> SessionsAsync() => SharedPostgreSql.RunSqlAsync(
            store with { ConnectionString = store.ConnectionString + ";Application Name=test" }, $"SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE application_name = '{store.Schema}'");
        var before = await SessionsAsync();

        await using (var other = await ForeignTransaction.BeginAsync(store with { ConnectionString = store.ConnectionString + ";Application Name=test" }))
        {
            await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
            var waiting = engine.DeductAsync("o1", [("A", 1)], cancellationToken: Token).AsTask();
            await other.UntilSomebodyWaitsAsync();
            (await engine.DeductAsync("o2", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Busy);
            await other.CommitAsync();
            (await waiting).Status.ShouldBe(StockStatus.Done);
        }

        (await engine.DeductAsync("o2", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await SessionsAsync()).ShouldBe(before);
    }

    /// <summary>
    /// A statement that fails in the middle of a batch leaves the driver with a wrong idea of what is prepared on that
    /// connection. It showed as an exception, "prepared statement _auto3 does not exist", after a deadlock.
    /// </summary>
    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task A_batch_that_fails_while_its_statements_are_being_prepared_reaches_nobody(PostgreSqlTransactions transactions)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start, transactions) with { LockTimeout = TimeSpan.FromMilliseconds(50) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store with { ConnectionString = store.ConnectionString + ";Maximum Pool Size=1" }, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 50)], cancellationToken: Token);
        for (var i = 0; i < 8; i++)
        {
            // Fails at its first statement, its last, or not at all, while each is used for the first times.
            await using var other = await ForeignTransaction.BeginAsync(store);
            await other.RunAsync(i % 2 == 0 ? "UPDATE {s}.stock SET changed_at = changed_at" : "LOCK TABLE {s}.operation IN EXCLUSIVE MODE");
            (await engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Busy);
            await other.CommitAsync();
            (await engine.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        }
    }

    [Fact]
    public void A_prepared_statement_that_only_the_driver_knows_of_costs_the_connection_and_nothing_else()
    {
        var e = new PostgresException("prepared statement \"_auto3\" does not exist", "ERROR", "ERROR", PostgresErrorCodes.InvalidSqlStatementName);
        Failure.IsLoss(e).ShouldBeTrue();
        Failure.RemedyFor(e, Stage.Working).ShouldBe(Remedy.TryAgain);
        Failure.RemedyFor(e, Stage.Committing).ShouldBe(Remedy.TryAgain, "an error ends the transaction");
        Failure.IsLoss(new PostgresException("too many", "FATAL", "FATAL", PostgresErrorCodes.TooManyConnections)).ShouldBeFalse("the others are sound");
        Failure.IsLoss(new PostgresException("going down", "FATAL", "FATAL", PostgresErrorCodes.AdminShutdown)).ShouldBeTrue();
    }

    /// <summary>A call that asks for a connection just after the store was disposed: an outcome, no exception.</summary>
    [Fact]
    public async Task A_driver_that_is_disposed_under_a_call_makes_Busy()
    {
        var source = NpgsqlDataSource.Create("Host=127.0.0.1;Port=1");
        await source.DisposeAsync();
        var e = await Should.ThrowAsync<ObjectDisposedException>(async () => await source.OpenConnectionAsync(Token));
        Failure.IsOfStore(e).ShouldBeTrue();
        Failure.RemedyFor(e, Stage.Connecting).ShouldBe(Remedy.Busy);
        Failure.Describe(e, "it").ShouldContain("shutting down");
        source.Clear();
    }

    /// <summary>On a large store a migration takes longer than any sale may, and so does the wait of the other nodes.</summary>
    [Fact]
    public async Task A_migration_is_not_bound_by_the_time_outs_of_sales()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { StatementTimeout = TimeSpan.FromMilliseconds(200), LockTimeout = TimeSpan.FromMilliseconds(100) };
        var (source, owner) = PostgreSqlEngine.SourceOf(store.Parse(), store);
        await using var disposing = owner;
        async Task StartAsync()
        {
            await using var connection = await source.OpenConnectionAsync(Token);
            await Schema.MigrateAsync(connection, store.Schema, ["CREATE TABLE {s}.first()", "SELECT pg_sleep(1)"], "it", Token);
            await using var limit = new NpgsqlCommand("SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')", connection);
            (await limit.ExecuteScalarAsync(Token)).ShouldBe("200ms 100ms");
        }

        await Task.WhenAll(StartAsync(), StartAsync(), StartAsync());
        (await SharedPostgreSql.RunSqlAsync(store, "SELECT version FROM {s}.schema_version")).ShouldBe(2);
    }

    /// <summary>Two looks at the standby, the newer judged first: the older one still lacks what this process did, although that is forgotten.</summary>
    [Fact]
    public void What_a_newer_look_has_shown_an_older_one_may_still_miss()
    {
        var changes = new RecentChanges();
        changes.Note("A", at: 10);
        changes.MayMiss("A", seenUpTo: 5).ShouldBeTrue();
        changes.MayMiss("B", seenUpTo: 5).ShouldBeFalse();
        changes.MayMiss("A", seenUpTo: 12).ShouldBeFalse();
        changes.MayMiss("A", seenUpTo: 5).ShouldBeTrue();
        changes.MayMiss("A", seenUpTo: 12).ShouldBeFalse();

        for (var i = 0; i <= RecentChanges.Most; i++)
        {
            changes.Note($"sku-{i}", at: 20);
        }

        changes.MakeRoom(seenUpTo: 21, now: 30);
        changes.MayMiss("sku-1", seenUpTo: 21).ShouldBeFalse();
        changes.MayMiss("sku-1", seenUpTo: 20).ShouldBeTrue();
    }
}
