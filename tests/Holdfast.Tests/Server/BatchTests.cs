using System.Text;
using System.Text.Json;

namespace Holdfast.Tests.Server;

/// <summary>The batch endpoint: one answer a line, in order, while lines still arrive, in bounded memory.</summary>
public sealed class BatchTests
{
    private const string NdJson = "application/x-ndjson";

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_bad_line_is_answered_in_its_place_and_its_neighbours_go_on()
    {
        await using var server = await ServerUnderTest.StartAsync();

        var answers = await server.BatchAsync("""
            {"verb":"restock","id":"r1","lines":[{"sku":"a","quantity":10}]}
            {"verb":"deduct","id":"o1","lines":[{"sku":"a","quantity":0}]}
            nope

            {"verb":"deduct","id":"o2","lines":[{"sku":"a","quantity":4}]}
            {"verb":"deduct","id":"o2","lines":[{"sku":"a","quantity":4}]}
            {"verb":"deduct","id":"o3","lines":[{"sku":"a","quantity":7}]}
            {"verb":"steal","id":"o4","lines":[{"sku":"a","quantity":7}]}
            {"verb":"\ud800","id":"o5","lines":[{"sku":"a","quantity":7}]}
            {"\ud800":"deduct","id":"o6","lines":[{"sku":"a","quantity":7}]}
            {"verb":"refund","id":"f1","target":"o2","lines":[{"sku":"a","quantity":1}]}
            {"verb":"cancel","target":"o2"}
            """);

        answers.Select(Told).ShouldBe(
        [
            "Done a=10",
            "Invalid lines[0].quantity",
            "Invalid body",
            "Invalid body",
            "Done a=6",
            "Replayed a=6",
            "Insufficient a",
            "Invalid verb",
            "Invalid verb",
            "Invalid \\ud800",
            "Done a=7",
            "Done a=10",
        ]);
        await server.AuditAsync();
    }

    [Theory]
    [InlineData("", 0)]
    [InlineData("\n", 1)]
    [InlineData("{}", 1)]
    [InlineData("{}\n", 1)]
    [InlineData("{}\r\n{}\r\n", 2)]
    [InlineData("{}\n\n", 2)]
    public async Task There_are_as_many_answers_as_lines(string lines, int count)
    {
        await using var server = await ServerUnderTest.StartAsync();
        (await server.BatchAsync(lines)).Count.ShouldBe(count);
    }

    [Fact]
    public async Task A_line_over_the_limit_is_refused_in_its_place_wherever_it_stands()
    {
        await using var server = await ServerUnderTest.StartAsync(settings: [("Holdfast:Http:MaxBodyBytes", "4096")]);
        await server.Engine.RestockAsync("r1", [("a", 10)], cancellationToken: Cancelled);
        var fits = Deduct("o1", new string('x', 100));
        var tooLong = Deduct("o2", new string('x', 5_000));
        var farTooLong = Deduct("o3", new string('x', 3_000_000));

        var answers = await server.BatchAsync($"{farTooLong}\n{fits}\n{tooLong}\n{Deduct("o4", "")}\n{farTooLong}");

        answers.Count.ShouldBe(5);
        answers.Select(Told).ShouldBe(["Invalid body", "Done a=9", "Invalid body", "Done a=8", "Invalid body"]);

        static string Deduct(string id, string padding) => $$"""{"verb":"deduct","id":"{{id}}",{{padding.Replace('x', ' ')}}"lines":[{"sku":"a","quantity":1}]}""";
    }

    [Fact]
    public async Task An_answer_is_sent_while_the_request_still_goes_on()
    {
        await using var server = await ServerUnderTest.StartAsync();
        using var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson);

        await connection.SendAsync("""{"verb":"restock","id":"r1","lines":[{"sku":"a","quantity":10}]}""" + "\n", Cancelled);
        (await connection.ReadHeadAsync()).ShouldStartWith("HTTP/1.1 200");
        (await connection.ReadLineAsync())!.ShouldContain("Done");

        // Half a line waits for its other half.
        await connection.SendAsync("""{"verb":"deduct","id":"o1","lines":[{"sku":"a",""", Cancelled);
        await connection.SendAsync("\"quantity\":1}]}\n", Cancelled);
        (await connection.ReadLineAsync())!.ShouldContain("\"available\":9");

        await connection.SendAsync("", Cancelled);
        (await connection.ReadLineAsync()).ShouldBeNull();
    }

    [Fact]
    public async Task A_long_stream_is_answered_in_order()
    {
        const int count = 100_000;
        var largest = 0;
        var engine = new ScriptedEngine(new MemoryEngine(), (commands, _) =>
        {
            largest = Math.Max(largest, commands.Count);
            return new(commands.Select(command => StockResult.Refused(StockStatus.UnknownSku, command.Lines[0].Sku)).ToArray());
        });
        await using var server = await ServerUnderTest.StartAsync(engine);
        using var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson);

        var sending = SendAsync();
        await connection.ReadHeadAsync();
        for (var i = 0; i < count; i++)
        {
            var line = await connection.ReadLineAsync();
            line.ShouldNotBeNull();
            line.ShouldContain($"\"sku\":\"s{i}\"");
        }

        await sending;
        (await connection.ReadLineAsync()).ShouldBeNull();
        largest.ShouldBeInRange(2, 1_000, "what has arrived is executed together, up to the bound");

        async Task SendAsync()
        {
            var chunk = new StringBuilder();
            for (var i = 0; i < count; i++)
            {
                chunk.Append($$"""{"verb":"deduct","id":"o{{i}}","lines":[{"sku":"s{{i}}","quantity":1}]}""").Append('\n');
                if (chunk.Length > 30_000 || i == count - 1)
                {
                    await connection.SendAsync(chunk.ToString(), Cancelled);
                    chunk.Clear();
                }
            }

            await connection.SendAsync("", Cancelled);
        }
    }

    [Fact]
    public async Task While_the_engine_is_busy_the_stream_is_not_read_ahead()
    {
        const int tooMuch = 64 * 1024 * 1024;
        var release = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var engine = new ScriptedEngine(new MemoryEngine(), async (commands, cancellationToken) =>
        {
            await release.Task.WaitAsync(cancellationToken);
            return [.. commands.Select(_ => StockResult.Of(StockStatus.KeyConflict))];
        });
        await using var server = await ServerUnderTest.StartAsync(engine);
        using var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson);
        var lines = string.Concat(Enumerable.Range(0, 1_000).Select(i => $$"""{"verb":"abandon","target":"o{{i}}"}""" + "\n"));
        using var stalled = CancellationTokenSource.CreateLinkedTokenSource(Cancelled);

        var sent = 0;
        try
        {
            while (sent < tooMuch)
            {
                stalled.CancelAfter(TimeSpan.FromSeconds(1));
                await connection.SendAsync(lines, stalled.Token);
                sent += lines.Length;
            }
        }
        catch (OperationCanceledException)
        {
            // The server has stopped reading: what was sent fills the buffers on the way.
        }

        sent.ShouldBeLessThan(tooMuch);
        release.SetResult();
    }

    [Fact]
    public async Task A_batch_that_pauses_too_long_is_cut_off_after_its_answers()
    {
        await using var server = await ServerUnderTest.StartAsync(settings: [("Holdfast:Http:BatchIdleTimeout", "00:00:00.3")]);
        using var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson);

        await connection.SendAsync("""{"verb":"abandon","target":"o1"}""" + "\n", Cancelled);
        await connection.ReadHeadAsync();
        (await connection.ReadLineAsync())!.ShouldContain("Done");
        (await connection.ReadLineAsync()).ShouldBeNull();
        server.Log.Lines.ShouldContain(line => line.Text.Contains("cut off", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_caller_that_goes_away_in_the_middle_is_no_error_of_the_server()
    {
        await using var server = await ServerUnderTest.StartAsync();
        using (var connection = await RawConnection.PostAsync(server.Http.BaseAddress!, "/v1/batch", NdJson))
        {
            await connection.SendAsync("""{"verb":"abandon","target":"o1"}""" + "\n" + """{"verb":"abandon",""", Cancelled);
            await connection.ReadHeadAsync();
            (await connection.ReadLineAsync())!.ShouldContain("Done");
        }

        while (!server.Log.Lines.Any(line => line.Text.Contains("the caller went away", StringComparison.Ordinal)))
        {
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, Cancelled);
        }

        server.Log.Lines.ShouldNotContain(line => line.Level >= Microsoft.Extensions.Logging.LogLevel.Warning);
        (await server.Engine.GetOperationAsync("o1", Cancelled))!.State.ShouldBe(OperationState.Abandoned);
    }

    private static string Told(JsonElement answer)
    {
        var outcome = answer.GetProperty("outcome").GetString();
        return outcome == "Invalid" ? $"Invalid {answer.GetProperty("field")}"
            : answer.TryGetProperty("left", out var left) ? $"{outcome} {left[0].GetProperty("sku")}={left[0].GetProperty("available")}"
            : $"{outcome} {answer.GetProperty("sku")}";
    }
}
