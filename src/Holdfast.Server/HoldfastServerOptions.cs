using Holdfast.Hosting;

namespace Holdfast.Server;

/// <summary>Everything in the configuration section <c>Holdfast</c> that this server understands; what it does not understand it refuses.</summary>
public sealed class HoldfastServerOptions : HoldfastOptions
{
    /// <summary>Who may do what. None means that everybody may do everything, which suits a loopback address only.</summary>
    public IList<ApiKeyOptions> ApiKeys { get; init; } = [];

    /// <summary>Bounds of the HTTP side.</summary>
    public HttpLimitOptions Http { get; set; } = new();

    /// <inheritdoc/>
    public override IReadOnlyList<string> Problems()
    {
        var problems = base.Problems().ToList();
        Security.ApiKeys.AddProblems(ApiKeys, problems);
        Http.AddProblems(problems);
        return problems;
    }
}

/// <summary>One API key. Give either the key, or its SHA-256 so that the key itself stands in no file.</summary>
public sealed class ApiKeyOptions
{
    /// <summary>Whose key it is, for logs.</summary>
    public string Name { get; set; } = "";

    /// <summary>The key, at least 16 characters.</summary>
    public string? Key { get; set; }

    /// <summary>The SHA-256 of the key's UTF-8 bytes in 64 hexadecimal digits.</summary>
    public string? KeySha256 { get; set; }

    /// <summary>What it may do: <c>read</c>, <c>sell</c> (deduct, reserve, confirm, cancel, abandon, refund), <c>stock</c> (restock, adjust).</summary>
    public IList<string> Roles { get; init; } = [];
}

/// <summary>Bounds of the HTTP side.</summary>
public sealed class HttpLimitOptions
{
    /// <summary>
    /// Largest body of a single request, and largest line of a batch, in bytes, from 1 KiB to 64 MiB. Default 2 MiB: 4,096
    /// lines with the longest names, each character escaped, fit.
    /// </summary>
    public int MaxBodyBytes { get; set; } = 2 * 1024 * 1024;

    /// <summary>Most requests at work at once; past it callers are answered 429 Busy. 1 to 1,000,000. Default 5,000.</summary>
    public int MaxConcurrentRequests { get; set; } = 5_000;

    /// <summary>Most open connections; past it new ones are closed at once. 1 to 1,000,000. Default 10,000.</summary>
    public int MaxConnections { get; set; } = 10_000;

    /// <summary>How long a request may take; past it a write is answered 503 InDoubt. 100 milliseconds to 10 minutes. Default 30 s.</summary>
    public TimeSpan RequestTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long a connection may take to send its request headers. 100 milliseconds to 10 minutes. Default 10 s.</summary>
    public TimeSpan HeaderTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a batch may pause between two lines before its connection is closed. 100 milliseconds to 1 hour. Default 1 minute.</summary>
    public TimeSpan BatchIdleTimeout { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>Most lines of a batch that are executed in one call of the engine. 1 to 65,536. Default 1,000.</summary>
    public int BatchLines { get; set; } = 1_000;

    /// <summary>How long a stop waits for requests under way. 0 to 10 minutes. Default 30 s.</summary>
    public TimeSpan ShutdownTimeout { get; set; } = TimeSpan.FromSeconds(30);

    internal void AddProblems(List<string> problems)
    {
        Number(nameof(MaxBodyBytes), MaxBodyBytes, 1024, 64 * 1024 * 1024);
        Number(nameof(MaxConcurrentRequests), MaxConcurrentRequests, 1, 1_000_000);
        Number(nameof(MaxConnections), MaxConnections, 1, 1_000_000);
        Number(nameof(BatchLines), BatchLines, 1, 65_536);
        Time(nameof(RequestTimeout), RequestTimeout, TimeSpan.FromMilliseconds(100), TimeSpan.FromMinutes(10));
        Time(nameof(HeaderTimeout), HeaderTimeout, TimeSpan.FromMilliseconds(100), TimeSpan.FromMinutes(10));
        Time(nameof(BatchIdleTimeout), BatchIdleTimeout, TimeSpan.FromMilliseconds(100), TimeSpan.FromHours(1));
        Time(nameof(ShutdownTimeout), ShutdownTimeout, TimeSpan.Zero, TimeSpan.FromMinutes(10));

        void Number(string name, int value, int least, int most)
        {
            if (value < least || value > most)
            {
                problems.Add($"{SectionOf(name)} is {value}; it must be from {least} to {most}.");
            }
        }

        void Time(string name, TimeSpan value, TimeSpan least, TimeSpan most)
        {
            if (value < least || value > most)
            {
                problems.Add($"{SectionOf(name)} is {value}; it must be from {least} to {most}.");
            }
        }

        static string SectionOf(string name) => $"{HoldfastOptions.SectionName}:Http:{name}";
    }
}
