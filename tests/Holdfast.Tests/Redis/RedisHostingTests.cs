using Holdfast.Hosting;

namespace Holdfast.Tests.Redis;

/// <summary>Redis by its store text, as the server and the command line open it, and what a server must be set to.</summary>
public sealed class RedisHostingTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_store_text_opens_the_scheme_and_the_store_is_shared()
    {
        await using var server = await RedisServer.StartAsync();
        var store = $"redis:{server.Configuration}";
        SchemeCatalog.DefaultFor(store).ShouldBe("redis");
        SchemeCatalog.DefaultFor("sqlite:a.db").ShouldBe(SchemeCatalog.DefaultScheme);
        await using var one = await SchemeCatalog.OpenAsync("redis", store, cancellationToken: Cancel);
        await using var other = await SchemeCatalog.OpenAsync(null, store, cancellationToken: Cancel);
        await using var reader = await SchemeCatalog.OpenAsync("redis", store, readOnly: true, cancellationToken: Cancel);
        (one.Scheme, one.Store, other.Scheme).ShouldBe(("redis", "redis", "redis"));
        one.Location.ShouldBe($"Redis at {server.Configuration}, store holdfast");
        one.Durability.ShouldContain("appendfsync everysec");
        (await one.Engine.RestockAsync("r1", [("a", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        (await other.Engine.DeductAsync("o1", [("a", 2)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        (await reader.Engine.GetStockAsync(["a"], cancellationToken: Cancel))[0].Available.ShouldBe(3);
        await Should.ThrowAsync<InvalidOperationException>(async () => await reader.Engine.DeductAsync("o2", [("a", 2)], cancellationToken: Cancel));
    }

    [Theory]
    [InlineData("redis:", "is not usable")]
    [InlineData("redis", "is not usable")]
    public void A_store_text_without_a_server_is_refused_by_name(string store, string words) =>
        SchemeCatalog.Problem("redis", store).ShouldNotBeNull().ShouldContain(words);

    [Fact]
    public void A_password_is_in_no_message() =>
        (SchemeCatalog.Problem("batched", "redis:host,password=correct-horse") ?? "").ShouldNotContain("correct-horse");

    [Theory]
    [InlineData("appendfsync always", true, "survives a crash")]
    [InlineData("appendfsync everysec", false, "two seconds")]
    [InlineData("appendfsync no", false, "half minute")]
    [InlineData("appendonly no", false, "none")]
    [InlineData("no-appendfsync-on-rewrite yes", false, "two seconds")]
    public async Task What_an_acknowledgement_survives_is_read_from_the_server(string setting, bool isDurable, string words)
    {
        await using var server = await RedisServer.StartAsync(setting);
        await using var engine = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: Cancel);
        engine.Traits.ShouldBe(isDurable ? StockTraits.All : StockTraits.Exact);
        engine.Durability.ShouldContain(words);
    }

    [Fact]
    public async Task A_server_that_may_evict_stock_is_refused()
    {
        await using var server = await RedisServer.StartAsync("maxmemory 100mb", "maxmemory-policy allkeys-lru");
        (await OpenFailureAsync(server)).ShouldContain("maxmemory-policy noeviction");
    }

    [Fact]
    public async Task A_replica_is_refused_to_writers_and_open_to_readers()
    {
        await using var master = await RedisServer.StartAsync();
        await using var engine = await RedisEngine.OpenAsync(new() { Configuration = master.Configuration }, cancellationToken: Cancel);
        await engine.RestockAsync("r1", [("a", 5)], cancellationToken: Cancel);
        await using var replica = await master.StartReplicaAsync();
        (await OpenFailureAsync(replica)).ShouldContain("is a replica");
        await using var reader = await RedisEngine.OpenAsync(new() { Configuration = replica.Configuration, ReadOnly = true }, cancellationToken: Cancel);
        (await reader.GetStockAsync(["a"], cancellationToken: Cancel))[0].Available.ShouldBe(5);
    }

    [Fact]
    public async Task A_key_that_holds_something_else_is_named()
    {
        await using var server = await RedisServer.StartAsync();
        await server.CliAsync("SET", "{holdfast}:meta", "mine");
        (await OpenFailureAsync(server)).ShouldContain("{holdfast}:meta");
        (await server.CliAsync("GET", "{holdfast}:meta")).ShouldBe("mine");
    }

    private static async Task<string> OpenFailureAsync(RedisServer server) =>
        (await Should.ThrowAsync<RedisStoreException>(() => RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: Cancel))).Message;
}
