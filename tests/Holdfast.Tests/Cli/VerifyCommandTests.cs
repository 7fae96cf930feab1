namespace Holdfast.Tests.Cli;

public class VerifyCommandTests
{
    [Fact]
    public async Task The_cases_are_told_one_by_one()
    {
        var run = await CommandRun.RunAsync("verify", "--scheme", "batched", "--case", "tombstone", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.GetProperty("failed").GetInt32().ShouldBe(0);
        run.Json.GetProperty("passed").GetInt32().ShouldBePositive();
        foreach (var each in run.Json.GetProperty("cases").EnumerateArray())
        {
            each.GetProperty("verdict").GetString().ShouldBe("pass");
            each.GetProperty("name").GetString()!.ShouldContain("tombstone");
        }
    }

    [Fact]
    public async Task A_case_that_does_not_apply_says_why()
    {
        var run = await CommandRun.RunAsync("verify", "--scheme", "memory", "--case", "clock-that-jumps");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Output.ShouldContain("not applicable");
        run.Output.ShouldContain("the store follows a real clock");
    }
}
