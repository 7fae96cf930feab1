using Holdfast.Hosting;

namespace Holdfast.Server;

/// <summary>The command line: few switches, everything else is configuration.</summary>
internal sealed record CommandLine
{
    public bool WantsHelp { get; private set; }

    public bool WantsVersion { get; private set; }

    /// <summary>The settings given, as configuration.</summary>
    public Dictionary<string, string?> Settings { get; } = new(StringComparer.OrdinalIgnoreCase);

    /// <exception cref="InvalidSettingsException">An argument is not known or lacks its value.</exception>
    public static CommandLine Parse(IReadOnlyList<string> args)
    {
        var line = new CommandLine();
        for (var i = 0; i < args.Count; i++)
        {
            var (name, value) = args[i].IndexOf('=', StringComparison.Ordinal) is > 0 and var equals && args[i].StartsWith("--", StringComparison.Ordinal)
                ? (args[i][..equals], args[i][(equals + 1)..])
                : (args[i], null);
            switch (name)
            {
                case "--help" or "-h" or "-?":
                    line.WantsHelp = true;
                    break;
                case "--version":
                    line.WantsVersion = true;
                    break;
                case "--scheme":
                    line.Settings[$"{HoldfastOptions.SectionName}:Scheme"] = value ?? Next(args, ref i);
                    break;
                case "--store":
                    line.Settings[$"{HoldfastOptions.SectionName}:Store"] = value ?? Next(args, ref i);
                    break;
                case "--precheck":
                    line.Settings[$"{HoldfastOptions.SectionName}:PreCheck"] = value ?? Next(args, ref i);
                    break;
                case "--acknowledge":
                    line.Settings[$"{HoldfastOptions.SectionName}:Gate:Acknowledge"] = value ?? Next(args, ref i);
                    break;
                case "--gate":
                    line.Settings[$"{HoldfastOptions.SectionName}:Gate:Redis"] = value ?? Next(args, ref i);
                    break;
                case "--queue":
                    line.Settings[$"{HoldfastOptions.SectionName}:Queue:Transport"] = value ?? Next(args, ref i);
                    break;
                case "--urls":
                    line.Settings["urls"] = value ?? Next(args, ref i);
                    break;
                default:
                    throw new InvalidSettingsException([$"'{args[i]}' is not known; --help lists what is."]);
            }
        }

        return line;
    }

    public static string Help()
    {
        var schemes = string.Join(Environment.NewLine, SchemeCatalog.Schemes.Select(s =>
            $"    {s.Name,-10} {s.Description}{Environment.NewLine}               on {string.Join(", ", s.Stores.Select(k => k.Form))}"));
        var stores = string.Join(Environment.NewLine, SchemeCatalog.Stores.Select(k => $"    {k.Form,-14} {k.Description}"));
        return $"""
            Holdfast.Server {HoldfastServer.Version}: inventory deduction over HTTP. Without arguments it serves
            {HoldfastServer.DefaultUrl} with the scheme '{SchemeCatalog.DefaultScheme}' and keeps its data in ./holdfast-data.

            Usage: Holdfast.Server [--scheme NAME] [--store STORE] [--precheck redis] [--gate HOST:PORT]
                                   [--acknowledge Store|Gate] [--queue QUEUE] [--urls URLS]

              --scheme NAME   how commands are executed (default {SchemeCatalog.DefaultScheme})
            {schemes}

              --store STORE   what keeps the truth (each scheme has its own default)
            {stores}

              --precheck redis  Redis refuses what is certainly sold out, before the schemes 'database',
                              'database-version' and 'batched' are asked
              --gate HOST:PORT  the Redis server of '--precheck redis' and of the scheme 'cached' (default
                              localhost:6379)
              --acknowledge WHO  who tells the buyer that it is done, in the scheme 'cached': Store (default) or Gate

              --queue QUEUE   where orders of the scheme 'queued' wait: store (the default), or a RabbitMQ broker,
                              amqp://USER:PASSWORD@HOST:5672/

              --urls URLS     where to listen, several separated by ';' (default {HoldfastServer.DefaultUrl});
                              beyond loopback, configure API keys
              --version       prints the version
              --help          prints this

            Every setting can also stand in appsettings.json (section "Holdfast") in the working directory, or in the
            environment: HOLDFAST_SCHEME, HOLDFAST_STORE, HOLDFAST_URLS, HOLDFAST_HTTP__MAXBODYBYTES,
            HOLDFAST_SWEEPER__INTERVAL=00:00:05, ... (two underscores separate levels). API keys:
            HOLDFAST_APIKEYS__0__NAME=shop HOLDFAST_APIKEYS__0__KEY=... HOLDFAST_APIKEYS__0__ROLES__0=sell
            (roles: read, sell, stock). An argument wins over the environment, the environment over the file.

            First steps:
              curl --json '{"{"}"restockId":"r1","lines":[{"{"}"sku":"85123A","quantity":10{"}"}]{"}"}' {HoldfastServer.DefaultUrl}/v1/restocks
              curl --json '{"{"}"orderId":"o1","lines":[{"{"}"sku":"85123A","quantity":6{"}"}]{"}"}' {HoldfastServer.DefaultUrl}/v1/deductions
              curl {HoldfastServer.DefaultUrl}/v1/stock/85123A
            All endpoints: {HoldfastServer.DefaultUrl}/openapi/v1.json

            Exit code: 0 stopped, 1 failed, 2 wrong arguments or settings.
            """;
    }

    private static string Next(IReadOnlyList<string> args, ref int i) =>
        i + 1 < args.Count ? args[++i] : throw new InvalidSettingsException([$"'{args[i]}' needs a value; --help shows it."]);
}

/// <summary>Arguments or settings that the server can't start with; each problem names its field.</summary>
public sealed class InvalidSettingsException : Exception
{
    internal InvalidSettingsException(IReadOnlyList<string> problems)
        : base(string.Join(Environment.NewLine, problems)) => Problems = problems;

    /// <summary>What is wrong, a line each.</summary>
    public IReadOnlyList<string> Problems { get; }
}
