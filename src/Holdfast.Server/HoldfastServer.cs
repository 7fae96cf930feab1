using System.Collections;
using System.Net;
using System.Reflection;
using Holdfast.Hosting;
using Holdfast.Server.Http;
using Holdfast.Server.OpenApi;

namespace Holdfast.Server;

/// <summary>The HTTP server: builds it for the command line, for tests and for benchmarks.</summary>
public static class HoldfastServer
{
    /// <summary>Where the server listens unless told otherwise: loopback, so that nobody else can deduct.</summary>
    public const string DefaultUrl = "http://127.0.0.1:5080";

    /// <summary>The version of this build.</summary>
    public static string Version { get; } = (typeof(HoldfastServer).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "0").Split('+')[0];

    /// <summary>Runs the server until it is told to stop.</summary>
    /// <param name="args">The command line.</param>
    /// <param name="output">Where help and version go.</param>
    /// <param name="error">Where problems go.</param>
    /// <returns>The exit code: 0 stopped, 1 failed, 2 wrong arguments or settings.</returns>
    public static async Task<int> RunAsync(string[] args, TextWriter output, TextWriter error)
    {
        ArgumentNullException.ThrowIfNull(output);
        ArgumentNullException.ThrowIfNull(error);
        WebApplication app;
        try
        {
            var line = CommandLine.Parse(args);
            if (line.WantsHelp || line.WantsVersion)
            {
                await output.WriteLineAsync(line.WantsHelp ? CommandLine.Help() : Version);
                return 0;
            }

            app = Build(args);
        }
        catch (InvalidSettingsException e)
        {
            await error.WriteLineAsync(e.Message);
            return 2;
        }

        await using (app)
        {
            app.Logger.LogInformation("Holdfast {Version}", Version);
            try
            {
                await app.StartAsync();
            }
            catch (Exception e)
            {
                // A file in use or a port that is taken needs its message; what nobody foresaw needs its stack as well.
                await error.WriteLineAsync($"The server could not start: {(e is IOException or FormatException or UnauthorizedAccessException ? e.Message : e)}");
                return 1;
            }

            await app.WaitForShutdownAsync();
            return 0;
        }
    }

    /// <summary>Builds the server; start it with <c>StartAsync</c> or <c>RunAsync</c>.</summary>
    /// <param name="args">The command line, see <c>--help</c>.</param>
    /// <param name="configure">Sets an engine, a clock or settings of its own.</param>
    /// <exception cref="InvalidSettingsException">An argument or a setting is wrong; each problem names its field.</exception>
    public static WebApplication Build(string[] args, Action<HoldfastServerSetup>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(args);
        var setup = new HoldfastServerSetup();
        configure?.Invoke(setup);

        // Settings are read once at start: without file watchers many servers fit into one test run.
        var builder = CreateBuilder(new() { Args = ["--hostBuilder:reloadConfigOnChange=false"], ContentRootPath = setup.ContentRoot });
        AddConfiguration(builder.Configuration, CommandLine.Parse(args), setup);
        var options = ReadOptions(builder.Configuration);

        AddLogging(builder.Logging, setup);
        AddServices(builder.Services, builder.Configuration, options, setup);
        ConfigureKestrel(builder, options.Http);

        var app = builder.Build();
        var guard = new RequestGuard(options.Http.MaxConcurrentRequests, app.Services.GetRequiredService<ILogger<HoldfastServerOptions>>());
        app.Use(next => context => guard.InvokeAsync(context, next));
        Routes.Map(app, options);
        ExposureWarning.Add(app, options);
        return app;
    }

    private static WebApplicationBuilder CreateBuilder(WebApplicationOptions options)
    {
        try
        {
            return WebApplication.CreateSlimBuilder(options);
        }
        catch (InvalidDataException e)
        {
            // appsettings.json is no JSON; the place in the file stands in the innermost message.
            throw new InvalidSettingsException([$"{e.Message} {e.GetBaseException().Message}"]);
        }
    }

    private static void AddConfiguration(ConfigurationManager configuration, CommandLine line, HoldfastServerSetup setup)
    {
        if (!setup.ReadsEnvironment)
        {
            configuration.Sources.Clear();
        }

        ((IConfigurationBuilder)configuration).Sources.Insert(0, new Microsoft.Extensions.Configuration.Memory.MemoryConfigurationSource
        {
            InitialData = new Dictionary<string, string?>
            {
                ["Logging:LogLevel:Default"] = "Information",
                ["Logging:LogLevel:Microsoft.AspNetCore"] = "Warning",

                // It logs a failed start with its stack; the message that matters is printed once, at the end.
                ["Logging:LogLevel:Microsoft.Extensions.Hosting.Internal.Host"] = "Critical",
            },
        });
        if (setup.ReadsEnvironment)
        {
            configuration.AddInMemoryCollection(FromEnvironment(Environment.GetEnvironmentVariables()));
        }

        configuration.AddInMemoryCollection(line.Settings);
        configuration.AddInMemoryCollection(setup.Configuration);
    }

    /// <summary>HOLDFAST_HTTP__MAXBODYBYTES is Holdfast:Http:MaxBodyBytes; HOLDFAST_URLS is urls.</summary>
    internal static Dictionary<string, string?> FromEnvironment(IDictionary variables)
    {
        const string prefix = "HOLDFAST_";

        // Where the command line looks for the key that it sends; a shell that has it set may start a server all the same.
        const string keyOfTheCommandLine = "HOLDFAST_API_KEY";
        var settings = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        foreach (DictionaryEntry variable in variables)
        {
            // Holdfast__Scheme, the framework's own spelling, is read by the framework.
            if (variable.Key is string name && name.StartsWith(prefix, StringComparison.OrdinalIgnoreCase) && !name.StartsWith("HOLDFAST__", StringComparison.OrdinalIgnoreCase)
                && !name.Equals(keyOfTheCommandLine, StringComparison.OrdinalIgnoreCase))
            {
                var key = name[prefix.Length..].Replace("__", ":", StringComparison.Ordinal);
                settings[key.Equals("urls", StringComparison.OrdinalIgnoreCase) ? "urls" : $"{HoldfastOptions.SectionName}:{key}"] = (string?)variable.Value;
            }
        }

        return settings;
    }

    private static HoldfastServerOptions ReadOptions(ConfigurationManager configuration)
    {
        HoldfastServerOptions options;
        try
        {
            // A misspelled setting that is silently ignored is a bound that silently does not hold.
            options = configuration.GetSection(HoldfastOptions.SectionName).Get<HoldfastServerOptions>(binder => binder.ErrorOnUnknownConfiguration = true) ?? new();
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidSettingsException([$"{HoldfastOptions.SectionName}: {e.Message}"]);
        }

        string[] problems = [.. options.Problems(), .. (configuration["urls"] ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries).Select(UrlProblem).OfType<string>()];
        return problems.Length == 0 ? options : throw new InvalidSettingsException(problems);
    }

    /// <summary>What is wrong with an address to listen at. Kestrel would find out too, but only after the store was opened.</summary>
    private static string? UrlProblem(string url)
    {
        const string form = "an address is written http://127.0.0.1:5080";
        try
        {
            var address = BindingAddress.Parse(url);
            return address.Scheme is not ("http" or "https") ? $"urls: '{url}' is neither http nor https; {form}."
                : address.Port is < 0 or > IPEndPoint.MaxPort ? $"urls: '{url}' has a port that is not from 0 to {IPEndPoint.MaxPort}."
                : address.PathBase.Length > 0 ? $"urls: '{url}' has a path; {form}."
                : null;
        }
        catch (FormatException)
        {
            return $"urls: '{url}' is no address; {form}.";
        }
    }

    private static void AddLogging(ILoggingBuilder logging, HoldfastServerSetup setup)
    {
        logging.ClearProviders();
        if (setup.ConfigureLogging is not null)
        {
            setup.ConfigureLogging(logging);
            return;
        }

        logging.AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.UseUtcTimestamp = true;
            console.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ ";
        });
    }

    private static void AddServices(IServiceCollection services, ConfigurationManager configuration, HoldfastServerOptions options, HoldfastServerSetup setup)
    {
        if (setup.TimeProvider is not null)
        {
            services.AddSingleton(setup.TimeProvider);
        }

        if (setup.Engine is { } engine)
        {
            services.AddSingleton<StockEngineFactory>((_, _) => new(OpenedScheme.Of(engine)));
        }

        services.AddHoldfast(configuration);
        services.AddSingleton(options);
        services.AddOpenApi("v1", document => document.AddDocumentTransformer<ApiDescription>());
        services.Configure<HostOptions>(host => host.ShutdownTimeout = options.Http.ShutdownTimeout);
        setup.ConfigureServices?.Invoke(services);
    }

    private static void ConfigureKestrel(WebApplicationBuilder builder, HttpLimitOptions limits)
    {
        var configuration = builder.Configuration;
        if (string.IsNullOrWhiteSpace(configuration["urls"]) && string.IsNullOrWhiteSpace(configuration["http_ports"]) && !configuration.GetSection("Kestrel:Endpoints").Exists())
        {
            configuration["urls"] = DefaultUrl;
        }

        builder.WebHost.UseUrls(configuration["urls"] ?? "");
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = limits.MaxBodyBytes;
            kestrel.Limits.MaxConcurrentConnections = limits.MaxConnections;
            kestrel.Limits.RequestHeadersTimeout = limits.HeaderTimeout;

            // A thousand long names in one query.
            kestrel.Limits.MaxRequestLineSize = 64 * 1024;
            kestrel.Limits.MaxRequestBufferSize = Math.Max(kestrel.Limits.MaxRequestBufferSize ?? 0, kestrel.Limits.MaxRequestLineSize);
        });
    }
}
