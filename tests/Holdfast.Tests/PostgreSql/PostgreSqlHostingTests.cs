using Holdfast.Hosting;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.PostgreSql;

/// <summary>PostgreSQL as a store of the named schemes.</summary>
public sealed class PostgreSqlHostingTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("database")]
    [InlineData("database-version")]
    [InlineData("batched")]
    public async Task A_named_scheme_opens_over_a_connection_string(string scheme)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using (await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token))
        {
            await using var opened = await SchemeCatalog.OpenAsync(scheme, $"postgres:{store.ConnectionString}", cancellationToken: Token);
            opened.Location.ShouldContain("PostgreSQL at");
            opened.Location.ShouldNotContain("correct-horse");
            opened.Durability.ShouldContain("synchronous_commit");
            (await opened.Engine.GetStockAsync("never stocked", cancellationToken: Token)).IsKnown.ShouldBeFalse();
        }
    }

    [Theory]
    [InlineData("batched", "postgres:Password=correct-horse", "names no Host")]
    [InlineData("batched", "postgresql:Host=a;Password=correct-horse", "is not known")]
    [InlineData("memory", "postgres:Host=a;Password=correct-horse", "does not run on")]
    public void A_store_text_that_is_no_use_is_told_without_its_password(string scheme, string store, string problem)
    {
        var told = SchemeCatalog.Problem(scheme, store).ShouldNotBeNull();
        told.ShouldContain(problem);
        told.ShouldNotContain("correct-horse");
    }

    [Fact]
    public async Task The_scheme_replica_needs_two_hosts()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        (await Should.ThrowAsync<InvalidOperationException>(async () => await SchemeCatalog.OpenAsync("replica", $"postgres:{store.ConnectionString}", cancellationToken: Token))).Message.ShouldContain("name both");
    }
}
