using System.Globalization;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.PostgreSql;

/// <summary>Several engines on one database are one store.</summary>
public sealed class PostgreSqlNodesTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Ten_nodes_that_start_at_once_make_one_schema()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        var nodes = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => PostgreSqlEngine.OpenAsync(store, cancellationToken: Token)));

        (await SharedPostgreSql.RunSqlAsync(store, "SELECT version FROM {s}.schema_version")).ShouldBe(Holdfast.PostgreSql.Schema.Migrations.Count);
        for (var i = 0; i < nodes.Length; i++)
        {
            (await nodes[i].RestockAsync($"r{i}", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
            await nodes[i].DisposeAsync();
        }
    }

    [Fact]
    public async Task A_schema_of_a_newer_build_is_left_alone()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await (await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token)).DisposeAsync();
        await SharedPostgreSql.RunSqlAsync(store, "UPDATE {s}.schema_version SET version = 1000");
        (await Should.ThrowAsync<PostgreSqlStoreException>(() => PostgreSqlEngine.OpenAsync(store, cancellationToken: Token))).Message.ShouldContain("newer build");
    }

    [Fact]
    public async Task A_reader_makes_no_schema()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { ReadOnly = true };
        (await Should.ThrowAsync<PostgreSqlStoreException>(() => PostgreSqlEngine.OpenAsync(store, cancellationToken: Token))).Message.ShouldContain("no Holdfast store");
    }

    [Theory]
    [InlineData("ConnectionString", "")]
    [InlineData("ConnectionString", "Database=shop")]
    [InlineData("ConnectionString", "Host=a;Password=correct-horse;Nonsense=1")]
    [InlineData("Schema", "My Schema")]
    [InlineData("MaxAttempts", "0")]
    public async Task An_option_out_of_its_bounds_is_named_without_the_password(string option, string value)
    {
        var options = new PostgreSqlOptions { ConnectionString = "Host=a;Password=correct-horse" };
        options = option switch
        {
            "ConnectionString" => options with { ConnectionString = value },
            "Schema" => options with { Schema = value },
            _ => options with { MaxAttempts = int.Parse(value, CultureInfo.InvariantCulture) },
        };
        var e = await Should.ThrowAsync<ArgumentException>(() => PostgreSqlEngine.OpenAsync(options, cancellationToken: Token));
        e.Message.ShouldContain($"PostgreSqlOptions.{option}");
        e.ToString().ShouldNotContain("correct-horse");
    }

    /// <summary>One hot SKU and carts over others, three nodes, each of another scheme: nothing oversold, nothing left, no error reaches a caller.</summary>
    [Fact]
    public async Task Three_nodes_of_three_schemes_sell_out_together()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        IStockEngine[] nodes =
        [
            new GroupCommit(await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token), new() { MaxConcurrentBatches = 2 }),
            new GroupCommit(await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token)),
            await PostgreSqlEngine.OpenAsync(store with { Transactions = PostgreSqlTransactions.Command }, cancellationToken: Token),
        ];
        const int units = 400;
        string[] others = ["B", "C", "D", "E"];
        await nodes[0].RestockAsync("r", [("A", units), .. others.Select(sku => new StockLine(sku, 1_000_000))], cancellationToken: Token);

        var sold = await Task.WhenAll(Enumerable.Range(0, 24).Select(async caller =>
        {
            var node = nodes[caller % nodes.Length];
            var random = new Random(caller);
            var mine = 0;
            for (var order = 0; ; order++)
            {
                StockLine[] cart = [new("A", 1), new(others[random.Next(4)], 1), new(others[random.Next(4)], 2)];
                var id = string.Create(CultureInfo.InvariantCulture, $"o{caller}-{order}");
                StockResult result;
                while ((result = await node.DeductAsync(id, cart, cancellationToken: Token)).IsRetryable)
                {
                    await Task.Delay(TimeSpan.FromMilliseconds(2), TimeProvider.System, Token);
                }

                if (result.Status == StockStatus.Insufficient)
                {
                    return mine;
                }

                result.Status.ShouldBe(StockStatus.Done);
                mine++;
            }
        }));

        sold.Sum().ShouldBe(units);
        (await nodes[2].GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(0);
        (await LedgerAudit.RunAsync(nodes[1], cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
        foreach (var node in nodes)
        {
            await node.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task One_id_on_two_nodes_at_the_same_instant_applies_once(PostgreSqlTransactions transactions)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start, transactions);
        await using var one = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await using var two = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await one.RestockAsync("r", [("A", 1000), ("B", 1000)], cancellationToken: Token);

        for (var i = 0; i < 30; i++)
        {
            // The same content, and then other content over another SKU, which no stock row keeps apart.
            var id = $"o{i}";
            var isConflict = i % 2 == 1;
            var results = await Task.WhenAll(
                one.DeductAsync(id, [("A", 1)], cancellationToken: Token).AsTask(),
                two.DeductAsync(id, [(isConflict ? "B" : "A", 1)], cancellationToken: Token).AsTask());
            results.Count(result => result.Status == StockStatus.Done).ShouldBe(1, id);
            results.Count(result => result.Status == (isConflict ? StockStatus.KeyConflict : StockStatus.Replayed)).ShouldBe(1, id);
        }

        (await LedgerAudit.RunAsync(one, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task Two_nodes_that_stock_a_new_sku_at_once_both_succeed()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var one = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await using var two = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        for (var i = 0; i < 20; i++)
        {
            var results = await Task.WhenAll(
                one.RestockAsync($"a{i}", [($"S{i}", 1)], cancellationToken: Token).AsTask(),
                two.RestockAsync($"b{i}", [($"S{i}", 1)], cancellationToken: Token).AsTask());
            results.ShouldAllBe(result => result.Status == StockStatus.Done);
        }

        (await LedgerAudit.RunAsync(one, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>A Cancel may overtake the deduction that it cancels on another node; whoever comes first, the units end up free.</summary>
    [Fact]
    public async Task A_cancel_and_its_order_on_two_nodes_leave_nothing_taken()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var one = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await using var two = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await one.RestockAsync("r", [("A", 1)], cancellationToken: Token);
        for (var i = 0; i < 30; i++)
        {
            await Task.WhenAll(one.DeductAsync($"o{i}", [("A", 1)], cancellationToken: Token).AsTask(), two.CancelAsync($"o{i}", cancellationToken: Token).AsTask());
            (await one.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(1);
        }

        (await LedgerAudit.RunAsync(one, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task Time_never_falls_below_what_another_node_has_stored()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        var late = new ManualTimeProvider(start.Clock.GetUtcNow());
        await using var one = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await using var two = await PostgreSqlEngine.OpenAsync(store with { TestClock = late }, cancellationToken: Token);
        await one.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await one.ReserveAsync("h", [("A", 5)], TimeSpan.FromSeconds(10), cancellationToken: Token);

        // The clock goes on, something is stored, and then it is set back: for a node that starts anew, too.
        start.Clock.Advance(TimeSpan.FromSeconds(11));
        await one.RestockAsync("r2", [("B", 1)], cancellationToken: Token);
        late.Jump(late.GetUtcNow() - TimeSpan.FromHours(1));
        (await two.ConfirmAsync("h", cancellationToken: Token)).Status.ShouldBe(StockStatus.Expired);
        (await two.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(5);
        (await LedgerAudit.RunAsync(two, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>Without a test clock, the database's own decides expiry, whatever the process thinks.</summary>
    [Fact]
    public async Task The_databases_clock_decides_expiry()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { TestClock = null };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, new ManualTimeProvider(), cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await engine.ReserveAsync("h", [("A", 5)], TimeSpan.FromSeconds(1), cancellationToken: Token);
        (await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Insufficient);
        await SharedPostgreSql.RunSqlAsync(store, "SELECT pg_sleep(1.01)");
        (await engine.ConfirmAsync("h", cancellationToken: Token)).Status.ShouldBe(StockStatus.Expired);
        (await engine.DeductAsync("o", [("A", 5)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
    }

    /// <summary>A reader of the whole ledger that goes on from its cursor sees every entry once, in an order that agrees with the versions, although blocks of positions commit out of order.</summary>
    [Fact]
    public async Task The_ledgers_cursor_never_passes_over_an_entry_that_commits_late()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { StatementTimeout = TimeSpan.FromMilliseconds(500) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5), ("B", 5)], cancellationToken: Token);

        await using var connection = new Npgsql.NpgsqlConnection(store.ConnectionString);
        await connection.OpenAsync(Token);
        await using var slow = await connection.BeginTransactionAsync(Token);
        (await engine.ExecuteInTransactionAsync(slow, [StockCommand.Deduct("slow", [("A", 1)])], Token))[0].Status.ShouldBe(StockStatus.Done);
        (await engine.DeductAsync("quick", [("B", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);

        var seen = new List<FlowEntry>();
        await foreach (var entry in engine.ReadFlowAsync(new(), Token))
        {
            seen.Add(entry);
        }

        seen.ShouldNotContain(entry => entry.OperationId == "quick", "it stands behind one that may still commit");
        await slow.CommitAsync(Token);
        await foreach (var entry in engine.ReadFlowAsync(new() { After = seen[^1].Cursor }, Token))
        {
            seen.Add(entry);
        }

        seen.Select(entry => entry.OperationId).ShouldBe(["r", "r", "slow", "quick"]);
    }

    /// <summary>
    /// A snapshot that somebody leaves open keeps PostgreSQL from clearing the old versions of a hot row away. The store
    /// goes on, somewhat slower, and the room is used again once the snapshot ends.
    /// </summary>
    [Fact]
    public async Task A_long_snapshot_elsewhere_slows_the_hot_row_down_and_stops_nothing()
    {
        // A server of its own: any other test's open transaction would keep old versions just as well.
        await using var server = await SharedPostgreSql.StartOwnAsync("fsync=off", "autovacuum=off");
        var store = new PostgreSqlOptions { ConnectionString = server.ConnectionString };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 1_000_000)], cancellationToken: Token);
        var orders = 0;
        async Task<long> SellAsync(int count)
        {
            for (var i = 0; i < count; i++)
            {
                (await engine.DeductAsync($"o{orders++}", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
            }

            return (long)(await SharedPostgreSql.RunSqlAsync(store, "SELECT pg_relation_size('{s}.stock')"))!;
        }

        var before = await SellAsync(200);
        long during;
        await using (var other = await ForeignTransaction.BeginAsync(store, "BEGIN ISOLATION LEVEL REPEATABLE READ"))
        {
            await other.RunAsync("SELECT count(*) FROM {s}.stock");
            during = await SellAsync(400);
        }

        var after = await SellAsync(400);
        before.ShouldBe(8192, "one page, cleaned up by each update");
        during.ShouldBeGreaterThan(before);
        after.ShouldBeLessThanOrEqualTo(during + 8192, "the room is used again");
    }
}
