using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.FaultTests;

/// <summary>An acknowledged command is on the synchronous standby, whatever became of the wait for it.</summary>
public sealed class SynchronousStandbyTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>
    /// A cancelled wait for the standby makes PostgreSQL's COMMIT succeed with a mere warning. An order that was
    /// acknowledged then, or replayed to a retry, would be lost by a failover.
    /// </summary>
    [Fact]
    public async Task What_the_standby_did_not_confirm_is_in_doubt_until_it_does()
    {
        GivenServer.SkipWhereGiven();
        await using var primary = await PostgreSqlServer.StartAsync();
        await using var standby = await primary.StartStandbyAsync();
        PostgreSqlTransactions[] schemes = [PostgreSqlTransactions.Call, PostgreSqlTransactions.Command, PostgreSqlTransactions.Version];
        PostgreSqlOptions Store(int scheme, PostgreSqlServer server) => new()
        {
            ConnectionString = server.ConnectionString,
            Schema = $"scheme_{scheme}",
            Transactions = schemes[scheme],
            StatementTimeout = TimeSpan.FromMilliseconds(500),
        };
        var engines = await Task.WhenAll(schemes.Select((_, i) => PostgreSqlEngine.OpenAsync(Store(i, primary), cancellationToken: Token)));
        await primary.SetAsync("synchronous_standby_names", "*");
        Task<StockResult[]> EachAsync(Func<IStockEngine, ValueTask<StockResult>> run) => Task.WhenAll(engines.Select(engine => run(engine).AsTask()));
        ValueTask<StockResult> OrderAsync(IStockEngine engine) => engine.DeductAsync("o", [("A", 2)], cancellationToken: Token);
        (await EachAsync(engine => engine.RestockAsync("r", [("A", 5)], cancellationToken: Token))).ShouldAllBe(result => result.Status == StockStatus.Done);

        await standby.PauseAsync(true);
        try
        {
            var first = await EachAsync(OrderAsync);
            first.ShouldAllBe(result => result.Status == StockStatus.InDoubt);
            first.ShouldAllBe(result => result.Detail!.Contains("standby", StringComparison.Ordinal));
            (await EachAsync(OrderAsync)).ShouldAllBe(result => result.Status == StockStatus.InDoubt, "the order is on the primary, but not on the standby");
        }
        finally
        {
            await standby.PauseAsync(false);
        }

        (await EachAsync(OrderAsync)).ShouldAllBe(result => result.IsApplied);
        await primary.KillAsync();
        await standby.PromoteAsync();
        for (var i = 0; i < schemes.Length; i++)
        {
            await engines[i].DisposeAsync();
            await using var promoted = await PostgreSqlEngine.OpenAsync(Store(i, standby), cancellationToken: Token);
            (await promoted.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(3);
            (await OrderAsync(promoted)).Status.ShouldBe(StockStatus.Replayed);
            (await LedgerAudit.RunAsync(promoted, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
        }
    }
}
