using Microsoft.Data.Sqlite;

namespace Holdfast.Tests.Cli;

public class AuditCommandTests
{
    [Fact]
    public async Task A_sound_store_passes_even_while_it_is_being_written()
    {
        using var folder = new TestFolder();
        var path = folder.File("stock.db");
        await using var store = SqliteEngine.Open(new() { Path = path });
        await store.RestockAsync("in", [("apple", 10)], cancellationToken: TestContext.Current.CancellationToken);
        await store.DeductAsync("order", [("apple", 3)], cancellationToken: TestContext.Current.CancellationToken);

        var run = await CommandRun.RunAsync("audit", "--store", $"sqlite:{path}", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Json.GetProperty("audit").GetString().ShouldBe("pass");
        run.Json.GetProperty("entries").GetInt64().ShouldBe(2);
    }

    [Fact]
    public async Task A_stock_row_that_somebody_changed_by_hand_is_found_and_named()
    {
        using var folder = new TestFolder();
        var path = folder.File("stock.db");
        await using (var store = SqliteEngine.Open(new() { Path = path }))
        {
            await store.RestockAsync("in", [("apple", 10), ("pear", 10)], cancellationToken: TestContext.Current.CancellationToken);
        }

        using (var connection = new SqliteConnection($"Data Source={path};Pooling=False"))
        {
            connection.Open();
            using var change = connection.CreateCommand();
            change.CommandText = "UPDATE stock SET available = available + 1 WHERE sku = 'pear'";
            change.ExecuteNonQuery().ShouldBe(1);
        }

        var json = await CommandRun.RunAsync("audit", "--store", $"sqlite:{path}", "--json");
        json.ExitCode.ShouldBe(1);
        json.Json.GetProperty("audit").GetString().ShouldBe("fail");
        json.Json.GetProperty("firstDifference").GetString()!.ShouldContain("pear");

        var text = await CommandRun.RunAsync("audit", "--store", $"sqlite:{path}");
        text.ExitCode.ShouldBe(1);
        text.Output.ShouldContain("FAIL");
        text.Output.ShouldContain("pear");
    }
}
