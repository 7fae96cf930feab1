using System.Globalization;
using System.Text;
using Holdfast.Redis;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast.Tests.Redis;

/// <summary>Each script by itself on a real server: what goes in, what comes out, what is in the keys afterwards. The clock is given.</summary>
public sealed class RedisScriptTests : IAsyncLifetime
{
    private const string Identity = "me";
    private static readonly RedisKey[] s_keys = ["{s}:meta"];

    private RedisServer _server = null!;
    private RedisConnection _connection = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await RedisServer.StartAsync();
        _connection = await RedisConnection.OpenAsync(_server.Configuration, TimeSpan.FromSeconds(30), 1_000, TimeProvider.System, NullLogger.Instance, Cancel);
        ((string[])(await _connection.RunAsync(RedisScripts.Open, s_keys, [Identity, RedisScripts.Format], Cancel))!).ShouldBe([Identity, "1"]);
    }

    public async ValueTask DisposeAsync()
    {
        await _connection.DisposeAsync();
        await _server.DisposeAsync();
    }

    [Fact]
    public async Task Open_makes_a_store_once_and_answers_who_it_is()
    {
        ((string[])(await _connection.RunAsync(RedisScripts.Open, s_keys, ["another", RedisScripts.Format], Cancel))!).ShouldBe([Identity, "0"]);
        ((string[])(await _connection.RunAsync(RedisScripts.Open, ["{none}:meta"], ["", RedisScripts.Format], Cancel))!).ShouldBeEmpty();
        (await _server.CliAsync("EXISTS", "{none}:meta")).ShouldBe("0");
        (await ErrorAsync(RedisScripts.Open, "me", "999")).ShouldContain("FORMAT");
    }

    /// <summary>Each row plays on from the one before it.</summary>
    [Fact]
    public async Task Execute_decides_each_verb()
    {
        (long Time, string Command, string Answer)[] table =
        [
            (1_000, "deduct o0: A 1", "UnknownSku A"),
            (1_000, "restock r1: A 10, B 5", "Done A 10, B 5"),
            (1_000, "deduct o1: A 4", "Done A 6"),
            (1_000, "deduct o1: A 4", "Replayed Done A 6"),
            (1_000, "deduct o1: A 5", "KeyConflict"),
            (1_000, "deduct o2: A 7", "Insufficient A 6"),
            (1_000, "deduct o3: A 1, B 6", "Insufficient B 5"),
            (2_000, "reserve h1 1000: A 2, B 2", "Done A 4, B 3"),
            (2_999, "reserve h2 1000: A 4", "Done A 0"),
            (2_999, "deduct o4: B 4", "Insufficient B 3"),
            (3_000, "deduct o4: B 4", "Done B 1"),
            (3_000, "confirm h1", "Expired"),
            (3_000, "confirm h2", "Done A 2"),
            (3_000, "confirm h2", "Replayed Done A 2"),
            (3_000, "confirm none", "UnknownTarget"),
            (3_000, "confirm o1", "InvalidTargetState"),
            (3_000, "refund f1 o1: A 3", "Done A 5"),
            (3_000, "refund f2 o1: A 2", "ExceedsDeducted A 1"),
            (3_000, "refund f2 none: A 2", "UnknownTarget"),
            (3_000, "cancel o1", "Done A 6"),
            (3_000, "cancel o1", "Replayed Cancelled A 6"),
            (3_000, "deduct o1: A 4", "Cancelled"),
            (3_000, "cancel h1", "Replayed Expired"),
            (3_000, "cancel never", "Done"),
            (3_000, "deduct never: A 1", "Cancelled"),
            (3_000, "abandon gone", "Done"),
            (3_000, "reserve gone 1000: A 1", "Cancelled"),
            (3_000, "abandon h2", "Replayed Done A 0"),
            (3_000, "adjust a1: A -7", "Insufficient A 6"),
            (3_000, "adjust a1: A -6, B 1", "Done A 0, B 2"),
            (3_000, "cancel a1", "InvalidTargetState"),
            (3_000, "restock r2: A 0", "Done A 0"),
        ];
        foreach (var (time, text, answer) in table)
        {
            var (results, _) = await ExecuteAsync(time, Command(text));
            Text(results[0]).ShouldBe(answer, text);
        }

        // All of it at once, on another store: a batch is decided as if one came after the other.
        await _server.CliAsync("FLUSHALL");
        await _connection.RunAsync(RedisScripts.Open, s_keys, [Identity, RedisScripts.Format], Cancel);
        foreach (var some in table.GroupBy(row => row.Time))
        {
            var (results, _) = await ExecuteAsync(some.Key, [.. some.Select(row => Command(row.Command))]);
            results.Select(Text).ShouldBe(some.Select(row => row.Answer));
        }
    }

    [Fact]
    public async Task Execute_counts_exactly_up_to_the_limit()
    {
        StockCommand[] fill = [.. Enumerable.Range(0, 9_007).Select(i => Command($"restock r{i}: A 1000000000000"))];
        foreach (var some in fill.Chunk(1_000))
        {
            await ExecuteAsync(1, some);
        }

        var (results, _) = await ExecuteAsync(1, Command("restock x1: A 199254740992"), Command("restock x2: A 199254740991"), Command("adjust x3: A 1"), Command("deduct o1: A 1"), Command("refund f1 o1: A 1"));
        results.Select(Text).ShouldBe(["ExceedsLimit A", "Done A 9007199254740991", "ExceedsLimit A", "Done A 9007199254740990", "Done A 9007199254740991"]);
    }

    /// <summary>One script must not take the server for long: what is due or large is done in parts, and the caller asks again.</summary>
    [Fact]
    public async Task Execute_leaves_to_the_next_call_what_would_take_too_long()
    {
        await ExecuteAsync(1, Command("restock r: " + Lines(4_000, 10)));
        for (var i = 0; i < 5; i++)
        {
            await ExecuteAsync(1, Command($"reserve h{i} 1000: " + Lines(4_000, 2)));
        }

        StockCommand[] commands = [Command("deduct o1: S0 10")];
        var calls = 0;
        (StockResult[] Results, int Decided) answer;
        do
        {
            calls++;
            answer = await ExecuteAsync(5_000, commands);
        }
        while (answer.Decided == 0);
        calls.ShouldBeInRange(2, 6);
        Text(answer.Results[0]).ShouldBe("Done S0 0");

        // Commands whose own lines are many: the first few are decided.
        await ExecuteAsync(5_000, Command("restock more: S0 100"));
        StockCommand[] carts = [.. Enumerable.Range(0, 8).Select(i => Command($"deduct c{i}: " + Lines(4_000, 1)))];
        (await ExecuteAsync(5_000, carts)).Decided.ShouldBeInRange(1, 4);
    }

    [Fact]
    public async Task Keys_of_SKUs_can_not_be_mistaken_for_each_other()
    {
        string[] skus = ["a:b", "0:a", "a", "{x}", "ä ö", "日本", "😀", "meta", "h:a"];
        var (results, _) = await ExecuteAsync(1, StockCommand.Restock("r", [.. skus.Select((sku, i) => new StockLine(sku, i + 1))]), StockCommand.Reserve("h:a", [.. skus.Select(sku => new StockLine(sku, 1))], TimeSpan.FromSeconds(5)));
        results.ShouldAllBe(result => result.Status == StockStatus.Done);
        (await StockAsync(1, skus)).ShouldBe(string.Join("; ", skus.Select((sku, i) => $"{sku} {i} 1 v2")));
        (await FlowOfSkuAsync("a:b")).ShouldBe("Restock r 1 0 -> 1 0 v1; Reserve h:a -1 1 -> 0 1 v2");
    }

    [Fact]
    public async Task Stock_shows_what_is_due_as_available()
    {
        await ExecuteAsync(1_000, Command("restock r: A 10, B 3"), Command("reserve h1 1000: A 4"), Command("reserve h2 5000: A 1"));
        (await StockAsync(1_999, "A", "B", "C")).ShouldBe("A 5 5 v3; B 3 0 v1; C 0 0 v0");
        (await StockAsync(2_000, "A", "A")).ShouldBe("A 9 1 v3; A 9 1 v3");
    }

    [Theory]
    [InlineData("-", "+", 10, "A 1; B 2; a 3; aa 4; ß 5")]
    [InlineData("-", "+", 2, "A 1; B 2")]
    [InlineData("(B", "+", 2, "a 3; aa 4")]
    [InlineData("[a", "(b", 10, "a 3; aa 4")]
    public async Task List_stock_is_in_the_order_of_bytes(string least, string most, int rows, string expected)
    {
        await ExecuteAsync(1, Command("restock r: A 1, B 2, a 3, aa 4, ß 5"));
        var reader = new ReplyReader(await RunAsync(RedisScripts.ListStock, 1, least, most, rows));
        reader.Take(14);
        var levels = new List<string>();
        while (!reader.IsAtEnd)
        {
            var level = reader.Level(reader.Text(reader.Byte()));
            levels.Add($"{level.Sku} {level.Available}");
        }

        string.Join("; ", levels).ShouldBe(expected);
    }

    [Theory]
    [InlineData("o1", "Deduct Applied A 4-3")]
    [InlineData("h1", "Reserve Expired B 1")]
    [InlineData("f1", "Refund Applied of o1 A 3")]
    [InlineData("x", "Abandon Abandoned")]
    [InlineData("y", null)]
    public async Task Operation_answers_what_became_of_it(string id, string? expected)
    {
        await FillAsync();
        var answer = await RunAsync(RedisScripts.Operation, 9_000, id);
        Operation(answer).ShouldBe(expected);

        static string? Operation(byte[] answer)
        {
            var reader = new ReplyReader(answer);
            reader.Take(12);
            return reader.Byte() == 0 ? null : Text(reader.Operation().ToView(9_000)).Split(' ', 2)[1];
        }
    }

    [Theory]
    [InlineData(0, "", 10, "r Restock; o1 Deduct; h1 Reserve; f1 Refund; x Abandon; h2 Reserve")]
    [InlineData(0, "", 2, "r Restock; o1 Deduct")]
    [InlineData((int)OperationState.Expired, "", 10, "h1 Reserve")]
    [InlineData((int)OperationState.Reserved, "", 10, "h2 Reserve")]
    [InlineData((int)OperationState.Applied, "", 10, "r Restock; o1 Deduct; f1 Refund")]
    [InlineData(0, "o1", 10, "f1 Refund")]
    public async Task Operations_lists_them_as_they_were_created(int state, string target, int most, string expected)
    {
        await FillAsync();
        var reader = new ReplyReader(await RunAsync(RedisScripts.Operations, 9_000, 0, state, target, 1_000_000, most, 65_536));
        reader.Take(18);
        var count = reader.Short();
        var found = new List<string>();
        while (!reader.IsAtEnd)
        {
            reader.Number(6);
            var operation = reader.Operation();
            found.Add($"{operation.Id} {operation.Verb}");
        }

        found.Count.ShouldBe(count);
        string.Join("; ", found).ShouldBe(expected);
    }

    [Theory]
    [InlineData(0, "", 10, "h2 h3 h1")]
    [InlineData(0, "", 2, "h2 h3")]
    [InlineData(2_000, "h2", 10, "h3 h1")]
    [InlineData(2_000, "h25", 10, "h3 h1")]
    [InlineData(2_000, "h4", 10, "h1")]
    [InlineData(3_000, "h1", 10, "")]
    public async Task Due_is_in_order_of_expiry(long expiry, string id, int most, string expected)
    {
        await ExecuteAsync(1_000, Command("restock r: A 10"), Command("reserve h1 2000: A 1"), Command("reserve h2 1000: A 1"), Command("reserve h3 1000: A 1"), Command("reserve later 9000: A 1"));
        var reader = new ReplyReader(await RunAsync(RedisScripts.Due, 5_000, expiry, id, most));
        reader.Take(14);
        var found = new List<string>();
        while (!reader.IsAtEnd)
        {
            found.Add(reader.Operation().Id);
        }

        string.Join(' ', found).ShouldBe(expected);
    }

    [Fact]
    public async Task Flow_answers_whole_records_and_where_to_go_on()
    {
        await FillAsync();
        var all = new List<string>();
        long position = 0;
        for (var page = 0; page < 100; page++)
        {
            // A few bytes a page: a record that is longer comes by itself.
            var (entries, next, end) = Page(await RunAsync(RedisScripts.Flow, 9_000, position, long.MaxValue >> 11, 20), position);
            all.AddRange(entries);
            position = next;
            if (next >= end)
            {
                break;
            }
        }

        string.Join("; ", all).ShouldBe("Restock r A 10 0; Restock r B 5 0; Deduct o1 A -4 0; Reserve h1 B -1 1; Refund f1 A 3 0; Expire h1 B 1 -1; Reserve h2 B -1 1");

        static (List<string> Entries, long Next, long End) Page(byte[] answer, long position)
        {
            var reader = new ReplyReader(answer);
            reader.Number(6);
            var (end, next) = (reader.Number(6), reader.Number(6));
            var entries = new List<FlowEntry>();
            while (!reader.IsAtEnd)
            {
                position += reader.Entries(position, 0, entries);
            }

            return ([.. entries.Select(entry => $"{entry.Kind} {entry.OperationId} {entry.Sku} {entry.AvailableChange} {entry.ReservedChange}")], next, end);
        }
    }

    [Theory]
    [InlineData(0, 0, 10, "Restock r 5 0 -> 5 0 v1; Reserve h1 -1 1 -> 4 1 v2; Expire h1 1 -1 -> 5 0 v3; Reserve h2 -1 1 -> 4 1 v4")]
    [InlineData(1, 3, 10, "Reserve h1 -1 1 -> 4 1 v2; Expire h1 1 -1 -> 5 0 v3")]
    [InlineData(2, 0, 1, "Expire h1 1 -1 -> 5 0 v3")]
    [InlineData(4, 0, 10, "")]
    public async Task Flow_of_a_SKU_is_read_by_version(long after, long upTo, int most, string expected)
    {
        await FillAsync();
        (await FlowOfSkuAsync("B", after, upTo, most)).ShouldBe(expected);
    }

    [Fact]
    public async Task Every_script_refuses_a_store_that_is_another_or_has_gone_back_in_time()
    {
        await ExecuteAsync(1, Command("restock r: A 1"));
        (RedisScript Script, RedisValue[] Arguments)[] scripts =
        [
            (RedisScripts.Execute, [PackWriter.Write([Command("deduct o: A 1")])]), (RedisScripts.Stock, [PackWriter.Write(["A"])]), (RedisScripts.ListStock, ["-", "+", 1]), (RedisScripts.Operation, ["o"]),
            (RedisScripts.Operations, [0, 0, "", 9, 1, 100]), (RedisScripts.Due, [0, "", 1]), (RedisScripts.Flow, [0, 99, 99]), (RedisScripts.FlowOfSku, ["A", 0, 0, 1]),
        ];
        foreach (var (script, arguments) in scripts)
        {
            (await ErrorAsync(script, ["another", "0", "1", "1", .. arguments])).ShouldContain("GONE");
            (await ErrorAsync(script, [Identity, "99999", "1", "1", .. arguments])).ShouldContain("LOST");
        }

        (await StockAsync(1, "A")).ShouldBe("A 1 0 v1");
    }

    private async Task FillAsync()
    {
        await ExecuteAsync(1_000, Command("restock r: A 10, B 5"), Command("deduct o1: A 4"), Command("reserve h1 1000: B 1"), Command("refund f1 o1: A 3"), Command("abandon x"));
        await ExecuteAsync(2_500, Command("reserve h2 20000: B 1"));
    }

    private async Task<(StockResult[] Results, int Decided)> ExecuteAsync(long time, params StockCommand[] commands) =>
        ReadResults(await RunAsync(RedisScripts.Execute, time, PackWriter.Write(commands)), commands);

    private static (StockResult[] Results, int Decided) ReadResults(byte[] answer, StockCommand[] commands)
    {
        var reader = new ReplyReader(answer);
        reader.Take(12);
        var results = new StockResult[reader.Short()];
        for (var i = 0; i < results.Length; i++)
        {
            results[i] = reader.Result(commands[i]);
        }

        reader.IsAtEnd.ShouldBeTrue();
        return (results, results.Length);
    }

    private async Task<string> StockAsync(long time, params string[] skus)
    {
        var reader = new ReplyReader(await RunAsync(RedisScripts.Stock, time, PackWriter.Write(skus)));
        reader.Take(12);
        var levels = new List<string>();
        foreach (var sku in skus)
        {
            var level = reader.Level(sku);
            levels.Add($"{level.Sku} {level.Available} {level.Reserved} v{level.Version}");
        }

        return string.Join("; ", levels);
    }

    private async Task<string> FlowOfSkuAsync(string sku, long after = 0, long upTo = 0, int most = 100)
    {
        var reader = new ReplyReader(await RunAsync(RedisScripts.FlowOfSku, 9_000, sku, after, upTo, most));
        reader.Take(20);
        var entries = new List<string>();
        while (!reader.IsAtEnd)
        {
            var entry = reader.EntryOfSku(sku);
            entries.Add($"{entry.Kind} {entry.OperationId} {entry.AvailableChange} {entry.ReservedChange} -> {entry.Available} {entry.Reserved} v{entry.Version}");
        }

        return string.Join("; ", entries);
    }

    private async Task<byte[]> RunAsync(RedisScript script, long time, params RedisValue[] arguments) =>
        (byte[])(await _connection.RunAsync(script, s_keys, [Identity, "0", time, "1", .. arguments], Cancel))!;

    private async Task<string> ErrorAsync(RedisScript script, params RedisValue[] arguments) =>
        (await Should.ThrowAsync<RedisStoreException>(() => _connection.RunAsync(script, s_keys, arguments, Cancel))).Message;

    private static string Text(StockResult result)
    {
        var text = new StringBuilder(result.Status.ToString());
        text.Append(result.Status == StockStatus.Replayed ? $" {result.Original}" : "").Append(result.Sku is null ? "" : $" {result.Sku}");
        text.Append(result.Status is StockStatus.Insufficient or StockStatus.ExceedsDeducted ? $" {result.Available}" : "");
        return text.Append(result.Left.IsEmpty ? "" : " " + string.Join(", ", result.Left.Select(left => $"{left.Sku} {left.Available}"))).ToString();
    }

    private static string Text(OperationView view) =>
        $"{view.Id} {view.Verb} {view.State}{(view.Target is null ? "" : $" of {view.Target}")}{string.Concat(view.Lines.Select(line => $" {line.Sku} {line.Quantity}{(line.Refunded > 0 ? $"-{line.Refunded}" : "")}"))}";

    private static string Lines(int count, int units) => string.Join(", ", Enumerable.Range(0, count).Select(i => $"S{i} {units}"));

    /// <summary><c>reserve h1 1000: A 2, B 2</c>: verb, id, time to live in ms or target where there is one, and lines.</summary>
    private static StockCommand Command(string text)
    {
        var colon = text.IndexOf(": ", StringComparison.Ordinal);
        var words = (colon < 0 ? text : text[..colon]).Split(' ');
        StockLine[] lines = colon < 0 ? [] : [.. text[(colon + 2)..].Split(", ").Select(line => line.Split(' ')).Select(line => new StockLine(line[0], long.Parse(line[1], CultureInfo.InvariantCulture)))];
        return words[0] switch
        {
            "deduct" => StockCommand.Deduct(words[1], lines),
            "reserve" => StockCommand.Reserve(words[1], lines, TimeSpan.FromMilliseconds(long.Parse(words[2], CultureInfo.InvariantCulture))),
            "confirm" => StockCommand.Confirm(words[1]),
            "cancel" => StockCommand.Cancel(words[1]),
            "abandon" => StockCommand.Abandon(words[1]),
            "refund" => StockCommand.Refund(words[1], words[2], lines),
            "restock" => StockCommand.Restock(words[1], lines),
            "adjust" => StockCommand.Adjust(words[1], lines),
            _ => throw new FormatException(text),
        };
    }
}
