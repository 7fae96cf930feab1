using System.Text.Json;
using Holdfast.Cli.Advise;
using Holdfast.Cli.Compare;
using Holdfast.Hosting;

namespace Holdfast.Tests.Cli;

public sealed class AdviseTests
{
    private static readonly Knowledge s_knowledge = Knowledge.Load();

    /// <summary>Five shops, and what must be true of the answer whatever was measured last.</summary>
    public static TheoryData<string, string[], string[]> Shops => new()
    {
        { "a boutique", ["--peak", "2", "--servers", "none"], ["batched-sqlite"] },
        { "a marketplace", ["--peak", "500", "--hottest", "2", "--cart", "3", "--sellers", "6", "--servers", "postgres"], ["batched"] },
        { "a ticket on-sale", ["--peak", "1000000", "--hottest", "4", "--lookers", "5000000", "--servers", "postgres,redis", "--may-wait", "true"], ["batched", "cached", "sharded", "queued-store"] },
        { "a grocery", ["--peak", "50", "--hottest", "1", "--cart", "40", "--servers", "postgres"], ["batched"] },
        { "a flash sale of one phone", ["--peak", "2000", "--hottest", "100", "--lookers", "20000", "--servers", "postgres,redis"], ["batched", "cached"] },
    };

    [Theory]
    [MemberData(nameof(Shops))]
    public async Task A_shop_is_told_what_the_measurements_bear_out(string shop, string[] options, string[] fitting)
    {
        var run = await CommandRun.RunAsync(["advise", .. options, "--json"]);

        var scheme = run.Json.GetProperty("scheme").GetString()!;
        fitting.ShouldContain(scheme, $"{shop}: {run.Output}");
        var measured = run.Json.GetProperty("measured").GetProperty("ordersPerSecond").GetDouble();
        var needed = run.Json.GetProperty("neededPerSecond").GetDouble();
        var isEnough = run.Json.GetProperty("isEnough").GetBoolean();
        isEnough.ShouldBe(measured >= needed && run.Json.GetProperty("measured").GetProperty("refusedPerSecond").GetDouble() >= 2 * run.Json.GetProperty("shop").GetProperty("lookers").GetDouble());
        run.ExitCode.ShouldBe(isEnough ? 0 : 1);

        // Every other row is there, with a reason.
        var others = run.Json.GetProperty("others").EnumerateArray().ToList();
        others.Select(other => other.GetProperty("row").GetString()).Append(scheme).Order(StringComparer.Ordinal).ShouldBe(s_knowledge.Schemes.Select(each => each.Row).Order(StringComparer.Ordinal));
        others.ShouldAllBe(other => other.GetProperty("why").GetString()!.Length > 10);

        // And the configuration is one that the server takes.
        var configuration = run.Json.GetProperty("configuration").GetProperty("Holdfast");
        SchemeCatalog.Schemes.Select(each => each.Name).ShouldContain(configuration.GetProperty("Scheme").GetString());
    }

    [Fact]
    public async Task The_answer_for_people_has_the_configuration_the_promises_and_the_reasons()
    {
        using var folder = new TestFolder();
        var file = folder.File("appsettings.json");
        var run = await CommandRun.RunAsync("advise", "--peak", "20", "--servers", "postgres", "--out", file);

        run.ExitCode.ShouldBe(0, run.Error + run.Output);
        run.Output.ShouldContain("Take batched.");
        run.Output.ShouldContain("Assumed, because not given: --hottest 5, --cart 1, --lookers 20, --loss none, --sellers 1, --may-wait false.");
        run.Output.ShouldContain("\"Scheme\": \"batched\"");
        run.Output.ShouldContain("  redis             needs redis, which you did not name");
        run.Output.ShouldContain("  queued-store      the buyer is told later, and yours don't wait");
        JsonDocument.Parse(await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken)).RootElement.GetProperty("Holdfast").GetProperty("Scheme").GetString().ShouldBe("batched");
    }

    [Fact]
    public async Task What_fits_and_is_too_slow_is_said_to_be_too_slow()
    {
        var run = await CommandRun.RunAsync("advise", "--peak", "9000000", "--servers", "none");

        run.ExitCode.ShouldBe(1);
        run.Output.ShouldContain("The fastest that fits is batched-sqlite, and it did not measure enough.");
    }

    [Fact]
    public async Task Where_nothing_fits_each_scheme_says_what_it_lacks()
    {
        var run = await CommandRun.RunAsync("advise", "--peak", "10", "--servers", "none", "--sellers", "3");

        run.ExitCode.ShouldBe(1);
        run.Output.ShouldContain("Nothing fits");
        run.Output.ShouldContain("batched-sqlite    one process at most sells with it, and you have 3");
    }

    [Theory]
    [InlineData("--peak is missing", "--cart", "2")]
    [InlineData("--peak 'many' must be a number from 0.01 to 10,000,000.", "--peak", "many")]
    [InlineData("--hottest '120' must be a number from 0 to 100.", "--peak", "1", "--hottest", "120")]
    [InlineData("--servers 'mysql' is not known; known are: postgres, standby, redis, rabbitmq, or none.", "--peak", "1", "--servers", "mysql")]
    [InlineData("name postgres too", "--peak", "1", "--servers", "standby")]
    [InlineData("--loss 'some' is not known; known are: none, window, all.", "--peak", "1", "--loss", "some")]
    [InlineData("--measured 'nowhere.json' can't be used", "--peak", "1", "--measured", "nowhere.json")]
    public async Task Bad_input_is_explained(string complaint, params string[] options)
    {
        var run = await CommandRun.RunAsync(["advise", .. options]);

        run.ExitCode.ShouldBe(2);
        run.Error.ShouldContain(complaint);
    }

    [Fact]
    public void What_is_known_is_about_the_rows_that_are_compared_and_names_documents_that_exist()
    {
        s_knowledge.Schemes.Select(scheme => scheme.Row).Order(StringComparer.Ordinal).ShouldBe(ComparedScheme.All.Select(scheme => scheme.Name).Order(StringComparer.Ordinal));
        foreach (var scheme in s_knowledge.Schemes)
        {
            s_knowledge.Losses.Select(loss => loss.Name).ShouldContain(scheme.Loss);
            (scheme.Never is null).ShouldBe(scheme is { Guarantees: not null, Because: not null, BreaksFirst: not null, Configuration: not null }, scheme.Row);
            foreach (var source in scheme.Sources)
            {
                var parts = source.Split('#');
                var text = File.ReadAllText(Path.Combine(Repository.Root, parts[0]));
                if (parts.Length > 1)
                {
                    text.ShouldContain($"\n## {parts[1]}\n", customMessage: source);
                }
            }
        }
    }
}
