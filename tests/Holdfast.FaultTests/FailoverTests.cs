using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.FaultTests;

/// <summary>An engine whose connection string names a primary and its standby.</summary>
public sealed class FailoverTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>
    /// The driver remembers for a while who was a standby. A store that lost its primary asks anew, or each failover
    /// would last as long as that memory.
    /// </summary>
    [Fact]
    public async Task A_promoted_standby_is_found_at_once_and_serves_everything()
    {
        GivenServer.SkipWhereGiven();
        await using var primary = await PostgreSqlServer.StartAsync();
        await using var standby = await primary.StartStandbyAsync();
        await using var store = await PostgreSqlEngine.OpenAsync(
            new() { ConnectionString = PostgreSqlServer.ConnectionStringOf(primary, standby) + ";Host Recheck Seconds=3600" }, cancellationToken: Token);
        store.Server.ShouldStartWith($"PostgreSQL at 127.0.0.1:{primary.Port},127.0.0.1:{standby.Port}, database ");
        await using var engine = new StockEngineBuilder(store).UseStandbyPreCheck().UseGroupCommit().Build();
        await primary.SetAsync("synchronous_standby_names", "*");
        await engine.RestockAsync("r", [("A", 10), ("B", 10)], cancellationToken: Token);
        (await engine.DeductAsync("before", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await engine.ReserveAsync("hold", [("B", 4)], TimeSpan.FromHours(1), cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        var seen = await ReadAsync(engine, after: null);

        await primary.KillAsync();
        (await engine.DeductAsync("between", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Busy);
        await standby.PromoteAsync();

        // What was there before, what comes now, and the ledger's cursor from before: its sequence went over, too.
        (await UntilDecidedAsync(engine, "between")).Status.ShouldBe(StockStatus.Done);
        (await engine.DeductAsync("before", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Replayed);
        (await engine.ConfirmAsync("hold", cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        (await ReadAsync(engine, seen[^1].Cursor)).Select(entry => entry.OperationId).ShouldBe(["between", "hold"]);
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(8);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>
    /// A machine that is cut off says nothing when it is gone, and may come back believing that it is the primary. What
    /// keeps it from selling the same units again is that its commits wait for the standby that it no longer has.
    /// </summary>
    [Fact]
    public async Task A_primary_that_stands_still_is_left_and_acknowledges_nothing_when_it_comes_back()
    {
        GivenServer.SkipWhereGiven();
        await using var primary = await PostgreSqlServer.StartAsync();
        await using var standby = await primary.StartStandbyAsync();
        var both = new PostgreSqlOptions
        {
            ConnectionString = PostgreSqlServer.ConnectionStringOf(primary, standby),
            StatementTimeout = TimeSpan.FromMilliseconds(500),
            ConnectTimeout = TimeSpan.FromSeconds(2),
        };
        await using var engine = new GroupCommit(await PostgreSqlEngine.OpenAsync(both, cancellationToken: Token));
        await primary.SetAsync("synchronous_standby_names", "*");
        await engine.RestockAsync("r", [("A", 10)], cancellationToken: Token);

        await primary.PauseAsync(true);
        try
        {
            await standby.PromoteAsync();
            (await UntilDecidedAsync(engine, "o")).IsApplied.ShouldBeTrue();
        }
        finally
        {
            await primary.PauseAsync(false);
        }

        // Somebody who knows only the old one.
        await using var old = await PostgreSqlEngine.OpenAsync(both with { ConnectionString = primary.ConnectionString }, cancellationToken: Token);
        (await old.DeductAsync("again", [("A", 10)], cancellationToken: Token)).Status.ShouldBe(StockStatus.InDoubt);
        (await engine.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(9);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
    }

    private static async Task<StockResult> UntilDecidedAsync(IStockEngine engine, string id)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Token);
        limit.CancelAfter(TimeSpan.FromMinutes(2));
        StockResult result;
        while ((result = await engine.DeductAsync(id, [("A", 1)], cancellationToken: limit.Token)).IsRetryable)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, limit.Token);
        }

        return result;
    }

    private static async Task<List<FlowEntry>> ReadAsync(IStockEngine engine, string? after)
    {
        var entries = new List<FlowEntry>();
        await foreach (var entry in engine.ReadFlowAsync(new() { After = after }, Token))
        {
            entries.Add(entry);
        }

        return entries;
    }
}
