namespace Holdfast.Server;

/// <summary>What a program that contains the server may set: tests and benchmarks put their own engine and clock in.</summary>
public sealed class HoldfastServerSetup
{
    /// <summary>An engine to serve in place of the configured scheme; whoever made it disposes it.</summary>
    public IStockEngine? Engine { get; set; }

    /// <summary>The clock of the engine, the sweeper and every wait inside them. The bounds of HTTP requests follow the real clock.</summary>
    public TimeProvider? TimeProvider { get; set; }

    /// <summary>Configuration that wins over files and environment, for example <c>Holdfast:Scheme</c>.</summary>
    public IDictionary<string, string?> Configuration { get; } = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);

    /// <summary>Whether files and the environment are looked at. Default true.</summary>
    public bool ReadsEnvironment { get; set; } = true;

    /// <summary>Where appsettings.json is looked for; the working directory by default.</summary>
    internal string? ContentRoot { get; set; }

    /// <summary>Changes the services before the application is built.</summary>
    public Action<IServiceCollection>? ConfigureServices { get; set; }

    /// <summary>Changes the logging before the application is built; the console otherwise.</summary>
    public Action<ILoggingBuilder>? ConfigureLogging { get; set; }
}
