using Holdfast.Cli;
using Holdfast.Testing;

namespace Holdfast.Tests.Cli;

public sealed class SimulateTests
{
    [Fact]
    public async Task Many_seeds_are_counted_layer_by_layer()
    {
        var run = await CommandRun.RunAsync("simulate", "--seeds", "20", "--json");
        run.ExitCode.ShouldBe(ExitCode.Success, run.Output);
        run.Json.EnumerateArray().Select(layer => layer.GetProperty("layer").GetString()).ShouldBe(SimulationLayers.Names);
        run.Json.EnumerateArray().ShouldAllBe(layer => layer.GetProperty("seeds").GetInt32() == 20 && layer.GetProperty("failed").GetInt32() == 0);
    }

    [Fact]
    public async Task A_single_seed_is_told_with_its_last_steps()
    {
        var run = await CommandRun.RunAsync("simulate", "--layer", "group-commit", "--seed", "7", "--trace", "5");
        run.ExitCode.ShouldBe(ExitCode.Success, run.Output);
        var lines = run.Output.Split('\n');
        lines[5].ShouldStartWith("group-commit, seed 7: passed (");
        run.Output.ShouldContain("group-commit: 1 of 1 seeds passed");
    }

    [Fact]
    public async Task A_layer_that_is_not_known_is_a_usage_error_that_names_those_that_are()
    {
        var run = await CommandRun.RunAsync("simulate", "--layer", "tea");
        run.ExitCode.ShouldBe(ExitCode.Usage);
        run.Error.ShouldContain("group-commit-concurrent, sharding");
    }
}
