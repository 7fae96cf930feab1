using System.Data.Common;
using Holdfast;

namespace OwnTransaction;

/// <summary>Executes commands in a transaction of the application: <c>PostgreSqlEngine.ExecuteInTransactionAsync</c> or <c>SqliteEngine.ExecuteInTransactionAsync</c>.</summary>
public delegate ValueTask<IReadOnlyList<StockResult>> ExecuteInTransaction(DbTransaction transaction, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken);

/// <summary>A shop with a table <c>orders(id, buyer)</c> in the same database as the stock, over plain ADO.NET.</summary>
public sealed class AdoNetShop(DbConnection connection, ExecuteInTransaction stock)
{
    /// <summary>Places an order: its row and its deduction in one commit, or neither.</summary>
    /// <returns>The deduction's result; a success only once both are committed.</returns>
    public async Task<StockResult> PlaceOrderAsync(string id, string buyer, StockLine[] cart, CancellationToken cancellationToken = default)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using (var insert = connection.CreateCommand())
        {
            insert.Transaction = transaction;
            insert.CommandText = "INSERT INTO orders(id, buyer) VALUES (@id, @buyer)";
            Add(insert, "@id", id);
            Add(insert, "@buyer", buyer);
            await insert.ExecuteNonQueryAsync(cancellationToken);
        }

        // The stock rows are locked from here to the commit, so this comes last.
        var result = (await stock(transaction, [StockCommand.Deduct(id, cart)], cancellationToken))[0];
        if (result.IsApplied)
        {
            await transaction.CommitAsync(cancellationToken);
        }

        // Leaving without a commit rolls back: no order without its units.
        return result;
    }

    private static void Add(DbCommand command, string name, string value)
    {
        var parameter = command.CreateParameter();
        parameter.ParameterName = name;
        parameter.Value = value;
        command.Parameters.Add(parameter);
    }
}
