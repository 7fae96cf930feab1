using System.Diagnostics;
using Holdfast.Cli.Bench;

namespace Holdfast.Tests.Cli;

public class BenchTests
{
    [Theory]
    [InlineData("memory", "hot")]
    [InlineData("batched", "carts")]
    public async Task The_report_has_exactly_the_promised_fields(string scheme, string workload)
    {
        var run = await CommandRun.RunAsync("bench", "--scheme", scheme, "--workload", workload, "--callers", "8", "--seconds", "1", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.EnumerateObject().Select(property => property.Name).ShouldBe(
        [
            "scheme", "workload", "callers", "seconds", "accepted", "acceptedPerSecond", "refused", "refusedPerSecond", "repeated", "unknown",
            "p50Ms", "p99Ms", "p999Ms", "maxMs", "durability", "audit",
        ]);
        run.Json.GetProperty("accepted").GetInt64().ShouldBePositive();
        run.Json.GetProperty("audit").GetString().ShouldBe("pass");
        run.Json.GetProperty("unknown").GetInt64().ShouldBe(0);
    }

    [Fact]
    public async Task A_sell_out_counts_refusals_apart()
    {
        var run = await CommandRun.RunAsync("bench", "--scheme", "memory", "--callers", "8", "--seconds", "1", "--stock", "10", "--rate", "500", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.GetProperty("accepted").GetInt64().ShouldBeLessThanOrEqualTo(10);
        run.Json.GetProperty("refused").GetInt64().ShouldBePositive();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(100)]
    [InlineData(6_300)]
    [InlineData(6_400)]
    [InlineData(12_345_600)]
    [InlineData(9_876_543_210_000)]
    public void A_bucket_is_at_most_1_6_percent_too_high(long nanoseconds)
    {
        var histogram = new LatencyHistogram();
        var duration = TimeSpan.FromTicks(nanoseconds / 100);
        histogram.Add(duration);
        histogram.Add(TimeSpan.FromHours(4));

        var median = histogram.Percentile(0.5);

        median.ShouldBeGreaterThanOrEqualTo(duration);
        median.ShouldBeLessThanOrEqualTo((duration * (1 + (1 / 63.0))) + TimeSpan.FromTicks(1));
        histogram.Max.ShouldBe(TimeSpan.FromHours(4));
        histogram.Count.ShouldBe(2);
    }

    [Fact]
    public void Percentiles_agree_with_sorted_values()
    {
        var random = new Random(20101201);
        var histogram = new LatencyHistogram();
        var values = new List<TimeSpan>();
        for (var i = 0; i < 10_000; i++)
        {
            values.Add(TimeSpan.FromMicroseconds(Math.Exp(random.NextDouble() * 14)));
            histogram.Add(values[^1]);
        }

        values.Sort();
        foreach (var share in (double[])[0.001, 0.5, 0.9, 0.99, 0.999, 1])
        {
            var exact = values[(int)Math.Ceiling(share * values.Count) - 1];
            histogram.Percentile(share).ShouldBeInRange(exact, (exact * (1 + (1 / 63.0))) + TimeSpan.FromTicks(1), $"seed 20101201, share {share}");
        }
    }

    [Fact]
    public async Task In_an_open_loop_a_stall_is_charged_to_everybody_it_kept_waiting()
    {
        // One caller, 100 requests a second, and a first answer that takes half a second: requests 2 to 50 were due in
        // the meantime. A closed loop would report one slow answer; here half of all have waited.
        var stall = TimeSpan.FromMilliseconds(500);
        var isFirst = true;
        var result = await LoadGenerator.RunAsync(
            new(Callers: 1, TimeSpan.Zero, TimeSpan.FromSeconds(1), Rate: 100),
            _ => async () =>
            {
                if (isFirst)
                {
                    isFirst = false;
                    await Task.Delay(stall, TimeProvider.System);
                }

                return LoadAnswer.Accepted;
            },
            TimeProvider.System,
            cancellationToken: TestContext.Current.CancellationToken);

        result.Accepted.ShouldBeGreaterThan(50);
        result.Latency.Percentile(0.75).ShouldBeGreaterThan(TimeSpan.FromMilliseconds(100));
    }

    [Fact]
    public async Task A_caller_that_throws_ends_the_load()
    {
        var started = Stopwatch.GetTimestamp();

        await Should.ThrowAsync<InvalidOperationException>(() => LoadGenerator.RunAsync(
            new(Callers: 2, TimeSpan.Zero, TimeSpan.FromMinutes(5)),
            caller => caller == 0 ? () => throw new InvalidOperationException("broken") : async () =>
            {
                await Task.Yield();
                return LoadAnswer.Accepted;
            },
            TimeProvider.System));

        Stopwatch.GetElapsedTime(started).ShouldBeLessThan(TimeSpan.FromMinutes(1));
    }

    [Fact]
    public void A_workload_is_the_same_in_every_run()
    {
        var a = Commands(Workload.Of("carts", "run", seed: 7));
        var b = Commands(Workload.Of("carts", "run", seed: 7));
        var c = Commands(Workload.Of("carts", "run", seed: 8));

        b.ShouldBe(a);
        c.ShouldNotBe(a);

        static string[] Commands(Workload workload)
        {
            var next = workload.Caller(3);
            return [.. Enumerable.Range(0, 100).Select(_ => next()).Select(command => $"{command.Id}: {string.Join(' ', command.Lines)}")];
        }
    }
}
