using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net;
using Holdfast.Tests.Gate;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Server;

/// <summary>The server compares its gate with its store by itself, and shows what it found.</summary>
public sealed class ReconciliationTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_difference_is_shown_counted_and_logged_until_it_is_repaired()
    {
        await using var redis = await RedisServer.StartAsync();
        var options = SharedGate.Quick(redis);
        options.CallTimeout = TimeSpan.FromSeconds(1);
        await using var store = new MemoryEngine();
        await using var gate = await RedisGate.OpenAsync(new RedisGateTests.Shared(store), options, cancellationToken: Cancelled);
        await gate.RestockAsync("r1", [("A", 10)], cancellationToken: Cancelled);
        await SharedGate.UntilSureAsync(gate);
        await gate.CatchUpAsync(Cancelled);
        await using var server = await ServerUnderTest.StartAsync(
            new StockEngineBuilder(gate).UseTelemetry().Build(), null, ("Holdfast:Reconciliation:Interval", "00:00:00.02"), ("Holdfast:Reconciliation:PagePause", "00:00:00"));

        await SharedGate.UntilAsync(async () => (await server.GetAsync("/v1/reconciliation")).Status == HttpStatusCode.OK, "the first comparison is done");
        var same = await server.GetAsync("/v1/reconciliation");
        (same["clean"], same["skus"], same["same"], same["differing"], same["lastFailed"], same["oldestSeconds"]).ShouldBe(("True", "1", "1", "0", "False", null));

        await redis.CliAsync("HSET", $"{{{options.Name}}}:gate:s:A", "a", "4");
        await SharedGate.UntilAsync(async () => (await server.GetAsync("/v1/reconciliation"))["differing"] == "1", "the difference is found");
        var found = await server.GetAsync("/v1/reconciliation");
        (found["clean"], found["units"]).ShouldBe(("False", "6"));
        var difference = found.Json.GetProperty("differences")[0];
        (difference.GetProperty("sku").GetString(), difference.GetProperty("kind").GetString()).ShouldBe(("A", "altered"));
        (difference.GetProperty("stored").GetProperty("available").GetInt64(), difference.GetProperty("copy").GetProperty("available").GetInt64()).ShouldBe((10, 4));
        var schema = (await server.GetAsync("/openapi/v1.json")).Json.GetProperty("components").GetProperty("schemas").GetProperty("Reconciliation");
        found.Json.EnumerateObject().Select(property => property.Name).ShouldBe(schema.GetProperty("properties").EnumerateObject().Select(property => property.Name), ignoreOrder: true);
        var since = difference.GetProperty("since").GetString();
        await SharedGate.UntilAsync(() => Gauges()["holdfast.reconciliation.differing"].Contains(1), "the meter shows it");
        Gauges()["holdfast.reconciliation.units"].ShouldContain(6);
        Gauges().Keys.Where(name => name.StartsWith("holdfast.reconciliation.", StringComparison.Ordinal)).Count().ShouldBe(6);
        await SharedGate.UntilAsync(async () => double.Parse((await server.GetAsync("/v1/reconciliation"))["oldestSeconds"]!, System.Globalization.CultureInfo.InvariantCulture) > 0.2, "it grows older");
        (await server.GetAsync("/v1/reconciliation")).Json.GetProperty("differences")[0].GetProperty("since").GetString().ShouldBe(since);
        server.Log.Lines.Count(line => line.Level == LogLevel.Error && line.Text.Contains("'holdfast reconcile --fix'", StringComparison.Ordinal)).ShouldBe(1, "said once, not in every round");

        await using (var reconciler = await gate.OpenReconcilerAsync(cancellationToken: Cancelled))
        {
            (await reconciler.RunAsync(repairs: true, cancellationToken: Cancelled)).Repaired.ShouldBe(1);
        }

        await SharedGate.UntilAsync(async () => (await server.GetAsync("/v1/reconciliation"))["clean"] == "True", "it is gone");
        await redis.KillAsync();
        await SharedGate.UntilAsync(async () => (await server.GetAsync("/v1/reconciliation"))["lastFailed"] == "True", "Redis can't be asked");
        await redis.StartAsync();
        await SharedGate.UntilAsync(async () => (await server.GetAsync("/v1/reconciliation")) is var back && back["lastFailed"] == "False" && back["same"] == "1", "Redis is back, and loaded");
    }

    [Fact]
    public async Task Where_nothing_is_kept_twice_the_answer_says_so()
    {
        await using var server = await ServerUnderTest.StartAsync();
        var answer = await server.GetAsync("/v1/reconciliation");
        answer.ShouldBeProblem(HttpStatusCode.NotFound, "urn:holdfast:problem:NothingToReconcile");
        answer["detail"]!.ShouldContain("holdfast audit");
        (await server.GetAsync("/v1/reconciliation?x=1")).Status.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task It_needs_the_role_read()
    {
        await using var server = await ServerUnderTest.StartAsync(null, null, ("Holdfast:ApiKeys:0:Name", "till"), ("Holdfast:ApiKeys:0:Key", "a-key-that-only-sells"), ("Holdfast:ApiKeys:0:Roles:0", "sell"));
        (await server.GetAsync("/v1/reconciliation")).Status.ShouldBe(HttpStatusCode.Unauthorized);
        (await server.SendAsync(HttpMethod.Get, "/v1/reconciliation", null, null, ("X-Api-Key", "a-key-that-only-sells"))).Status.ShouldBe(HttpStatusCode.Forbidden);
    }

    [Fact]
    public async Task Switched_off_it_does_not_ask_Redis()
    {
        await using var redis = await RedisServer.StartAsync();
        await using var store = new MemoryEngine();
        await using var gate = await RedisGate.OpenAsync(new RedisGateTests.Shared(store), SharedGate.Quick(redis), cancellationToken: Cancelled);
        await using var server = await ServerUnderTest.StartAsync(gate, null, ("Holdfast:Reconciliation:Enabled", "false"));
        var answer = await server.GetAsync("/v1/reconciliation");
        answer.ShouldBeProblem(HttpStatusCode.NotFound, "urn:holdfast:problem:NothingToReconcile");
        answer["detail"]!.ShouldContain("Holdfast:Reconciliation:Enabled");
    }

    /// <summary>What the gauges of all servers of this process show now; other tests' are among them.</summary>
    private static ConcurrentDictionary<string, ConcurrentBag<double>> Gauges()
    {
        var values = new ConcurrentDictionary<string, ConcurrentBag<double>>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, me) =>
        {
            if (instrument.Meter.Name == Telemetry.SourceName && instrument.IsObservable)
            {
                values.TryAdd(instrument.Name, []);
                me.EnableMeasurementEvents(instrument);
            }
        };
        listener.SetMeasurementEventCallback<double>((instrument, value, _, _) => values[instrument.Name].Add(value));
        listener.Start();
        listener.RecordObservableInstruments();
        return values;
    }
}
