using System.Text.Json;
using System.Xml.Linq;
using Holdfast.Cli.Bench;
using Holdfast.Cli.Compare;
using Holdfast.Tests.PostgreSql;

namespace Holdfast.Tests.Cli;

public sealed class CompareTests : IDisposable
{
    private readonly string _folder = Path.Combine(Directory.CreateTempSubdirectory("holdfast-compare-").FullName, "out");

    public void Dispose() => Directory.Delete(Path.GetDirectoryName(_folder)!, recursive: true);

    [Fact]
    public async Task Every_row_is_measured_and_audited_or_says_what_it_lacks()
    {
        var run = await CommandRun.RunAsync("bench", "compare", "--schemes", "memory,batched-sqlite,cached", "--workloads", "hot,selling-out,sold-out,duplicates", "--seconds", "1", "--callers", "8", "--out", _folder, "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        var rows = run.Json.GetProperty("rows").EnumerateArray().ToDictionary(row => row.GetProperty("name").GetString()!);
        rows["cached"].GetProperty("notMeasured").GetString().ShouldBe("needs --postgres and --redis, or --start-servers");
        foreach (var name in (string[])["memory", "batched-sqlite"])
        {
            var cells = rows[name].GetProperty("cells").EnumerateArray().ToDictionary(cell => cell.GetProperty("workload").GetString()!);
            cells.Keys.ShouldBe(["hot", "selling-out", "sold-out", "duplicates"]);
            cells.Values.ShouldAllBe(cell => cell.GetProperty("audit").GetString() == "pass");
            PerSecond("hot", "accepted").ShouldBePositive();
            PerSecond("selling-out", "accepted").ShouldBePositive();
            PerSecond("selling-out", "refused").ShouldBePositive();
            PerSecond("sold-out", "accepted").ShouldBe(0);
            PerSecond("sold-out", "refused").ShouldBePositive();
            PerSecond("duplicates", "repeated").ShouldBePositive();
            cells["hot"].GetProperty("open").EnumerateArray().Select(figures => figures.GetProperty("share").GetDouble()).ShouldBe([0.5, 0.75, 0.9]);
            cells["hot"].GetProperty("callers").EnumerateArray().Select(figures => figures.GetProperty("callers").GetInt32()).ShouldBe([1, 8, 64, 1_024]);

            double PerSecond(string workload, string what) => cells[workload].GetProperty("closed").GetProperty(what + "PerSecond").GetDouble();
        }

        var page = await File.ReadAllTextAsync(Path.Combine(_folder, "compare.md"), TestContext.Current.CancellationToken);
        page.ShouldContain("| cached | not measured | not measured | not measured | not measured |");
        page.ShouldContain("every audit passed");
        JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(_folder, "compare.json"), TestContext.Current.CancellationToken)).RootElement.GetProperty("passed").GetBoolean().ShouldBeTrue();
        foreach (var plot in (string[])["throughput-hot.svg", "latency-hot.svg", "callers.svg"])
        {
            page.ShouldContain($"({plot})");
            XDocument.Load(Path.Combine(_folder, plot)).Root!.Name.LocalName.ShouldBe("svg");
        }
    }

    [Fact]
    public async Task On_servers_of_its_own_it_measures_what_needs_them()
    {
        SharedPostgreSql.SkipWhereGiven();
        var run = await CommandRun.RunAsync("bench", "compare", "--schemes", "batched,cached-gate", "--workloads", "sold-out", "--seconds", "1", "--callers", "16", "--start-servers", "--out", _folder, "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.GetProperty("servers").EnumerateArray().Select(server => server.GetString()!.Split(' ')[0]).ShouldBe(["PostgreSQL", "Redis"]);
        run.Json.GetProperty("rows").EnumerateArray().ShouldAllBe(row => row.GetProperty("cells")[0].GetProperty("closed").GetProperty("refusedPerSecond").GetDouble() > 0);
        run.Json.GetProperty("baselines").GetArrayLength().ShouldBe(3);
        run.Json.GetProperty("baselines").EnumerateArray().ShouldAllBe(baseline => baseline.GetProperty("audit").GetString() == "pass");
    }

    [Theory]
    [InlineData("--schemes", "memory,fast", "--schemes 'fast' is not known; known are: memory, ")]
    [InlineData("--workloads", "warm", "--workloads 'warm' is not known; known are: hot, ")]
    [InlineData("--seconds", "0", "--seconds '0' must be a whole number from 1 to 3600.")]
    public async Task A_wrong_option_is_named(string option, string value, string complaint)
    {
        var run = await CommandRun.RunAsync("bench", "compare", option, value, "--out", _folder);

        run.ExitCode.ShouldBe(2);
        run.Error.ShouldContain(complaint);
        Directory.Exists(_folder).ShouldBeFalse();
    }

    [Fact]
    public async Task Servers_are_started_or_given_and_not_both()
    {
        var run = await CommandRun.RunAsync("bench", "compare", "--start-servers", "--redis", "localhost:6379", "--out", _folder);

        run.ExitCode.ShouldBe(2);
        run.Error.ShouldContain("leave --postgres, --redis and --rabbitmq out");
    }

    [Fact]
    public void A_failed_audit_leaves_no_figure_on_the_page()
    {
        var report = Report(new() { Workload = "hot", Open = [], Callers = [], Audit = "fail: one unit is missing" });

        var page = CompareMarkdown.Write(report, []);

        report.Passed.ShouldBeFalse();
        page.ShouldContain("| batched | audit failed |");
        page.ShouldContain("hot: fail: one unit is missing");
        page.ShouldContain("**not every audit passed**");
    }

    [Fact]
    public void Duplicates_are_orders_that_were_sent_before()
    {
        var next = Workload.Of("duplicates", "run", seed: 1).Orders(0);
        var orders = Enumerable.Range(0, 10_000).Select(_ => next()).ToList();
        var ids = new HashSet<string>(StringComparer.Ordinal);
        orders.ShouldAllBe(order => ids.Add(order.Command.Id) != order.IsRepeat);
        orders.Count(order => order.IsRepeat).ShouldBeInRange(900, 1_100);
    }

    [Fact]
    public void A_rolling_sell_out_has_units_for_half_of_those_who_ask()
    {
        const int callers = 10;
        var workload = Workload.Of("selling-out", "run", seed: 1);
        var asked = Enumerable.Range(0, callers).Select(workload.Caller).SelectMany(next => Enumerable.Range(0, 16).Select(_ => next())).SelectMany(order => order.Lines).GroupBy(line => line.Sku).ToList();
        asked.Count.ShouldBe(2);
        asked.ShouldAllBe(sku => sku.Sum(line => line.Quantity) == 2 * workload.UnitsFor(callers));
    }

    private static CompareReport Report(CompareCell cell) => new()
    {
        Began = DateTimeOffset.UnixEpoch,
        Minutes = 1,
        Command = "holdfast bench compare",
        Machine = "a machine",
        Servers = [],
        Callers = 8,
        Seconds = 1,
        Seed = 1,
        Workloads = [new("hot", "one SKU")],
        Rows = [new() { Name = "batched", Meaning = "group commit", Cells = [cell] }],
        Baselines = [],
        IsCutShort = false,
    };
}
