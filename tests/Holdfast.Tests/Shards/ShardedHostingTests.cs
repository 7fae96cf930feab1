using Holdfast.Hosting;
using Holdfast.Tests.Cli;

namespace Holdfast.Tests.Shards;

/// <summary>The scheme <c>sharded</c> as configuration and command line open it.</summary>
public sealed class ShardedHostingTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Several_stores_are_one_and_keep_their_places()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-shards-");
        try
        {
            string[] stores = [.. Enumerable.Range(0, 3).Select(shard => $"sqlite:{Path.Combine(folder.FullName, $"{shard}.db")}")];
            var all = string.Join(SchemeCatalog.StoreSeparator, stores);
            SchemeCatalog.DefaultFor(all).ShouldBe("sharded");
            StockLine[] cart = [.. Enumerable.Range(0, 12).Select(i => new StockLine($"sku-{i}", 1))];
            await using (var opened = await SchemeCatalog.OpenAsync("sharded", all, cancellationToken: Cancelled))
            {
                opened.Store.ShouldBe("sqlite");
                (await opened.Engine.RestockAsync("r1", cart, cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
                (await opened.Engine.DeductAsync("o1", cart, cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
            }

            await using (var again = await SchemeCatalog.OpenAsync(null, all, cancellationToken: Cancelled))
            {
                (await again.Engine.DeductAsync("o1", cart, cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Replayed);
            }

            string[][] wrong = [[stores[1], stores[0], stores[2]], stores[..2], [.. stores, $"sqlite:{Path.Combine(folder.FullName, "3.db")}"]];
            foreach (var others in wrong)
            {
                var refused = await Should.ThrowAsync<InvalidOperationException>(async () => await SchemeCatalog.OpenAsync("sharded", string.Join(SchemeCatalog.StoreSeparator, others), cancellationToken: Cancelled));
                refused.Message.ShouldContain("in the same order");
            }

            var audit = await CommandRun.RunAsync("audit", "--store", all);
            audit.ExitCode.ShouldBe(0, audit.Output + audit.Error);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void Its_stores_must_be_named()
    {
        SchemeCatalog.Problem("sharded", null).ShouldNotBeNull().ShouldContain("needs its stores named");
        SchemeCatalog.Problem("sharded", "memory | redis:localhost:6379").ShouldBeNull();
        SchemeCatalog.Problem("sharded", "memory | nowhere:1").ShouldNotBeNull().ShouldContain("nowhere");
        SchemeCatalog.Problem("sharded", "sqlite:a.db | sqlite:a.db").ShouldNotBeNull().ShouldContain("twice");
        SchemeCatalog.Problem("batched", "sqlite:a.db | sqlite:b.db").ShouldBeNull("it may be the name of one file");
        new HoldfastOptions { Scheme = "sharded", Shards = { new() { Store = "memory" }, new() { Store = "memory" } } }.Problems().ShouldBeEmpty();
        new HoldfastOptions { Scheme = "sharded", Store = "memory", Shards = { new() { Store = "memory" } } }.Problems().ShouldNotBeEmpty();
    }
}
