using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Reflection;
using System.Runtime.InteropServices;
using Holdfast.Server;

namespace Holdfast.Ladder;

/// <summary>A server in a process of its own, so that it can be measured from outside, killed and watched.</summary>
internal sealed partial class ServerProcess : IAsyncDisposable
{
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan StopLimit = TimeSpan.FromSeconds(60);

    private static readonly string Dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";

    private readonly Process _process;

    private ServerProcess(Process process, Uri address, TimeSpan startTime)
    {
        _process = process;
        Address = address;
        StartTime = startTime;
    }

    public Uri Address { get; }

    public int Id => _process.Id;

    /// <summary>From the start of the process until it was ready to serve.</summary>
    public TimeSpan StartTime { get; }

    /// <summary>Starts the Holdfast server.</summary>
    /// <param name="scheme">Its scheme.</param>
    /// <param name="store">Its store.</param>
    /// <param name="port">Where on loopback; a free port by default.</param>
    /// <param name="under">A program to run it under, with its arguments; it must leave the server this process's child.</param>
    public static Task<ServerProcess> StartAsync(string scheme, string store, int? port = null, params string[] under)
    {
        var address = Loopback(port ?? FreePort());
        return StartAsync([.. under, Dotnet, typeof(HoldfastServer).Assembly.Location, "--scheme", scheme, "--store", store, "--urls", address.AbsoluteUri], address, "health/ready");
    }

    /// <summary>Starts the Holdfast server with the scheme <c>cached</c>.</summary>
    /// <param name="store">Its store.</param>
    /// <param name="redis">The server of its gate.</param>
    public static Task<ServerProcess> StartGatedAsync(string store, string redis, GateAcknowledgement acknowledge = GateAcknowledgement.Store)
    {
        var address = Loopback(FreePort());
        return StartAsync([Dotnet, typeof(HoldfastServer).Assembly.Location, "--scheme", "cached", "--store", store, "--gate", redis, "--acknowledge", acknowledge.ToString(), "--urls", address.AbsoluteUri], address, "health/ready");
    }

    /// <summary>Starts the Holdfast server with the scheme <c>queued</c>.</summary>
    /// <param name="store">Its store.</param>
    /// <param name="queue">Where its orders wait.</param>
    /// <param name="consumes">Whether it decides them, too.</param>
    /// <param name="settings">Settings of its queue, such as <c>MaxMessages</c>.</param>
    public static Task<ServerProcess> StartQueuedAsync(string store, string queue, bool consumes, params (string Name, string Value)[] settings)
    {
        var address = Loopback(FreePort());
        return StartAsync(
            [Dotnet, typeof(HoldfastServer).Assembly.Location, "--scheme", "queued", "--store", store, "--queue", queue, "--urls", address.AbsoluteUri],
            address,
            "health/ready",
            [("HOLDFAST_QUEUE__CONSUME", consumes ? "true" : "false"), .. settings.Select(setting => ("HOLDFAST_QUEUE__" + setting.Name.ToUpperInvariant(), setting.Value))]);
    }

    /// <summary>Starts a server whose endpoints do nothing, with the garbage collector that the Holdfast server has.</summary>
    public static Task<ServerProcess> StartEmptyAsync()
    {
        var address = Loopback(FreePort());
        return StartAsync([Dotnet, Assembly.GetExecutingAssembly().Location, "serve-empty", address.AbsoluteUri], address, EmptyServer.Path, ("DOTNET_gcServer", "1"), ("DOTNET_GCDynamicAdaptationMode", "1"), ("DOTNET_TieredPGO", "0"));
    }

    public static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    /// <summary>Ends it as kill -9 does: nothing of it runs any more.</summary>
    public async Task KillAsync()
    {
        _process.Kill(entireProcessTree: true);
        await _process.WaitForExitAsync().ConfigureAwait(false);
    }

    /// <summary>Asks it to stop, and waits until it has.</summary>
    public async Task StopAsync()
    {
        if (!_process.HasExited)
        {
            const int terminate = 15;
            if (Kill(_process.Id, terminate) != 0)
            {
                throw new InvalidOperationException($"The server process {_process.Id} could not be asked to stop.");
            }

            using var limit = new CancellationTokenSource(StopLimit);
            await _process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            await KillAsync().ConfigureAwait(false);
        }

        _process.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);

    private static Uri Loopback(int port) => new($"http://127.0.0.1:{port}");

    private static async Task<ServerProcess> StartAsync(string[] line, Uri address, string readyPath, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(line[0], line[1..]) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        var lastLines = new Queue<string>();
        var started = Stopwatch.GetTimestamp();
        var process = new Process { StartInfo = start };
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        using var http = new HttpClient { BaseAddress = address, Timeout = TimeSpan.FromSeconds(5) };
        while (true)
        {
            try
            {
                using var answer = await http.GetAsync(new Uri(readyPath, UriKind.Relative)).ConfigureAwait(false);
                if (answer.IsSuccessStatusCode)
                {
                    return new(process, address, Stopwatch.GetElapsedTime(started));
                }
            }
            catch (HttpRequestException)
            {
                // Not listening yet, or no more.
            }

            if (process.HasExited || Stopwatch.GetElapsedTime(started) > StartLimit)
            {
                if (!process.HasExited)
                {
                    process.Kill(entireProcessTree: true);
                }

                lock (lastLines)
                {
                    throw new InvalidOperationException($"The server did not get ready within {StartLimit.TotalSeconds:0} s. Its last lines:\n{string.Join('\n', lastLines)}");
                }
            }

            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System).ConfigureAwait(false);
        }

        void Keep(string? line)
        {
            if (line is not null)
            {
                lock (lastLines)
                {
                    lastLines.Enqueue(line);
                    if (lastLines.Count > 40)
                    {
                        lastLines.Dequeue();
                    }
                }
            }
        }
    }
}
