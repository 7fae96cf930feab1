using Holdfast.Client;
using Holdfast.Server;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Client;

/// <summary>The real server over an engine, on a free loopback port.</summary>
internal sealed class RunningServer : IAsyncDisposable
{
    private readonly WebApplication _app;

    private RunningServer(WebApplication app, Uri address)
    {
        _app = app;
        Address = address;
    }

    public Uri Address { get; }

    public static async Task<RunningServer> StartAsync(IStockEngine engine, TimeProvider? clock = null, int port = 0, IDictionary<string, string?>? settings = null)
    {
        var app = HoldfastServer.Build([], setup =>
        {
            setup.Engine = engine;
            setup.TimeProvider = clock;
            setup.ReadsEnvironment = false;
            setup.ConfigureLogging = static logging => logging.SetMinimumLevel(LogLevel.None);
            setup.Configuration["urls"] = $"http://127.0.0.1:{port}";
            foreach (var (name, value) in settings ?? new Dictionary<string, string?>())
            {
                setup.Configuration[name] = value;
            }
        });
        await app.StartAsync();
        return new(app, new(app.Urls.Single()));
    }

    /// <summary>Opens a client of its own for an engine behind HTTP; the scheme's start disposes the server and the engine.</summary>
    public static async ValueTask<IStockEngine> OpenClientAsync(Conformance.SchemeStart start, IStockEngine engine)
    {
        start.Own(engine);

        // The cases themselves say when an expired reservation is released.
        var server = await StartAsync(engine, start.Clock, settings: new Dictionary<string, string?> { ["Holdfast:Sweeper:Enabled"] = "false" });
        start.Own(server);
        return await HoldfastClient.ConnectAsync(server.Address);
    }

    /// <summary>Cuts every connection and stops.</summary>
    public async ValueTask DisposeAsync()
    {
        using var now = new CancellationTokenSource();
        await now.CancelAsync();
        await _app.StopAsync(now.Token);
        await _app.DisposeAsync();
    }
}
