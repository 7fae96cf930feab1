using Holdfast;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace OwnTransaction;

/// <summary>An order as the shop keeps it.</summary>
public sealed class Order
{
    public required string Id { get; init; }

    public required string Buyer { get; init; }
}

/// <summary>The shop's own tables.</summary>
public sealed class ShopContext(DbContextOptions<ShopContext> options) : DbContext(options)
{
    public DbSet<Order> Orders => Set<Order>();

    protected override void OnModelCreating(ModelBuilder modelBuilder) => modelBuilder.Entity<Order>(order =>
    {
        order.ToTable("orders");
        order.Property(row => row.Id).HasColumnName("id");
        order.Property(row => row.Buyer).HasColumnName("buyer");
    });
}

/// <summary>The same shop over EF Core.</summary>
public sealed class EfCoreShop(ShopContext context, ExecuteInTransaction stock)
{
    /// <summary>Places an order: its row and its deduction in one commit, or neither.</summary>
    /// <returns>The deduction's result; a success only once both are committed.</returns>
    public async Task<StockResult> PlaceOrderAsync(string id, string buyer, StockLine[] cart, CancellationToken cancellationToken = default)
    {
        await using var transaction = await context.Database.BeginTransactionAsync(cancellationToken);
        context.Orders.Add(new() { Id = id, Buyer = buyer });
        await context.SaveChangesAsync(cancellationToken);

        // The stock rows are locked from here to the commit, so this comes last.
        var result = (await stock(transaction.GetDbTransaction(), [StockCommand.Deduct(id, cart)], cancellationToken))[0];
        if (result.IsApplied)
        {
            await transaction.CommitAsync(cancellationToken);
        }
        else
        {
            await transaction.RollbackAsync(cancellationToken);
            context.ChangeTracker.Clear();
        }

        return result;
    }
}
