using Holdfast.Redis;
using Holdfast.Wire;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast.Tests.Gate;

/// <summary>The scripts of a gate that acknowledges by itself: what is in Redis, what is handed over, what is answered, what is in Redis then.</summary>
public sealed class GateSaleScriptTests : IAsyncLifetime
{
    private const int Bits = 10;
    private const string Epoch = "1000";
    private readonly string _name = SharedGate.NewName();
    private RedisServer _server = null!;
    private RedisConnection _redis = null!;

    private RedisKey[] Keys => [$"{{{_name}}}:gate"];

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await SharedGate.ServerAsync();
        _redis = await RedisConnection.OpenAsync(_server.Configuration, TimeSpan.FromSeconds(20), 100, TimeProvider.System, NullLogger.Instance, Cancel);
        await BeginAsync(Epoch);
        var time = (string[])await _redis.CallAsync(["TIME"], Cancel);
        await _redis.CallAsync(["HSET", Keys[0], "ids", "1", "fresh", time[0] + "000"], Cancel);
    }

    public async ValueTask DisposeAsync() => await _redis.DisposeAsync();

    /// <summary>
    /// Copies as SKU, available and reserved; commands as call, kind, id and lines; the answers; what is taken in the end.
    /// </summary>
    [Theory]
    [InlineData("A 5 0", "1 t o1 A 3", "a2", "A 3")]
    [InlineData("A 5 0", "1 t o1 A 5", "a0", "A 5")]
    [InlineData("A 5 0", "1 t o1 A 6", "s5,A", "")]
    [InlineData("A 5 1", "1 t o1 A 6", "w", "A 6")]
    [InlineData("A 5 1", "1 t o1 A 5", "a0", "A 5")]
    [InlineData("", "1 t o1 A 1", "w", "A 1")]
    [InlineData("A 5 0", "1 t o1 A 3; 2 t o2 A 3", "a2 w", "A 6")]
    [InlineData("A 5 0", "1 t o1 A 3; 2 t o2 A 6", "a2 s5,A", "A 3")]
    [InlineData("A 5 0", "1 t o1 A 1; 1 t o1 A 1", "a4 w", "A 2")]
    [InlineData("A 5 0, B 1 0", "1 t o1 A 1 B 2", "s1,B", "")]
    [InlineData("A 5 0, B 5 0", "1 t o1 A 1 B 2", "a4,3", "A 1, B 2")]
    [InlineData("A 5 0", "1 t o1 A 6 B 1", "w", "A 6, B 1")]
    [InlineData("A 5 0", "1 w c1; 1 t o1 A 1; 2 t o2 A 1", "w w a3", "A 2")]
    [InlineData("A 5 0, B 5 0", "1 t o1 A 4; 1 t o2 A 2; 1 t o3 A 1; 1 t o4 B 1", "a1 w w a4", "A 7, B 1")]
    [InlineData("A 5 0", "1 w j1 A 9; 2 t o1 A 1", "w w", "A 10")]
    [InlineData("A 9007199254740991 0", "1 t o1 A 1000000000000", "a9006199254740991", "A 1000000000000")]
    public async Task Take(string copies, string commands, string answers, string taken)
    {
        await CopiesAsync(copies);
        (await TakeAsync(commands)).ShouldBe(answers);
        (await TakenAsync()).ShouldBe(taken);
    }

    [Fact]
    public async Task An_id_that_was_taken_waits_for_the_store_for_ever_after()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 1")).ShouldBe("a4");
        (await TakeAsync("1 t o1 A 1")).ShouldBe("w");
    }

    [Theory]
    [InlineData("ids", "0", "w")]
    [InlineData("fresh", "1", "w")]
    public async Task Nothing_is_refused_by_what_is_old_or_not_loaded(string field, string value, string answer)
    {
        await CopiesAsync("A 0 0");
        await _redis.CallAsync(["HSET", Keys[0], field, value], Cancel);
        (await TakeAsync("1 t o1 A 1")).ShouldBe(answer);
    }

    [Fact]
    public async Task Without_the_store_what_is_certain_is_sold_and_refused_and_nothing_waits()
    {
        await CopiesAsync("A 2 0, B 1 1");
        (await TakeAsync("1 t o1 A 1; 2 t o2 A 5; 3 t o3 B 2; 4 w c1", mayWait: false)).ShouldBe("a1 s2,A b b");
        (await TakenAsync()).ShouldBe("A 1");
    }

    [Fact]
    public async Task A_full_stream_takes_no_more()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 1; 2 t o2 A 1; 3 t o3 A 1", most: 2)).ShouldBe("a4 a3 f");
        (await TakeAsync("1 t o4 A 1", most: 2)).ShouldBe("f");
    }

    [Theory]
    [InlineData("DEL", "gate")]
    [InlineData("DEL", "gate:stream")]
    [InlineData("DEL", "gate:taken")]
    [InlineData("DEL", "gate:ids")]
    [InlineData("list", "gate:stream")]
    [InlineData("list", "gate:taken")]
    [InlineData("list", "gate:ids")]
    [InlineData("list", "gate")]
    [InlineData("XADD", "gate:stream")]
    public async Task A_gate_that_was_damaged_sells_nothing_and_writes_nothing(string how, string key)
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 1")).ShouldBe("a4");
        var full = $"{{{_name}}}:{key}";
        if (how == "XADD")
        {
            await _server.CliAsync("XADD", full, "*", "x", "y");
        }
        else
        {
            await _server.CliAsync("DEL", full);
            if (how == "list")
            {
                await _server.CliAsync("RPUSH", full, "nonsense");
            }
        }

        (await TakeAsync("1 t o2 A 1")).ShouldBe("closed");
        ((RedisResult[])await _redis.RunAsync(GateScripts.Entries, Keys, [Epoch, 10, 1], Cancel)).ShouldBeEmpty();
        ((RedisResult[])await _redis.RunAsync(GateScripts.Settle, Keys, [Epoch, 1, 0, 0], Cancel)).ShouldBeEmpty();
        GateStatus.Read(await _redis.RunAsync(GateScripts.Status, Keys, [1], Cancel)).Epoch.ShouldBe(0);
    }

    [Fact]
    public async Task An_entry_is_settled_once_and_the_copies_show_the_store_then()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 2; 2 t o2 A 1")).ShouldBe("a3 a2");
        (await TakeAsync("1 t o3 A 1; 2 w c1")).ShouldBe("a1 w");
        var entries = (RedisResult[])((RedisResult[])await _redis.RunAsync(GateScripts.Entries, Keys, [Epoch, 10, 1], Cancel))[1];
        entries.Length.ShouldBe(2);
        var commands = new List<GateCommand>();
        GateCommand.TryReadEntry(entries[1], commands).ShouldBeTrue();
        commands.Select(each => (each.Command.Id, each.IsAcknowledged, each.Number)).ShouldBe([("o3", true, 0), ("c1", false, 1)]);

        var first = (string)((RedisResult[])entries[0])[0];
        RedisValue[] settle = [Epoch, 1, 7, 1, "A", 2, 2, 0, 5, 0, first, 2, 1, "A", 3, 0];
        for (var i = 0; i < 2; i++)
        {
            ((string)((RedisResult[])await _redis.RunAsync(GateScripts.Settle, Keys, settle, Cancel))[0]).ShouldBe(first);
            (await TakenAsync()).ShouldBe("A 1", $"settled {i + 1} times");
        }

        (await TakeAsync("1 t o4 A 1")).ShouldBe("a0");
        var last = commands[0].Place.ToString();
        await _redis.RunAsync(GateScripts.Settle, Keys, [Epoch, 1, 7, 0, last, 2, 1, "A", 1, 1, 1, "{\"outcome\":\"Done\"}"], Cancel);
        var verdicts = (RedisResult[])await _redis.RunAsync(GateScripts.Verdicts, Keys, [Epoch, first, last], Cancel);
        ((string)verdicts[0]).ShouldBe(last);
        ((string[])verdicts[1]).ShouldBeEmpty();
        ((string[])verdicts[2]).ShouldBe(["1", "{\"outcome\":\"Done\"}"]);
        var status = GateStatus.Read(await _redis.RunAsync(GateScripts.Status, Keys, [1], Cancel));
        (status.Backlog, status.Done.ToString()).ShouldBe((1, last));
        status.OldestAge.ShouldNotBeNull();
    }

    /// <summary>What was refused is not remembered, so two that decide one command could come to different ends.</summary>
    [Fact]
    public async Task Only_the_latest_turn_reads_and_settles()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 2")).ShouldBe("a3");
        ((RedisResult[])await _redis.RunAsync(GateScripts.Entries, Keys, [Epoch, 10, 1], Cancel)).Length.ShouldBe(2);
        var entry = (string)((RedisResult[])((RedisResult[])((RedisResult[])await _redis.RunAsync(GateScripts.Entries, Keys, [Epoch, 10, 2], Cancel))[1])[0])[0];
        ((string)((RedisResult[])await _redis.RunAsync(GateScripts.Entries, Keys, [Epoch, 10, 1], Cancel)).ShouldHaveSingleItem()).ShouldBe("turn");
        ((RedisResult[])await _redis.RunAsync(GateScripts.Settle, Keys, [Epoch, 1, 7, 0, entry, 1, 1, "A", 2, 0], Cancel)).ShouldBeEmpty();
        (await TakenAsync()).ShouldBe("A 2");
        ((RedisResult[])await _redis.RunAsync(GateScripts.Settle, Keys, [Epoch, 2, 7, 0, entry, 1, 1, "A", 2, 0], Cancel)).ShouldHaveSingleItem();
        (await TakenAsync()).ShouldBe("");
    }

    /// <summary>The ledger may be read before an entry is settled: its row is short of the units that are still taken.</summary>
    [Fact]
    public async Task A_row_of_the_ledger_does_not_overtake_what_is_taken()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 2")).ShouldBe("a3");
        ((long)await _redis.RunAsync(GateScripts.Levels, Keys, [Epoch, "", "", 0, 1, 0, "", "", "A", 2, 3, 0, "", ""], Cancel)).ShouldBe(1);
        (await TakeAsync("1 t o2 A 3")).ShouldBe("a0");
    }

    [Fact]
    public async Task Commands_are_handed_over_to_an_epoch_until_it_has_begun()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 2")).ShouldBe("a3");
        var last = GateStatus.Read(await _redis.RunAsync(GateScripts.Status, Keys, [0], Cancel)).Last!.Value.ToString();
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["2000", "", "1-0.0", "a{}"], Cancel)).ShouldBe(-1, "it is not being begun here");
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["2000", "me"], Cancel)).ShouldBe(-1, "nobody is about to begin it");
        await _redis.CallAsync(["SET", (RedisKey)$"{{{_name}}}:gate:begins", "me"], Cancel);
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["2000", "me"], Cancel)).ShouldBe(1);
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["1900", "you"], Cancel)).ShouldBe(-1, "another process is about to begin one");
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["2000", "", "1-0.0", "a{}"], Cancel)).ShouldBe(1);
        (await TryBeginAsync("2000", "me", carried: 0, last)).ShouldBe(0, "more was handed over than is known");
        (await TryBeginAsync("2000", "me", carried: 1, "")).ShouldBe(0, "more stands in the stream than is known");
        (await TryBeginAsync("2000", "you", carried: 1, last)).ShouldBe(-1, "another process is about to begin it");
        var handedOver = (RedisKey)$"{{{_name}}}:gate:carry";
        var opened = (string)await _redis.CallAsync(["HGET", handedOver, ""], Cancel);
        await _redis.CallAsync(["HSET", handedOver, "", "2000:another"], Cancel);
        (await TryBeginAsync("2000", "me", carried: 1, last)).ShouldBe(-1, "the server was another then, and may have had more");
        await _redis.CallAsync(["HSET", handedOver, "", opened], Cancel);
        (await TryBeginAsync("2000", "me", carried: 1, last)).ShouldBe(1);
        ((long)await _redis.RunAsync(GateScripts.Carry, Keys, ["2000", "", "1-0.1", "a{}"], Cancel)).ShouldBe(0, "it has begun");
        (await TakeAsync("1 t o2 A 1")).ShouldBe("closed", "it is another epoch");
        (await TakenAsync()).ShouldBe("");
        await _redis.CallAsync(["SET", (RedisKey)$"{{{_name}}}:gate:begins", "late"], Cancel);
        (await TryBeginAsync("1500", "late", carried: 0, "")).ShouldBe(-1, "a later one was begun");
    }

    [Fact]
    public async Task A_process_that_acknowledges_otherwise_is_kept_out_while_there_is_something_to_lose()
    {
        await CopiesAsync("A 5 0");
        (await TakeAsync("1 t o1 A 2")).ShouldBe("a3");
        RedisValue[] tick = ["one", 0, 0, 60_000, 0, "", 1, 1_000, 0, 0, 1 << Bits, "store"];
        (await Should.ThrowAsync<RedisStoreException>(() => _redis.RunAsync(GateScripts.Tick, Keys, tick, Cancel))).Message.ShouldContain("acknowledged");
        tick[11] = "gate";
        GateTick.Read(await _redis.RunAsync(GateScripts.Tick, Keys, tick, Cancel))!.Epoch.ShouldBe(1_000);
    }

    private async Task BeginAsync(string epoch)
    {
        await _redis.CallAsync(["SET", (RedisKey)$"{{{_name}}}:gate:begins", "me"], Cancel);
        await _redis.RunAsync(GateScripts.Carry, Keys, [epoch, "me"], Cancel);
        (await TryBeginAsync(epoch, "me", 0, "")).ShouldBe(1);
    }

    private async Task<long> TryBeginAsync(string epoch, string node, int carried, string last) =>
        (long)await _redis.RunAsync(GateScripts.Begin, Keys, [epoch, node, carried, last, "", 1 << Bits], Cancel);

    private async Task CopiesAsync(string copies)
    {
        foreach (var copy in copies.Split(", ", StringSplitOptions.RemoveEmptyEntries).Select(copy => copy.Split(' ')))
        {
            await _redis.CallAsync(["HSET", (RedisKey)$"{{{_name}}}:gate:s:{copy[0]}", "e", Epoch, "v", "1", "a", copy[1], "r", copy[2]], Cancel);
        }
    }

    private async Task<string> TakeAsync(string commands, bool mayWait = true, int most = 1_000)
    {
        List<RedisValue> arguments = [Epoch, most, mayWait ? 1 : 0, 600_000];
        foreach (var words in commands.Split("; ").Select(command => command.Split(' ')))
        {
            StockLine[] lines = [.. words[3..].Chunk(2).Select(pair => new StockLine(pair[0], long.Parse(pair[1], System.Globalization.CultureInfo.InvariantCulture)))];
            var command = words[1] == "w" ? StockCommand.Cancel(words[2]) : StockCommand.Deduct(words[2], lines);
            arguments.AddRange([words[0], GateIds.Places(words[2], Bits), words[1], StockJson.WriteCommand(command), lines.Length]);
            arguments.AddRange(lines.SelectMany(line => (RedisValue[])[line.Sku, line.Quantity]));
        }

        var answer = (RedisResult[])await _redis.RunAsync(GateScripts.Take, Keys, [.. arguments], Cancel);
        return answer.Length == 0 ? "closed" : string.Join(' ', answer[2..].Select(each => (string)each));
    }

    private async Task<string> TakenAsync()
    {
        var fields = (string[])await _redis.CallAsync(["HGETALL", (RedisKey)$"{{{_name}}}:gate:taken"], Cancel);
        return string.Join(", ", fields.Chunk(2).Where(pair => pair[0].Length > 0).Select(pair => $"{pair[0]} {pair[1]}").Order(StringComparer.Ordinal));
    }
}
