using System.Collections.Concurrent;
using System.Net;
using System.Text;
using System.Text.Json;
using Holdfast.Server;
using Holdfast.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Server;

/// <summary>The real server on a free loopback port, with an engine to look into from behind.</summary>
internal sealed class ServerUnderTest : IAsyncDisposable
{
    private readonly IStockEngine? _owned;

    private ServerUnderTest(WebApplication app, IStockEngine engine, IStockEngine? owned, LogLines log)
    {
        App = app;
        Engine = engine;
        _owned = owned;
        Log = log;
        Http = new() { BaseAddress = new(app.Urls.First().Replace("0.0.0.0", "127.0.0.1", StringComparison.Ordinal)) };
    }

    public WebApplication App { get; }

    public IStockEngine Engine { get; }

    public HttpClient Http { get; }

    public LogLines Log { get; }

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>Starts a server; over a new memory engine unless one is given.</summary>
    public static async Task<ServerUnderTest> StartAsync(IStockEngine? engine = null, TimeProvider? clock = null, params (string Name, string Value)[] settings)
    {
        var owned = engine is null ? new MemoryEngine(clock) : null;
        var log = new LogLines();
        var app = HoldfastServer.Build([], setup =>
        {
            setup.Engine = engine ?? owned;
            setup.TimeProvider = clock;
            setup.ReadsEnvironment = false;
            setup.ConfigureLogging = logging => logging.AddProvider(log).AddFilter("Holdfast", LogLevel.Debug);
            setup.Configuration["urls"] = "http://127.0.0.1:0";
            foreach (var (name, value) in settings)
            {
                setup.Configuration[name] = value;
            }
        });
        await app.StartAsync(Cancelled);
        return new(app, engine ?? owned!, owned, log);
    }

    /// <summary>Starts a server over a scheme of the catalogue, opened by the server itself.</summary>
    public static async Task<ServerUnderTest> StartSchemeAsync(string scheme, string store, params (string Name, string Value)[] settings)
    {
        var log = new LogLines();
        var app = HoldfastServer.Build([], setup =>
        {
            setup.ReadsEnvironment = false;
            setup.ConfigureLogging = logging => logging.AddProvider(log).AddFilter("Holdfast", LogLevel.Debug);
            setup.Configuration["urls"] = "http://127.0.0.1:0";
            setup.Configuration["Holdfast:Scheme"] = scheme;
            setup.Configuration["Holdfast:Store"] = store;
            foreach (var (name, value) in settings)
            {
                setup.Configuration[name] = value;
            }
        });
        await app.StartAsync(Cancelled);
        return new(app, app.Services.GetRequiredService<IStockEngine>(), owned: null, log);
    }

    public async Task<Answer> GetAsync(string path) => await Answer.ReadAsync(await Http.GetAsync(path, Cancelled));

    public Task<Answer> PostAsync(string path, string json) => SendAsync(HttpMethod.Post, path, json, "application/json");

    public async Task<Answer> SendAsync(HttpMethod method, string path, string? body, string? contentType, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(method, path);
        if (body is not null)
        {
            request.Content = new ByteArrayContent(Encoding.UTF8.GetBytes(body));

            // A server that refuses a large body does not read it; who sends it without asking first may find the connection closed instead of the answer.
            request.Headers.ExpectContinue = body.Length > 65_536;
            if (contentType is not null)
            {
                request.Content.Headers.TryAddWithoutValidation("Content-Type", contentType);
            }
        }

        foreach (var (name, value) in headers)
        {
            if (!request.Headers.TryAddWithoutValidation(name, value))
            {
                request.Content!.Headers.TryAddWithoutValidation(name, value);
            }
        }

        return await Answer.ReadAsync(await Http.SendAsync(request, Cancelled));
    }

    /// <summary>Sends lines as one batch and reads the answers' lines.</summary>
    public async Task<List<JsonElement>> BatchAsync(string lines, params (string Name, string Value)[] headers)
    {
        var answer = await SendAsync(HttpMethod.Post, "/v1/batch", lines, "application/x-ndjson", headers);
        answer.Status.ShouldBe(HttpStatusCode.OK, answer.Text);
        answer.ContentType.ShouldBe("application/x-ndjson");
        return [.. answer.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];
    }

    public async Task AuditAsync() => (await LedgerAudit.RunAsync(Engine, cancellationToken: Cancelled)).Differences.ShouldBeEmpty();

    public async ValueTask DisposeAsync()
    {
        Http.Dispose();
        using var atOnce = new CancellationTokenSource();
        await atOnce.CancelAsync();
        await App.StopAsync(atOnce.Token);
        await App.DisposeAsync();
        if (_owned is not null)
        {
            await _owned.DisposeAsync();
        }
    }
}

/// <summary>An answer with its body.</summary>
internal sealed record Answer(HttpStatusCode Status, string? ContentType, string Text, HttpResponseMessage Response)
{
    public JsonElement Json => JsonDocument.Parse(Text).RootElement;

    /// <summary>A field as text; <see langword="null"/> when it is absent.</summary>
    public string? this[string field] => Json.TryGetProperty(field, out var value) ? value.ToString() : null;

    public static async Task<Answer> ReadAsync(HttpResponseMessage response) => new(
        response.StatusCode,
        response.Content.Headers.ContentType?.MediaType,
        await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken),
        response);

    /// <summary>A problem document of this status and type.</summary>
    public void ShouldBeProblem(HttpStatusCode status, string type)
    {
        Status.ShouldBe(status, Text);
        ContentType.ShouldBe("application/problem+json");
        this["type"].ShouldBe(type);
        this["outcome"].ShouldBe(type[(type.LastIndexOf(':') + 1)..]);
        this["status"].ShouldBe(((int)status).ToString());
        this["title"].ShouldNotBeNullOrEmpty();
        this["detail"].ShouldNotBeNullOrEmpty();
        this["retry"].ShouldNotBeNullOrEmpty();
    }
}

/// <summary>What the server logged.</summary>
internal sealed class LogLines : ILoggerProvider
{
    public ConcurrentQueue<(LogLevel Level, string Category, string Text, Exception? Exception)> Lines { get; } = new();

    public ILogger CreateLogger(string categoryName) => new Category(this, categoryName);

    public void Dispose()
    {
    }

    private sealed class Category(LogLines log, string name) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            log.Lines.Enqueue((logLevel, name, formatter(state, exception), exception));
    }
}

/// <summary>An engine that does what a test says before, or in place of, the engine inside.</summary>
internal sealed class ScriptedEngine(IStockEngine inner, Func<IReadOnlyList<StockCommand>, CancellationToken, ValueTask<IReadOnlyList<StockResult>>> execute) : DelegatingStockEngine(inner)
{
    /// <summary>Answers every command with one result.</summary>
    public ScriptedEngine(StockResult answer)
        : this(new MemoryEngine(), (commands, _) => new(Enumerable.Repeat(answer, commands.Count).ToArray()))
    {
    }

    /// <summary>Runs before every read.</summary>
    public Func<CancellationToken, Task>? BeforeReads { get; init; }

    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
        execute(commands, cancellationToken);

    public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        if (BeforeReads is not null)
        {
            await BeforeReads(cancellationToken);
        }

        return await base.GetStockAsync(skus, options, cancellationToken);
    }
}
