using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Microsoft.Data.Sqlite;

namespace Holdfast.Tests.Sqlite;

/// <summary>The shop's own transaction on the store's file: its order row and the deduction, one commit.</summary>
public sealed class SqliteCallersTransactionTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task The_order_row_and_the_deduction_stand_or_fall_together(bool commits)
    {
        await using var start = new SchemeStart(new());
        var path = Path.Combine(start.Folder, "stock.db");
        await using var engine = SqliteEngine.Open(new() { Path = path }, start.Clock);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await using var connection = await ShopAsync(path);
        await using (var transaction = (SqliteTransaction)await connection.BeginTransactionAsync(Token))
        {
            await RunAsync(connection, transaction, "INSERT INTO orders VALUES ('o')");
            var results = await engine.ExecuteInTransactionAsync(
                transaction, [StockCommand.Deduct("o", [("A", 2)]), StockCommand.Deduct("p", [("A", 4)]), StockCommand.Restock("n", [("New", 1)])], Token);
            results.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.Insufficient, StockStatus.Done]);
            if (commits)
            {
                await transaction.CommitAsync(Token);
            }
        }

        (await RunAsync(connection, null, "SELECT count(*) FROM orders")).ShouldBe(commits ? 1L : 0L);
        (await engine.GetOperationAsync("o", Token) is not null).ShouldBe(commits);
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(commits ? 3 : 5);
        (await engine.DeductAsync("o", [("A", 2)], cancellationToken: Token)).Status.ShouldBe(commits ? StockStatus.Replayed : StockStatus.Done);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task A_transaction_on_another_file_or_over_is_refused_in_words()
    {
        await using var start = new SchemeStart(new());
        var path = Path.Combine(start.Folder, "stock.db");
        await using var engine = SqliteEngine.Open(new() { Path = path }, start.Clock);
        await using var elsewhere = await ShopAsync(Path.Combine(start.Folder, "other.db"));
        await using (var transaction = await elsewhere.BeginTransactionAsync(Token))
        {
            (await Should.ThrowAsync<ArgumentException>(async () => await engine.ExecuteInTransactionAsync(transaction, [], Token))).Message.ShouldContain("other.db");
        }

        await using var here = await ShopAsync(path);
        var over = await here.BeginTransactionAsync(Token);
        await over.CommitAsync(Token);
        (await Should.ThrowAsync<ArgumentException>(async () => await engine.ExecuteInTransactionAsync(over, [], Token))).Message.ShouldContain("over");
    }

    /// <summary>A deferred transaction that has read, and whose file somebody else has written since, can't write any more.</summary>
    [Fact]
    public async Task A_transaction_that_reads_the_past_is_Busy_and_nothing_applies()
    {
        await using var start = new SchemeStart(new());
        var path = Path.Combine(start.Folder, "stock.db");
        await using var engine = SqliteEngine.Open(new() { Path = path }, start.Clock);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        await using var connection = await ShopAsync(path);
        await using var transaction = connection.BeginTransaction(deferred: true);
        await RunAsync(connection, transaction, "SELECT count(*) FROM stock");
        await engine.DeductAsync("o1", [("A", 4)], cancellationToken: Token);
        (await engine.ExecuteInTransactionAsync(transaction, [StockCommand.Deduct("o2", [("A", 5)])], Token))[0].Status.ShouldBe(StockStatus.Busy);
        await transaction.RollbackAsync(Token);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    private static async Task<SqliteConnection> ShopAsync(string path)
    {
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
        await connection.OpenAsync(Token);
        await RunAsync(connection, null, "CREATE TABLE IF NOT EXISTS orders(id TEXT PRIMARY KEY)");
        return connection;
    }

    private static async Task<object?> RunAsync(SqliteConnection connection, SqliteTransaction? transaction, string sql)
    {
        await using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.Transaction = transaction;
        return await command.ExecuteScalarAsync(Token);
    }
}
