using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Holdfast.Client;
using Holdfast.Testing;
using Microsoft.AspNetCore.Http;

namespace Holdfast.Tests.Client;

/// <summary>What the client answers when connections break, servers go away, refuse, hang or talk nonsense.</summary>
public sealed class HoldfastClientFaultTests : IAsyncDisposable
{
    private readonly MemoryEngine _store = new();

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_answer_that_is_lost_is_asked_for_again_and_the_command_applies_once()
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            var commands = await ScriptedServer.ReadCommandsAsync(context);
            var results = await _store.ExecuteAsync(commands);
            if (number == 1)
            {
                context.Abort();
                return;
            }

            await ScriptedServer.WriteAsync(context, ScriptedServer.Lines(results));
        });
        await using var client = Connect(server.Address);

        var result = await client.DeductAsync("o1", [("a", 3)], cancellationToken: Cancelled);

        result.Status.ShouldBe(StockStatus.Replayed);
        result.IsApplied.ShouldBeTrue();
        result.Left.ShouldBe([new("a", 7)]);
        server.Requests.ShouldBe(2);
        (await FlowAsync()).Count(entry => entry.OperationId == "o1").ShouldBe(1);
    }

    [Fact]
    public async Task A_request_that_is_lost_before_the_server_acts_is_sent_again()
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            if (number == 1)
            {
                await ScriptedServer.ReadCommandsAsync(context);
                context.Abort();
                return;
            }

            await ScriptedServer.ServeAsync(context, _store);
        });
        await using var client = Connect(server.Address);

        (await client.DeductAsync("o1", [("a", 3)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
        (await _store.GetStockAsync("a", cancellationToken: Cancelled)).Available.ShouldBe(7);
    }

    [Theory]
    [InlineData("cut")]
    [InlineData("ended")]
    [InlineData("ended within a line")]
    [InlineData("nonsense")]
    public async Task Of_a_truncated_answer_the_lines_received_count_and_the_rest_is_asked_for_again(string how)
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            var lines = ScriptedServer.Lines(await _store.ExecuteAsync(await ScriptedServer.ReadCommandsAsync(context)));
            if (number > 1)
            {
                await ScriptedServer.WriteAsync(context, lines);
                return;
            }

            await ScriptedServer.WriteAsync(context, lines.Take(2));
            switch (how)
            {
                case "cut":
                    context.Abort();
                    break;
                case "ended within a line":
                    await ScriptedServer.WriteAsync(context, [lines[2][..^1]]);
                    break;
                case "nonsense":
                    await ScriptedServer.WriteAsync(context, ["{\"outcome\":true}\n"u8.ToArray()]);
                    break;
            }
        });
        await using var client = Connect(server.Address);

        var results = await client.ExecuteAsync(
            [StockCommand.Deduct("o1", [("a", 3)]), StockCommand.Deduct("o2", [("a", 20)]), StockCommand.Deduct("o3", [("a", 3)]), StockCommand.Deduct("o4", [("a", 5)])],
            Cancelled);

        // A reset connection may take along what had arrived: then the first answer is asked for again too.
        results[0].Status.ShouldBeOneOf(how == "cut" ? [StockStatus.Done, StockStatus.Replayed] : [StockStatus.Done]);
        results.Skip(1).Select(result => result.Status).ShouldBe([StockStatus.Insufficient, StockStatus.Replayed, StockStatus.Insufficient]);
        (await _store.GetStockAsync("a", cancellationToken: Cancelled)).Available.ShouldBe(4);
    }

    [Fact]
    public async Task An_answer_with_too_many_lines_is_not_believed_beyond_what_was_asked()
    {
        await using var server = await ScriptedServer.StartAsync((context, _) =>
            ScriptedServer.WriteAsync(context, ScriptedServer.Lines([StockResult.Of(StockStatus.Done), StockResult.Of(StockStatus.Done)])));
        await using var client = Connect(server.Address);

        // The one line that belongs to the command counts: answers come in order.
        (await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task A_server_that_never_answers_leaves_the_command_in_doubt_within_the_deadline()
    {
        var hung = new TaskCompletionSource();
        await using var server = await ScriptedServer.StartAsync((context, _) => hung.Task.WaitAsync(context.RequestAborted));
        await using var client = Connect(server.Address, options =>
        {
            options.AttemptTimeout = TimeSpan.FromMilliseconds(150);
            options.Deadline = TimeSpan.FromMilliseconds(500);
        });

        var clock = Stopwatch.StartNew();
        var result = await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled);

        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5));
        result.Status.ShouldBe(StockStatus.InDoubt);
        result.Detail!.ShouldContain(server.Address.ToString());
        result.Detail!.ShouldContain("Abandon");
        server.Requests.ShouldBeGreaterThan(1, "it was tried again");
    }

    [Fact]
    public async Task Where_nothing_listens_the_answer_is_Busy_and_names_the_server()
    {
        var address = FreeAddress();
        await using var client = Connect(address, options => options.Deadline = TimeSpan.FromMilliseconds(200));

        var result = await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled);

        result.Status.ShouldBe(StockStatus.Busy, "nothing was sent");
        result.Detail!.ShouldContain(address.ToString());
        result.Detail!.ShouldContain("check that the server runs");

        var read = await Should.ThrowAsync<HttpRequestException>(async () => await client.GetStockAsync("a", cancellationToken: Cancelled));
        read.Message.ShouldContain(address.ToString());
    }

    [Fact]
    public async Task A_command_in_doubt_stays_in_doubt_when_the_last_attempt_is_Busy()
    {
        await StockAsync(10);
        var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            if (number == 1)
            {
                await _store.ExecuteAsync(await ScriptedServer.ReadCommandsAsync(context));
                context.Abort();
                return;
            }

            await ScriptedServer.ReadCommandsAsync(context);
            await ScriptedServer.WriteAsync(context, ScriptedServer.Lines([StockResult.Of(StockStatus.Busy, "the queue is full")]));
        });
        await using var _ = server;
        await using var client = Connect(server.Address, options => options.Deadline = TimeSpan.FromMilliseconds(300));

        var result = await client.DeductAsync("o1", [("a", 3)], cancellationToken: Cancelled);

        server.Requests.ShouldBeGreaterThan(1);
        result.Status.ShouldBe(StockStatus.InDoubt, "the first attempt did apply");
        result.Detail!.ShouldContain("the queue is full");
    }

    [Fact]
    public async Task What_is_Busy_is_sent_again_until_it_is_decided()
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            if (number > 3)
            {
                await ScriptedServer.ServeAsync(context, _store);
                return;
            }

            var commands = await ScriptedServer.ReadCommandsAsync(context);
            await ScriptedServer.WriteAsync(context, ScriptedServer.Lines(commands.Select(_ => StockResult.Of(StockStatus.Busy))));
        });
        await using var client = Connect(server.Address);

        (await client.DeductAsync("o1", [("a", 3)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
        server.Requests.ShouldBe(4);
    }

    [Fact]
    public async Task What_was_refused_behind_a_Busy_neighbour_is_decided_behind_it()
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            var commands = await ScriptedServer.ReadCommandsAsync(context);
            var results = number == 1
                ? [StockResult.Of(StockStatus.Busy), .. await _store.ExecuteAsync([.. commands.Skip(1)])]
                : await _store.ExecuteAsync(commands);
            await ScriptedServer.WriteAsync(context, ScriptedServer.Lines(results));
        });
        await using var client = Connect(server.Address);

        var results = await client.ExecuteAsync(
            [StockCommand.Deduct("o1", [("a", 3)]), StockCommand.Refund("f1", "o1", [("a", 1)]), StockCommand.Deduct("o2", [("a", 1)])],
            Cancelled);

        results.Select(result => result.Status).ShouldBe([StockStatus.Done, StockStatus.Done, StockStatus.Done]);
        (await FlowAsync()).Select(entry => entry.OperationId).ShouldBe(["stock", "o2", "o1", "f1"], "the Done neighbour was not sent again");
    }

    [Fact]
    public async Task Of_two_servers_the_one_that_works_is_used_and_stuck_to_and_the_other_tried_again_when_it_fails()
    {
        await StockAsync(100);
        var down = FreeAddress();
        var second = await ScriptedServer.StartAsync((context, _) => ScriptedServer.ServeAsync(context, _store));
        await using var client = Connect([down, second.Address], options => options.RestAfterFailure = TimeSpan.FromMilliseconds(50));

        for (var i = 0; i < 5; i++)
        {
            (await client.DeductAsync("o" + i, [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done, "refused connections go on to the next server at once");
        }

        second.Requests.ShouldBe(5);
        await using var first = await ScriptedServer.StartAsync((context, _) => ScriptedServer.ServeAsync(context, _store), down.Port);
        (await client.DeductAsync("o5", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
        first.Requests.ShouldBe(0, "nothing moves back while the present server answers");

        await second.DisposeAsync();
        (await client.DeductAsync("o6", [("a", 1)], cancellationToken: Cancelled)).IsApplied.ShouldBeTrue();
        first.Requests.ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task A_server_that_is_restarted_is_found_again()
    {
        await StockAsync(100);
        var server = await ScriptedServer.StartAsync((context, _) => ScriptedServer.ServeAsync(context, _store));
        var port = server.Address.Port;
        await using var client = Connect(server.Address);
        (await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);

        await server.DisposeAsync();
        var waiting = client.DeductAsync("o2", [("a", 1)], cancellationToken: Cancelled);
        await using var again = await ScriptedServer.StartAsync((context, _) => ScriptedServer.ServeAsync(context, _store), port);

        (await waiting).IsApplied.ShouldBeTrue();
        (await _store.GetStockAsync("a", cancellationToken: Cancelled)).Sold.ShouldBe(2);
    }

    [Theory]
    [InlineData("seconds")]
    [InlineData("date")]
    public async Task A_server_that_asks_to_be_left_alone_is_left_alone_that_long(string form)
    {
        await StockAsync(10);
        var clock = new ManualTimeProvider();
        var arrivals = new List<DateTimeOffset>();
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            arrivals.Add(clock.GetUtcNow());
            if (number == 1)
            {
                context.Response.StatusCode = StatusCodes.Status429TooManyRequests;
                context.Response.Headers.RetryAfter = form == "seconds" ? "3" : clock.GetUtcNow().AddSeconds(3).ToString("R");
                return;
            }

            await ScriptedServer.ServeAsync(context, _store);
        });
        await using var client = Connect(server.Address, options =>
        {
            options.TimeProvider = clock;
            options.AttemptTimeout = TimeSpan.FromMinutes(10);
            options.Deadline = TimeSpan.FromMinutes(10);
        });

        var answer = client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled).AsTask();
        while (!answer.IsCompleted)
        {
            clock.Advance(TimeSpan.FromMilliseconds(50));
            await Task.WhenAny(answer, Task.Delay(TimeSpan.FromMilliseconds(1), TimeProvider.System, Cancelled));
        }

        (await answer).Status.ShouldBe(StockStatus.Done);
        arrivals.Count.ShouldBe(2);
        (arrivals[1] - arrivals[0]).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(form == "date" ? 2 : 3), "a date is whole seconds");
    }

    [Fact]
    public async Task A_pause_beyond_the_deadline_is_answered_Busy_at_once_and_not_waited_for()
    {
        await using var server = await ScriptedServer.StartAsync((context, _) =>
        {
            context.Response.StatusCode = StatusCodes.Status429TooManyRequests;
            context.Response.Headers.RetryAfter = "86400";
            return Task.CompletedTask;
        });
        await using var client = Connect(server.Address);

        var clock = Stopwatch.StartNew();
        (await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Busy);
        (await client.DeductAsync("o2", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Busy);
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5));
        server.Requests.ShouldBe(1);
    }

    [Theory]
    [InlineData(401, "ApiKey")]
    [InlineData(403, "role")]
    [InlineData(404, "same version")]
    public async Task A_server_that_refuses_the_client_itself_is_an_exception_that_says_what_to_do(int status, string advice)
    {
        await using var server = await ScriptedServer.StartAsync((context, _) =>
        {
            context.Response.StatusCode = status;
            return Task.CompletedTask;
        });
        await using var client = Connect(server.Address);

        var write = await Should.ThrowAsync<InvalidOperationException>(async () => await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled));
        write.Message.ShouldContain(server.Address.ToString());
        write.Message.ShouldContain(advice);
        var read = await Should.ThrowAsync<InvalidOperationException>(async () => await client.GetStockAsync("a", cancellationToken: Cancelled));
        read.Message.ShouldContain(advice);
        (await Should.ThrowAsync<InvalidOperationException>(async () => await client.GetOperationAsync("o1", Cancelled))).Message.ShouldContain(advice);
        server.Requests.ShouldBe(3, "it makes no sense to try again");
    }

    [Fact]
    public async Task A_command_that_the_server_finds_invalid_is_an_exception_for_its_caller_only()
    {
        await StockAsync(10);
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            var lines = new List<byte[]>();
            foreach (var command in await ScriptedServer.ReadCommandsAsync(context))
            {
                lines.AddRange(command.Id == "new"
                    ? ["{\"outcome\":\"Invalid\",\"retry\":false,\"field\":\"lines[0].sku\",\"detail\":\"lines[0].sku is odd\"}\n"u8.ToArray()]
                    : ScriptedServer.Lines(await _store.ExecuteAsync([command])));
            }

            await ScriptedServer.WriteAsync(context, lines);
        });
        await using var client = Connect(server.Address);

        var odd = client.DeductAsync("new", [("a", 1)], cancellationToken: Cancelled).AsTask();
        var sound = client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled);

        (await sound).Status.ShouldBe(StockStatus.Done);
        var exception = await Should.ThrowAsync<InvalidOperationException>(() => odd);
        exception.Message.ShouldContain("lines[0].sku is odd");
        exception.Message.ShouldContain("same version");
    }

    [Fact]
    public async Task An_outcome_of_a_newer_server_that_forbids_trying_again_is_not_tried_again()
    {
        await using var server = await ScriptedServer.StartAsync((context, _) =>
            ScriptedServer.WriteAsync(context, ["{\"outcome\":\"NotOnSale\",\"retry\":false}\n"u8.ToArray()]));
        await using var client = Connect(server.Address);

        var result = await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled);

        result.Status.ShouldBe(StockStatus.InDoubt);
        result.Detail!.ShouldContain("NotOnSale");
        server.Requests.ShouldBe(1);
    }

    [Fact]
    public async Task Concurrent_callers_share_requests_and_no_two_requests_under_way_share_an_id()
    {
        await StockAsync(1_000_000);
        var underWay = new HashSet<string>(StringComparer.Ordinal);
        var sharedId = false;
        await using var server = await ScriptedServer.StartAsync(async (context, _) =>
        {
            var commands = await ScriptedServer.ReadCommandsAsync(context);
            var ids = commands.Select(command => command.Id).Distinct().ToList();
            lock (underWay)
            {
                sharedId |= ids.Any(underWay.Contains);
                underWay.UnionWith(ids);
            }

            await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System);
            var results = await _store.ExecuteAsync(commands);
            lock (underWay)
            {
                underWay.ExceptWith(ids);
            }

            await ScriptedServer.WriteAsync(context, ScriptedServer.Lines(results));
        });
        await using var client = Connect(server.Address, options => options.MaxConcurrentBatches = 4);

        var answers = await Task.WhenAll(Enumerable.Range(0, 1_000).Select(i => client.DeductAsync("o" + (i % 700), [("a", 1)], cancellationToken: Cancelled).AsTask()));

        answers.Count(answer => answer.Status == StockStatus.Done).ShouldBe(700);
        answers.Count(answer => answer.Status == StockStatus.Replayed).ShouldBe(300);
        server.Requests.ShouldBeLessThan(100);
        sharedId.ShouldBeFalse();
    }

    [Fact]
    public async Task Large_carts_are_split_over_requests_and_stay_in_order()
    {
        await using var server = await ScriptedServer.StartAsync((context, _) => ScriptedServer.ServeAsync(context, _store));
        await using var client = Connect(server.Address);
        var lines = Enumerable.Range(0, StockLimits.MaxLines).Select(i => new StockLine($"{i:0000}{new string('ä', 60)}", 10)).ToArray();
        var commands = Enumerable.Range(0, 12).Select(i => i == 0 ? StockCommand.Restock("r", lines) : StockCommand.Deduct("o" + i, [.. lines.Select(line => line with { Quantity = 1 })])).ToArray();

        var results = await client.ExecuteAsync(commands, Cancelled);

        results.Select(result => result.Status).ShouldBe([.. Enumerable.Repeat(StockStatus.Done, 11), StockStatus.Insufficient]);
        results[10].Left.Length.ShouldBe(StockLimits.MaxLines);
        server.Requests.ShouldBeGreaterThan(3);
    }

    [Fact]
    public async Task A_caller_that_cancels_stops_waiting_and_its_command_is_decided_all_the_same()
    {
        await StockAsync(10);
        var arrived = new TaskCompletionSource();
        var go = new TaskCompletionSource();
        await using var server = await ScriptedServer.StartAsync(async (context, _) =>
        {
            arrived.TrySetResult();
            await go.Task;
            await ScriptedServer.ServeAsync(context, _store);
        });
        await using var client = Connect(server.Address);
        using var impatience = CancellationTokenSource.CreateLinkedTokenSource(Cancelled);

        var waiting = client.DeductAsync("o1", [("a", 1)], cancellationToken: impatience.Token).AsTask();
        await arrived.Task;
        await impatience.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(() => waiting);
        go.SetResult();
        (await client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Replayed);
    }

    [Fact]
    public async Task Disposal_waits_for_what_was_accepted_and_takes_nothing_more()
    {
        await StockAsync(10);
        var arrived = new TaskCompletionSource();
        var go = new TaskCompletionSource();
        await using var server = await ScriptedServer.StartAsync(async (context, number) =>
        {
            arrived.TrySetResult();
            await go.Task;
            if (number == 1)
            {
                context.Abort();
                return;
            }

            await ScriptedServer.ServeAsync(context, _store);
        });
        var client = Connect(server.Address);

        var accepted = client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled).AsTask();
        await arrived.Task;
        var disposal = client.DisposeAsync().AsTask();
        (await client.DeductAsync("o2", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Busy);
        disposal.IsCompleted.ShouldBeFalse();
        go.SetResult();

        (await accepted).Status.ShouldBe(StockStatus.Done, "also when it had to be sent again");
        await disposal;
        await client.DisposeAsync();
        await Should.ThrowAsync<ObjectDisposedException>(async () => await client.GetStockAsync("a", cancellationToken: Cancelled));
    }

    [Fact]
    public async Task Disposal_ends_within_its_bound_when_a_server_hangs()
    {
        var arrived = new TaskCompletionSource();
        await using var server = await ScriptedServer.StartAsync((context, _) =>
        {
            arrived.TrySetResult();
            return new TaskCompletionSource().Task.WaitAsync(context.RequestAborted);
        });
        var client = Connect(server.Address, options => options.DrainTimeout = TimeSpan.FromMilliseconds(100));
        var accepted = client.DeductAsync("o1", [("a", 1)], cancellationToken: Cancelled).AsTask();
        await arrived.Task;

        var clock = Stopwatch.StartNew();
        await client.DisposeAsync();

        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(4));
        (await accepted).Status.ShouldBe(StockStatus.InDoubt);
    }

    public ValueTask DisposeAsync() => _store.DisposeAsync();

    private static Uri FreeAddress()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return new($"http://127.0.0.1:{((IPEndPoint)probe.LocalEndpoint).Port}");
    }

    private static HoldfastClient Connect(Uri address, Action<HoldfastClientOptions>? configure = null) => Connect([address], configure);

    private static HoldfastClient Connect(Uri[] addresses, Action<HoldfastClientOptions>? configure = null)
    {
        var options = new HoldfastClientOptions { Jitter = new(20101201) };
        foreach (var address in addresses)
        {
            options.Addresses.Add(address);
        }

        configure?.Invoke(options);
        return new(options);
    }

    private async Task StockAsync(long units) => (await _store.RestockAsync("stock", [("a", units)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);

    private async Task<List<FlowEntry>> FlowAsync()
    {
        var flow = new List<FlowEntry>();
        await foreach (var entry in _store.ReadFlowAsync(new(), Cancelled))
        {
            flow.Add(entry);
        }

        return flow;
    }
}
