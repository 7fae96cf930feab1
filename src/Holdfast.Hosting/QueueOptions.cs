using Holdfast.Queueing;

namespace Holdfast.Hosting;

/// <summary>The queue of the scheme <c>queued</c>.</summary>
public sealed class QueueOptions
{
    /// <summary>What <see cref="Transport"/> says when the store itself is the queue.</summary>
    public const string StoreTransport = "store";

    /// <summary>Where commands wait: <c>store</c>, the default, for the store itself, or a RabbitMQ broker such as <c>amqp://user:password@host:5672/</c>.</summary>
    public string Transport { get; set; } = StoreTransport;

    /// <summary>With a broker: what the names of its queues begin with. Default holdfast.</summary>
    public string Name { get; set; } = "holdfast";

    /// <summary>How many queues, 1 to 256: so many consumers work side by side. The same in every process, and not to be changed while commands wait. Default 4.</summary>
    public int Queues { get; set; } = 4;

    /// <summary>Most commands that wait in all queues; past it orders are refused. Default 1,000,000.</summary>
    public long MaxMessages { get; set; } = 1_000_000;

    /// <summary>Whether this process decides commands; one that does not only accepts them. Default true.</summary>
    public bool Consume { get; set; } = true;

    /// <summary>Bounds of the layer.</summary>
    public CommandQueueOptions Limits { get; set; } = new();

    /// <summary>Whom verdicts are told.</summary>
    public WebhookOptions Webhook { get; set; } = new();

    internal bool IsInStore => Transport == StoreTransport;

    internal RabbitMqOptions ToRabbitMq() => new()
    {
        Uri = Transport,
        Name = Name,
        Queues = Queues,
        MaxMessages = MaxMessages,
        RetryDelay = Limits.RetryDelay,
        Prefetch = Math.Clamp(2 * Limits.MaxBatchCommands, 1, 65_535),
    };

    internal void AddProblems(List<string> problems)
    {
        const string section = HoldfastOptions.SectionName + ":Queue:";
        try
        {
            Limits.Validate();
        }
        catch (ArgumentException e)
        {
            problems.Add($"{section}Limits: {e.Message}");
        }

        if (Queues is < 1 or > 256)
        {
            problems.Add($"{section}Queues is {Queues}; it must be from 1 to 256.");
        }
        else if (MaxMessages < Queues)
        {
            problems.Add($"{section}MaxMessages is {MaxMessages}; it must be at least one a queue.");
        }
        else if (!IsInStore)
        {
            try
            {
                ToRabbitMq().Validate();
            }
            catch (ArgumentException e)
            {
                problems.Add(e.ParamName == nameof(RabbitMqOptions.Uri)
                    ? $"{section}Transport must be '{StoreTransport}' or the address of a broker, amqp://user:password@host:5672/vhost."
                    : section + e.Message);
            }
        }

        Webhook.AddProblems(problems);
    }
}

/// <summary>A receiver of verdicts: each is posted until it is taken, or given up.</summary>
public sealed class WebhookOptions
{
    /// <summary>Where verdicts are posted, <c>http</c> or <c>https</c>; none are when <see langword="null"/>, the default.</summary>
    public string? Url { get; set; }

    /// <summary>The secret that each request is signed with: at least 16 characters, needed with an URL.</summary>
    public string? Secret { get; set; }

    /// <summary>How often one is tried before it is given up, 1 to 100. Default 12: with the pauses, about half a day.</summary>
    public int MaxAttempts { get; set; } = 12;

    /// <summary>The pause before the second try, doubled each time, 10 milliseconds to 1 hour. Default 10 s.</summary>
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one request may take, 100 milliseconds to 1 minute. Default 10 s.</summary>
    public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How many requests at once, 1 to 256. Default 16.</summary>
    public int AtOnce { get; set; } = 16;

    /// <summary>The pause before the store is asked again when nothing was due, 10 milliseconds to 1 minute. Default 500 ms.</summary>
    public TimeSpan Interval { get; set; } = TimeSpan.FromMilliseconds(500);

    internal void AddProblems(List<string> problems)
    {
        const string section = HoldfastOptions.SectionName + ":Queue:Webhook:";
        if (Url is not null)
        {
            if (!Uri.TryCreate(Url, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https"))
            {
                problems.Add($"{section}Url is no http or https address.");
            }

            if (Secret is not { Length: >= 16 })
            {
                problems.Add($"{section}Secret is {(Secret is null ? "missing" : "too short")}; requests are signed with it, so it needs at least 16 characters (openssl rand -hex 32 makes a good one).");
            }
        }

        if (MaxAttempts is < 1 or > 100)
        {
            problems.Add($"{section}MaxAttempts is {MaxAttempts}; it must be from 1 to 100.");
        }

        if (AtOnce is < 1 or > 256)
        {
            problems.Add($"{section}AtOnce is {AtOnce}; it must be from 1 to 256.");
        }

        Time(nameof(RetryDelay), RetryDelay, TimeSpan.FromMilliseconds(10), TimeSpan.FromHours(1));
        Time(nameof(Timeout), Timeout, TimeSpan.FromMilliseconds(100), TimeSpan.FromMinutes(1));
        Time(nameof(Interval), Interval, TimeSpan.FromMilliseconds(10), TimeSpan.FromMinutes(1));

        void Time(string name, TimeSpan value, TimeSpan least, TimeSpan most)
        {
            if (value < least || value > most)
            {
                problems.Add($"{section}{name} is {value}; it must be from {least} to {most}.");
            }
        }
    }
}

/// <summary>Opens the queue in front of a scheme's engine.</summary>
internal static class QueueComposition
{
    /// <param name="engine">What synchronous callers use; the queue disposes it.</param>
    /// <param name="store">The store below it, that consumers execute on: they batch by themselves.</param>
    /// <param name="options">Which queue.</param>
    /// <param name="services">Where clocks and loggers are found.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    public static async ValueTask<CommandQueue> OpenAsync(IStockEngine engine, IStockEngine store, QueueOptions options, IServiceProvider services, CancellationToken cancellationToken)
    {
        var clock = (TimeProvider?)services.GetService(typeof(TimeProvider));
        IVerdictStore verdicts = store switch
        {
            SqliteEngine sqlite => await sqlite.OpenVerdictsAsync(clock, cancellationToken).ConfigureAwait(false),
            PostgreSqlEngine postgres => await postgres.OpenVerdictsAsync(cancellationToken).ConfigureAwait(false),
            _ => new MemoryVerdicts(store, clock),
        };
        ICommandTransport transport = (options.IsInStore, store) switch
        {
            (false, _) => await RabbitMqTransport.OpenAsync(options.ToRabbitMq(), clock, Logger<RabbitMqTransport>(services), cancellationToken).ConfigureAwait(false),
            (_, SqliteEngine sqlite) => await sqlite.OpenQueueAsync(options.Queues, options.MaxMessages, clock, cancellationToken).ConfigureAwait(false),
            (_, PostgreSqlEngine postgres) => await postgres.OpenQueueAsync(options.Queues, options.MaxMessages, clock, cancellationToken).ConfigureAwait(false),
            _ => new MemoryTransport(options.Queues, options.MaxMessages, clock),
        };
        options.Limits.Announce |= options.Webhook.Url is not null;
        return new(engine, transport, verdicts, options.Limits, new Telemetry(store), clock, Logger<CommandQueue>(services));
    }

    private static Microsoft.Extensions.Logging.ILogger<T>? Logger<T>(IServiceProvider services) =>
        (Microsoft.Extensions.Logging.ILogger<T>?)services.GetService(typeof(Microsoft.Extensions.Logging.ILogger<T>));
}
