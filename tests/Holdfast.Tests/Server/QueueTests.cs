using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Tests.Cli;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Server;

/// <summary>The queue over HTTP: orders accepted at once, verdicts asked for, waited for and told, dead letters.</summary>
public sealed class QueueTests
{
    private const string Secret = "a-secret-of-a-receiver";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_order_is_accepted_at_once_and_its_verdict_waited_for()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory");
        await RestockAsync(server, "85123A", 1);
        var accepted = await OrderAsync(server, "order/1");
        accepted.Status.ShouldBe(HttpStatusCode.Accepted);
        accepted.Text.ShouldBe("""{"id":"order/1","outcome":"Pending","retry":false,"acknowledgedBy":"Queue"}""");
        accepted.Response.Headers.Location!.OriginalString.ShouldBe("/v1/operations/order%2F1");
        var done = await server.GetAsync("/v1/operations/order%2F1?wait=30");
        done.Status.ShouldBe(HttpStatusCode.OK, done.Text);
        (done["state"], Verdict(done, "outcome")).ShouldBe(("applied", "Done"));

        // A refusal is a verdict like any other, and final on every way.
        (await OrderAsync(server, "order-2")).Status.ShouldBe(HttpStatusCode.Accepted);
        var refused = await server.GetAsync("/v1/operations/order-2?wait=30");
        (refused.Status, Verdict(refused, "outcome"), Verdict(refused, "sku"), Verdict(refused, "available")).ShouldBe((HttpStatusCode.OK, "Insufficient", "85123A", "0"));
        await RestockAsync(server, "85123A", 5);
        (await server.PostAsync("/v1/deductions", """{"orderId":"order-2","lines":[{"sku":"85123A","quantity":1}]}""")).ShouldBeProblem(HttpStatusCode.Gone, "urn:holdfast:outcome:Cancelled");
        Verdict(await server.GetAsync("/v1/operations/order-2"), "outcome").ShouldBe("Insufficient");

        // The synchronous endpoints work beside it, on the same stock.
        (await server.PostAsync("/v1/deductions", """{"orderId":"order-3","lines":[{"sku":"85123A","quantity":2}]}"""))["outcome"].ShouldBe("Done");

        // Nothing known is pending, not a 404: it may be on its way.
        var pending = await server.GetAsync("/v1/operations/order-4?wait=0.05");
        (pending.Status, pending["outcome"]).ShouldBe((HttpStatusCode.Accepted, "Pending"));
        pending.Response.Headers.RetryAfter!.Delta.ShouldBe(TimeSpan.FromSeconds(1));
        (await server.GetAsync("/v1/operations/order-4?wait=61")).ShouldBeProblem(HttpStatusCode.BadRequest, "urn:holdfast:problem:Invalid");
        await server.AuditAsync();
    }

    [Fact]
    public async Task Any_command_may_be_queued_and_what_has_no_id_gets_one_to_ask_by()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory");
        await RestockAsync(server, "A", 3);
        (await OrderAsync(server, "o1", "A")).Status.ShouldBe(HttpStatusCode.Accepted);
        var cancel = await server.PostAsync("/v1/queue", """{"verb":"cancel","target":"o1"}""");
        cancel.Status.ShouldBe(HttpStatusCode.Accepted);
        var told = await server.GetAsync(cancel.Response.Headers.Location!.OriginalString + "?wait=30");
        (told["verb"], told["operationId"], Verdict(told, "outcome")).ShouldBe(("cancel", "o1", "Done"));
        var refund = await server.PostAsync("/v1/queue?requestId=mine&deadlineSeconds=2", """{"verb":"refund","id":"f1","target":"o1","lines":[{"sku":"A","quantity":1}]}""");
        refund.Response.Headers.Location!.OriginalString.ShouldBe("/v1/operations/mine");
        Verdict(await server.GetAsync("/v1/operations/mine?wait=30"), "outcome").ShouldBe("InvalidTargetState");
        (await server.PostAsync("/v1/queue?deadlineSeconds=0", """{"verb":"cancel","target":"o1"}""")).ShouldBeProblem(HttpStatusCode.BadRequest, "urn:holdfast:problem:Invalid");
        (await server.PostAsync("/v1/orders", """{"orderId":"o1"}"""))["field"].ShouldBe("lines");
        (await server.GetAsync("/v1/stock/A"))["available"].ShouldBe("3");
    }

    [Fact]
    public async Task A_full_queue_answers_429_and_what_it_took_is_decided()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory", ("Holdfast:Queue:Consume", "false"), ("Holdfast:Queue:MaxMessages", "4"));
        await RestockAsync(server, "A", 10);
        for (var i = 0; i < 4; i++)
        {
            (await OrderAsync(server, $"o{i}", "A")).Status.ShouldBe(HttpStatusCode.Accepted);
        }

        var full = await OrderAsync(server, "o4", "A");
        full.ShouldBeProblem(HttpStatusCode.TooManyRequests, "urn:holdfast:outcome:Busy");
        full.Response.Headers.RetryAfter!.Delta.ShouldBe(TimeSpan.FromSeconds(1));
        var state = await server.GetAsync("/v1/queue");
        (state["waiting"], state["inFlight"], state["consuming"], state["dead"]).ShouldBe(("4", "0", "False", "0"));
        var queue = server.App.Services.GetRequiredService<OpenedSchemeAccessor>().Scheme.Queue!;
        queue.Start();
        for (var i = 0; i < 4; i++)
        {
            Verdict(await server.GetAsync($"/v1/operations/o{i}?wait=30"), "outcome").ShouldBe("Done");
        }

        (await OrderAsync(server, "o4", "A")).Status.ShouldBe(HttpStatusCode.Accepted);
    }

    [Fact]
    public async Task The_verdict_comes_as_an_event()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory");
        await RestockAsync(server, "A", 1);
        using var stream = await server.Http.GetAsync("/v1/operations/o1/events", HttpCompletionOption.ResponseHeadersRead, Cancelled);
        stream.Content.Headers.ContentType!.MediaType.ShouldBe("text/event-stream");
        (await OrderAsync(server, "o1", "A")).Status.ShouldBe(HttpStatusCode.Accepted);
        var text = await stream.Content.ReadAsStringAsync(Cancelled);
        text.ShouldStartWith("retry: 1000\n\n");
        var lines = text.Split('\n');
        lines.ShouldContain("event: verdict");
        var data = JsonDocument.Parse(lines.Single(line => line.StartsWith("data: ", StringComparison.Ordinal))[6..]).RootElement;
        (data.GetProperty("id").GetString(), data.GetProperty("verdict").GetProperty("outcome").GetString()).ShouldBe(("o1", "Done"));
    }

    /// <summary>Past the bound nobody waits: the stream ends and the receiver comes again, instead of asking the store as fast as it can.</summary>
    [Fact]
    public async Task An_event_stream_past_the_bound_of_waiters_ends()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory", ("Holdfast:Queue:Limits:MaxVerdictWaiters", "0"));
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Cancelled);
        limit.CancelAfter(TimeSpan.FromSeconds(10));
        (await server.Http.GetStringAsync("/v1/operations/o1/events", limit.Token)).ShouldBe("retry: 1000\n\n");
        await RestockAsync(server, "A", 1);
        (await OrderAsync(server, "o1", "A")).Status.ShouldBe(HttpStatusCode.Accepted);
        await UntilAsync(async () => (await server.Http.GetStringAsync("/v1/operations/o1/events", limit.Token)).Contains("event: verdict", StringComparison.Ordinal));
    }

    /// <summary>A real receiver that fails at first: each verdict arrives signed, at least once, and what is never taken is given up and counted.</summary>
    [Fact]
    public async Task A_webhook_gets_each_verdict_signed_until_it_takes_it()
    {
        var received = new ConcurrentQueue<(string Id, string Outcome, int Attempt)>();
        var problems = new ConcurrentQueue<string>();
        await using var receiver = await ReceiveAsync(async context =>
        {
            using var reader = new StreamReader(context.Request.Body);
            var body = await reader.ReadToEndAsync(Cancelled);
            var signature = context.Request.Headers["Holdfast-Signature"].ToString();
            var stamp = signature[2..signature.IndexOf(',', StringComparison.Ordinal)];
            var expected = $"t={stamp},v1={Convert.ToHexStringLower(HMACSHA256.HashData(Encoding.UTF8.GetBytes(Secret), Encoding.UTF8.GetBytes($"{stamp}.{body}")))}";
            if (signature != expected)
            {
                problems.Enqueue($"{signature} should be {expected}");
            }

            var json = JsonDocument.Parse(body).RootElement;
            var attempt = int.Parse(context.Request.Headers["Holdfast-Attempt"].ToString(), System.Globalization.CultureInfo.InvariantCulture);
            var id = json.GetProperty("id").GetString()!;
            received.Enqueue((id, json.GetProperty("verdict").GetProperty("outcome").GetString()!, attempt));
            return id == "never" || (id == "o2" && attempt < 3) ? 503 : 204;
        });
        await using var server = await ServerUnderTest.StartSchemeAsync(
            "queued", "memory",
            ("Holdfast:Queue:Webhook:Url", receiver.Urls.First() + "/verdicts"), ("Holdfast:Queue:Webhook:Secret", Secret), ("Holdfast:Queue:Webhook:MaxAttempts", "4"),
            ("Holdfast:Queue:Webhook:RetryDelay", "00:00:00.02"), ("Holdfast:Queue:Webhook:Interval", "00:00:00.02"));
        await RestockAsync(server, "A", 1);
        foreach (var id in (string[])["o1", "o2", "never"])
        {
            (await OrderAsync(server, id, "A")).Status.ShouldBe(HttpStatusCode.Accepted);
        }

        await UntilAsync(async () => (await server.GetAsync("/v1/queue")).Json.GetProperty("webhook") is var webhook
            && webhook.GetProperty("waiting").GetInt64() == 0 && webhook.GetProperty("givenUp").GetInt64() == 1);
        problems.ShouldBeEmpty();
        var outcomes = new List<string>();
        foreach (var id in (string[])["o1", "o2", "never"])
        {
            var outcome = Verdict(await server.GetAsync($"/v1/operations/{id}?wait=30"), "outcome")!;
            outcomes.Add(outcome);
            received.Where(each => each.Id == id).ShouldAllBe(each => each.Outcome == outcome);
        }

        outcomes.Order().ShouldBe(["Done", "Insufficient", "Insufficient"]);
        received.Where(each => each.Id == "o2").Max(each => each.Attempt).ShouldBe(3);
        received.Where(each => each.Id == "never").Max(each => each.Attempt).ShouldBe(4);
        server.Log.Lines.Count(line => line.Level == LogLevel.Error && line.Text.Contains("never", StringComparison.Ordinal) && line.Text.Contains("given up", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public async Task Dead_letters_are_seen_sent_again_and_dropped()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory", ("Holdfast:Queue:Limits:MaxDeliveries", "2"));
        await RestockAsync(server, "A", 1);
        var queue = server.App.Services.GetRequiredService<OpenedSchemeAccessor>().Scheme.Queue!;
        await queue.Transport.SendAsync([new(0, "no JSON"u8.ToArray())], Cancelled);

        // A message that ends its consumer again and again goes to the dead letters, too, and its id is closed.
        var falls = 0;
        queue.Failpoint = step => step == Holdfast.Queueing.ConsumerStep.Received && Interlocked.Increment(ref falls) <= 6 ? throw new InvalidOperationException("The process ends.") : ValueTask.CompletedTask;
        await OrderAsync(server, "o1", "A");
        await UntilAsync(async () => (await server.GetAsync("/v1/queue"))["dead"] == "2");
        Verdict(await server.GetAsync("/v1/operations/o1?wait=30"), "outcome").ShouldBe("Cancelled");
        var url = server.Http.BaseAddress!.AbsoluteUri.TrimEnd('/');
        var peek = await CommandRun.RunAsync("queue", "peek", "--store", url, "--json");
        peek.ExitCode.ShouldBe(0, peek.Error);
        var letters = peek.Json.GetProperty("letters").EnumerateArray().ToArray();
        letters.Length.ShouldBe(2);
        var bad = letters.Single(letter => letter.GetProperty("reason").GetString()!.Contains("no command", StringComparison.Ordinal)).GetProperty("letter").GetString()!;
        var good = letters.Single(letter => letter.GetProperty("reason").GetString()!.Contains("never finished", StringComparison.Ordinal)).GetProperty("letter").GetString()!;
        (await CommandRun.RunAsync("queue", "peek", "--store", url)).Output.ShouldContain("no JSON");
        (await CommandRun.RunAsync("queue", "requeue", bad, "--as", "x", "--store", url)).ExitCode.ShouldBe(1);
        (await CommandRun.RunAsync("queue", "requeue", good, "--as", "o1-again", "--store", url)).ShouldBe(new CommandRun(0, $"queue: letter {good} was sent again as o1-again{Environment.NewLine}", ""));
        Verdict(await server.GetAsync("/v1/operations/o1-again?wait=30"), "outcome").ShouldBe("Done");
        (await CommandRun.RunAsync("queue", "drop", bad, "--store", url)).ExitCode.ShouldBe(0);
        (await CommandRun.RunAsync("queue", "drop", bad, "--store", url)).ExitCode.ShouldBe(1);
        (await server.GetAsync("/v1/queue"))["dead"].ShouldBe("0");
        (await CommandRun.RunAsync("queue", "peek", "--store", "sqlite:")).ExitCode.ShouldBe(2);
    }

    [Fact]
    public async Task The_answers_have_the_shapes_that_the_description_says()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync("queued", "memory");
        await RestockAsync(server, "A", 1);
        var schemas = (await server.GetAsync("/openapi/v1.json")).Json.GetProperty("components").GetProperty("schemas");
        ShouldFit(await server.GetAsync("/v1/queue"), schemas.GetProperty("QueueState"));
        ShouldFit(await OrderAsync(server, "o1", "A"), schemas.GetProperty("Pending"));
        var confirm = await server.PostAsync("/v1/queue", """{"verb":"cancel","target":"o1"}""");
        ShouldFit(await server.GetAsync(confirm.Response.Headers.Location!.OriginalString + "?wait=30"), schemas.GetProperty("Verdict"));
        var known = schemas.GetProperty("Operation").GetProperty("properties").EnumerateObject().Select(property => property.Name).ToHashSet();
        (await server.GetAsync("/v1/operations/o1")).Json.EnumerateObject().ShouldAllBe(property => known.Contains(property.Name));
        await server.App.Services.GetRequiredService<OpenedSchemeAccessor>().Scheme.Queue!.MeasureAsync(Cancelled);
        Gauges().ShouldBe(["holdfast.intake.dead", "holdfast.intake.deferred", "holdfast.intake.in_flight", "holdfast.intake.oldest", "holdfast.intake.waiting"], ignoreOrder: true);
    }

    [Fact]
    public async Task Without_a_queue_they_say_so()
    {
        await using var server = await ServerUnderTest.StartAsync();
        (await OrderAsync(server, "o1", "A")).ShouldBeProblem(HttpStatusCode.NotFound, "urn:holdfast:problem:NoQueue");
        (await server.GetAsync("/v1/queue")).ShouldBeProblem(HttpStatusCode.NotFound, "urn:holdfast:problem:NoQueue");
        (await server.GetAsync("/v1/operations/o1/events")).ShouldBeProblem(HttpStatusCode.NotFound, "urn:holdfast:problem:NoQueue");
        (await server.GetAsync("/v1/operations/o1?wait=1"))["field"].ShouldBe("wait");
        (await CommandRun.RunAsync("queue", "peek", "--store", server.Http.BaseAddress!.AbsoluteUri)).Error.ShouldContain("without a queue");
    }

    [Fact]
    public async Task A_key_needs_the_role_of_the_verb()
    {
        await using var server = await ServerUnderTest.StartSchemeAsync(
            "queued", "memory",
            ("Holdfast:ApiKeys:0:Name", "shop"), ("Holdfast:ApiKeys:0:Key", "seller-key-0123456789"), ("Holdfast:ApiKeys:0:Roles:0", "sell"),
            ("Holdfast:ApiKeys:1:Name", "reports"), ("Holdfast:ApiKeys:1:Key", "reader-key-0123456789"), ("Holdfast:ApiKeys:1:Roles:0", "read"));
        const string order = """{"orderId":"o1","lines":[{"sku":"A","quantity":1}]}""";
        (await SendAsync("/v1/orders", order, null)).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await SendAsync("/v1/orders", order, "reader-key-0123456789")).Status.ShouldBe(HttpStatusCode.Forbidden);
        (await SendAsync("/v1/orders", order, "seller-key-0123456789")).Status.ShouldBe(HttpStatusCode.Accepted);
        (await SendAsync("/v1/queue", """{"verb":"cancel","target":"o1"}""", "seller-key-0123456789")).Status.ShouldBe(HttpStatusCode.Accepted);
        (await SendAsync("/v1/queue", """{"verb":"restock","id":"r1","lines":[{"sku":"A","quantity":1}]}""", "seller-key-0123456789")).Status.ShouldBe(HttpStatusCode.Forbidden);
        (await SendAsync("/v1/queue/dead/1/requeue?id=x", "", "seller-key-0123456789")).Status.ShouldBe(HttpStatusCode.Forbidden);

        Task<Answer> SendAsync(string path, string body, string? key) =>
            server.SendAsync(HttpMethod.Post, path, body, "application/json", key is null ? [] : [("Authorization", $"Bearer {key}")]);
    }

    [Theory]
    [InlineData("Holdfast:Queue:Transport", "rabbit", "Holdfast:Queue:Transport must be")]
    [InlineData("Holdfast:Queue:Queues", "0", "Holdfast:Queue:Queues is 0")]
    [InlineData("Holdfast:Queue:Limits:MaxTries", "0", "Queue.MaxTries is 0")]
    [InlineData("Holdfast:Queue:Webhook:Url", "http://localhost/", "Holdfast:Queue:Webhook:Secret is missing")]
    public async Task A_wrong_setting_is_named(string name, string value, string problem) =>
        (await Should.ThrowAsync<Holdfast.Server.InvalidSettingsException>(() => ServerUnderTest.StartSchemeAsync("queued", "memory", (name, value)))).Message.ShouldContain(problem);

    private static string? Verdict(Answer answer, string field) =>
        answer.Json.TryGetProperty("verdict", out var verdict) && verdict.TryGetProperty(field, out var value) ? value.ToString() : null;

    private static async Task RestockAsync(ServerUnderTest server, string sku, int quantity) =>
        (await server.PostAsync("/v1/restocks", $$"""{"restockId":"r-{{Guid.NewGuid():N}}","lines":[{"sku":"{{sku}}","quantity":{{quantity}}}]}""")).Status.ShouldBe(HttpStatusCode.OK);

    private static Task<Answer> OrderAsync(ServerUnderTest server, string id, string sku = "85123A") =>
        server.PostAsync("/v1/orders", $$"""{"orderId":"{{id}}","lines":[{"sku":"{{sku}}","quantity":1}]}""");

    private static void ShouldFit(Answer answer, JsonElement schema) =>
        answer.Json.EnumerateObject().Select(property => property.Name).ShouldBe(schema.GetProperty("properties").EnumerateObject().Select(property => property.Name), ignoreOrder: true);

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            if (TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromMinutes(1))
            {
                throw new TimeoutException("Waited in vain.");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancelled);
        }
    }

    private static SortedSet<string> Gauges()
    {
        var names = new SortedSet<string>(StringComparer.Ordinal);
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, meter) =>
        {
            if (instrument.Meter.Name == "Holdfast" && instrument.IsObservable && instrument.Name.StartsWith("holdfast.intake.", StringComparison.Ordinal))
            {
                meter.EnableMeasurementEvents(instrument);
            }
        };
        listener.SetMeasurementEventCallback<double>((instrument, _, _, _) => names.Add(instrument.Name));
        listener.Start();
        listener.RecordObservableInstruments();
        return names;
    }

    /// <summary>A receiver of its own, on a free port.</summary>
    private static async Task<WebApplication> ReceiveAsync(Func<HttpContext, Task<int>> answer)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseSetting("urls", "http://127.0.0.1:0");
        var app = builder.Build();
        app.MapPost("/verdicts", async context => context.Response.StatusCode = await answer(context));
        await app.StartAsync(Cancelled);
        return app;
    }
}
