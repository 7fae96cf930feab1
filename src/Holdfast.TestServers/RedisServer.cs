using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Holdfast.TestServers;

/// <summary>
/// A real Redis server of a test's or benchmark's own: on a free port of the loopback, its files in a temporary folder.
/// Writes an append-only file flushed every second, unless told otherwise. Disposing kills and removes it.
/// </summary>
public sealed class RedisServer : IAsyncDisposable
{
    private static readonly TimeSpan s_startTimeout = TimeSpan.FromSeconds(60);

    private readonly string _folder;
    private readonly List<(string Name, string Value)> _settings;
    private Process? _process;

    private RedisServer(string folder, int port, List<(string Name, string Value)> settings)
    {
        _folder = folder;
        Port = port;
        _settings = settings;
    }

    /// <summary>Where it listens, on 127.0.0.1.</summary>
    public int Port { get; }

    /// <summary>Where its files are: the append-only files below <c>appendonlydir</c>, and <c>dump.rdb</c>.</summary>
    public string DataFolder => _folder;

    /// <summary>How a client connects.</summary>
    public string Configuration => string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{Port}");

    /// <summary>What the server has written into its log.</summary>
    public string Log => File.Exists(LogFile) ? File.ReadAllText(LogFile) : "";

    private string LogFile => Path.Combine(_folder, "redis.log");

    /// <summary>Makes and starts a server.</summary>
    /// <param name="settings">Settings beside, or instead of, those that every test server has, such as <c>appendfsync always</c>.</param>
    public static async Task<RedisServer> StartAsync(params string[] settings)
    {
        var server = Make(settings);
        try
        {
            await server.StartAsync();
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>Makes and starts a replica of this server, and waits until it has a copy.</summary>
    public async Task<RedisServer> StartReplicaAsync(params string[] settings)
    {
        var replica = await StartAsync([string.Create(CultureInfo.InvariantCulture, $"replicaof 127.0.0.1 {Port}"), .. settings]);
        await UntilAsync(async () => (await replica.CliAsync("INFO", "replication")).Contains("master_link_status:up", StringComparison.Ordinal), "the replica has its copy");
        return replica;
    }

    /// <summary>Starts a server that was stopped or killed, on the same port and files.</summary>
    public async Task StartAsync()
    {
        var start = new ProcessStartInfo(Binary("redis-server")) { WorkingDirectory = _folder };
        foreach (var (name, value) in _settings)
        {
            start.ArgumentList.Add("--" + name);
            foreach (var word in value.Split(' '))
            {
                start.ArgumentList.Add(word);
            }
        }

        _process = Process.Start(start)!;
        await UntilAsync(
            async () => _process.HasExited
                ? throw new InvalidOperationException($"redis-server ended with {_process.ExitCode}: {Log}")
                : await CliAsync("PING") == "PONG",
            "redis-server answers");
    }

    /// <summary>Kills it (SIGKILL) and waits until it is gone.</summary>
    public async Task KillAsync()
    {
        if (_process is { HasExited: false } process)
        {
            process.Kill();
            await process.WaitForExitAsync();
        }
    }

    /// <summary>Ends it in an orderly way, its files written.</summary>
    public async Task StopAsync()
    {
        await CliAsync("SHUTDOWN");
        await _process!.WaitForExitAsync();
    }

    /// <summary>Kills it and starts it again.</summary>
    public async Task RestartAsync()
    {
        await KillAsync();
        await StartAsync();
    }

    /// <summary>Stops the process where it stands (SIGSTOP).</summary>
    public Task PauseAsync() => RunAsync("kill", "-STOP", _process!.Id.ToString(CultureInfo.InvariantCulture));

    /// <summary>Lets it go on (SIGCONT).</summary>
    public Task ResumeAsync() => RunAsync("kill", "-CONT", _process!.Id.ToString(CultureInfo.InvariantCulture));

    /// <summary>Runs one command by redis-cli and returns its answer as text; an error is part of the text.</summary>
    public Task<string> CliAsync(params string[] command) => RunAsync(Binary("redis-cli"), ["-h", "127.0.0.1", "-p", Port.ToString(CultureInfo.InvariantCulture), .. command]);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await KillAsync();
        _process?.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>Where a program of Redis is: in HOLDFAST_REDIS_BIN, or on the path.</summary>
    public static string Binary(string name)
    {
        IEnumerable<string> folders = Environment.GetEnvironmentVariable("HOLDFAST_REDIS_BIN") is { Length: > 0 } given
            ? [given]
            : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator);
        return folders.Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists) ?? throw new InvalidOperationException(
            $"Redis's program '{name}' is not there. Install Redis 7 or newer (Debian: apt-get install redis-server), or name its folder in HOLDFAST_REDIS_BIN.");
    }

    internal static RedisServer Make(IEnumerable<string> settings)
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-redis-").FullName;
        var port = FreePort();
        List<(string Name, string Value)> all =
        [
            ("port", port.ToString(CultureInfo.InvariantCulture)), ("bind", "127.0.0.1"), ("dir", folder), ("logfile", Path.Combine(folder, "redis.log")),
            ("appendonly", "yes"), ("appendfsync", "everysec"), ("save", ""), ("enable-debug-command", "yes"), ("repl-diskless-sync-delay", "0"),
        ];
        foreach (var setting in settings)
        {
            var space = setting.IndexOf(' ', StringComparison.Ordinal);
            var (name, value) = (setting[..space], setting[(space + 1)..]);
            all.RemoveAll(each => each.Name == name);
            all.Add((name, value));
        }

        return new(folder, port, all);
    }

    internal static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    /// <summary>Awaits a condition of a server that changes by itself.</summary>
    internal static async Task UntilAsync(Func<Task<bool>> condition, string what, TimeSpan? atMost = null)
    {
        var limit = atMost ?? s_startTimeout;
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            if (TimeProvider.System.GetElapsedTime(began) > limit)
            {
                throw new TimeoutException($"Waited {limit.TotalSeconds:0} s in vain until {what}.");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System);
        }
    }

    private static async Task<string> RunAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
        var error = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return (output + await error).Trim();
    }
}
