using System.Net;
using System.Text.Json;
using Holdfast.Wire;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Holdfast.Tests.Client;

/// <summary>
/// A real HTTP server on a free loopback port that does what a test's script says with each request: for failures that a
/// well-behaved server can't be made to show.
/// </summary>
internal sealed class ScriptedServer : IAsyncDisposable
{
    private readonly WebApplication _app;
    private int _requests;

    private ScriptedServer(WebApplication app) => _app = app;

    public Uri Address { get; private set; } = null!;

    /// <summary>Requests that arrived so far.</summary>
    public int Requests => Volatile.Read(ref _requests);

    public static async Task<ScriptedServer> StartAsync(Func<HttpContext, int, Task> script, int port = 0)
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.Services.AddRoutingCore();
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, port));
        var app = builder.Build();
        var server = new ScriptedServer(app);
        app.Run(context => script(context, Interlocked.Increment(ref server._requests)));
        await app.StartAsync();
        server.Address = new(app.Urls.Single());
        return server;
    }

    /// <summary>Reads the commands of a batch request.</summary>
    public static async Task<List<StockCommand>> ReadCommandsAsync(HttpContext context)
    {
        var commands = new List<StockCommand>();
        using var reader = new StreamReader(context.Request.Body);
        while (await reader.ReadLineAsync() is { } line)
        {
            commands.Add(StockJson.ReadCommand(System.Text.Encoding.UTF8.GetBytes(line)));
        }

        return commands;
    }

    /// <summary>The answer's lines, each with its end.</summary>
    public static List<byte[]> Lines(IEnumerable<StockResult> results) => [.. results.Select(result =>
    {
        using var line = new MemoryStream();
        using (var writer = new Utf8JsonWriter(line))
        {
            StockJson.WriteResult(writer, result);
        }

        line.WriteByte((byte)'\n');
        return line.ToArray();
    })];

    public static async Task WriteAsync(HttpContext context, IEnumerable<byte[]> lines)
    {
        foreach (var line in lines)
        {
            await context.Response.Body.WriteAsync(line);
        }

        await context.Response.Body.FlushAsync();
    }

    /// <summary>What a sound server does with a batch.</summary>
    public static async Task ServeAsync(HttpContext context, IStockEngine engine)
    {
        var commands = await ReadCommandsAsync(context);
        await WriteAsync(context, Lines(await engine.ExecuteAsync(commands)));
    }

    public async ValueTask DisposeAsync()
    {
        using var now = new CancellationTokenSource();
        await now.CancelAsync();
        await _app.StopAsync(now.Token);
        await _app.DisposeAsync();
    }
}
