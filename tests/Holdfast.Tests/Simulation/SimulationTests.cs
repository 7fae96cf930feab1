using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Holdfast.Cli;
using Holdfast.Testing;

namespace Holdfast.Tests.Simulation;

/// <summary>
/// The layers in simulated worlds. <c>HOLDFAST_SEED=n</c> runs that seed only, <c>HOLDFAST_SEEDS=n</c> so many;
/// <c>holdfast simulate</c> runs any number.
/// </summary>
public sealed class SimulationTests(ITestOutputHelper output)
{
    private const int Seeds = 2_000;

    private static readonly CancellationToken Token = TestContext.Current.CancellationToken;

    public static TheoryData<string> Layers => [.. SimulationLayers.Names];

    [Theory]
    [MemberData(nameof(Layers))]
    public async Task Every_seed_ends_in_a_passing_audit(string layer)
    {
        var (first, count) = TheSeeds();
        var failures = new ConcurrentQueue<SimulationReport>();
        long steps = 0;
        long commands = 0;
        await Parallel.ForEachAsync(Enumerable.Range(first, count), new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount, CancellationToken = Token }, async (seed, _) =>
        {
            var report = await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find(layer), seed);
            Interlocked.Add(ref steps, report.Steps);
            Interlocked.Add(ref commands, report.Commands);
            if (!report.Passed)
            {
                failures.Enqueue(report);
            }
        });
        output.WriteLine($"{count} seeds from {first}: {commands} commands in {steps} steps");
        if (failures.MinBy(report => report.Steps) is { } shortest)
        {
            Assert.Fail($"{failures.Count} of {count} seeds failed. The shortest: {shortest}\n{string.Join('\n', shortest.Trace.TakeLast(60))}");
        }
    }

    [Theory]
    [MemberData(nameof(Layers))]
    public async Task The_same_seed_is_the_same_run(string layer)
    {
        for (var seed = 1; seed <= 50; seed++)
        {
            var first = await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find(layer), seed);
            var second = await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find(layer), seed);
            second.Trace.ShouldBe(first.Trace);
            second.ToString().ShouldBe(first.ToString());
        }
    }

    [Fact]
    public async Task The_same_seed_is_the_same_run_in_another_process()
    {
        var tests = Path.Combine(AppContext.BaseDirectory, "Holdfast.Tests");
        var start = new ProcessStartInfo(
            "dotnet",
            ["exec", "--runtimeconfig", $"{tests}.runtimeconfig.json", "--depsfile", $"{tests}.deps.json", typeof(Terminal).Assembly.Location, "simulate", "--seed", "3"])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        using var process = Process.Start(start)!;
        try
        {
            var told = await process.StandardOutput.ReadToEndAsync(Token).WaitAsync(TimeSpan.FromSeconds(120), Token);
            await process.WaitForExitAsync(Token);
            process.ExitCode.ShouldBe(ExitCode.Success, told);
            foreach (var layer in SimulationLayers.Names)
            {
                var here = await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find(layer), 3);
                told.ShouldContain(here.ToString());
            }
        }
        finally
        {
            process.Kill(entireProcessTree: true);
        }
    }

    /// <summary>A workload that never reaches an outcome would prove nothing about it.</summary>
    [Theory]
    [MemberData(nameof(Layers))]
    public async Task Simulated_callers_meet_every_outcome(string layer)
    {
        var met = new HashSet<StockStatus>();
        for (var seed = 1; seed <= 300 && met.Count < 13; seed++)
        {
            met.UnionWith((await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find(layer), seed)).Outcomes.Keys.Select(key => key.Status));
        }

        StockStatus[] all =
        [
            StockStatus.None, StockStatus.Done, StockStatus.Cancelled, StockStatus.Expired, StockStatus.Replayed, StockStatus.UnknownTarget,
            StockStatus.InvalidTargetState, StockStatus.ExceedsDeducted, StockStatus.Insufficient, StockStatus.Busy, StockStatus.InDoubt,
        ];
        all.ShouldBeSubsetOf(met);
    }

    [Fact]
    public async Task Different_seeds_are_different_runs()
    {
        var hashes = new HashSet<ulong>();
        for (var seed = 1; seed <= 200; seed++)
        {
            hashes.Add((await Holdfast.Testing.Simulation.RunAsync(SimulationLayers.Find("group-commit"), seed)).TraceHash);
        }

        hashes.Count.ShouldBe(200);
    }

    private static (int First, int Count) TheSeeds()
    {
        static int? Number(string name) => int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : null;

        return Number("HOLDFAST_SEED") is { } seed ? (seed, 1) : (1, Number("HOLDFAST_SEEDS") ?? Seeds);
    }
}
