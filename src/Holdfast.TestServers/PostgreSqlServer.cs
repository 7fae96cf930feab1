using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace Holdfast.TestServers;

/// <summary>
/// A real PostgreSQL server of a test's or benchmark's own: on a free port of the loopback, its files in a temporary folder, run by a
/// user other than root. Durable as in production (fsync on), with small buffers. Disposing stops and removes it.
/// </summary>
public sealed class PostgreSqlServer : IAsyncDisposable
{
    private static readonly TimeSpan s_startTimeout = TimeSpan.FromSeconds(60);

    private readonly string _folder;
    private readonly List<string> _settings;

    /// <summary>
    /// What an ordinary small server is set to, for measurements. Old log files are kept for use again, as on a server that has run
    /// for an hour, and no checkpoint by time falls into one side of a pair.
    /// </summary>
    public static IReadOnlyList<string> MeasuredSettings { get; } = ["shared_buffers=512MB", "min_wal_size=2GB", "max_wal_size=4GB", "checkpoint_timeout=1h"];

    private PostgreSqlServer(string folder, int port, List<string> settings)
    {
        _folder = folder;
        Port = port;
        _settings = settings;
    }

    /// <summary>Where it listens, on 127.0.0.1.</summary>
    public int Port { get; }

    /// <summary>Where its files are.</summary>
    public string DataFolder => Path.Combine(_folder, "data");

    /// <summary>How the superuser connects. The password is not asked for; it is there to be looked for where it must not be.</summary>
    public string ConnectionString => string.Create(
        CultureInfo.InvariantCulture, $"Host=127.0.0.1;Port={Port};Database=postgres;Username=postgres;Password=correct-horse-battery;SSL Mode=Disable;GSS Encryption Mode=Disable");

    /// <summary>One connection string for a primary and its standbys: the driver finds out who is who.</summary>
    public static string ConnectionStringOf(params PostgreSqlServer[] servers) => new NpgsqlConnectionStringBuilder(servers[0].ConnectionString)
    {
        Host = string.Join(',', servers.Select(server => string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{server.Port}"))),
    }.ConnectionString;

    /// <summary>Makes and starts a primary.</summary>
    /// <param name="settings">Settings beside those that every test server has, such as <c>max_connections=10</c>.</param>
    public static async Task<PostgreSqlServer> StartAsync(params string[] settings)
    {
        var server = Make(settings);
        await RunAsync("initdb", "-D", server.DataFolder, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync");
        await server.StartAsync();
        return server;
    }

    /// <summary>Makes and starts a streaming standby of this server.</summary>
    public async Task<PostgreSqlServer> StartStandbyAsync(params string[] settings)
    {
        var standby = Make(settings);
        await RunAsync(
            "pg_basebackup", "-D", standby.DataFolder, "-h", "127.0.0.1", "-p", Port.ToString(CultureInfo.InvariantCulture), "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync");
        await standby.StartAsync();
        return standby;
    }

    /// <summary>Starts a server that was stopped or killed.</summary>
    public async Task StartAsync()
    {
        var options = string.Join(' ', _settings.Select(setting => $"-c {setting}"));
        await RunAsync(
            "pg_ctl", "-D", DataFolder, "-l", Path.Combine(_folder, "log"), "-w", "-t", ((int)s_startTimeout.TotalSeconds).ToString(CultureInfo.InvariantCulture),
            "-o", string.Create(CultureInfo.InvariantCulture, $"-p {Port} {options}"), "start");
    }

    /// <summary>Stops it: <c>fast</c> ends its sessions and writes everything down, <c>immediate</c> is a crash without a kill.</summary>
    public Task StopAsync(string mode = "fast") => RunAsync("pg_ctl", "-D", DataFolder, "-w", "-m", mode, "stop");

    /// <summary>Makes a standby the primary.</summary>
    public Task PromoteAsync() => RunAsync("pg_ctl", "-D", DataFolder, "-w", "promote");

    /// <summary>Kills every process of the server (kill -9), the main one and its children, and waits until they have ended.</summary>
    public async Task KillAsync()
    {
        // Stopped first, so that it starts no child that the list lacks.
        var main = MainProcess().ToString(CultureInfo.InvariantCulture);
        await RunToolAsync("sh", "-c", $"kill -STOP {main}; all=\"{main} $(ps -o pid= --ppid {main})\"; kill -9 $all 2>/dev/null; for one in $all; do while kill -0 $one 2>/dev/null; do sleep 0.02; done; done");
    }

    /// <summary>Stops every process of the server where it stands, or lets it go on.</summary>
    public async Task PauseAsync(bool paused)
    {
        var main = MainProcess().ToString(CultureInfo.InvariantCulture);
        await RunToolAsync("sh", "-c", $"kill -{(paused ? "STOP" : "CONT")} {main} $(ps -o pid= --ppid {main})");
    }

    /// <summary>Stops the processes that send to the standbys where they stand: from now on these get nothing.</summary>
    public async Task PauseReplicationAsync()
    {
        var senders = (string)(await RunSqlAsync("SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_replication"))!;
        await RunToolAsync("sh", "-c", $"kill -STOP {senders}");
    }

    /// <summary>Changes a setting of the running server.</summary>
    public async Task SetAsync(string name, string value)
    {
        await RunSqlAsync($"ALTER SYSTEM SET {name} = '{value}'");
        await RunSqlAsync("SELECT pg_reload_conf()");
    }

    /// <summary>Lets a standby fall behind: it stops repeating what the primary does. Returns when it has stopped.</summary>
    public async Task PauseReplayAsync()
    {
        await RunSqlAsync("SELECT pg_wal_replay_pause()");
        using var limit = new CancellationTokenSource(s_startTimeout, TimeProvider.System);
        while (await RunSqlAsync("SELECT pg_get_wal_replay_pause_state()") is not "paused")
        {
            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, limit.Token);
        }
    }

    /// <summary>Runs one statement as the superuser, over a connection of its own.</summary>
    public async Task<object?> RunSqlAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(ConnectionString + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        return await command.ExecuteScalarAsync();
    }

    /// <summary>Version and settings of durability, as the server says them.</summary>
    public async Task<string> DescribeAsync() => (string)(await RunSqlAsync(
        """
        SELECT 'PostgreSQL ' || current_setting('server_version') || ': ' || string_agg(name || '=' || current_setting(name), ', ' ORDER BY name)
        FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method', 'shared_buffers', 'max_wal_size', 'min_wal_size', 'checkpoint_timeout', 'autovacuum')
        """))!;

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (File.Exists(Path.Combine(DataFolder, "postmaster.pid")))
        {
            try
            {
                await StopAsync("immediate");
            }
            catch (InvalidOperationException) when (!IsRunning())
            {
                // It was killed, and left its pid file behind.
            }
        }

        await RunAsUserAsync("rm", "-rf", _folder);
    }

    private bool IsRunning()
    {
        try
        {
            using var main = Process.GetProcessById(MainProcess());
            return !main.HasExited;
        }
        catch (ArgumentException)
        {
            return false;
        }
    }

    private int MainProcess() => int.Parse(File.ReadLines(Path.Combine(DataFolder, "postmaster.pid")).First(), CultureInfo.InvariantCulture);

    private static PostgreSqlServer Make(string[] settings)
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-postgres-").FullName;
        if (Environment.UserName == "root")
        {
            RunToolAsync("chown", "postgres", folder).GetAwaiter().GetResult();
        }

        // Small, but as durable as any.
        List<string> all =
        [
            "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=on", "synchronous_commit=on", "shared_buffers=64MB", "max_connections=300", "max_wal_size=1GB", .. settings,
        ];
        return new(folder, FreePort(), all);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    /// <summary>Where one of PostgreSQL's programs is.</summary>
    /// <exception cref="InvalidOperationException">It is not installed; the message says what to do.</exception>
    public static string Binary(string name)
    {
        IEnumerable<string> folders = [];
        if (Environment.GetEnvironmentVariable("HOLDFAST_POSTGRES_BIN") is { Length: > 0 } given)
        {
            folders = [given];
        }
        else
        {
            if (Directory.Exists("/usr/lib/postgresql"))
            {
                folders = Directory.GetDirectories("/usr/lib/postgresql").OrderByDescending(path => path, StringComparer.Ordinal).Select(path => Path.Combine(path, "bin"));
            }

            folders = [.. folders, .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)];
        }

        return folders.Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists) ?? throw new InvalidOperationException(
            $"PostgreSQL's program '{name}' is not there. Install PostgreSQL 14 or newer (Debian: apt-get install postgresql), name its folder in HOLDFAST_POSTGRES_BIN, or give a running server in HOLDFAST_TEST_POSTGRES.");
    }

    private static Task RunAsync(string program, params string[] arguments) => RunAsUserAsync([Binary(program), .. arguments]);

    /// <summary>PostgreSQL refuses to run as root.</summary>
    private static Task RunAsUserAsync(params string[] command) => Environment.UserName == "root"
        ? RunToolAsync("setpriv", ["--reuid=postgres", "--regid=postgres", "--init-groups", .. command])
        : RunToolAsync(command[0], command[1..]);

    private static async Task RunToolAsync(string program, params string[] arguments)
    {
        // What it starts in the background must not hold our pipes open, so its words go to a file.
        var said = Path.GetTempFileName();
        try
        {
            using var process = Process.Start(new ProcessStartInfo("sh", ["-c", "out=$1; shift; exec \"$@\" >\"$out\" 2>&1 </dev/null", "sh", said, program, .. arguments])
            {
                WorkingDirectory = Path.GetTempPath(),
            })!;
            await process.WaitForExitAsync();
            if (process.ExitCode != 0)
            {
                throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}: {await File.ReadAllTextAsync(said)}");
            }
        }
        finally
        {
            File.Delete(said);
        }
    }
}
