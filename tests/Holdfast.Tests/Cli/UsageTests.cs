namespace Holdfast.Tests.Cli;

public class UsageTests
{
    [Theory]
    [InlineData("", "Required command")]
    [InlineData("replya x.csv", "replya")]
    [InlineData("replay", "replay")]
    [InlineData("replay none.csv --opening x", "--opening 'x' must be")]
    [InlineData("replay none.csv --opening -1", "--opening '-1' must be")]
    [InlineData("replay none.csv --opening -5%", "--opening '-5%' must be")]
    [InlineData("replay none.csv --opening 1000000000001", "--opening '1000000000001' must be")]
    [InlineData("replay none.csv --opening", "--opening")]
    [InlineData("replay none.csv --concurrency 0", "--concurrency '0' must be a whole number from 1")]
    [InlineData("replay none.csv --concurrency 1.5", "--concurrency '1.5'")]
    [InlineData("replay none.csv --speed 3", "--speed")]
    [InlineData("replay none.csv", "none.csv: no such file")]
    [InlineData("replay none.csv --stock-out no/such/folder/left.csv", "--stock-out no/such/folder/left.csv: the folder")]
    [InlineData("verify --scheme none", "--scheme: Scheme 'none' is not known")]
    [InlineData("verify --store none:x", "--store: Store 'none:x' is not known")]
    [InlineData("verify --scheme memory --precheck redis", "--precheck: is Redis, which the scheme 'memory' on the store 'memory' can't have")]
    [InlineData("verify --scheme cached --store sqlite:x.db --precheck redis", "--precheck: is Redis, which the scheme 'cached'")]
    [InlineData("verify --store http://127.0.0.1:9 --precheck redis", "--precheck: the server http://127.0.0.1:9 has its own settings")]
    [InlineData("verify --precheck mysql", "mysql")]
    [InlineData("verify --scheme batched --store sqlite:x.db --precheck redis --acknowledge gate", "--acknowledge: a pre-check only refuses")]
    [InlineData("verify --scheme memory --case no-such-case", "--case 'no-such-case' fits none")]
    [InlineData("audit", "--store is missing")]
    [InlineData("audit --store sqlite:no-such-file.db", "there is no file")]
    [InlineData("audit --store http://", "--store: 'http://' is no address")]
    [InlineData("reconcile", "--store is missing")]
    [InlineData("reconcile --store memory", "'memory' has no gate")]
    [InlineData("reconcile --store http://127.0.0.1:5080", "--store: a server compares by itself")]
    [InlineData("reconcile --store redis:localhost:6379 --fix", "--fix: a store redis:")]
    [InlineData("reconcile --store redis:localhost:6379 --gate localhost:6379", "--gate: a store redis:")]
    [InlineData("reconcile --store sqlite:no-such-file.db", "there is no file")]
    [InlineData("reconcile --store sqlite:x.db --gate-name A!", "--gate-name: ")]
    [InlineData("reconcile --store sqlite:x.db --patience -1", "--patience '-1' must be")]
    [InlineData("flow export --out none.gz", "--store is missing")]
    [InlineData("flow export --store sqlite:no-such-file.db --out none.gz", "there is no file")]
    [InlineData("flow export --store sqlite:x.db", "--out or --into: give one of them")]
    [InlineData("flow export --store sqlite:x.db --out a.gz --into sqlite:b.db", "--out or --into: give one of them")]
    [InlineData("flow export --store sqlite:x.db --into sqlite:b.db --after 1", "--after: a database knows")]
    [InlineData("flow export --store sqlite:x.db --out no/such/folder/f.gz", "--out: there is no folder")]
    [InlineData("bench --workload cold", "--workload 'cold' is not known; known are: hot, zipf, uniform, carts")]
    [InlineData("bench --callers none", "--callers 'none' must be")]
    [InlineData("bench --seconds 0", "--seconds '0' must be")]
    [InlineData("bench --rate 0", "--rate '0' must be")]
    [InlineData("bench --rate NaN", "--rate 'NaN' must be")]
    [InlineData("bench --stock -1", "--stock '-1' must be")]
    public async Task What_makes_no_sense_ends_with_2_and_says_why(string line, string complaint)
    {
        var run = await CommandRun.RunAsync(line.Split(' ', StringSplitOptions.RemoveEmptyEntries));

        run.ExitCode.ShouldBe(2, run.Error);
        run.Output.ShouldBeEmpty();
        run.Error.ShouldContain(complaint);
        run.Error.ShouldStartWith("holdfast: ");
    }

    [Theory]
    [InlineData("")]
    [InlineData("replay")]
    [InlineData("verify")]
    [InlineData("audit")]
    [InlineData("reconcile")]
    [InlineData("flow export")]
    [InlineData("bench")]
    public async Task Help_teaches_by_examples(string command)
    {
        var run = await CommandRun.RunAsync([.. command.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]);

        run.ExitCode.ShouldBe(0);
        run.Error.ShouldBeEmpty();
        run.Output.ShouldContain("Examples:");
        run.Output.ShouldContain($"  holdfast {command}".TrimEnd());
    }

    [Fact]
    public async Task A_server_that_is_not_there_is_a_failure_and_not_a_stack_trace()
    {
        // Port 9 (discard) is not listened on; the client gives up at its deadline.
        var run = await CommandRun.RunAsync("audit", "--store", "http://127.0.0.1:9");

        run.ExitCode.ShouldBe(1);
        run.Error.ShouldContain("127.0.0.1:9");
        run.Error.ShouldNotContain("   at Holdfast");
    }
}
