using System.Data;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Npgsql;

namespace Holdfast.Tests.PostgreSql;

/// <summary>The shop's own transaction: its order row and the deduction, one commit.</summary>
public sealed class CallersTransactionTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_order_row_and_the_deduction_stand_or_fall_together(bool commits)
    {
        await using var shop = await Shop.OpenAsync();
        await using (var transaction = await shop.Connection.BeginTransactionAsync(Token))
        {
            await shop.InsertOrderAsync("o");
            (await shop.Engine.ExecuteInTransactionAsync(transaction, [StockCommand.Deduct("o", [("A", 2), ("B", 1)])], Token))[0].Status.ShouldBe(StockStatus.Done);
            if (commits)
            {
                await transaction.CommitAsync(Token);
            }
        }

        (await shop.OrdersAsync()).ShouldBe(commits ? 1 : 0);
        (await shop.Engine.GetOperationAsync("o", Token) is not null).ShouldBe(commits);
        (await shop.Engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(commits ? 3 : 5);
        await shop.AuditAsync();
    }

    [Fact]
    public async Task A_refusal_leaves_the_choice_to_the_shop()
    {
        await using var shop = await Shop.OpenAsync();
        await using var transaction = await shop.Connection.BeginTransactionAsync(Token);
        await shop.InsertOrderAsync("o");
        var results = await shop.Engine.ExecuteInTransactionAsync(transaction, [StockCommand.Deduct("o", [("A", 6)]), StockCommand.Deduct("p", [("B", 1)])], Token);
        results.Select(result => result.Status).ShouldBe([StockStatus.Insufficient, StockStatus.Done]);
        await transaction.CommitAsync(Token);

        (await shop.OrdersAsync()).ShouldBe(1);
        (await shop.Engine.GetStockAsync("B", cancellationToken: Token)).Available.ShouldBe(4);
        await shop.AuditAsync();
    }

    [Fact]
    public async Task Every_verb_works_and_a_retry_is_a_replay()
    {
        await using var shop = await Shop.OpenAsync();
        await using (var transaction = await shop.Connection.BeginTransactionAsync(Token))
        {
            var results = await shop.Engine.ExecuteInTransactionAsync(
                transaction,
                [
                    StockCommand.Reserve("h", [("A", 2)], TimeSpan.FromMinutes(1)), StockCommand.Confirm("h"), StockCommand.Refund("f", "h", [("A", 1)]),
                    StockCommand.Restock("n", [("New", 1)]), StockCommand.Adjust("a", [("B", -1)]), StockCommand.Cancel("later"), StockCommand.Abandon("never"),
                ],
                Token);
            results.ShouldAllBe(result => result.Status == StockStatus.Done);
            await transaction.CommitAsync(Token);
        }

        await using (var transaction = await shop.Connection.BeginTransactionAsync(Token))
        {
            var again = await shop.Engine.ExecuteInTransactionAsync(transaction, [StockCommand.Refund("f", "h", [("A", 1)]), StockCommand.Deduct("later", [("A", 1)])], Token);
            again.Select(result => result.Status).ShouldBe([StockStatus.Replayed, StockStatus.Cancelled]);
            await shop.InsertOrderAsync("o");
            await transaction.CommitAsync(Token);
        }

        (await shop.OrdersAsync()).ShouldBe(1);
        await shop.AuditAsync();
    }

    /// <summary>Another node commits the same id while our transaction waits for it: the shop's transaction survives, and the answer is the replay.</summary>
    [Fact]
    public async Task An_id_that_another_node_commits_meanwhile_does_not_break_the_shops_transaction()
    {
        await using var shop = await Shop.OpenAsync();
        await using var otherConnection = new NpgsqlConnection(shop.Store.ConnectionString);
        await otherConnection.OpenAsync(Token);
        await using var other = await otherConnection.BeginTransactionAsync(Token);
        await shop.Engine.ExecuteInTransactionAsync(other, [StockCommand.Cancel("o")], Token);

        await using var transaction = await shop.Connection.BeginTransactionAsync(Token);
        await shop.InsertOrderAsync("o");
        var deducting = shop.Engine.ExecuteInTransactionAsync(transaction, [StockCommand.Deduct("o", [("A", 1)])], Token).AsTask();
        while ((long)(await SharedPostgreSql.RunSqlAsync(shop.Store, $"SELECT count(*) FROM pg_stat_activity WHERE {otherConnection.ProcessID} = ANY(pg_blocking_pids(pid))"))! == 0)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, Token);
        }

        await other.CommitAsync(Token);
        (await deducting)[0].Status.ShouldBe(StockStatus.Cancelled);
        await transaction.CommitAsync(Token);
        (await shop.OrdersAsync()).ShouldBe(1);
        await shop.AuditAsync();
    }

    [Fact]
    public async Task A_row_held_too_long_is_Busy_and_the_shops_transaction_goes_on()
    {
        await using var shop = await Shop.OpenAsync("Options=-c lock_timeout=100");
        await using var other = await ForeignTransaction.BeginAsync(shop.Store);
        await other.RunAsync("UPDATE {s}.stock SET changed_at = changed_at WHERE sku = 'A'");
        await using var transaction = await shop.Connection.BeginTransactionAsync(Token);
        await shop.InsertOrderAsync("o");
        (await shop.Engine.ExecuteInTransactionAsync(transaction, [StockCommand.Deduct("o", [("A", 1)])], Token))[0].Status.ShouldBe(StockStatus.Busy);
        await transaction.CommitAsync(Token);
        (await shop.OrdersAsync()).ShouldBe(1);
    }

    [Fact]
    public async Task What_is_no_open_transaction_at_read_committed_is_refused_in_words()
    {
        await using var shop = await Shop.OpenAsync();
        var over = await shop.Connection.BeginTransactionAsync(Token);
        await over.CommitAsync(Token);
        (await Should.ThrowAsync<ArgumentException>(async () => await shop.Engine.ExecuteInTransactionAsync(over, [], Token))).Message.ShouldContain("over");
        await using var serializable = await shop.Connection.BeginTransactionAsync(IsolationLevel.Serializable, Token);
        (await Should.ThrowAsync<ArgumentException>(async () => await shop.Engine.ExecuteInTransactionAsync(serializable, [], Token))).Message.ShouldContain("ReadCommitted");
    }

    /// <summary>A shop with a table of its own beside the store.</summary>
    private sealed class Shop(SchemeStart start, PostgreSqlOptions store, PostgreSqlEngine engine, NpgsqlConnection connection) : IAsyncDisposable
    {
        public PostgreSqlOptions Store { get; } = store;

        public PostgreSqlEngine Engine { get; } = engine;

        public NpgsqlConnection Connection { get; } = connection;

        public static async Task<Shop> OpenAsync(string more = "")
        {
            var start = new SchemeStart(new());
            var store = await SharedPostgreSql.NewStoreAsync(start, PostgreSqlTransactions.Command);
            var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
            await engine.RestockAsync("r", [("A", 5), ("B", 5)], cancellationToken: Token);
            await SharedPostgreSql.RunSqlAsync(store, "CREATE TABLE {s}.orders(id text PRIMARY KEY)");
            var connection = new NpgsqlConnection($"{store.ConnectionString};{more}");
            await connection.OpenAsync(Token);
            return new(start, store, engine, connection);
        }

        public async Task InsertOrderAsync(string id)
        {
            await using var insert = new NpgsqlCommand($"INSERT INTO {Store.Schema}.orders VALUES ($1)", Connection) { Parameters = { new() { Value = id } } };
            await insert.ExecuteNonQueryAsync(Token);
        }

        public async Task<long> OrdersAsync() => (long)(await SharedPostgreSql.RunSqlAsync(Store, "SELECT count(*) FROM {s}.orders"))!;

        public async Task AuditAsync() => (await LedgerAudit.RunAsync(Engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");

        public async ValueTask DisposeAsync()
        {
            await Connection.DisposeAsync();
            await Engine.DisposeAsync();
            await start.DisposeAsync();
        }
    }
}
