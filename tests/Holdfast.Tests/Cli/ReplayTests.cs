using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Holdfast.Cli.Replay;
using Holdfast.Tests.Client;

namespace Holdfast.Tests.Cli;

public class ReplayTests
{
    [Theory]
    [InlineData("memory", "demand")]
    [InlineData("memory", "50")]
    [InlineData("database", "demand")]
    [InlineData("database", "50")]
    [InlineData("batched", "demand")]
    [InlineData("batched", "50")]
    public async Task A_month_of_real_orders_gives_the_same_figures_with_every_scheme(string scheme, string opening)
    {
        using var folder = new TestFolder();
        var run = await CommandRun.RunAsync("replay", CommandRun.Sample, "--scheme", scheme, "--opening", opening, "--stock-out", folder.File("left.csv"), "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        RealOrders.ShouldBeFigures(run.Json, opening);
        run.Json.GetProperty("scheme").GetString().ShouldBe(scheme);

        // The figure is the digest of the very file.
        var left = await File.ReadAllBytesAsync(folder.File("left.csv"), TestContext.Current.CancellationToken);
        Convert.ToHexStringLower(SHA256.HashData(left)).ShouldBe(run.Json.GetProperty("stockSha256").GetString());
        var lines = Encoding.UTF8.GetString(left).Split('\n');
        lines.Length.ShouldBe(2_823);
        lines[^1].ShouldBeEmpty();
        lines[0].ShouldStartWith("10002,", customMessage: "no header line, SKUs in byte order");
    }

    [Theory]
    [InlineData("demand")]
    [InlineData("50")]
    public async Task The_same_figures_come_through_the_client_from_a_running_server(string opening)
    {
        await using var engine = new StockEngineBuilder(new MemoryEngine()).UseGroupCommit().Build();
        await using var server = await RunningServer.StartAsync(engine);

        var run = await CommandRun.RunAsync("replay", CommandRun.Sample, "--store", server.Address.AbsoluteUri, "--opening", opening, "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        RealOrders.ShouldBeFigures(run.Json, opening);
    }

    [Fact]
    public async Task A_scheme_that_is_not_the_servers_is_refused()
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine);

        var run = await CommandRun.RunAsync("replay", CommandRun.Sample, "--store", server.Address.AbsoluteUri, "--scheme", "database");

        run.ExitCode.ShouldBe(2);
        run.Error.ShouldContain("leave --scheme out");
    }

    [Fact]
    public async Task Buyers_at_once_leave_whole_orders_and_nothing_below_zero()
    {
        var run = await CommandRun.RunAsync("replay", CommandRun.Sample, "--scheme", "batched", "--opening", "60%", "--concurrency", "64", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        var json = run.Json;
        json.GetProperty("audit").GetString().ShouldBe("pass");
        json.GetProperty("unitsOpened").GetInt64().ShouldBe(216_258);
        (json.GetProperty("ordersApplied").GetInt32() + json.GetProperty("ordersRefused").GetInt32()).ShouldBe(1_629);
        (json.GetProperty("unitsOpened").GetInt64() - json.GetProperty("unitsDeducted").GetInt64() + json.GetProperty("unitsRefunded").GetInt64()
            - json.GetProperty("unitsWrittenOff").GetInt64()).ShouldBe(json.GetProperty("unitsLeft").GetInt64());
    }

    [Fact]
    public async Task A_cancellation_is_refunded_from_the_latest_orders_of_that_customer_backwards()
    {
        using var folder = new TestFolder();
        var file = folder.Csv(
            "1,apple,5,anna",
            "2,apple,4,anna",
            "2,apple,2,anna",
            "3,apple,9,bert",
            "C4,apple,-8,anna",
            "C5,apple,-4,anna",
            "C6,apple,-1,",
            "C7,apple,-1,carl",
            "8,pear,-1,",
            "9,pear,-2,");
        var run = await CommandRun.RunAsync("replay", file, "--opening", "20", "--scheme", "database", "--store", $"sqlite:{folder.File("stock.db")}", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        var json = run.Json;
        json.GetProperty("ordersApplied").GetInt32().ShouldBe(3);
        json.GetProperty("refunds").GetInt32().ShouldBe(3, "6 of order 2 and 2 of order 1, then 3 of order 1");
        json.GetProperty("unitsRefunded").GetInt64().ShouldBe(11);
        json.GetProperty("unitsUnmatched").GetInt64().ShouldBe(3, "one that anna never bought, one without a customer, one of somebody who bought nothing");
        json.GetProperty("unitsWrittenOff").GetInt64().ShouldBe(3);
        json.GetProperty("unitsLeft").GetInt64().ShouldBe(20 - 20 + 11 + 20 - 3);

        await using var store = SqliteEngine.Open(new() { Path = folder.File("stock.db"), ReadOnly = true });
        var refund = await store.GetOperationAsync("C4/2", TestContext.Current.CancellationToken);
        refund!.Target.ShouldBe("2");
        refund.Lines.ShouldBe([new("apple", 6, 0)]);
        (await store.GetOperationAsync("1", TestContext.Current.CancellationToken))!.Lines.ShouldBe([new("apple", 5, 5)]);
    }

    [Fact]
    public async Task A_second_replay_into_the_same_store_is_recognised()
    {
        using var folder = new TestFolder();
        var file = folder.Csv("1,apple,5,anna", "2,apple,99,anna", "C3,apple,-2,anna", "4,apple,-1,");
        string[] args = ["replay", file, "--opening", "20", "--scheme", "batched", "--store", $"sqlite:{folder.File("stock.db")}", "--json"];

        var first = await CommandRun.RunAsync(args);
        var second = await CommandRun.RunAsync(args);

        first.ExitCode.ShouldBe(0, first.Error);
        second.ExitCode.ShouldBe(0, second.Error);
        first.Json.GetProperty("replayed").GetInt32().ShouldBe(0);
        second.Json.GetProperty("replayed").GetInt32().ShouldBe(4, "the opening, the order, the refund and the write-off");
        second.Json.GetProperty("stockSha256").GetString().ShouldBe(first.Json.GetProperty("stockSha256").GetString());
        second.Json.GetProperty("unitsLeft").GetInt64().ShouldBe(16);
    }

    [Fact]
    public async Task Another_opening_of_the_same_store_is_refused_instead_of_doubling_the_stock()
    {
        using var folder = new TestFolder();
        var file = folder.Csv("1,apple,5,anna");
        var store = $"sqlite:{folder.File("stock.db")}";
        (await CommandRun.RunAsync("replay", file, "--opening", "20", "--store", store)).ExitCode.ShouldBe(0);

        var run = await CommandRun.RunAsync("replay", file, "--opening", "30", "--store", store, "--json");

        run.ExitCode.ShouldBe(1);
        run.Error.ShouldContain("--opening");
        run.Json.GetProperty("complete").GetBoolean().ShouldBeFalse();
        run.Json.GetProperty("failures")[0].GetString()!.ShouldContain("KeyConflict");
        run.Json.GetProperty("unitsLeft").GetInt64().ShouldBe(15);
    }

    [Theory]
    [InlineData("0", 0, 0)]
    [InlineData("7", 7, 7)]
    [InlineData("60%", 3, 0)]
    [InlineData("99.9%", 4, 0)]
    [InlineData("200%", 10, 0)]
    [InlineData("demand", 5, 0)]
    public async Task Every_sku_is_opened(string opening, long apples, long pears)
    {
        using var folder = new TestFolder();
        var file = await OrderFile.ReadAsync(folder.Csv("1,apple,3,anna", "2,apple,2,bert", "3,pear,-4,"), TestContext.Current.CancellationToken);

        Opening.TryParse(opening, out var parsed).ShouldBeTrue();
        parsed.Lines(file).ShouldBe([new("apple", apples), new("pear", pears)]);
    }

    [Fact]
    public async Task An_opening_of_many_skus_comes_in_commands_of_legal_size()
    {
        using var folder = new TestFolder();
        var file = await OrderFile.ReadAsync(folder.Csv([.. Enumerable.Range(0, 5_000).Select(i => $"{i},sku{i},1,")]), TestContext.Current.CancellationToken);

        var commands = Opening.Demand.Commands(file);

        commands.Select(command => command.Lines.Length).ShouldBe([4_096, 904]);
        commands.Select(command => command.Id).Distinct().Count().ShouldBe(2);
    }

    [Fact]
    public void The_id_of_a_refund_is_legal_and_its_own_however_long_the_invoice_numbers_are()
    {
        var a = new string('a', 64);
        var b = new string('b', 64);
        RefundBook.IdOf("C536379", "536365").ShouldBe("C536379/536365");
        StockKey.Problem(RefundBook.IdOf(a, b)).ShouldBeNull();
        RefundBook.IdOf(a, b).ShouldNotBe(RefundBook.IdOf(b, a));
    }

    [Fact]
    public async Task A_plain_file_and_a_packed_one_are_the_same_whatever_they_are_called()
    {
        using var folder = new TestFolder();
        var plain = folder.Csv("1,apple,5,anna");
        await using (var packed = new GZipStream(File.Create(folder.File("packed")), CompressionLevel.Fastest))
        {
            await packed.WriteAsync(await File.ReadAllBytesAsync(plain, TestContext.Current.CancellationToken), TestContext.Current.CancellationToken);
        }

        var a = await OrderFile.ReadAsync(plain, TestContext.Current.CancellationToken);
        var b = await OrderFile.ReadAsync(folder.File("packed"), TestContext.Current.CancellationToken);

        b.Sha256.ShouldBe(a.Sha256);
        b.Invoices.Single().Number.ShouldBe("1");
    }

    [Fact]
    public async Task An_interrupted_replay_still_reports()
    {
        using var folder = new TestFolder();
        using var stop = new CancellationTokenSource();
        var file = folder.Csv([.. Enumerable.Range(0, 20_000).Select(i => $"{i},apple,1,")]);

        // Stopped by the first line that says how far it is; the report must come all the same.
        var output = new StringWriter();
        var error = new StopAtFirstLine(stop);
        var code = await Holdfast.Cli.CommandLineApp.RunAsync(["replay", file, "--scheme", "memory", "--json"], new(output, error, isInteractive: false), stop.Token);

        code.ShouldBe(1);
        using var json = JsonDocument.Parse(output.ToString());
        json.RootElement.GetProperty("complete").GetBoolean().ShouldBeFalse();
        json.RootElement.GetProperty("audit").GetString().ShouldBe("not run");
        json.RootElement.GetProperty("invoices").GetInt32().ShouldBeLessThan(20_000);
    }

    private sealed class StopAtFirstLine(CancellationTokenSource stop) : StringWriter
    {
        public override void WriteLine(string? value)
        {
            base.WriteLine(value);
            stop.Cancel();
        }
    }
}

/// <summary>What the sample file comes to, computed independently of this code base.</summary>
internal static class RealOrders
{
    private static readonly Dictionary<string, (string Name, long Figure)[]> Figures = new()
    {
        ["demand"] =
        [
            ("ordersApplied", 1_587), ("ordersRefused", 42), ("adjustmentsApplied", 20), ("adjustmentsRefused", 50), ("refunds", 162), ("unitsDeducted", 328_672),
            ("unitsRefunded", 3_235), ("unitsUnmatched", 12_807), ("unitsWrittenOff", 803), ("unitsOpened", 362_316), ("unitsLeft", 36_076), ("skus", 2_822),
        ],
        ["50"] =
        [
            ("ordersApplied", 424), ("ordersRefused", 1_205), ("adjustmentsApplied", 48), ("adjustmentsRefused", 22), ("refunds", 29), ("unitsDeducted", 18_903),
            ("unitsRefunded", 166), ("unitsUnmatched", 15_876), ("unitsWrittenOff", 989), ("unitsOpened", 141_100), ("unitsLeft", 121_374), ("skus", 2_822),
        ],
    };

    private static readonly Dictionary<string, string> Digests = new()
    {
        ["demand"] = "3ab1974597977b2ec73069511663a6af43e2e7c6a5b299df7b3a593cb3fbb96d",
        ["50"] = "ec130412f1ea81f043843f71e9d70053fe85cd640c75c112a6ca475201f42a40",
    };

    public static void ShouldBeFigures(JsonElement report, string opening)
    {
        foreach (var (name, figure) in Figures[opening])
        {
            report.GetProperty(name).GetInt64().ShouldBe(figure, name);
        }

        report.GetProperty("stockSha256").GetString().ShouldBe(Digests[opening]);
        report.GetProperty("audit").GetString().ShouldBe("pass");
        report.GetProperty("complete").GetBoolean().ShouldBeTrue();
    }
}
