using System.Diagnostics;
using Holdfast.Cli;
using Holdfast.Tests.PostgreSql;
using Holdfast.Wire;
using Npgsql;

namespace Holdfast.Tests.Cli;

/// <summary>holdfast flow archive, and holdfast audit --archive.</summary>
public sealed class FlowCommandTests : IAsyncLifetime
{
    private readonly string _database = $"cli_{Environment.ProcessId}_{Guid.NewGuid():N}";
    private readonly TestFolder _folder = new();
    private string _server = "";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string ConnectionString => $"{_server};Database={_database}";

    private string Store => $"postgres:{ConnectionString}";

    public async ValueTask InitializeAsync()
    {
        // The command has no option for the schema: a database of its own.
        _server = await SharedPostgreSql.ConnectionStringAsync();
        await RunSqlAsync($"CREATE DATABASE {_database} TEMPLATE template0 ENCODING 'UTF8'");
    }

    public async ValueTask DisposeAsync()
    {
        NpgsqlConnection.ClearAllPools();
        await RunSqlAsync($"DROP DATABASE {_database} WITH (FORCE)");
        _folder.Dispose();
    }

    [Fact]
    public async Task A_ledger_is_archived_and_audited_with_and_without_the_file()
    {
        await SellAsync("first", 5);
        var before = TimeProvider.System.GetUtcNow().AddSeconds(2);
        await WaitUntilAsync(before);
        await SellAsync("second", 2);
        var (instant, file) = ($"{before:yyyy-MM-dd'T'HH:mm:ss.fff}Z", _folder.File("one.ndjson.gz"));

        var dry = await CommandRun.RunAsync("flow", "archive", "--store", Store, "--before", instant, "--out", file, "--dry-run");
        dry.ExitCode.ShouldBe(0, dry.Error);
        dry.Output.ShouldStartWith("would archive 6 entries of 1 SKUs");
        File.Exists(file).ShouldBeFalse();

        var run = await CommandRun.RunAsync("flow", "archive", "--store", Store, "--before", instant, "--out", file, "--json");
        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.GetProperty("archived").GetBoolean().ShouldBeTrue();
        run.Json.GetProperty("sha256").GetString().ShouldBe(await FlowArchiveFile.HashAsync(file, Token));
        var again = await CommandRun.RunAsync("flow", "archive", "--store", Store, "--before", instant, "--out", file);
        again.Output.ShouldStartWith("done before: 6 entries");

        var fromOpening = await CommandRun.RunAsync("audit", "--store", Store, "--json");
        fromOpening.ExitCode.ShouldBe(0, fromOpening.Error + fromOpening.Output);
        fromOpening.Json.GetProperty("entries").GetInt64().ShouldBe(1 + 3);
        var fromFirst = await CommandRun.RunAsync("audit", "--store", Store, "--archive", file, "--json");
        fromFirst.ExitCode.ShouldBe(0, fromFirst.Error + fromFirst.Output);
        fromFirst.Json.GetProperty("entries").GetInt64().ShouldBe(6 + 1 + 3);
    }

    [Theory]
    [InlineData("2026-13-01", "postgres:Host=x", "is no instant")]
    [InlineData("yesterday", "postgres:Host=x", "is no instant")]
    [InlineData("2020-01-01", "sqlite:x.db", "give the database itself")]
    [InlineData("2020-01-01", "postgres:Host=", "names no Host")]
    public async Task What_makes_no_sense_is_refused(string before, string store, string problem)
    {
        var run = await CommandRun.RunAsync("flow", "archive", "--store", store, "--before", before, "--out", _folder.File("x"));
        run.ExitCode.ShouldBe(ExitCode.Usage);
        run.Error.ShouldContain(problem);
    }

    [Fact]
    public async Task The_future_and_a_name_that_is_taken_are_refused_and_nothing_changes()
    {
        await SellAsync("first", 1);
        var future = await CommandRun.RunAsync("flow", "archive", "--store", Store, "--before", "2999-01-01", "--out", _folder.File("x"));
        (future.ExitCode, future.Error.Contains("later than the store's time", StringComparison.Ordinal)).ShouldBe((ExitCode.Usage, true), future.Error);

        var taken = _folder.Text("taken", "not an archive");
        var run = await CommandRun.RunAsync("flow", "archive", "--store", Store, "--before", $"{TimeProvider.System.GetUtcNow():yyyy-MM-dd'T'HH:mm:ss}Z", "--out", taken);
        run.ExitCode.ShouldBe(ExitCode.Failed);
        (await File.ReadAllTextAsync(taken, Token)).ShouldBe("not an archive");
        (await CommandRun.RunAsync("audit", "--store", Store)).ExitCode.ShouldBe(0);
    }

    /// <summary>The process is killed again and again at whatever it is doing; in the end everything is there once.</summary>
    [Fact]
    public async Task A_killed_archive_is_run_again_and_nothing_is_lost_or_doubled()
    {
        for (var i = 0; i < 10; i++)
        {
            await SellAsync($"o{i}-", 2_000);
        }

        var before = TimeProvider.System.GetUtcNow().AddSeconds(1);
        await WaitUntilAsync(before);
        var file = _folder.File("one.ndjson.gz");
        string[] arguments = ["flow", "archive", "--store", Store, "--before", $"{before:yyyy-MM-dd'T'HH:mm:ss.fff}Z", "--out", file];
        var random = new Random(5);
        for (var kill = 0; kill < 6; kill++)
        {
            using var process = Start(arguments);
            var noted = process.StandardError.ReadLineAsync(Token).AsTask();
            (await noted).ShouldNotBeNull().ShouldStartWith("archive: ");

            // From here on it takes some hundred milliseconds: at any of them.
            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(400)), TimeProvider.System, Token);
            process.Kill();
            await process.WaitForExitAsync(Token);
            (await CommandRun.RunAsync("audit", "--store", Store)).ExitCode.ShouldBe(0, $"after kill {kill}");
        }

        // The killed one's session, and with it its lock, goes when the server notices.
        CommandRun run;
        do
        {
            run = await CommandRun.RunAsync(arguments);
        }
        while (run.ExitCode != 0 && run.Error.Contains("another archive", StringComparison.Ordinal));
        run.ExitCode.ShouldBe(0, run.Error);
        (await FlowArchiveFile.ReadAsync(file, Token).CountAsync(Token)).ShouldBe(20_010);
        (await CommandRun.RunAsync("audit", "--store", Store, "--archive", file)).ExitCode.ShouldBe(0);
    }

    private static Process Start(string[] arguments)
    {
        var tests = Path.Combine(AppContext.BaseDirectory, "Holdfast.Tests");
        return Process.Start(new ProcessStartInfo("dotnet", ["exec", "--runtimeconfig", $"{tests}.runtimeconfig.json", "--depsfile", $"{tests}.deps.json", typeof(Terminal).Assembly.Location, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
    }

    private async Task SellAsync(string name, int orders)
    {
        await using var engine = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = ConnectionString }, cancellationToken: Token);
        await engine.RestockAsync($"{name}in", [("A", orders)], cancellationToken: Token);
        (await engine.ExecuteAsync([.. Enumerable.Range(0, orders).Select(i => StockCommand.Deduct($"{name}{i}", [("A", 1)]))], Token)).ShouldAllBe(result => result.Status == StockStatus.Done);
    }

    private async Task WaitUntilAsync(DateTimeOffset instant)
    {
        await RunSqlAsync(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"SELECT pg_sleep(greatest(0, extract(epoch FROM '{instant:O}'::timestamptz - clock_timestamp()))::float8)"));
    }

    private async Task RunSqlAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(_server + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}
