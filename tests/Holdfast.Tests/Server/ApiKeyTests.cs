using System.Net;
using System.Security.Cryptography;
using System.Text;

namespace Holdfast.Tests.Server;

/// <summary>Keys: asked for as soon as one is configured, and each with its roles.</summary>
public sealed class ApiKeyTests
{
    private const string Reader = "reader-key-0123456789";
    private const string Seller = "seller-key-0123456789";
    private const string Stocker = "stocker-key-0123456789";

    private static readonly (string, string)[] s_settings =
    [
        ("Holdfast:ApiKeys:0:Name", "reports"), ("Holdfast:ApiKeys:0:Key", Reader), ("Holdfast:ApiKeys:0:Roles:0", "read"),
        ("Holdfast:ApiKeys:1:Name", "shop"), ("Holdfast:ApiKeys:1:Key", Seller), ("Holdfast:ApiKeys:1:Roles:0", "sell"), ("Holdfast:ApiKeys:1:Roles:1", "read"),
        ("Holdfast:ApiKeys:2:Name", "warehouse"),
        ("Holdfast:ApiKeys:2:KeySha256", Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(Stocker)))),
        ("Holdfast:ApiKeys:2:Roles:0", "stock"),
    ];

    public static TheoryData<string, string, string, string> Doors => new()
    {
        { "POST", "/v1/deductions", """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", Seller },
        { "POST", "/v1/reservations", """{"orderId":"o1","ttlSeconds":9,"lines":[{"sku":"a","quantity":1}]}""", Seller },
        { "POST", "/v1/reservations/o1/confirm", "", Seller },
        { "POST", "/v1/operations/o1/cancel", "", Seller },
        { "POST", "/v1/operations/o1/abandon", "", Seller },
        { "POST", "/v1/refunds", """{"refundId":"f1","orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", Seller },
        { "POST", "/v1/restocks", """{"restockId":"r1","lines":[{"sku":"a","quantity":1}]}""", Stocker },
        { "POST", "/v1/adjustments", """{"adjustmentId":"j1","lines":[{"sku":"a","quantity":1}]}""", Stocker },
        { "GET", "/v1/stock?prefix=a", "", Reader },
        { "GET", "/v1/stock/a", "", Reader },
        { "GET", "/v1/stock/a/flow", "", Reader },
        { "GET", "/v1/flow", "", Reader },
        { "GET", "/v1/operations", "", Reader },
        { "GET", "/v1/operations/r0", "", Reader },
    };

    [Theory]
    [MemberData(nameof(Doors))]
    public async Task Each_endpoint_opens_to_its_role_only(string method, string path, string body, string key)
    {
        await using var server = await ServerUnderTest.StartAsync(settings: s_settings);
        await server.Engine.RestockAsync("r0", [("a", 10)], cancellationToken: TestContext.Current.CancellationToken);
        var verb = new HttpMethod(method);
        var content = body.Length == 0 ? null : body;

        (await server.SendAsync(verb, path, content, "application/json")).ShouldBeProblem(HttpStatusCode.Unauthorized, "urn:holdfast:problem:Unauthorized");
        (await server.SendAsync(verb, path, content, "application/json", ("X-Api-Key", "not-a-key-of-this-server"))).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await server.SendAsync(verb, path, content, "application/json", ("X-Api-Key", key[..^1]))).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await server.SendAsync(verb, path, content, "application/json", ("Authorization", $"Basic {key}"))).Status.ShouldBe(HttpStatusCode.Unauthorized);
        foreach (var other in new[] { Reader, Seller, Stocker }.Where(other => other != key && !(other == Seller && key == Reader)))
        {
            (await server.SendAsync(verb, path, content, "application/json", ("X-Api-Key", other))).ShouldBeProblem(HttpStatusCode.Forbidden, "urn:holdfast:problem:Forbidden");
        }

        (await server.SendAsync(verb, path, content, "application/json", ("X-Api-Key", key))).Status.ShouldNotBeOneOf(HttpStatusCode.Unauthorized, HttpStatusCode.Forbidden);
        (await server.SendAsync(verb, path, content, "application/json", ("Authorization", $"Bearer {key}"))).Status.ShouldNotBeOneOf(HttpStatusCode.Unauthorized, HttpStatusCode.Forbidden);
        await server.AuditAsync();
    }

    [Fact]
    public async Task In_a_batch_each_line_is_checked_by_itself()
    {
        await using var server = await ServerUnderTest.StartAsync(settings: s_settings);
        const string lines = """
            {"verb":"restock","id":"r1","lines":[{"sku":"a","quantity":10}]}
            {"verb":"deduct","id":"o1","lines":[{"sku":"a","quantity":1}]}
            """;

        (await server.SendAsync(HttpMethod.Post, "/v1/batch", lines, "application/x-ndjson")).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await OutcomesAsync(Reader)).ShouldBe(["Forbidden", "Forbidden"]);
        (await OutcomesAsync(Seller)).ShouldBe(["Forbidden", "UnknownSku"]);
        (await OutcomesAsync(Stocker)).ShouldBe(["Done", "Forbidden"]);
        (await OutcomesAsync(Seller)).ShouldBe(["Forbidden", "Done"]);

        async Task<IEnumerable<string?>> OutcomesAsync(string key) =>
            (await server.BatchAsync(lines, ("X-Api-Key", key))).Select(answer => answer.GetProperty("outcome").GetString());
    }

    [Theory]
    [InlineData("/health/live")]
    [InlineData("/health/ready")]
    [InlineData("/openapi/v1.json")]
    public async Task Health_and_description_are_open(string path)
    {
        await using var server = await ServerUnderTest.StartAsync(settings: s_settings);
        (await server.GetAsync(path)).Status.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Any_valid_key_may_ask_what_runs_here()
    {
        await using var server = await ServerUnderTest.StartAsync(settings: s_settings);
        (await server.GetAsync("/v1/info")).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await server.SendAsync(HttpMethod.Get, "/v1/info", null, null, ("X-Api-Key", Stocker))).Status.ShouldBe(HttpStatusCode.OK);
    }
}
