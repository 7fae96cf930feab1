using System.Collections.Concurrent;
using Holdfast.Client;
using Holdfast.Testing;
using Microsoft.Extensions.DependencyInjection;

namespace Holdfast.Tests.Client;

/// <summary>The client against the real server, in good health and in bad. Each storm ends in an audit.</summary>
public sealed class HoldfastClientServerTests(ITestOutputHelper output) : IAsyncDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("holdfast-client-").FullName;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public ValueTask DisposeAsync()
    {
        Directory.Delete(_folder, recursive: true);
        return ValueTask.CompletedTask;
    }

    [Fact]
    public async Task A_client_knows_what_its_server_guarantees()
    {
        await using var engine = OpenStore();
        await using var server = await RunningServer.StartAsync(engine);
        await using var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Cancelled);

        client.Traits.ShouldBe(engine.Traits);
        var info = await client.GetServerInfoAsync(Cancelled);
        info.Traits.ShouldBe(engine.Traits);
        info.Version.ShouldNotBeEmpty();
    }

    [Fact]
    public async Task Keys_and_roles_are_asked_for_by_name()
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine, settings: new Dictionary<string, string?>
        {
            ["Holdfast:ApiKeys:0:Name"] = "shop",
            ["Holdfast:ApiKeys:0:Key"] = "a-key-for-the-shop",
            ["Holdfast:ApiKeys:0:Roles:0"] = "sell",
        });

        (await Should.ThrowAsync<InvalidOperationException>(async () => await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Cancelled)))
            .Message.ShouldContain("ApiKey");

        await using var client = await HoldfastClient.ConnectAsync(server.Address, "a-key-for-the-shop", Cancelled);
        (await client.AbandonAsync("o1", Cancelled)).Status.ShouldBe(StockStatus.Done);
        (await Should.ThrowAsync<InvalidOperationException>(async () => await client.RestockAsync("r1", [("a", 1)], cancellationToken: Cancelled)))
            .Message.ShouldContain("stock");
        (await Should.ThrowAsync<InvalidOperationException>(async () => await client.GetStockAsync("a", cancellationToken: Cancelled)))
            .Message.ShouldContain("read");
    }

    [Theory]
    [InlineData(".")]
    [InlineData("..")]
    [InlineData("a/../b")]
    [InlineData("%2F")]
    [InlineData("50% off + more?&id=x#y")]
    [InlineData("ä\u202E\u00A0中𝄞\"\\'")]
    public async Task Every_name_that_the_contract_allows_travels_unchanged(string name)
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine);
        await using var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Cancelled);

        (await client.RestockAsync("r", [(name, 5)], cancellationToken: Cancelled)).Left.ShouldBe([new(name, 5)]);
        (await client.DeductAsync(name, [(name, 2)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
        (await client.RefundAsync("f", name, [(name, 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);

        (await client.GetStockAsync(name, cancellationToken: Cancelled)).ShouldBe(await engine.GetStockAsync(name, cancellationToken: Cancelled));
        (await client.GetOperationAsync(name, Cancelled))!.Lines.ShouldBe([new(name, 2, 1)]);
        (await AllAsync(client.ListStockAsync(name, cancellationToken: Cancelled))).Single().Sku.ShouldBe(name);
        (await AllAsync(client.ReadFlowAsync(new() { Sku = name }, Cancelled))).ShouldBe(await AllAsync(engine.ReadFlowAsync(new() { Sku = name }, Cancelled)));
        (await AllAsync(client.ListOperationsAsync(new() { Target = name }, Cancelled))).Single().Id.ShouldBe("f");
    }

    [Fact]
    public async Task Listings_stream_page_by_page_and_go_on_from_a_cursor()
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine);
        await using var client = new HoldfastClient(new() { Addresses = { server.Address }, PageSize = 7 });
        var lines = Enumerable.Range(0, 30).Select(i => new StockLine($"sku-{i:00}", i)).ToArray();
        await client.RestockAsync("r", lines, cancellationToken: Cancelled);
        for (var i = 0; i < 20; i++)
        {
            await client.DeductAsync($"o{i:00}", [("sku-29", 1)], cancellationToken: Cancelled);
        }

        (await AllAsync(client.ListStockAsync(cancellationToken: Cancelled))).ShouldBe(await AllAsync(engine.ListStockAsync(cancellationToken: Cancelled)));
        (await AllAsync(client.ListStockAsync("sku-1", cancellationToken: Cancelled))).Count.ShouldBe(10);

        var flow = await AllAsync(client.ReadFlowAsync(new(), Cancelled));
        flow.ShouldBe(await AllAsync(engine.ReadFlowAsync(new(), Cancelled)));
        (await AllAsync(client.ReadFlowAsync(new() { After = flow[9].Cursor, Limit = 17 }, Cancelled))).ShouldBe(flow[10..27]);

        var operations = await AllAsync(client.ListOperationsAsync(new(), Cancelled));
        operations.Select(operation => operation.Id).ShouldBe((await AllAsync(engine.ListOperationsAsync(new(), Cancelled))).Select(operation => operation.Id));
        (await AllAsync(client.ListOperationsAsync(new() { After = operations[4].Cursor, Limit = 9 }, Cancelled))).Select(operation => operation.Id)
            .ShouldBe(operations[5..14].Select(operation => operation.Id));
    }

    /// <summary>The memory engine once gave no cursors here, so that a listing over HTTP ended after its first page.</summary>
    [Fact]
    public async Task Due_reservations_are_listed_beyond_the_first_page()
    {
        var clock = new ManualTimeProvider();
        await using var engine = new MemoryEngine(clock);
        await using var server = await RunningServer.StartAsync(engine, clock, settings: new Dictionary<string, string?> { ["Holdfast:Sweeper:Enabled"] = "false" });
        await using var client = new HoldfastClient(new() { Addresses = { server.Address }, PageSize = 3 });
        await client.RestockAsync("r", [("a", 100)], cancellationToken: Cancelled);
        for (var i = 0; i < 10; i++)
        {
            await client.ReserveAsync($"h.{i}", [("a", 1)], TimeSpan.FromSeconds(10 - (i / 2)), cancellationToken: Cancelled);
        }

        clock.Advance(TimeSpan.FromSeconds(9));

        (await AllAsync(client.ListOperationsAsync(new() { DueOnly = true }, Cancelled))).Select(due => due.Id)
            .ShouldBe(["h.8", "h.9", "h.6", "h.7", "h.4", "h.5", "h.2", "h.3"]);
        (await AllAsync(client.ListOperationsAsync(new() { DueOnly = true, Limit = 5 }, Cancelled))).Count.ShouldBe(5);
        await Should.ThrowAsync<ArgumentException>(async () => await AllAsync(client.ListOperationsAsync(new() { DueOnly = true, After = "7" }, Cancelled)));
    }

    [Fact]
    public async Task More_SKUs_than_one_request_holds_are_read_in_the_order_asked()
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine);
        await using var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Cancelled);
        var lines = Enumerable.Range(0, 700).Select(i => new StockLine($"{i:000}-{new string('中', 60)}", i + 1)).ToArray();
        await client.RestockAsync("r", lines, cancellationToken: Cancelled);
        string[] asked = [.. lines.Select(line => line.Sku).Reverse(), " not a name ", "unknown", lines[5].Sku];

        var levels = await client.GetStockAsync(asked, cancellationToken: Cancelled);

        levels.Select(level => level.Sku).ShouldBe(asked);
        levels.Select(level => level.Available).ShouldBe([.. lines.Select(line => line.Quantity).Reverse(), 0, 0, 6]);
        (await client.GetStockAsync([], cancellationToken: Cancelled)).ShouldBeEmpty();
    }

    [Fact]
    public async Task Reads_move_on_to_the_next_server()
    {
        await using var engine = new MemoryEngine();
        await engine.RestockAsync("r", [("a", 5)], cancellationToken: Cancelled);
        var first = await RunningServer.StartAsync(engine);
        await using var second = await RunningServer.StartAsync(engine);
        await using var client = await HoldfastClient.ConnectAsync(new() { Addresses = { first.Address, second.Address } }, Cancelled);
        await first.DisposeAsync();

        (await client.GetStockAsync("a", cancellationToken: Cancelled)).Available.ShouldBe(5);
        (await client.GetOperationAsync("r", Cancelled))!.Verb.ShouldBe(StockVerb.Restock);
        (await AllAsync(client.ReadFlowAsync(new(), Cancelled))).Count.ShouldBe(1);
    }

    /// <summary>2,000 buyers and 500 units through a network that keeps breaking: exactly 500 are sold, each once, and nobody is turned away while a unit is left.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_sale_over_connections_that_break_sells_every_unit_once(int seed)
    {
        const int Buyers = 2_000;
        const int Units = 500;
        await using var engine = OpenStore();
        await using var server = await RunningServer.StartAsync(engine);
        await using var proxy = new CuttingProxy(server.Address, seed, 0.1);
        await using var client = new HoldfastClient(new() { Addresses = { proxy.Address }, Jitter = new(seed), MaxBatchCommands = 64, Deadline = TimeSpan.FromSeconds(30) });
        await RetryAsync(client, StockCommand.Restock("r", [("hot", Units)]));

        var answers = await Task.WhenAll(Enumerable.Range(0, Buyers).Select(i => RetryAsync(client, StockCommand.Deduct("o" + i, [("hot", 1)]))));

        output.WriteLine($"seed {seed}: {proxy.Cuts} cuts, {answers.Count(answer => answer.Status == StockStatus.Replayed)} answers lost and asked for again");
        proxy.Cuts.ShouldBeGreaterThan(3);
        proxy.IsCutting = false;
        answers.Count(answer => answer.IsApplied).ShouldBe(Units);
        answers.Count(answer => answer.Status == StockStatus.Insufficient).ShouldBe(Buyers - Units);
        await AuditAsync(engine, [.. answers.Select((answer, i) => ("o" + i, answer))]);
        (await LedgerAudit.RunAsync(client, cancellationToken: Cancelled)).ToString().ShouldStartWith("audit passed", customMessage: "read over HTTP");
    }

    /// <summary>Two addresses, of which one at a time is up, and every stop cuts all connections.</summary>
    [Fact]
    public async Task Orders_go_on_while_servers_come_and_go()
    {
        await using var engine = OpenStore();
        var servers = new[] { await RunningServer.StartAsync(engine), await RunningServer.StartAsync(engine) };
        var ports = servers.Select(server => server.Address.Port).ToArray();
        await servers[1].DisposeAsync();
        await using var client = new HoldfastClient(new()
        {
            Addresses = { servers[0].Address, servers[1].Address },
            Jitter = new(7),
            RestAfterFailure = TimeSpan.FromMilliseconds(100),
            Deadline = TimeSpan.FromSeconds(30),
        });
        await RetryAsync(client, StockCommand.Restock("r", [("a", 1_000_000), ("b", 1_000_000)]));
        var answers = new ConcurrentBag<(string Id, StockResult Answer)>();
        using var end = CancellationTokenSource.CreateLinkedTokenSource(Cancelled);

        var buyers = Enumerable.Range(0, 32).Select(async buyer =>
        {
            for (var i = 0; !end.IsCancellationRequested; i++)
            {
                var id = $"o-{buyer}-{i}";
                answers.Add((id, await RetryAsync(client, StockCommand.Deduct(id, [("a", 1), ("b", 2)]))));
            }
        }).ToArray();
        for (var turn = 0; turn < 6; turn++)
        {
            var before = answers.Count;
            while (answers.Count < before + 100)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, Cancelled);
            }

            await servers[turn % 2].DisposeAsync();
            servers[(turn + 1) % 2] = await RunningServer.StartAsync(engine, port: ports[(turn + 1) % 2]);
        }

        await end.CancelAsync();
        await Task.WhenAll(buyers);
        await servers[0].DisposeAsync();
        output.WriteLine($"{answers.Count} orders, {answers.Count(each => each.Answer.Status == StockStatus.Replayed)} answers lost and asked for again");
        answers.ShouldAllBe(each => each.Answer.IsApplied);
        await AuditAsync(engine, [.. answers]);
    }

    [Fact]
    public async Task A_container_holds_one_client_for_everybody_and_checks_its_options_at_once()
    {
        await using var engine = new MemoryEngine();
        await using var server = await RunningServer.StartAsync(engine);
        await using var services = new ServiceCollection().AddHoldfastClient(options => options.Addresses.Add(server.Address)).BuildServiceProvider();

        services.GetRequiredService<IStockEngine>().ShouldBeSameAs(services.GetRequiredService<HoldfastClient>());
        (await services.GetRequiredService<IStockEngine>().RestockAsync("r", [("a", 5)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);

        Should.Throw<ArgumentException>(() => new ServiceCollection().AddHoldfastClient(_ => { })).Message.ShouldContain("Addresses");
    }

    private GroupCommit OpenStore() => new(SqliteEngine.Open(new() { Path = Path.Combine(_folder, "stock.db"), TransactionPer = SqliteTransactionScope.Call }));

    /// <summary>What a careful caller does: the same command until there is a verdict.</summary>
    private static async Task<StockResult> RetryAsync(HoldfastClient engine, StockCommand command)
    {
        while (true)
        {
            var result = await engine.ExecuteAsync(command, Cancelled);
            if (!result.IsRetryable)
            {
                return result;
            }
        }
    }

    private async Task AuditAsync(GroupCommit engine, (string Id, StockResult Answer)[] answers)
    {
        var audit = await LedgerAudit.RunAsync(engine, cancellationToken: Cancelled);
        output.WriteLine(audit.ToString());
        audit.ToString().ShouldStartWith("audit passed");
        var applied = (await AllAsync(engine.ListOperationsAsync(new(), Cancelled))).Where(operation => operation.Verb == StockVerb.Deduct).Select(operation => operation.Id).ToHashSet(StringComparer.Ordinal);
        applied.SetEquals(answers.Where(each => each.Answer.IsApplied).Select(each => each.Id)).ShouldBeTrue("what was acknowledged is what is in the ledger");
    }

    private static async Task<List<T>> AllAsync<T>(IAsyncEnumerable<T> items)
    {
        var all = new List<T>();
        await foreach (var item in items)
        {
            all.Add(item);
        }

        return all;
    }
}
