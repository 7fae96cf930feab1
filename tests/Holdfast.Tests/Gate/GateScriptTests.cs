using Holdfast.Redis;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast.Tests.Gate;

/// <summary>The scripts of the gate by themselves: what is in Redis, what is asked, what is answered, what is in Redis then.</summary>
public sealed class GateScriptTests : IAsyncLifetime
{
    private const int Bits = 10;
    private readonly string _name = SharedGate.NewName();
    private RedisServer _server = null!;
    private RedisConnection _redis = null!;

    private RedisKey[] Keys => [$"{{{_name}}}:gate"];

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await SharedGate.ServerAsync();
        _redis = await RedisConnection.OpenAsync(_server.Configuration, TimeSpan.FromSeconds(20), 100, TimeProvider.System, NullLogger.Instance, Cancel);
    }

    public async ValueTask DisposeAsync() => await _redis.DisposeAsync();

    /// <summary>The row of each line: SKU, available and reserved in the copy ("-": none), the quantity asked.</summary>
    [Theory]
    [InlineData("A 5 0 5", "")]
    [InlineData("A 5 0 6", "A 5")]
    [InlineData("A 0 0 1", "A 0")]
    [InlineData("A 0 1 1", "A 0 -")]
    [InlineData("A - - 1", "-")]
    [InlineData("A 0 0 1, B - - 1", "-")]
    [InlineData("A 5 0 1, B 1 0 2, C 0 0 1", "B 1")]
    [InlineData("A 5 0 1, B 1 0 2, C 0 7 1", "B 1 -")]
    [InlineData("A 9007199254740991 0 1000000000000", "")]
    public async Task Check(string lines, string answer)
    {
        await OpenAsync();
        List<RedisValue> arguments = [60_000L, GateIds.Places("new", Bits), lines.Split(", ").Length];
        foreach (var line in lines.Split(", ").Select(line => line.Split(' ')))
        {
            if (line[1] != "-")
            {
                await _redis.CallAsync(["HSET", (RedisKey)$"{{{_name}}}:gate:s:{line[0]}", "e", await FieldAsync("epoch"), "v", "1", "a", line[1], "r", line[2]], Cancel);
            }

            arguments.AddRange([line[0], line[3]]);
        }

        ShowChecks((RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, [.. arguments], Cancel)).ShouldBe([answer]);

        // What was let through is noted, so it is let through for ever after; what was refused is not, and is refused again.
        ShowChecks((RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, [.. arguments], Cancel)).ShouldBe([answer]);
        var ids = (RedisResult[])await _redis.RunAsync(GateScripts.Ids, Keys, ["ask", 0, 0, GateIds.Places("new", Bits)], Cancel);
        ((int)ids[0]).ShouldBe(answer is "" or "-" ? 1 : 0);
    }

    [Theory]
    [InlineData("sure", "1")]
    [InlineData("fresh", "1")]
    [InlineData("ids", "0")]
    public async Task Nothing_is_refused_while_the_gate_is_not_sure(string field, string value)
    {
        await OpenAsync();
        await _redis.CallAsync(["HSET", (RedisKey)$"{{{_name}}}:gate:s:A", "e", await FieldAsync("epoch"), "v", "1", "a", "0", "r", "0"], Cancel);
        await _redis.CallAsync(["HSET", Keys[0], field, value], Cancel);
        var answers = (RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, [60_000L, GateIds.Places("new", Bits), 1, "A", 1], Cancel);
        ShowChecks(answers).ShouldBe([""]);
    }

    /// <summary>The second look comes after a question to the store: by then ids may have been lost, or let through around the gate.</summary>
    [Theory]
    [InlineData("sure", "1")]
    [InlineData("ids", "0")]
    public async Task Of_no_id_is_said_that_it_is_unknown_while_the_gate_is_not_sure(string field, string value)
    {
        await OpenAsync();
        RedisValue[] arguments = ["ask", 0, 0, GateIds.Places("x", Bits)];
        ((RedisResult[])await _redis.RunAsync(GateScripts.Ids, Keys, arguments, Cancel)).Length.ShouldBe(1);
        await _redis.CallAsync(["HSET", Keys[0], field, value], Cancel);
        ((RedisResult[])await _redis.RunAsync(GateScripts.Ids, Keys, arguments, Cancel)).ShouldBeEmpty();
    }

    /// <summary>Many commands a call: each copy is read once, and each command has its own verdict.</summary>
    [Fact]
    public async Task Commands_of_one_call_are_judged_each_by_itself()
    {
        await OpenAsync();
        foreach (var (sku, available, reserved) in new[] { ("A", 0, 0), ("B", 3, 0), ("C", 1, 2) })
        {
            await _redis.CallAsync(["HSET", (RedisKey)$"{{{_name}}}:gate:s:{sku}", "e", await FieldAsync("epoch"), "v", "1", "a", available, "r", reserved], Cancel);
        }

        await _redis.RunAsync(GateScripts.Ids, Keys, ["mark", await FieldAsync("epoch"), 0, GateIds.Places("bought", Bits)], Cancel);
        RedisValue[] arguments =
        [
            60_000L,
            GateIds.Places("1", Bits), 1, "A", 1,
            GateIds.Places("bought", Bits), 1, "A", 1,
            GateIds.Places("2", Bits), 2, "B", 3, "C", 2,
            GateIds.Places("3", Bits), 0,
            GateIds.Places("4", Bits), 2, "B", 4, "A", 1,
            GateIds.Places("5", Bits), 1, "A", 2,
            GateIds.Places("6", Bits), 1, "D", 1,
        ];
        ShowChecks((RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, arguments, Cancel)).ShouldBe(["A 0", "", "C 1 -", "", "B 3", "A 0", "-"]);
    }

    [Fact]
    public async Task A_copy_without_a_number_is_not_loaded()
    {
        await OpenAsync();
        await _redis.CallAsync(["HSET", (RedisKey)$"{{{_name}}}:gate:s:A", "e", await FieldAsync("epoch"), "v", "1", "r", "0"], Cancel);
        ShowChecks((RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, [60_000L, GateIds.Places("new", Bits), 1, "A", 1], Cancel)).ShouldBe(["-"]);
    }

    [Theory]
    [InlineData("run", "another")]
    [InlineData("DEL", "")]
    public async Task A_gate_of_another_server_is_closed_and_untouched(string field, string value)
    {
        await OpenAsync();
        await _redis.CallAsync(field == "DEL" ? ["DEL", Keys[0]] : ["HSET", Keys[0], field, value], Cancel);
        var answers = (RedisResult[])await _redis.RunAsync(GateScripts.Check, Keys, [60_000L, GateIds.Places("new", Bits), 0], Cancel);
        answers.Length.ShouldBe(1);
        ((long)answers[0]).ShouldBe(0);
        ((long)await _redis.RunAsync(GateScripts.Levels, Keys, [1, "", "", 0, 0, 0, "", ""], Cancel)).ShouldBe(0);
    }

    /// <summary>Version, available, reserved, and whether the whole row is known; what the copy shows after each.</summary>
    [Theory]
    [InlineData("1 5 0 whole", "1 5 0 7")]
    [InlineData("1 5 0 whole; 2 4 0 entry", "2 4 0 7")]
    [InlineData("2 4 0 entry; 1 5 0 whole", "2 4 0 ")]
    [InlineData("2 4 0 entry; 2 4 0 whole", "2 4 0 7")]
    [InlineData("3 3 2 whole; 3 1 4 entry", "3 3 2 7")]
    [InlineData("3 1 4 whole; 3 3 2 whole", "3 3 2 7")]
    public async Task Levels(string rows, string copy)
    {
        await OpenAsync();
        foreach (var row in rows.Split("; ").Select(row => row.Split(' ')))
        {
            var isWhole = row[3] == "whole";
            RedisValue[] arguments = [await FieldAsync("epoch"), "", "", 0, 1, 0, "", "", "A", row[0], row[1], row[2], isWhole ? "7" : "", isWhole ? "0" : ""];
            ((long)await _redis.RunAsync(GateScripts.Levels, Keys, arguments, Cancel)).ShouldBe(1);
        }

        string.Join(' ', (string[])await _redis.CallAsync(["HMGET", (RedisKey)$"{{{_name}}}:gate:s:A", "v", "a", "r", "t"], Cancel)).ShouldBe(copy);
    }

    [Fact]
    public async Task Levels_of_another_epoch_are_not_taken()
    {
        await OpenAsync();
        ((long)await _redis.RunAsync(GateScripts.Levels, Keys, [1, "", "", 0, 1, 0, "", "", "A", 1, 5, 0, 5, 0], Cancel)).ShouldBe(-1);
        (await _server.CliAsync("EXISTS", $"{{{_name}}}:gate:s:A")).ShouldBe("0");
    }

    [Fact]
    public async Task A_process_that_is_not_heard_makes_the_gate_unsure_until_it_is_forgotten()
    {
        await OpenAsync();
        (await TickAsync("one", until: 600_000)).Sure.ShouldBeGreaterThan(0);
        (await TickAsync("two", until: 0)).Sure.ShouldBe(0);
        (await TickAsync("one", until: 600_000)).Sure.ShouldBe(0, "two is missing");
        (await TickAsync("one", until: 600_000, forgetAfter: -1)).Sure.ShouldBeGreaterThan(0, "two is forgotten");
    }

    [Fact]
    public async Task What_is_under_way_since_an_older_epoch_has_the_ids_listed_anew()
    {
        await OpenAsync();
        var before = await TickAsync("one", until: 600_000);
        before.IsSettled.ShouldBeTrue();
        ((long)await _redis.RunAsync(GateScripts.Ids, Keys, ["mark", before.Epoch, before.Listing], Cancel)).ShouldBe(1);
        (await TickAsync("one", until: 600_000)).KnowsIds.ShouldBeTrue();
        var during = await TickAsync("one", until: 600_000, oldest: before.Epoch - 1);
        (during.KnowsIds, during.IsSettled).ShouldBe((false, false));
        ((long)await _redis.RunAsync(GateScripts.Ids, Keys, ["mark", before.Epoch, before.Listing], Cancel)).ShouldBe(1, "taken, but a listing that began before says nothing any more");
        (await TickAsync("one", until: 600_000)).KnowsIds.ShouldBeFalse();
    }

    [Fact]
    public async Task A_filter_that_was_lost_begins_a_new_epoch()
    {
        await OpenAsync();
        var before = await TickAsync("one", until: 600_000);
        await _server.CliAsync("DEL", $"{{{_name}}}:gate:ids");
        ((RedisResult[])await _redis.RunAsync(GateScripts.Ids, Keys, ["ask", 0, 0, GateIds.Places("x", Bits)], Cancel)).ShouldBeEmpty();
        var after = await TickAsync("one", until: 600_000);
        after.IsBegun.ShouldBeTrue();
        after.Epoch.ShouldBeGreaterThan(before.Epoch);
    }

    [Fact]
    public async Task Processes_with_another_size_of_filter_are_refused()
    {
        await OpenAsync();
        var failure = await Should.ThrowAsync<RedisStoreException>(() => TickAsync("two", until: 600_000, last: 2_048));
        failure.Message.ShouldContain("IdBits");
    }

    /// <summary>Filters that were noted are found, and the others hardly ever taken for them.</summary>
    [Fact]
    public async Task One_in_a_hundred_ids_is_mistaken_at_ten_bits_an_id()
    {
        const int bits = 16;
        await OpenAsync(1 << bits);
        var known = Enumerable.Range(0, 6_500).Select(i => $"order-{i}").ToArray();
        foreach (var chunk in known.Chunk(500))
        {
            await _redis.RunAsync(GateScripts.Ids, Keys, ["mark", await FieldAsync("epoch"), 0, .. chunk.Select(id => GateIds.Places(id, bits))], Cancel);
        }

        (await AskAsync(known)).ShouldBe(known.Length);
        (await AskAsync([.. Enumerable.Range(0, 5_000).Select(i => $"other-{i}")])).ShouldBeInRange(10, 150);

        async Task<long> AskAsync(string[] ids)
        {
            var count = 0L;
            foreach (var chunk in ids.Chunk(500))
            {
                var answers = (RedisResult[])await _redis.RunAsync(GateScripts.Ids, Keys, ["ask", 0, 0, .. chunk.Select(id => GateIds.Places(id, bits))], Cancel);
                count += answers.Sum(answer => (long)answer);
            }

            return count;
        }
    }

    /// <summary>Begins an epoch that is sure for ten minutes.</summary>
    private async Task OpenAsync(long last = 1 << Bits)
    {
        await TickAsync("one", until: 600_000, last: last);
        var time = (string[])await _redis.CallAsync(["TIME"], Cancel);
        await _redis.CallAsync(["HSET", Keys[0], "ids", "1", "fresh", time[0] + "000"], Cancel);
    }

    private async Task<RedisValue> FieldAsync(string field) => (string)await _redis.CallAsync(["HGET", Keys[0], field], Cancel);

    /// <summary>The answer of gate-check.lua as its comment tells it: for each command nothing, "-", or SKU, units and perhaps "-".</summary>
    private static string[] ShowChecks(RedisResult[] answers) =>
    [
        .. ((RedisResult[])answers[1]).Select(result => (int)result).Select(code => code switch
        {
            0 => "",
            1 => "-",
            _ => $"{(string)answers[code / 2 * 2]} {(string)answers[(code / 2 * 2) + 1]}{(code % 2 == 1 ? " -" : "")}",
        }),
    ];

    private async Task<GateTick> TickAsync(string node, long until, long oldest = 0, long forgetAfter = 60_000, long last = 1 << Bits)
    {
        var time = (string[])await _redis.CallAsync(["TIME"], Cancel);
        var now = long.Parse(time[0], System.Globalization.CultureInfo.InvariantCulture) * 1_000;
        var answer = await _redis.RunAsync(GateScripts.Tick, Keys, [node, until == 0 ? 0 : now + until, oldest, forgetAfter, 0, "", 1, 1_000, 0, 0, last, "store"], Cancel);
        return GateTick.Read(answer)!;
    }
}
