using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Holdfast.TestServers;

/// <summary>
/// A real RabbitMQ server of a test's or benchmark's own: on free ports of the loopback, with a name server (epmd) of its
/// own, its files in a temporary folder, run by a user other than root. Disposing kills and removes it.
/// </summary>
public sealed class RabbitMqServer : IAsyncDisposable
{
    private static readonly TimeSpan s_startTimeout = TimeSpan.FromSeconds(120);

    private readonly string _folder;
    private readonly int _distributionPort;
    private readonly int _epmdPort;
    private Process? _process;
    private Process? _nameServer;

    private RabbitMqServer(string folder)
    {
        _folder = folder;
        Port = RedisServer.FreePort();
        _distributionPort = RedisServer.FreePort();
        _epmdPort = RedisServer.FreePort();
    }

    /// <summary>Where it listens, on 127.0.0.1.</summary>
    public int Port { get; }

    /// <summary>How a client connects. The broker lets this user in from the loopback only.</summary>
    public string Uri => string.Create(CultureInfo.InvariantCulture, $"amqp://guest:guest@127.0.0.1:{Port}/");

    /// <summary>What the server has written into its log.</summary>
    public string Log => string.Concat(Directory.EnumerateFiles(Path.Combine(_folder, "log")).Select(File.ReadAllText));

    /// <summary>Makes and starts a server.</summary>
    public static async Task<RabbitMqServer> StartAsync()
    {
        var server = new RabbitMqServer(Directory.CreateTempSubdirectory("holdfast-rabbitmq-").FullName);
        try
        {
            await server.PrepareAsync();
            await server.StartAgainAsync();
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts a server that was killed, on the same ports and files.</summary>
    public async Task StartAgainAsync()
    {
        // The broker would start a name server that outlives it; one that is there already it takes.
        _nameServer ??= Process.Start(new ProcessStartInfo("epmd", ["-port", _epmdPort.ToString(CultureInfo.InvariantCulture), "-address", "127.0.0.1"]) { WorkingDirectory = _folder })!;

        // Its own session, so that it can be killed with all that it starts. Idle schedulers sleep: the machine is shared.
        var start = new ProcessStartInfo("setsid") { WorkingDirectory = _folder, RedirectStandardOutput = false };
        foreach (var word in AsUser(["sh", "-c", "exec \"$0\" >>\"$1\" 2>&1 </dev/null", Binary("rabbitmq-server"), Path.Combine(_folder, "out")]))
        {
            start.ArgumentList.Add(word);
        }

        foreach (var (name, value) in new (string, string)[]
        {
            ("HOME", _folder),
            ("RABBITMQ_NODENAME", string.Create(CultureInfo.InvariantCulture, $"holdfast{Port}@localhost")),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
            ("RABBITMQ_NODE_PORT", Port.ToString(CultureInfo.InvariantCulture)),
            ("RABBITMQ_DIST_PORT", _distributionPort.ToString(CultureInfo.InvariantCulture)),
            ("ERL_EPMD_PORT", _epmdPort.ToString(CultureInfo.InvariantCulture)),
            ("ERL_EPMD_ADDRESS", "127.0.0.1"),
            ("RABBITMQ_MNESIA_BASE", Path.Combine(_folder, "data")),
            ("RABBITMQ_LOG_BASE", Path.Combine(_folder, "log")),
            ("RABBITMQ_CONFIG_FILE", Path.Combine(_folder, "rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", Path.Combine(_folder, "enabled_plugins")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none"),
        })
        {
            start.Environment[name] = value;
        }

        _process = Process.Start(start)!;
        await RedisServer.UntilAsync(
            async () => _process.HasExited
                ? throw new InvalidOperationException($"rabbitmq-server ended with {_process.ExitCode}: {await File.ReadAllTextAsync(Path.Combine(_folder, "out"))}")
                : await AnswersAsync(),
            "rabbitmq-server answers",
            s_startTimeout);
    }

    /// <summary>Kills it and all that it has started (SIGKILL), and waits until it is gone.</summary>
    public async Task KillAsync()
    {
        if (_process is { HasExited: false } process)
        {
            await RunAsync("kill", "-9", "--", string.Create(CultureInfo.InvariantCulture, $"-{process.Id}"));
            await process.WaitForExitAsync();
        }
    }

    /// <summary>Kills it and starts it again.</summary>
    public async Task RestartAsync()
    {
        await KillAsync();
        await StartAgainAsync();
    }

    /// <summary>Stops the process where it stands (SIGSTOP), or lets it go on.</summary>
    public Task PauseAsync(bool paused) => RunAsync("kill", paused ? "-STOP" : "-CONT", "--", string.Create(CultureInfo.InvariantCulture, $"-{_process!.Id}"));

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await KillAsync();
        _process?.Dispose();

        _nameServer?.Kill();
        _nameServer?.Dispose();
        await RunAsync("rm", "-rf", _folder);
    }

    /// <summary>Where a program of RabbitMQ is: in HOLDFAST_RABBITMQ_BIN, or where Debian has it.</summary>
    public static string Binary(string name)
    {
        // The one on Debian's path changes the user by itself, and takes no settings from the environment.
        IEnumerable<string> folders = Environment.GetEnvironmentVariable("HOLDFAST_RABBITMQ_BIN") is { Length: > 0 } given
            ? [given]
            : ["/usr/lib/rabbitmq/bin", .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)];
        return folders.Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists) ?? throw new InvalidOperationException(
            $"RabbitMQ's program '{name}' is not there. Install RabbitMQ 3.10 or newer (Debian: apt-get install rabbitmq-server), or name its folder in HOLDFAST_RABBITMQ_BIN.");
    }

    private async Task PrepareAsync()
    {
        await File.WriteAllTextAsync(Path.Combine(_folder, "rabbitmq.conf"), "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\nlog.console = false\n");
        await File.WriteAllTextAsync(Path.Combine(_folder, "enabled_plugins"), "[].\n");
        Directory.CreateDirectory(Path.Combine(_folder, "data"));
        Directory.CreateDirectory(Path.Combine(_folder, "log"));
        if (Environment.UserName == "root")
        {
            await RunAsync("chown", "-R", "rabbitmq", _folder);
        }
    }

    /// <summary>Whether it greets as a broker does: it listens a little before.</summary>
    private async Task<bool> AnswersAsync()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(2), TimeProvider.System);
        try
        {
            using var client = new TcpClient();
            await client.ConnectAsync(IPAddress.Loopback, Port, limit.Token);
            var stream = client.GetStream();
            await stream.WriteAsync("AMQP\0\0\u0009\u0001"u8.ToArray(), limit.Token);
            var first = new byte[1];
            return await stream.ReadAsync(first, limit.Token) == 1 && first[0] == 1;
        }
        catch (Exception e) when (e is SocketException or IOException or OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>RabbitMQ should not run as root.</summary>
    private static string[] AsUser(string[] command) =>
        Environment.UserName == "root" ? ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups", .. command] : command;

    private static async Task RunAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments))!;
        await process.WaitForExitAsync();
    }
}
