using System.Net;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Server;

/// <summary>What the server answers to commands, and to what goes wrong on the way.</summary>
public sealed class AnswerTests
{
    private const string Order = """{"orderId":"o1","lines":[{"sku":"85123A","quantity":6}]}""";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_first_steps_of_the_readme()
    {
        await using var server = await ServerUnderTest.StartAsync();

        var restocked = await server.PostAsync("/v1/restocks", """{"restockId":"r1","lines":[{"sku":"85123A","quantity":10}]}""");
        restocked.Status.ShouldBe(HttpStatusCode.OK);
        restocked.Text.ShouldBe("""{"outcome":"Done","retry":false,"acknowledgedBy":"Memory","left":[{"sku":"85123A","available":10}]}""");

        (await server.PostAsync("/v1/deductions", Order)).Text
            .ShouldBe("""{"outcome":"Done","retry":false,"acknowledgedBy":"Memory","left":[{"sku":"85123A","available":4}]}""");
        (await server.PostAsync("/v1/deductions", Order)).Text
            .ShouldBe("""{"outcome":"Replayed","retry":false,"original":"Done","acknowledgedBy":"Memory","left":[{"sku":"85123A","available":4}]}""");

        var short_ = await server.PostAsync("/v1/deductions", Order.Replace("o1", "o2", StringComparison.Ordinal));
        short_.ShouldBeProblem(HttpStatusCode.Conflict, "urn:holdfast:outcome:Insufficient");
        short_["sku"].ShouldBe("85123A");
        short_["available"].ShouldBe("4");

        (await server.PostAsync("/v1/refunds", """{"refundId":"f1","orderId":"o1","lines":[{"sku":"85123A","quantity":2}]}""")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.PostAsync("/v1/adjustments", """{"adjustmentId":"j1","lines":[{"sku":"85123A","quantity":-1}],"note":"broken"}""")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.PostAsync("/v1/reservations", """{"orderId":"h1","ttlSeconds":60,"lines":[{"sku":"85123A","quantity":1}]}""")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.PostAsync("/v1/reservations/h1/confirm", "")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.PostAsync("/v1/operations/h1/cancel", "{}")).Status.ShouldBe(HttpStatusCode.OK);
        (await server.SendAsync(HttpMethod.Post, "/v1/operations/never/abandon", null, null)).Status.ShouldBe(HttpStatusCode.OK);

        (await server.GetAsync("/v1/stock/85123A")).Text
            .ShouldBe("""{"sku":"85123A","available":5,"reserved":0,"sold":4,"restocked":10,"adjusted":-1,"version":7}""");
        var flow = (await server.GetAsync("/v1/stock/85123A/flow")).Json.GetProperty("items");
        flow.EnumerateArray().Select(entry => $"{entry.GetProperty("version")} {entry.GetProperty("kind")} {entry.GetProperty("operationId")}")
            .ShouldBe(["1 restock r1", "2 deduct o1", "3 refund f1", "4 adjust j1", "5 reserve h1", "6 confirm h1", "7 cancel h1"]);
        var order = await server.GetAsync("/v1/operations/o1");
        order["state"].ShouldBe("applied");
        order.Json.GetProperty("lines")[0].GetProperty("refunded").GetInt64().ShouldBe(2);
        await server.AuditAsync();
    }

    [Theory]
    [InlineData(StockStatus.Done, StockStatus.None, 200)]
    [InlineData(StockStatus.KeyConflict, StockStatus.None, 409)]
    [InlineData(StockStatus.Cancelled, StockStatus.None, 410)]
    [InlineData(StockStatus.Expired, StockStatus.None, 410)]
    [InlineData(StockStatus.Replayed, StockStatus.Done, 200)]
    [InlineData(StockStatus.Replayed, StockStatus.Cancelled, 200)]
    [InlineData(StockStatus.Replayed, StockStatus.Expired, 200)]
    [InlineData(StockStatus.Replayed, StockStatus.Insufficient, 409)]
    [InlineData(StockStatus.UnknownTarget, StockStatus.None, 404)]
    [InlineData(StockStatus.InvalidTargetState, StockStatus.None, 409)]
    [InlineData(StockStatus.UnknownSku, StockStatus.None, 404)]
    [InlineData(StockStatus.ExceedsLimit, StockStatus.None, 422)]
    [InlineData(StockStatus.ExceedsDeducted, StockStatus.None, 409)]
    [InlineData(StockStatus.Insufficient, StockStatus.None, 409)]
    [InlineData(StockStatus.Busy, StockStatus.None, 429)]
    [InlineData(StockStatus.InDoubt, StockStatus.None, 503)]
    [InlineData(StockStatus.Pending, StockStatus.None, 202)]
    public async Task Every_outcome_has_its_status(StockStatus outcome, StockStatus original, int status)
    {
        await using var server = await ServerUnderTest.StartAsync(new ScriptedEngine(new StockResult { Status = outcome, Original = original }));

        var answer = await server.PostAsync("/v1/deductions", Order);

        answer.Status.ShouldBe((HttpStatusCode)status, answer.Text);
        answer["outcome"].ShouldBe(outcome.ToString());
        answer["retry"].ShouldBe((outcome is StockStatus.Busy or StockStatus.InDoubt).ToString());
        (answer.Response.Headers.RetryAfter is not null).ShouldBe(outcome is StockStatus.Busy or StockStatus.InDoubt);
        if (status < 400)
        {
            answer.ContentType.ShouldBe("application/json");
        }
        else
        {
            answer.ContentType.ShouldBe("application/problem+json");
            answer["type"].ShouldBe($"urn:holdfast:outcome:{(original == StockStatus.None ? outcome : original)}");
        }
    }

    [Fact]
    public void No_outcome_lacks_a_status()
    {
        var tested = typeof(AnswerTests).GetMethod(nameof(Every_outcome_has_its_status))!.GetCustomAttributes(typeof(InlineDataAttribute), false)
            .Cast<InlineDataAttribute>().Select(data => (StockStatus)data.Data[0]!);
        tested.Distinct().Order().ShouldBe(Enum.GetValues<StockStatus>().Where(status => status != StockStatus.None));
    }

    [Fact]
    public async Task An_engine_that_does_not_answer_in_time_leaves_a_write_in_doubt_and_a_read_busy()
    {
        var engine = new ScriptedEngine(new MemoryEngine(), static async (_, cancellationToken) =>
        {
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken);
            return [];
        })
        { BeforeReads = static cancellationToken => Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken) };
        await using var server = await ServerUnderTest.StartAsync(engine, settings: [("Holdfast:Http:RequestTimeout", "00:00:00.2"), ("Holdfast:Sweeper:Enabled", "false")]);

        (await server.PostAsync("/v1/deductions", Order)).ShouldBeProblem(HttpStatusCode.ServiceUnavailable, "urn:holdfast:outcome:InDoubt");
        (await server.GetAsync("/v1/stock/85123A")).ShouldBeProblem(HttpStatusCode.TooManyRequests, "urn:holdfast:outcome:Busy");
        (await server.BatchAsync("""{"verb":"cancel","target":"o1"}"""))[0].GetProperty("outcome").GetString().ShouldBe("InDoubt");
    }

    [Fact]
    public async Task A_failure_is_logged_and_told_without_its_inside()
    {
        var engine = new ScriptedEngine(new MemoryEngine(), static (_, _) => throw new InvalidOperationException("secret inside"));
        await using var server = await ServerUnderTest.StartAsync(engine);

        var answer = await server.PostAsync("/v1/deductions", Order);

        answer.ShouldBeProblem(HttpStatusCode.InternalServerError, "urn:holdfast:problem:InternalError");
        answer.Text.ShouldNotContain("secret");
        server.Log.Lines.ShouldContain(line => line.Level == LogLevel.Error && line.Exception is InvalidOperationException);
        (await server.BatchAsync("""{"verb":"cancel","target":"o1"}"""))[0].GetProperty("outcome").GetString().ShouldBe("InDoubt");
    }

    [Fact]
    public async Task Past_the_bound_of_requests_at_work_callers_are_told_busy_and_health_still_answers()
    {
        var release = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var inner = new MemoryEngine();
        var engine = new ScriptedEngine(inner, async (commands, cancellationToken) =>
        {
            entered.TrySetResult();
            await release.Task.WaitAsync(cancellationToken);
            return await inner.ExecuteAsync(commands, cancellationToken);
        });
        await using var server = await ServerUnderTest.StartAsync(engine, settings: [("Holdfast:Http:MaxConcurrentRequests", "1")]);
        var first = server.PostAsync("/v1/restocks", """{"restockId":"r1","lines":[{"sku":"a","quantity":1}]}""");
        await entered.Task.WaitAsync(Cancelled);

        var second = await server.GetAsync("/v1/stock/a");
        second.ShouldBeProblem(HttpStatusCode.TooManyRequests, "urn:holdfast:outcome:Busy");
        second["retry"].ShouldBe("True");
        second.Response.Headers.RetryAfter.ShouldNotBeNull();
        (await server.GetAsync("/health/live")).Status.ShouldBe(HttpStatusCode.OK);

        release.SetResult();
        (await first).Status.ShouldBe(HttpStatusCode.OK);
        (await server.GetAsync("/v1/stock/a")).Status.ShouldBe(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("GET", "/", 404, "urn:holdfast:problem:NotFound")]
    [InlineData("GET", "/v1/nothing", 404, "urn:holdfast:problem:NotFound")]
    [InlineData("GET", "/v1/deductions", 405, "urn:holdfast:problem:MethodNotAllowed")]
    [InlineData("DELETE", "/v1/stock/a", 405, "urn:holdfast:problem:MethodNotAllowed")]
    [InlineData("GET", "/v1/stock/never", 404, "urn:holdfast:outcome:UnknownSku")]
    [InlineData("GET", "/v1/stock/never/flow", 404, "urn:holdfast:outcome:UnknownSku")]
    [InlineData("GET", "/v1/operations/never", 404, "urn:holdfast:problem:UnknownOperation")]
    public async Task What_is_not_there_is_a_problem_too(string method, string path, int status, string type)
    {
        await using var server = await ServerUnderTest.StartAsync();
        (await server.SendAsync(new(method), path, null, null)).ShouldBeProblem((HttpStatusCode)status, type);
    }
}
