using System.Collections.Concurrent;
using System.Net;
using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Server;
using Holdfast.Server.OpenApi;
using Holdfast.Testing;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.OpenApi;

namespace Holdfast.Tests.Server;

/// <summary>Health, description, stopping, sweeping.</summary>
public sealed class OperatingTests
{
    private const string NdJson = "application/x-ndjson";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Ready_follows_the_store_and_live_does_not()
    {
        var inner = new MemoryEngine();
        var isWell = false;
        var engine = new ScriptedEngine(inner, (commands, cancellationToken) => isWell
            ? inner.ExecuteAsync(commands, cancellationToken)
            : throw new IOException("the disk is gone"));
        var clock = new ManualTimeProvider();
        await using var server = await ServerUnderTest.StartAsync(engine, clock, ("Holdfast:Sweeper:Enabled", "false"));

        var ill = await server.GetAsync("/health/ready");
        ill.Status.ShouldBe(HttpStatusCode.ServiceUnavailable);
        ill["status"].ShouldBe("Unhealthy");
        (await server.GetAsync("/health/live")).Status.ShouldBe(HttpStatusCode.OK);

        isWell = true;
        (await server.GetAsync("/health/ready")).Status.ShouldBe(HttpStatusCode.ServiceUnavailable, "the store is asked once a second");
        clock.Advance(TimeSpan.FromSeconds(1));
        var well = await server.GetAsync("/health/ready");
        well.Status.ShouldBe(HttpStatusCode.OK);
        well["status"].ShouldBe("Healthy");

        await foreach (var operation in inner.ListOperationsAsync(new(), Cancelled))
        {
            Assert.Fail($"The probe left {operation.Id} behind.");
        }
    }

    [Fact]
    public async Task Ready_does_not_wait_for_a_store_that_hangs()
    {
        var engine = new ScriptedEngine(new MemoryEngine(), static async (_, _) =>
        {
            // Deaf even to its token.
            await Task.Delay(Timeout.InfiniteTimeSpan, TimeProvider.System, TestContext.Current.CancellationToken);
            return [];
        });
        await using var server = await ServerUnderTest.StartAsync(engine, settings: [("Holdfast:HealthTimeout", "00:00:00.2")]);

        var answer = await server.GetAsync("/health/ready");

        answer.Status.ShouldBe(HttpStatusCode.ServiceUnavailable);
        answer.Text.ShouldContain("did not answer within");
    }

    [Fact]
    public async Task The_description_names_every_endpoint_and_reads_without_errors()
    {
        await using var server = await ServerUnderTest.StartAsync();
        var text = (await server.GetAsync("/openapi/v1.json")).Text;

        var read = OpenApiDocument.Parse(text, "json");
        (read.Diagnostic?.Errors ?? []).ShouldBeEmpty();
        var described = read.Document!.Paths.SelectMany(path => path.Value.Operations!.Select(operation => $"{operation.Key.Method.ToUpperInvariant()} {path.Key}"));
        var mapped = server.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(endpoint => !endpoint.RoutePattern.RawText!.StartsWith("/openapi", StringComparison.Ordinal))
            .Select(endpoint => $"{endpoint.Metadata.GetRequiredMetadata<IHttpMethodMetadata>().HttpMethods[0]} {endpoint.RoutePattern.RawText}");
        described.Order().ShouldBe(mapped.Order());
        described.Count().ShouldBe(26);

        // Every reference leads somewhere.
        var schemas = JsonDocument.Parse(text).RootElement.GetProperty("components").GetProperty("schemas");
        foreach (var reference in text.Split("#/components/schemas/").Skip(1).Select(rest => rest[..rest.IndexOf('"', StringComparison.Ordinal)]).Distinct())
        {
            schemas.TryGetProperty(reference, out _).ShouldBeTrue(reference);
        }
    }

    [Fact]
    public async Task The_description_s_examples_are_taken_by_the_server()
    {
        await using var server = await ServerUnderTest.StartAsync();
        await server.Engine.RestockAsync("r1", [("85123A", 100)], cancellationToken: Cancelled);
        var endpoints = server.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>();
        var examples = endpoints.Select(endpoint => (Path: endpoint.RoutePattern.RawText!, Doc: endpoint.Metadata.GetMetadata<EndpointDoc>())).Where(endpoint => endpoint.Doc?.RequestExample is not null).ToList();
        examples.Count.ShouldBe(8);

        // What goes into a queue needs a server that has one: QueueTests.
        foreach (var (path, doc) in examples.Where(example => example.Path is not ("/v1/orders" or "/v1/queue")))
        {
            var answer = await server.SendAsync(HttpMethod.Post, path, doc!.RequestExample, doc.RequestType);
            answer.Status.ShouldBe(HttpStatusCode.OK, $"{path}: {answer.Text}");
            answer.Text.ShouldNotContain("Invalid");
        }
    }

    [Fact]
    public async Task What_is_answered_has_the_fields_that_the_description_lists()
    {
        await using var server = await ServerUnderTest.StartAsync();
        var schemas = (await server.GetAsync("/openapi/v1.json")).Json.GetProperty("components").GetProperty("schemas");
        await server.Engine.RestockAsync("r1", [("a", 100)], cancellationToken: Cancelled);
        await server.Engine.ReserveAsync("h1", [("a", 100)], TimeSpan.FromMinutes(1), "a note", Cancelled);

        Check("Result", await server.PostAsync("/v1/restocks", """{"restockId":"r2","lines":[{"sku":"a","quantity":1}]}"""));
        Check("Problem", await server.PostAsync("/v1/deductions", """{"orderId":"o1","lines":[{"sku":"a","quantity":7}]}"""));
        Check("Problem", await server.PostAsync("/v1/deductions", """{"orderId":"o1"}"""));
        Check("StockLevel", await server.GetAsync("/v1/stock/a"));
        Check("Operation", await server.GetAsync("/v1/operations/h1"));
        Check("FlowPage", await server.GetAsync("/v1/flow?limit=1"));
        Check("ServerInfo", await server.GetAsync("/v1/info"));
        Check("Health", await server.GetAsync("/health/ready"));

        void Check(string name, Answer answer)
        {
            var schema = schemas.GetProperty(name);
            var listed = schema.GetProperty("properties").EnumerateObject().Select(property => property.Name).ToHashSet();
            var present = answer.Json.EnumerateObject().Select(property => property.Name).ToHashSet();
            present.Except(listed).ShouldBeEmpty($"{name} in {answer.Text}");
            schema.GetProperty("required").EnumerateArray().Select(required => required.GetString()!).Except(present).ShouldBeEmpty($"{name} in {answer.Text}");
        }
    }

    [Fact]
    public async Task A_stop_under_load_answers_what_it_accepted()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-stop-");
        try
        {
            var store = $"sqlite:{folder.FullName}/stock.db";
            var answered = new ConcurrentDictionary<string, string>();
            await using (var app = HoldfastServer.Build(["--urls", "http://127.0.0.1:0", "--store", store], setup =>
            {
                setup.ReadsEnvironment = false;
                setup.ConfigureLogging = logging => logging.SetMinimumLevel(LogLevel.None);
            }))
            {
                await app.StartAsync(Cancelled);
                using var http = new HttpClient { BaseAddress = new(app.Urls.First()) };
                await app.Services.GetRequiredService<IStockEngine>().RestockAsync("r1", [("a", 1_000_000)], cancellationToken: Cancelled);
                var enough = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                var callers = Enumerable.Range(0, 32).Select(caller => SellAsync(http, caller, answered, enough)).ToArray();
                await enough.Task.WaitAsync(Cancelled);

                await app.StopAsync(Cancelled);
                await Task.WhenAll(callers);
            }

            await using var opened = await SchemeCatalog.OpenAsync("database", store, cancellationToken: Cancelled);
            var applied = new HashSet<string>();
            await foreach (var operation in opened.Engine.ListOperationsAsync(new(), Cancelled))
            {
                applied.Add(operation.Id);
            }

            applied.Remove("r1");
            answered.Values.Distinct().ShouldBe(["Done"]);
            applied.Except(answered.Keys).ShouldBeEmpty("accepted but not answered");
            answered.Keys.Except(applied).ShouldBeEmpty("answered but not in the ledger");
            (await LedgerAudit.RunAsync(opened.Engine, cancellationToken: Cancelled)).Differences.ShouldBeEmpty();
        }
        finally
        {
            folder.Delete(recursive: true);
        }

        static async Task SellAsync(HttpClient http, int caller, ConcurrentDictionary<string, string> answered, TaskCompletionSource enough)
        {
            for (var i = 0; ; i++)
            {
                var id = $"{caller}-{i}";
                try
                {
                    using var content = new StringContent($$"""{"orderId":"{{id}}","lines":[{"sku":"a","quantity":1}]}""", null, "application/json");
                    var answer = await Answer.ReadAsync(await http.PostAsync("/v1/deductions", content, Cancelled));
                    answered[id] = answer["outcome"]!;
                    if (answered.Count >= 300)
                    {
                        enough.TrySetResult();
                    }
                }
                catch (HttpRequestException)
                {
                    // The server is gone: this request was never taken.
                    return;
                }
            }
        }
    }

    [Fact]
    public async Task While_the_server_stops_a_stream_is_answered_busy_and_ends()
    {
        await using var server = await ServerUnderTest.StartAsync();
        using var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson);
        await connection.SendAsync("""{"verb":"abandon","target":"o1"}""" + "\n", Cancelled);
        await connection.ReadHeadAsync();
        (await connection.ReadLineAsync())!.ShouldContain("Done");

        var stopping = server.App.StopAsync(Cancelled);
        await connection.SendAsync("""{"verb":"abandon","target":"o2"}""" + "\n", Cancelled);
        (await connection.ReadLineAsync())!.ShouldContain("Busy");
        await connection.SendAsync("", Cancelled);
        (await connection.ReadLineAsync()).ShouldBeNull();
        await stopping.WaitAsync(TimeSpan.FromSeconds(10), TimeProvider.System, Cancelled);
        (await server.Engine.GetOperationAsync("o2", Cancelled)).ShouldBeNull();
    }

    [Fact]
    public async Task The_sweeper_releases_what_is_due_and_nothing_else()
    {
        var clock = new ManualTimeProvider();
        await using var server = await ServerUnderTest.StartAsync(clock: clock, settings: [("Holdfast:Sweeper:PageSize", "7")]);
        await server.Engine.RestockAsync("r1", [("a", 100), ("b", 100)], cancellationToken: Cancelled);
        for (var i = 0; i < 30; i++)
        {
            await server.Engine.ReserveAsync($"short {i}", [("a", 1)], TimeSpan.FromSeconds(30), cancellationToken: Cancelled);
        }

        await server.Engine.ReserveAsync("long", [("b", 1)], TimeSpan.FromHours(1), cancellationToken: Cancelled);
        await server.Engine.ReserveAsync("sold", [("b", 1)], TimeSpan.FromSeconds(30), cancellationToken: Cancelled);
        await server.Engine.ConfirmAsync("sold", Cancelled);
        (await server.Engine.GetStockAsync("a", cancellationToken: Cancelled)).Version.ShouldBe(31);

        clock.Advance(TimeSpan.FromSeconds(29));
        clock.Advance(TimeSpan.FromSeconds(1));

        // The sweeper's timer is set on another thread: the clock goes on until its round has come.
        while ((await server.Engine.GetStockAsync("a", cancellationToken: Cancelled)).Version < 61)
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancelled);
        }

        var a = await server.Engine.GetStockAsync("a", cancellationToken: Cancelled);
        (a.Available, a.Reserved, a.Version).ShouldBe((100, 0, 61));
        (await server.Engine.GetOperationAsync("long", Cancelled))!.State.ShouldBe(OperationState.Reserved);
        (await server.Engine.GetOperationAsync("sold", Cancelled))!.State.ShouldBe(OperationState.Confirmed);
        await server.AuditAsync();
    }

    [Fact]
    public async Task The_sweeper_survives_a_store_that_fails_and_says_so_once()
    {
        var clock = new ManualTimeProvider();
        var inner = new MemoryEngine(clock);
        var failures = 0;
        var engine = new ScriptedEngine(inner, (commands, cancellationToken) => Interlocked.Increment(ref failures) <= 3
            ? throw new IOException("the disk is away")
            : inner.ExecuteAsync(commands, cancellationToken));
        await inner.RestockAsync("r1", [("a", 10)], cancellationToken: Cancelled);
        await inner.ReserveAsync("h1", [("a", 1)], TimeSpan.FromSeconds(1), cancellationToken: Cancelled);
        await using var server = await ServerUnderTest.StartAsync(engine, clock);

        while ((await inner.GetStockAsync("a", cancellationToken: Cancelled)).Version < 3
            || !server.Log.Lines.Any(line => line.Text.Contains("works again", StringComparison.Ordinal)))
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancelled);
        }

        server.Log.Lines.Count(line => line.Level == LogLevel.Warning && line.Exception is IOException).ShouldBe(1);
    }

    [Fact]
    public async Task The_sweeper_leaves_a_page_that_can_t_be_released_to_the_next_round()
    {
        var clock = new ManualTimeProvider();
        var inner = new MemoryEngine(clock);
        var calls = 0;
        var engine = new ScriptedEngine(inner, (commands, _) =>
        {
            calls++;
            return new(commands.Select(_ => StockResult.Of(StockStatus.Busy)).ToArray());
        });
        await inner.RestockAsync("r1", [("a", 10)], cancellationToken: Cancelled);
        await inner.ReserveAsync("h1", [("a", 1)], TimeSpan.FromSeconds(1), cancellationToken: Cancelled);
        clock.Advance(TimeSpan.FromSeconds(2));
        var options = Options.Create(new HoldfastOptions { Sweeper = { PageSize = 1 } });
        using var sweeper = new ReservationSweeper(engine, options, NullLogger<ReservationSweeper>.Instance, clock);

        (await sweeper.SweepAsync(Cancelled)).ShouldBe(0);
        calls.ShouldBe(1);
    }
}
