using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text.Json;
using Holdfast.Cli.Compare;

namespace Holdfast.Cli.Advise;

/// <summary><c>holdfast advise</c>: which scheme should this shop use, how is it configured, what does it promise, and why not the others.</summary>
internal static class AdviseCommand
{
    private static readonly string[] s_servers = ["postgres", "standby", "redis", "rabbitmq"];
    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static Command Create(Terminal terminal)
    {
        var knowledge = Knowledge.Load();
        var peak = Quantity("--peak", "Orders per second at the peak of the sale.", 0.01, 10_000_000);
        var hottest = Quantity("--hottest", "The hottest SKU's share of all orders, in per cent: 100 for a flash sale of one article. Default 5.", 0, 100);
        var cart = Quantity("--cart", "Lines of an average order. Default 1.", 1, StockLimits.MaxLines);
        var lookers = Quantity("--lookers", "Orders per second for what is sold out already. Default: as many as --peak.", 0, 100_000_000);
        var sellers = Quantity("--sellers", "How many processes sell at once. Default 1.", 1, 10_000);
        var loss = new Option<string?>("--loss")
        {
            Description = $"What loss is tolerable: {string.Join("; ", knowledge.Losses.Select(each => $"{each.Name} ({each.Meaning})"))}. Default none.",
            HelpName = string.Join('|', knowledge.Losses.Select(each => each.Name)),
            CustomParser = result => ParseLoss(result, knowledge),
        };
        var servers = new Option<string[]?>("--servers")
        {
            Description = $"The servers that there are, with commas between: {string.Join(", ", s_servers)}; or none, the default.",
            HelpName = "A,B,…",
            CustomParser = ParseServers,
        };
        var wait = new Option<bool?>("--may-wait") { Description = "Whether buyers can be told a moment later, by asking again or by a message. Default no.", HelpName = "true|false" };
        var measuredFile = new Option<string?>("--measured") { Description = "A compare.json of 'holdfast bench compare', of your own machines. Default: the measurements that come with this version.", HelpName = "FILE" };
        var output = new Option<string?>("--out") { Description = "Writes the configuration into this file, too.", HelpName = "FILE" };
        var json = DeploymentOptions.Json();
        var command = new Command("advise", "Says which scheme a shop should use, with its configuration, what it promises, what it measured, and why not the others.")
        {
            peak, hottest, cart, lookers, sellers, loss, servers, wait, measuredFile, output, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            What is not given is asked for where somebody can answer, and assumed otherwise, which the answer says.

            Examples:
              holdfast advise --peak 2 --servers none
                  a boutique with one server process and no database
              holdfast advise --peak 2000 --cart 3 --hottest 2 --servers postgres,redis --sellers 6
                  a marketplace
              holdfast advise --peak 20000 --hottest 100 --lookers 100000 --servers postgres,redis --out appsettings.json
                  a flash sale of one phone, and the configuration in a file
            """);
        CommandLineApp.SetAction(command, async (parsed, cancellationToken) =>
        {
            var asked = new Questions(terminal);
            var orders = parsed.GetValue(peak) ?? asked.Number("Orders per second at the peak?", "--peak", fallback: null, 0.01, 10_000_000);
            var shop = new Shop(
                orders,
                parsed.GetValue(hottest) ?? asked.Number("The hottest SKU's share of all orders, in per cent?", "--hottest", 5, 0, 100),
                parsed.GetValue(cart) ?? asked.Number("Lines of an average order?", "--cart", 1, 1, StockLimits.MaxLines),
                parsed.GetValue(lookers) ?? asked.Number("Orders per second for what is sold out already?", "--lookers", orders, 0, 100_000_000),
                parsed.GetValue(loss) ?? asked.Choice("What loss is tolerable?", "--loss", [.. knowledge.Losses.Select(each => (each.Name, each.Meaning))]),
                parsed.GetValue(servers) ?? asked.Choices("Which servers are there?", "--servers", s_servers),
                (int)(parsed.GetValue(sellers) ?? asked.Number("How many processes sell at once?", "--sellers", 1, 1, 10_000)),
                parsed.GetValue(wait) ?? asked.YesNo("Can buyers be told a moment later?", "--may-wait"));
            var measured = parsed.GetValue(measuredFile) is { } file ? Knowledge.LoadMeasured(file) : Knowledge.LoadMeasured();
            var advice = Advisor.Advise(shop, knowledge, measured);
            if (advice.Scheme is { Configuration: { } configuration } && parsed.GetValue(output) is { } path)
            {
                await File.WriteAllTextAsync(path, configuration.ToJsonString(s_indented) + "\n", cancellationToken).ConfigureAwait(false);
                terminal.Note($"written to {Path.GetFullPath(path)}");
            }

            if (parsed.GetValue(json))
            {
                terminal.Json(ToJson(shop, advice, measured));
            }
            else
            {
                Write(terminal, shop, advice, knowledge, measured, asked.Assumed);
            }

            return advice.Scheme is not null && advice.IsEnough ? ExitCode.Success : ExitCode.Failed;
        });
        return command;
    }

    private static void Write(Terminal terminal, Shop shop, Advice advice, Knowledge knowledge, CompareReport measured, IReadOnlyList<string> assumed)
    {
        terminal.Line($"A shop of {Number(shop.Peak)} orders/s at its peak, {Number(shop.HottestPercent)} % of them for the hottest SKU, {Number(shop.CartLines)} lines an order, {Number(shop.Lookers)}/s for what is sold out,");
        terminal.Line($"{shop.Sellers} selling {(shop.Sellers == 1 ? "process" : "processes")}; tolerable loss: {shop.Loss}; servers: {(shop.Servers.Count == 0 ? "none" : string.Join(", ", shop.Servers))}; buyers {(shop.MayWait ? "can" : "don't")} wait.");
        if (assumed.Count > 0)
        {
            terminal.Line($"Assumed, because not given: {string.Join(", ", assumed)}.");
        }

        terminal.Line();
        if (advice is not { Scheme: { } scheme, Measured: { } figures })
        {
            terminal.Line("Nothing fits: see below what each scheme lacks.");
        }
        else
        {
            terminal.Line(advice.IsEnough ? $"Take {scheme.Row}." : $"The fastest that fits is {scheme.Row}, and it did not measure enough.");
            terminal.Line($"  why        {scheme.Because}");
            terminal.Line($"  promises   {scheme.Guarantees}");
            terminal.Line($"  measured   {Measured(figures)}");
            terminal.Line($"             on {measured.Machine} ({measured.Began.UtcDateTime:yyyy-MM-dd}); measure your own: holdfast bench compare");
            terminal.Line($"  needed     {Number(advice.NeededPerSecond)} orders/s: {Number(knowledge.Headroom.Factor)} times the peak. {knowledge.Headroom.Because}");
            if (!advice.IsEnough)
            {
                terminal.Line("             Measure it on your machines, which may be larger (--measured); several database servers (sharded) help unless one SKU is all of it.");
            }

            terminal.Line($"  breaks     {scheme.BreaksFirst}");
            terminal.Line($"  read       {string.Join(", ", scheme.Sources)}");
            terminal.Line();
            terminal.Line("appsettings.json:");
            terminal.Line(scheme.Configuration!.ToJsonString(s_indented));
        }

        terminal.Line();
        terminal.Line("Why not the others:");
        foreach (var (row, why) in advice.Others)
        {
            terminal.Line($"  {row,-17} {why}");
        }
    }

    private static string Measured(Measurement figures)
    {
        if (figures.OrdersPerSecond is not { } orders)
        {
            return "nothing that resembles this shop";
        }

        var refused = figures.RefusedPerSecond is { } each ? $"; {Number(each)} refusals/s when all is sold out" : "";
        var latency = figures.P99Ms is { } p99 ? $", p99 {p99.ToString("0.#", CultureInfo.InvariantCulture)} ms at half of it" : "";
        return $"{Number(orders)} orders/s like yours (workload {figures.Workload}{(figures.IsScaled ? ", fewer in proportion, because your carts are larger than the measured ones" : "")}){latency}{refused}";
    }

    private static object ToJson(Shop shop, Advice advice, CompareReport measured) => new
    {
        shop,
        scheme = advice.Scheme?.Row,
        isEnough = advice.IsEnough,
        neededPerSecond = advice.NeededPerSecond,
        measured = advice.Measured,
        measuredOn = measured.Machine,
        guarantees = advice.Scheme?.Guarantees,
        configuration = advice.Scheme?.Configuration,
        sources = advice.Scheme?.Sources,
        others = advice.Others,
    };

    private static Option<double?> Quantity(string name, string description, double least, double most) => new(name)
    {
        Description = description,
        HelpName = "N",
        CustomParser = result =>
        {
            if (!double.TryParse(result.Tokens[0].Value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var value) || value < least || value > most)
            {
                result.AddError($"{name} '{result.Tokens[0].Value}' must be a number from {Number(least)} to {Number(most)}.");
            }

            return value;
        },
    };

    private static string ParseLoss(ArgumentResult result, Knowledge knowledge)
    {
        var value = result.Tokens[0].Value;
        if (!knowledge.Losses.Any(each => each.Name == value))
        {
            result.AddError($"--loss '{value}' is not known; known are: {string.Join(", ", knowledge.Losses.Select(each => each.Name))}.");
        }

        return value;
    }

    private static string[] ParseServers(ArgumentResult result)
    {
        var values = result.Tokens[0].Value.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Distinct(StringComparer.Ordinal).ToArray();
        if (values is ["none"])
        {
            return [];
        }

        foreach (var value in values.Where(value => !s_servers.Contains(value)))
        {
            result.AddError($"--servers '{value}' is not known; known are: {string.Join(", ", s_servers)}, or none.");
        }

        if (values.Contains("standby") && !values.Contains("postgres"))
        {
            result.AddError("--servers: a standby is one of PostgreSQL's; name postgres too.");
        }

        return values;
    }

    internal static string Number(double value) => value.ToString(value < 10 ? "0.##" : "#,##0", CultureInfo.InvariantCulture);
}
