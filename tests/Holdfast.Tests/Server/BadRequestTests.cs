using System.Net;
using System.Text;

namespace Holdfast.Tests.Server;

/// <summary>Input that breaks the contract is refused by the field's name, and nothing of it is applied.</summary>
public sealed class BadRequestTests
{
    private const string Json = "application/json";

    [Theory]
    [InlineData("/v1/deductions", Json)]
    [InlineData("/v1/batch", "application/x-ndjson")]
    public async Task A_packed_body_is_refused_by_the_header_that_says_so(string path, string contentType)
    {
        await using var server = await ServerUnderTest.StartAsync();

        var answer = await server.SendAsync(HttpMethod.Post, path, "any bytes", contentType, ("Content-Encoding", "gzip"));

        answer.ShouldBeProblem(HttpStatusCode.UnsupportedMediaType, "urn:holdfast:problem:Invalid");
        answer["field"].ShouldBe("Content-Encoding");
    }

    /// <summary>Path, content type, body; the status and the field that are answered.</summary>
    public static TheoryData<string, string, string?, string, int, string> Table
    {
        get
        {
            var sku65 = new string('x', 65);
            var cart4097 = string.Join(',', Enumerable.Range(0, 4097).Select(i => $$"""{"sku":"s{{i}}","quantity":1}"""));
            var huge = new string(' ', 3 * 1024 * 1024);
            var table = new TheoryData<string, string, string?, string, int, string>();
            Deduct("no JSON", "nope", 400, "body");
            Deduct("cut off", """{"orderId":"o1","lines":[""", 400, "body");
            Deduct("two values", """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]} {}""", 400, "body");
            Deduct("an array", "[]", 400, "body");
            Deduct("a comment", """{"orderId":"o1",/**/"lines":[{"sku":"a","quantity":1}]}""", 400, "body");
            Deduct("missing body", "", 400, "body");
            Deduct("missing id", """{"lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("id under another name", """{"id":"o1","lines":[{"sku":"a","quantity":1}]}""", 400, "id");
            Deduct("id of the wrong type", """{"orderId":7,"lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("empty id", """{"orderId":"","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("over-long id", $$"""{"orderId":"{{sku65}}","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("id with a line feed", """{"orderId":"o\n1","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("id twice", """{"orderId":"o1","orderId":"o2","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("half a surrogate pair", """{"orderId":"o\ud800","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            Deduct("half a surrogate pair in a field's name", """{"\ud800":1}""", 400, "\\ud800");
            Deduct("half a surrogate pair in the name of a line's field", """{"orderId":"o1","lines":[{"\udc00":1}]}""", 400, "\\udc00");
            Deduct("unknown field", """{"orderId":"o1","lines":[{"sku":"a","quantity":1}],"color":"red"}""", 400, "color");
            Deduct("a reservation's field", """{"orderId":"o1","ttlSeconds":9,"lines":[{"sku":"a","quantity":1}]}""", 400, "ttlSeconds");
            Deduct("no lines", """{"orderId":"o1"}""", 400, "lines");
            Deduct("empty lines", """{"orderId":"o1","lines":[]}""", 400, "lines");
            Deduct("lines of the wrong type", """{"orderId":"o1","lines":{}}""", 400, "lines");
            Deduct("a line of the wrong type", """{"orderId":"o1","lines":["a"]}""", 400, "lines[0]");
            Deduct("unknown field in a line", """{"orderId":"o1","lines":[{"sku":"a","quantity":1},{"sku":"b","quantity":1,"x":1}]}""", 400, "lines[1].x");
            Deduct("missing SKU", """{"orderId":"o1","lines":[{"quantity":1}]}""", 400, "lines[0].sku");
            Deduct("over-long SKU", $$"""{"orderId":"o1","lines":[{"sku":"{{sku65}}","quantity":1}]}""", 400, "lines[0].sku");
            Deduct("SKU with a space in front", """{"orderId":"o1","lines":[{"sku":" a","quantity":1}]}""", 400, "lines[0].sku");
            Deduct("SKU null", """{"orderId":"o1","lines":[{"sku":null,"quantity":1}]}""", 400, "lines[0].sku");
            Deduct("missing quantity", """{"orderId":"o1","lines":[{"sku":"a"}]}""", 400, "lines[0].quantity");
            Deduct("zero", """{"orderId":"o1","lines":[{"sku":"a","quantity":0}]}""", 400, "lines[0].quantity");
            Deduct("negative", """{"orderId":"o1","lines":[{"sku":"a","quantity":-1}]}""", 400, "lines[0].quantity");
            Deduct("fractional", """{"orderId":"o1","lines":[{"sku":"a","quantity":1.5}]}""", 400, "lines[0].quantity");
            Deduct("huge", """{"orderId":"o1","lines":[{"sku":"a","quantity":1000000000001}]}""", 400, "lines[0].quantity");
            Deduct("beyond any integer", """{"orderId":"o1","lines":[{"sku":"a","quantity":99999999999999999999999}]}""", 400, "lines[0].quantity");
            Deduct("quantity as text", """{"orderId":"o1","lines":[{"sku":"a","quantity":"1"}]}""", 400, "lines[0].quantity");
            Deduct("one bad line of two", """{"orderId":"o1","lines":[{"sku":"a","quantity":1},{"sku":"b","quantity":0}]}""", 400, "lines[1].quantity");
            Deduct("huge when merged", """{"orderId":"o1","lines":[{"sku":"a","quantity":1000000000000},{"sku":"a","quantity":1}]}""", 400, "lines");
            Deduct("4,097 lines", $$"""{"orderId":"o1","lines":[{{cart4097}}]}""", 400, "lines");
            Deduct("over-long note", $$"""{"orderId":"o1","note":"{{new string('n', 257)}}","lines":[{"sku":"a","quantity":1}]}""", 400, "note");
            Deduct("not UTF-8 text", "{\"orderId\":\"o1\u0001\",\"lines\":[]}", 400, "body");
            Deduct("body over the limit", $$"""{"orderId":"o1",{{huge}}"lines":[{"sku":"a","quantity":1}]}""", 413, "body");
            table.Add("no content type", "/v1/deductions", null, """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", 415, "Content-Type");
            table.Add("a form", "/v1/deductions", "application/x-www-form-urlencoded", """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", 415, "Content-Type");
            table.Add("another charset", "/v1/deductions", "application/json; charset=utf-16", """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", 415, "Content-Type");
            table.Add("reservation without time", "/v1/reservations", Json, """{"orderId":"o1","lines":[{"sku":"a","quantity":1}]}""", 400, "ttlSeconds");
            table.Add("reservation too short", "/v1/reservations", Json, """{"orderId":"o1","ttlSeconds":0.5,"lines":[{"sku":"a","quantity":1}]}""", 400, "ttlSeconds");
            table.Add("reservation too long", "/v1/reservations", Json, """{"orderId":"o1","ttlSeconds":2592001,"lines":[{"sku":"a","quantity":1}]}""", 400, "ttlSeconds");
            table.Add("refund without an order", "/v1/refunds", Json, """{"refundId":"f1","lines":[{"sku":"a","quantity":1}]}""", 400, "orderId");
            table.Add("refund without an id", "/v1/refunds", Json, """{"orderId":"sold","lines":[{"sku":"a","quantity":1}]}""", 400, "refundId");
            table.Add("negative restock", "/v1/restocks", Json, """{"restockId":"r9","lines":[{"sku":"a","quantity":-1}]}""", 400, "lines[0].quantity");
            table.Add("adjustment by nothing", "/v1/adjustments", Json, """{"adjustmentId":"j1","lines":[{"sku":"a","quantity":0}]}""", 400, "lines");
            table.Add("adjustment that adds up to nothing", "/v1/adjustments", Json, """{"adjustmentId":"j1","lines":[{"sku":"a","quantity":2},{"sku":"a","quantity":-2}]}""", 400, "lines");
            table.Add("a body where the path says everything", "/v1/operations/sold/cancel", Json, """{"reason":"x"}""", 400, "body");
            table.Add("confirm of an over-long id", $"/v1/reservations/{sku65}/confirm", Json, "", 400, "id");
            table.Add("a batch as JSON", "/v1/batch", Json, """{"verb":"deduct","id":"o1","lines":[{"sku":"a","quantity":1}]}""", 415, "Content-Type");
            return table;

            void Deduct(string name, string body, int status, string named) => table.Add(name, "/v1/deductions", Json, body, status, named);
        }
    }

    [Theory]
    [MemberData(nameof(Table), DisableDiscoveryEnumeration = true)]
    public async Task Is_refused_by_name_and_changes_nothing(string name, string path, string? contentType, string body, int status, string field)
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync("r1", [("a", 100), ("b", 100)], cancellationToken: TestContext.Current.CancellationToken);
        await server.Engine.DeductAsync("sold", [("a", 1)], cancellationToken: TestContext.Current.CancellationToken);

        var answer = await server.SendAsync(HttpMethod.Post, path, body, contentType);

        answer.ShouldBeProblem((HttpStatusCode)status, "urn:holdfast:problem:Invalid");
        answer["field"].ShouldBe(field, name);
        answer["detail"]!.ShouldStartWith(field);
        answer["retry"].ShouldBe("False");
        var operations = new List<string>();
        await foreach (var operation in server.Engine.ListOperationsAsync(new(), TestContext.Current.CancellationToken))
        {
            operations.Add($"{operation.Id} {operation.State}");
        }

        operations.ShouldBe(["r1 Applied", "sold Applied"]);
        await server.AuditAsync();
    }

    [Theory]
    [InlineData("/v1/stock?skus=a", "skus")]
    [InlineData("/v1/stock?prefix=a&prefix=b", "prefix")]
    [InlineData("/v1/stock?sku=a&prefix=b", "sku")]
    [InlineData("/v1/stock?sku=", "sku")]
    [InlineData("/v1/stock?limit=0", "limit")]
    [InlineData("/v1/stock?limit=1001", "limit")]
    [InlineData("/v1/stock?limit=ten", "limit")]
    [InlineData("/v1/stock/a?limit=1", "limit")]
    [InlineData("/v1/stock/a?maxStalenessSeconds=-1", "maxStalenessSeconds")]
    [InlineData("/v1/stock?sku=a&maxStalenessSeconds=2592001", "maxStalenessSeconds")]
    [InlineData("/v1/stock/a/flow?maxStalenessSeconds=soon", "maxStalenessSeconds")]
    [InlineData("/v1/flow?maxStalenessSeconds=1e3", "maxStalenessSeconds")]
    [InlineData("/v1/operations?maxStalenessSeconds=1", "maxStalenessSeconds")]
    [InlineData("/v1/stock/%20a", "sku")]
    [InlineData("/v1/stock/a/flow?after=nonsense", "after")]
    [InlineData("/v1/flow?after=nonsense", "after")]
    [InlineData("/v1/operations?state=sold", "state")]
    [InlineData("/v1/operations?due=maybe", "due")]
    [InlineData("/v1/operations?createdBefore=yesterday", "createdBefore")]
    [InlineData("/v1/operations?after=nonsense", "after")]
    public async Task A_bad_query_is_refused_by_name(string path, string field)
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync("r1", [("a", 100)], cancellationToken: TestContext.Current.CancellationToken);

        var answer = await server.GetAsync(path);

        answer.ShouldBeProblem(HttpStatusCode.BadRequest, "urn:holdfast:problem:Invalid");
        answer["field"].ShouldBe(field);
    }

    [Fact]
    public async Task A_body_that_goes_over_the_limit_without_saying_so_is_refused()
    {
        await using var server = await ServerUnderTest.StartAsync(settings: [("Holdfast:Http:MaxBodyBytes", "1024")]);
        using var content = new StreamContent(new MemoryStream(Encoding.UTF8.GetBytes($$"""{"orderId":"o1",{{new string(' ', 2000)}}"lines":[{"sku":"a","quantity":1}]}""")));
        content.Headers.ContentType = new("application/json");
        content.Headers.ContentLength = null;
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/deductions") { Content = content };
        request.Headers.TransferEncodingChunked = true;

        var answer = await Answer.ReadAsync(await server.Http.SendAsync(request, TestContext.Current.CancellationToken));

        answer.ShouldBeProblem(HttpStatusCode.RequestEntityTooLarge, "urn:holdfast:problem:Invalid");
    }

    [Fact]
    public async Task The_largest_valid_command_fits_into_the_default_limit()
    {
        await using var server = await ServerUnderTest.StartAsync();

        // 4,096 names of 64 characters, each escaped in six bytes.
        var lines = string.Join(',', Enumerable.Range(0, StockLimits.MaxLines).Select(i =>
            $$"""{"sku":"{{string.Concat(new string('é', 60).Concat(i.ToString("D4")).Select(c => $"\\u{(int)c:x4}"))}}","quantity":1000000000000}"""));

        var answer = await server.PostAsync("/v1/restocks", $$"""{"restockId":"r1","note":"{{string.Concat(Enumerable.Repeat("\\u00e9", 256))}}","lines":[{{lines}}]}""");

        answer.Status.ShouldBe(HttpStatusCode.OK, answer.Text[..Math.Min(300, answer.Text.Length)]);
        answer.Json.GetProperty("left").GetArrayLength().ShouldBe(StockLimits.MaxLines);
    }
}
