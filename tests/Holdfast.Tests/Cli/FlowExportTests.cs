using Holdfast.Wire;

namespace Holdfast.Tests.Cli;

/// <summary>holdfast flow export.</summary>
public sealed class FlowExportTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_ledger_is_exported_in_parts_that_are_the_whole()
    {
        using var folder = new TestFolder();
        var store = $"sqlite:{folder.File("stock.db")}";
        await using var engine = SqliteEngine.Open(new() { Path = folder.File("stock.db") });
        await engine.RestockAsync("in", [("apple", 10), ("pear", 10)], cancellationToken: Cancel);
        await engine.DeductAsync("o1", [("apple", 3)], cancellationToken: Cancel);

        var first = await CommandRun.RunAsync("flow", "export", "--store", store, "--out", folder.File("1.gz"), "--limit", "2", "--json");
        first.ExitCode.ShouldBe(0, first.Error);
        (first.Json.GetProperty("entries").GetInt64(), first.Json.GetProperty("complete").GetBoolean()).ShouldBe((2, true));
        first.Json.GetProperty("sha256").GetString().ShouldBe(await FlowArchiveFile.HashAsync(folder.File("1.gz"), Cancel));

        // What is sold between two exports is in the second.
        await engine.DeductAsync("o2", [("pear", 1)], cancellationToken: Cancel);
        var cursor = first.Json.GetProperty("next").GetString()!;
        var second = await CommandRun.RunAsync("flow", "export", "--store", store, "--out", folder.File("2.gz"), "--after", cursor);
        second.ExitCode.ShouldBe(0, second.Error);
        second.Output.ShouldStartWith("exported 2 entries into ");

        var exported = new List<FlowEntry>();
        foreach (var name in (string[])["1.gz", "2.gz"])
        {
            exported.AddRange(await FlowArchiveFile.ReadAsync(folder.File(name), Cancel).ToListAsync(Cancel));
        }

        exported.ShouldBe((await engine.ReadFlowAsync(new(), Cancel).ToListAsync(Cancel)).Select(entry => entry with { Cursor = null }));
        var last = second.Output.Split("--after ")[1].Trim();
        var nothing = await CommandRun.RunAsync("flow", "export", "--store", store, "--out", folder.File("3.gz"), "--after", last);
        nothing.ExitCode.ShouldBe(0, nothing.Error);
        nothing.Output.ShouldStartWith("nothing to export");
        nothing.Output.ShouldContain($"go on with --after {last}", customMessage: "a script that keeps the cursor keeps it");
        (File.Exists(folder.File("3.gz")), File.Exists(folder.File("3.gz.partial"))).ShouldBe((false, false));
    }

    [Fact]
    public async Task Pure_Redis_is_exported_too()
    {
        using var folder = new TestFolder();
        await using var server = await RedisServer.StartAsync();
        await using var engine = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: Cancel);
        await engine.RestockAsync("in", [("apple", 10)], cancellationToken: Cancel);
        await engine.DeductAsync("o1", [("apple", 3)], cancellationToken: Cancel);
        var run = await CommandRun.RunAsync("flow", "export", "--store", $"redis:{server.Configuration}", "--out", folder.File("1.gz"));
        run.ExitCode.ShouldBe(0, run.Error);
        (await FlowArchiveFile.ReadAsync(folder.File("1.gz"), Cancel).ToListAsync(Cancel)).Select(entry => entry.OperationId).ShouldBe(["in", "o1"]);
    }

    [Fact]
    public async Task What_exists_is_not_written_over_and_a_cursor_of_another_store_is_refused()
    {
        using var folder = new TestFolder();
        var store = $"sqlite:{folder.File("stock.db")}";
        await using (var engine = SqliteEngine.Open(new() { Path = folder.File("stock.db") }))
        {
            await engine.RestockAsync("in", [("apple", 10)], cancellationToken: Cancel);
        }

        var exists = await CommandRun.RunAsync("flow", "export", "--store", store, "--out", folder.Text("1.gz", "mine"));
        exists.ExitCode.ShouldBe(2);
        exists.Error.ShouldContain("exists");
        File.ReadAllText(folder.File("1.gz")).ShouldBe("mine");

        var foreign = await CommandRun.RunAsync("flow", "export", "--store", store, "--out", folder.File("2.gz"), "--after", "no cursor");
        foreign.ExitCode.ShouldBe(2);
        foreign.Error.ShouldContain("--after");
        File.Exists(folder.File("2.gz.partial")).ShouldBeFalse();
    }

    [Theory]
    [InlineData("sqlite")]
    [InlineData("postgres")]
    public async Task A_database_holds_each_entry_once_and_knows_how_far_it_came(string kind)
    {
        using var folder = new TestFolder();
        var store = $"sqlite:{folder.File("stock.db")}";
        await using var engine = SqliteEngine.Open(new() { Path = folder.File("stock.db") });
        await engine.RestockAsync("in", [("apple", 10), ("pear", 10)], cancellationToken: Cancel);
        await engine.DeductAsync("o1", [("apple", 3)], cancellationToken: Cancel);
        var name = $"copy {Guid.NewGuid():N}";
        var into = kind == "sqlite" ? $"sqlite:{folder.File("copy.db")}" : $"postgres:{await PostgreSql.SharedPostgreSql.ConnectionStringAsync()}";
        string[] command = ["flow", "export", "--store", store, "--into", into, "--name", name];

        var first = await CommandRun.RunAsync([.. command, "--limit", "2", "--json"]);
        first.ExitCode.ShouldBe(0, first.Error);
        (first.Json.GetProperty("entries").GetInt64(), first.Json.GetProperty("complete").GetBoolean()).ShouldBe((2, true));
        await engine.DeductAsync("o2", [("pear", 1)], cancellationToken: Cancel);
        var second = await CommandRun.RunAsync(command);
        second.ExitCode.ShouldBe(0, second.Error);
        second.Output.ShouldStartWith("exported 2 entries into ");
        var third = await CommandRun.RunAsync(command);
        third.Output.ShouldStartWith("exported 0 entries into ");

        var rows = await ReadCopyAsync(kind, into[(kind.Length + 1)..], name);
        rows.ShouldBe(["apple 1 in Restock 10 10", "apple 2 o1 Deduct -3 7", "pear 1 in Restock 10 10", "pear 2 o2 Deduct -1 9"]);
    }

    [Fact]
    public async Task A_second_export_at_once_and_another_stores_copy_are_refused()
    {
        using var folder = new TestFolder();
        await using var engine = SqliteEngine.Open(new() { Path = folder.File("stock.db") });
        await engine.RestockAsync("in", [("apple", 10)], cancellationToken: Cancel);
        await using var one = SqliteFlowCopy.Open(folder.File("copy.db"), "shop");
        await using var other = SqliteFlowCopy.Open(folder.File("copy.db"), "shop");
        (await one.GetCursorAsync(Cancel)).ShouldBe(await other.GetCursorAsync(Cancel));
        var entries = await engine.ReadFlowAsync(new(), Cancel).ToListAsync(Cancel);
        await one.AddAsync(entries, Cancel);
        (await Should.ThrowAsync<SqliteStoreException>(async () => await other.AddAsync(entries, Cancel))).Message.ShouldContain("another export of the ledger 'shop' is under way");
        Should.Throw<SqliteStoreException>(() => SqliteFlowCopy.Open(folder.File("stock.db"), "shop")).Message.ShouldContain("is a Holdfast store");

        var foreign = await CommandRun.RunAsync("flow", "export", "--store", $"sqlite:{folder.File("stock.db")}", "--into", $"redis:{folder.File("copy.db")}");
        foreign.ExitCode.ShouldBe(2);
        foreign.Error.ShouldContain("--into: ");
    }

    [Fact]
    public async Task A_user_who_may_only_write_the_tables_that_are_there_exports_too()
    {
        using var folder = new TestFolder();
        await using var engine = SqliteEngine.Open(new() { Path = folder.File("stock.db") });
        await engine.RestockAsync("in", [("apple", 10)], cancellationToken: Cancel);
        await using var server = await PostgreSql.SharedPostgreSql.StartOwnAsync("fsync=off");
        await (await PostgreSqlFlowCopy.OpenAsync(server.ConnectionString, "first", Cancel)).DisposeAsync();
        await server.RunSqlAsync("CREATE ROLE reporter LOGIN; GRANT USAGE ON SCHEMA holdfast_copy TO reporter; GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA holdfast_copy TO reporter");

        await using var copy = await PostgreSqlFlowCopy.OpenAsync(server.ConnectionString + ";Username=reporter", "second", Cancel);
        (await copy.GetCursorAsync(Cancel)).ShouldBeNull();
        await copy.AddAsync(await engine.ReadFlowAsync(new(), Cancel).ToListAsync(Cancel), Cancel);
        (await ReadCopyAsync("postgres", server.ConnectionString, "second")).ShouldBe(["apple 1 in Restock 10 10"]);
    }

    private static async Task<List<string>> ReadCopyAsync(string kind, string place, string name)
    {
        System.Data.Common.DbConnection connection = kind == "sqlite"
            ? new Microsoft.Data.Sqlite.SqliteConnection($"Data Source={place};Pooling=False")
            : new Npgsql.NpgsqlConnection(place);
        await using var disposing = connection;
        await connection.OpenAsync(Cancel);
        await using var command = connection.CreateCommand();
        command.CommandText = $"SELECT sku, version, operation_id, kind, available_change, available FROM {(kind == "sqlite" ? "flow" : "holdfast_copy.flow")} WHERE ledger = '{name}' ORDER BY sku, version";
        await using var reader = await command.ExecuteReaderAsync(Cancel);
        var rows = new List<string>();
        while (await reader.ReadAsync(Cancel))
        {
            rows.Add(string.Join(' ', Enumerable.Range(0, reader.FieldCount).Select(reader.GetValue)));
        }

        return rows;
    }
}
