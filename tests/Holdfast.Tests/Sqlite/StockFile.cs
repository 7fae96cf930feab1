using System.Diagnostics;
using Microsoft.Data.Sqlite;

namespace Holdfast.Tests.Sqlite;

/// <summary>A stock file in a folder of its own, gone with the test, and what tests do to it.</summary>
internal sealed class StockFile : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("holdfast-sqlite-").FullName;

    public StockFile() => Path = System.IO.Path.Combine(_folder, "stock.db");

    public string Path { get; }

    public SqliteOptions Options => new() { Path = Path, BusyTimeout = TimeSpan.FromSeconds(30) };

    public string In(string name) => System.IO.Path.Combine(_folder, name);

    public SqliteEngine Open(TimeProvider? clock = null) => SqliteEngine.Open(Options, clock);

    /// <summary>Does to the file what no engine does.</summary>
    public void Tamper(string sql)
    {
        using var connection = Connect();
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    public object? Ask(string sql)
    {
        using var connection = Connect();
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        return command.ExecuteScalar();
    }

    /// <summary>A foreign connection that keeps everybody else from writing until it is disposed.</summary>
    public IDisposable HoldWriteLock()
    {
        var connection = Connect();
        using var command = connection.CreateCommand();
        command.CommandText = "BEGIN IMMEDIATE";
        command.ExecuteNonQuery();
        return connection;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private SqliteConnection Connect()
    {
        var connection = new SqliteConnection($"Data Source={Path};Pooling=False");
        connection.Open();
        return connection;
    }
}

/// <summary>A second process on a stock file; killed with the test.</summary>
internal sealed class StockProcess : IAsyncDisposable
{
    private readonly Process _process;

    private StockProcess(Process process) => _process = process;

    public int Id => _process.Id;

    /// <summary>Starts it; see the verbs in its Program.cs.</summary>
    public static StockProcess Start(string verb, string path) => Start(new ProcessStartInfo("dotnet") { ArgumentList = { Program(), verb, path } });

    /// <summary>Starts it where no file grows beyond so many KiB: what a disk that fills up looks like to it.</summary>
    public static StockProcess StartWithFilesUpTo(int kibibytes, string verb, string path) => Start(new ProcessStartInfo("bash")
    {
        ArgumentList = { "-c", $"trap '' XFSZ; ulimit -f {kibibytes}; exec dotnet \"$@\"", "bash", Program(), verb, path },

        // The runtime's own double mapping of code needs a large file in memory.
        Environment = { ["DOTNET_EnableWriteXorExecute"] = "0" },
    });

    /// <summary>The next line that it says; <see langword="null"/> when it has ended.</summary>
    public ValueTask<string?> ReadLineAsync() => _process.StandardOutput.ReadLineAsync(Timeout());

    /// <summary>All that it says until it has ended.</summary>
    public Task<string> ReadToEndAsync() => _process.StandardOutput.ReadToEndAsync(Timeout());

    public async Task<int> EndAsync()
    {
        _process.StandardInput.Close();
        await _process.WaitForExitAsync(Timeout());
        return _process.ExitCode;
    }

    /// <summary>kill -9.</summary>
    public void Kill() => _process.Kill();

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            await _process.WaitForExitAsync(Timeout());
        }

        _process.Dispose();
    }

    /// <summary>Built beside the tests, in the same configuration: artifacts/bin/PROJECT/CONFIGURATION.</summary>
    private static string Program()
    {
        var own = new DirectoryInfo(AppContext.BaseDirectory);
        return System.IO.Path.Combine(own.Parent!.Parent!.FullName, "Holdfast.SqliteProcess", own.Name, "Holdfast.SqliteProcess.dll");
    }

    private static StockProcess Start(ProcessStartInfo start)
    {
        start.UseShellExecute = false;
        start.RedirectStandardInput = true;
        start.RedirectStandardOutput = true;
        return new(Process.Start(start)!);
    }

    private static CancellationToken Timeout() => TestContext.Current.CancellationToken;
}
