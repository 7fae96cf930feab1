using System.Diagnostics;
using Holdfast.Cli;

namespace Holdfast.Tests.Cli;

public class InterruptTests
{
    [Fact]
    public async Task A_command_that_never_waits_is_stopped_by_a_signal_and_still_reports()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no signals to send.");

        // The scheme database works on the caller's thread: the whole command could run without ever giving way.
        // It stands in the tests' own folder, so it runs with the tests' own libraries.
        var tests = Path.Combine(AppContext.BaseDirectory, "Holdfast.Tests");
        var start = new ProcessStartInfo(
            "dotnet",
            ["exec", "--runtimeconfig", $"{tests}.runtimeconfig.json", "--depsfile", $"{tests}.deps.json", typeof(Terminal).Assembly.Location, "verify", "--scheme", "database"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        try
        {
            var first = await process.StandardError.ReadLineAsync(TestContext.Current.CancellationToken);
            first.ShouldNotBeNull().ShouldStartWith("verify: ");
            using (var kill = Process.Start("kill", ["-TERM", $"{process.Id}"]))
            {
                await kill.WaitForExitAsync(TestContext.Current.CancellationToken);
                kill.ExitCode.ShouldBe(0);
            }

            using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
            limit.CancelAfter(TimeSpan.FromSeconds(30));
            await process.WaitForExitAsync(limit.Token);

            process.ExitCode.ShouldBe(ExitCode.Failed);
            (await output).ShouldContain("not run (interrupted)");
        }
        finally
        {
            process.Kill(entireProcessTree: true);
        }
    }
}
