using System.Data.Common;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.PostgreSql;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using OwnTransaction;

namespace Holdfast.Tests.Samples;

/// <summary>samples/OwnTransaction does what it says, on both databases.</summary>
public sealed class OwnTransactionTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("sqlite", false)]
    [InlineData("sqlite", true)]
    [InlineData("postgres", false)]
    [InlineData("postgres", true)]
    public async Task An_order_and_its_deduction_are_one_commit(string database, bool efCore)
    {
        await using var start = new SchemeStart(new());
        DbConnection connection;
        IStockEngine engine;
        ExecuteInTransaction stock;
        DbContextOptions<ShopContext> context;
        if (database == "sqlite")
        {
            var path = Path.Combine(start.Folder, "shop.db");
            var sqlite = SqliteEngine.Open(new() { Path = path });
            (engine, stock) = (sqlite, sqlite.ExecuteInTransactionAsync);
            connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
            context = new DbContextOptionsBuilder<ShopContext>().UseSqlite(connection).Options;
        }
        else
        {
            var store = await SharedPostgreSql.NewStoreAsync(start);
            var postgres = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
            (engine, stock) = (postgres, postgres.ExecuteInTransactionAsync);
            connection = new NpgsqlConnection($"{store.ConnectionString};Search Path={store.Schema}");
            context = new DbContextOptionsBuilder<ShopContext>().UseNpgsql(connection).Options;
        }

        await using var disposing = engine;
        await using var disposingToo = connection;
        await connection.OpenAsync(Token);
        await RunAsync(connection, "CREATE TABLE orders(id text PRIMARY KEY, buyer text NOT NULL)");
        await engine.RestockAsync("delivery", [("A", 3)], cancellationToken: Token);

        await using var shopContext = new ShopContext(context);
        Func<string, long, Task<StockResult>> placeAsync = efCore
            ? (id, units) => new EfCoreShop(shopContext, stock).PlaceOrderAsync(id, "Ada", [("A", units)], Token)
            : (id, units) => new AdoNetShop(connection, stock).PlaceOrderAsync(id, "Ada", [("A", units)], Token);
        (await placeAsync("o1", 2)).Status.ShouldBe(StockStatus.Done);
        (await placeAsync("o2", 2)).Status.ShouldBe(StockStatus.Insufficient);
        (await placeAsync("o3", 1)).Status.ShouldBe(StockStatus.Done);

        (await RunAsync(connection, "SELECT count(*) FROM orders")).ShouldBe(2L);
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(0);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    private static async Task<object?> RunAsync(DbConnection connection, string sql)
    {
        await using var command = connection.CreateCommand();
        command.CommandText = sql;
        return await command.ExecuteScalarAsync(Token);
    }
}
