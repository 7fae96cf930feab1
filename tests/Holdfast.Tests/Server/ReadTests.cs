using System.Net;
using System.Text.Json;
using Holdfast.Testing;

namespace Holdfast.Tests.Server;

/// <summary>Reading over HTTP: names of every kind, pages, filters.</summary>
public sealed class ReadTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("85123A")]
    [InlineData("with space")]
    [InlineData("a/b")]
    [InlineData("a%2Fb")]
    [InlineData("a/%2F/b")]
    [InlineData("%")]
    [InlineData("a+b&c=d?e#f")]
    [InlineData("a\\b:c*\"<>|")]
    [InlineData("Größe-ß-日本-😀")]
    [InlineData("...")]
    [InlineData("flow")]
    public async Task A_name_of_any_kind_can_stand_in_a_path(string name)
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync(name, [(name, 7)], cancellationToken: Cancelled);
        var path = Uri.EscapeDataString(name);

        (await server.GetAsync($"/v1/stock/{path}"))["sku"].ShouldBe(name);
        (await server.GetAsync($"/v1/stock/{path}/flow")).Json.GetProperty("items")[0].GetProperty("sku").GetString().ShouldBe(name);
        (await server.GetAsync($"/v1/operations/{path}"))["id"].ShouldBe(name);
        (await server.SendAsync(HttpMethod.Post, $"/v1/operations/{path}/abandon", null, null))["original"].ShouldBe("Done");
    }

    [Theory]
    [InlineData(".")]
    [InlineData("..")]
    [InlineData("a/../b")]
    [InlineData("a/b%2Fc")]
    public async Task A_name_that_paths_mistake_for_a_folder_can_be_asked_for_in_the_query(string name)
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync(name, [(name, 7)], cancellationToken: Cancelled);
        var value = Uri.EscapeDataString(name);

        Skus(await server.GetAsync($"/v1/stock?sku={value}")).ShouldBe([name]);
        (await server.GetAsync($"/v1/operations?id={value}")).Json.GetProperty("items")[0].GetProperty("id").GetString().ShouldBe(name);
        (await server.GetAsync($"/v1/flow?sku={value}")).Json.GetProperty("items")[0].GetProperty("sku").GetString().ShouldBe(name);
    }

    [Fact]
    public async Task Several_skus_are_answered_in_the_order_asked_the_unknown_with_version_0()
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync("r1", [("a", 1), ("b", 2)], cancellationToken: Cancelled);

        var items = (await server.GetAsync("/v1/stock?sku=b&sku=nope&sku=a")).Json.GetProperty("items").EnumerateArray().ToList();

        items.Select(item => $"{item.GetProperty("sku")} {item.GetProperty("available")} {item.GetProperty("version")}").ShouldBe(["b 2 1", "nope 0 0", "a 1 1"]);
        (await server.GetAsync($"/v1/stock?sku=a&sku=b")).Json.TryGetProperty("next", out _).ShouldBeFalse();
    }

    [Fact]
    public async Task A_thousand_long_names_can_be_asked_for_at_once_and_no_more()
    {
        await using var server = await ServerUnderTest.StartAsync();
        var thousand = string.Join('&', Enumerable.Range(0, 1000).Select(i => $"sku={i:D59}"));

        (await server.GetAsync($"/v1/stock?{thousand}")).Json.GetProperty("items").GetArrayLength().ShouldBe(1000);
        (await server.GetAsync($"/v1/stock?{string.Join('&', Enumerable.Repeat("sku=a", 1001))}"))["field"].ShouldBe("sku");
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(25)]
    [InlineData(1000)]
    public async Task Listings_come_in_pages_that_neither_repeat_nor_omit(int limit)
    {
        await using var server = await ServerUnderTest.StartAsync();
        var skus = Enumerable.Range(0, 25).Select(i => $"shelf/{i:D2}").ToArray();
        await server.Engine.RestockAsync("other", [("elsewhere", 1)], cancellationToken: Cancelled);
        foreach (var sku in skus)
        {
            await server.Engine.RestockAsync($"r {sku}", [(sku, 1)], cancellationToken: Cancelled);
        }

        var listed = await PagesAsync(server, "/v1/stock?prefix=shelf%2F", limit);
        listed.Select(item => item.GetProperty("sku").GetString()).ShouldBe(skus);
        var operations = await PagesAsync(server, "/v1/operations?state=applied", limit);
        operations.Select(item => item.GetProperty("id").GetString()).ShouldBe(["other", .. skus.Select(sku => $"r {sku}")]);
        var flow = await PagesAsync(server, "/v1/flow?", limit);
        flow.Select(item => item.GetProperty("operationId").GetString()).ShouldBe(["other", .. skus.Select(sku => $"r {sku}")]);
    }

    [Fact]
    public async Task Operations_are_found_by_state_target_time_and_dueness()
    {
        var clock = new ManualTimeProvider();
        await using var server = await ServerUnderTest.StartAsync(clock: clock, settings: [("Holdfast:Sweeper:Enabled", "false")]);
        await server.Engine.RestockAsync("r1", [("a", 10)], cancellationToken: Cancelled);
        await server.Engine.ReserveAsync("h1", [("a", 1)], TimeSpan.FromSeconds(5), cancellationToken: Cancelled);
        await server.Engine.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled);
        clock.Advance(TimeSpan.FromSeconds(10));
        await server.Engine.RefundAsync("f1", "o1", [("a", 1)], cancellationToken: Cancelled);
        await server.Engine.RestockAsync("b1", [("b", 10)], cancellationToken: Cancelled);
        await server.Engine.ReserveAsync("h2", [("b", 1)], TimeSpan.FromSeconds(5), cancellationToken: Cancelled);
        await server.Engine.ReserveAsync("h3", [("b", 1)], TimeSpan.FromSeconds(60), cancellationToken: Cancelled);
        clock.Advance(TimeSpan.FromSeconds(5));

        (await IdsAsync("/v1/operations?target=o1")).ShouldBe(["f1"]);
        (await IdsAsync("/v1/operations?state=reserved")).ShouldBe(["h3"]);
        (await IdsAsync("/v1/operations?state=expired")).ShouldBe(["h1", "h2"]);
        (await IdsAsync("/v1/operations?due=true")).ShouldBe(["h2"], "h1 was released when units of its SKU moved");
        (await IdsAsync("/v1/operations?createdBefore=2010-12-01T00:00:01Z")).ShouldBe(["r1", "h1", "o1"]);
        (await IdsAsync("/v1/operations?id=h2")).ShouldBe(["h2"]);
        (await IdsAsync("/v1/operations?id=h9")).ShouldBe([]);

        async Task<IEnumerable<string?>> IdsAsync(string path) =>
            (await server.GetAsync(path)).Json.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("id").GetString());
    }

    [Fact]
    public async Task The_info_says_what_runs_here()
    {
        await using var server = await ServerUnderTest.StartAsync();
        var info = await server.GetAsync("/v1/info");

        info["name"].ShouldBe("Holdfast");
        info["version"].ShouldNotBeNullOrEmpty();
        info["scheme"].ShouldBe("custom");
        info.Json.GetProperty("traits").EnumerateArray().Select(trait => trait.GetString())
            .ShouldBe(["AtomicCart", "ExactRefusal", "RealTimeLedger", "ReadYourWrites", "ImmediateVerdict", "GlobalIds"]);
    }

    [Theory]
    [InlineData("/v1/stock/a")]
    [InlineData("/v1/stock?sku=a")]
    public async Task A_store_that_can_t_be_read_just_now_is_worth_asking_again(string path)
    {
        var engine = new ScriptedEngine(StockResult.Of(StockStatus.Busy)) { BeforeReads = _ => throw new IOException("Waited 10 s for a connection to read the stock file 'secret.db'.") };
        await using var server = await ServerUnderTest.StartAsync(engine);

        var answer = await server.GetAsync(path);

        answer.ShouldBeProblem(HttpStatusCode.ServiceUnavailable, "urn:holdfast:problem:StoreUnavailable");
        answer["retry"].ShouldBe("True");
        answer.Text.ShouldNotContain("secret.db");
        server.Log.Lines.ShouldContain(line => line.Level == Microsoft.Extensions.Logging.LogLevel.Error && line.Text.Contains("could not be read"));
    }

    private static IEnumerable<string?> Skus(Answer answer)
    {
        answer.Status.ShouldBe(HttpStatusCode.OK, answer.Text);
        return answer.Json.GetProperty("items").EnumerateArray().Select(item => item.GetProperty("sku").GetString());
    }

    private static async Task<List<JsonElement>> PagesAsync(ServerUnderTest server, string path, int limit)
    {
        var items = new List<JsonElement>();
        string? next = null;
        do
        {
            var page = await server.GetAsync($"{path}&limit={limit}{(next is null ? "" : $"&after={Uri.EscapeDataString(next)}")}");
            page.Status.ShouldBe(HttpStatusCode.OK, page.Text);
            items.AddRange(page.Json.GetProperty("items").EnumerateArray());
            next = page["next"];
            if (next is not null)
            {
                page.Json.GetProperty("items").GetArrayLength().ShouldBe(limit);
            }
        }
        while (next is not null);
        return items;
    }
}
