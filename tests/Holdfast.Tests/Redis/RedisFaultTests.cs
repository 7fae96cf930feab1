using Holdfast.Testing;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Redis;

/// <summary>Pure Redis when the server is killed, emptied, filled, robbed or paused. Each ends in an audit of what is there, and in the list of what is not.</summary>
public sealed class RedisFaultTests(ITestOutputHelper output)
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("always")]
    [InlineData("everysec")]
    [InlineData("no")]
    public async Task Kill_under_load_loses_nothing_that_is_not_reported_and_with_always_nothing(string fsync)
    {
        await using var server = await RedisServer.StartAsync($"appendfsync {fsync}");
        await using var store = await OpenAsync(server);
        await using var engine = new GroupCommit(store, new() { MaxConcurrentBatches = 2 });
        await engine.RestockAsync("open", [("hot", 1_000_000_000), ("a", 1_000_000), ("b", 1_000_000)], cancellationToken: Cancel);
        var acknowledged = new System.Collections.Concurrent.ConcurrentDictionary<string, byte>(StringComparer.Ordinal);
        var kills = 0;
        var stop = false;
        var callers = Enumerable.Range(0, 64).Select(async caller =>
        {
            for (var i = 0; !Volatile.Read(ref stop); i++)
            {
                var id = $"{caller}-{i}";
                var command = i % 3 == 0 ? StockCommand.Deduct(id, [("a", 1), ("b", 2)]) : StockCommand.Deduct(id, [("hot", 1)]);
                for (var result = StockResult.Of(StockStatus.Busy); result.IsRetryable && !Volatile.Read(ref stop);)
                {
                    result = (await engine.ExecuteAsync([command], Cancel))[0];
                    if (result.IsApplied)
                    {
                        acknowledged[id] = 0;
                    }
                    else if (result.IsRetryable)
                    {
                        await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Cancel);
                    }
                }
            }
        }).ToList();
        for (; kills < 3; kills++)
        {
            var before = acknowledged.Count;
            await UntilAsync(() => Task.FromResult(acknowledged.Count > before + 500));
            await server.RestartAsync();
        }

        var last = acknowledged.Count;
        await UntilAsync(() => Task.FromResult(acknowledged.Count > last + 100));
        Volatile.Write(ref stop, true);
        await Task.WhenAll(callers);

        var present = new HashSet<string>(StringComparer.Ordinal);
        await foreach (var view in store.ListOperationsAsync(new(), Cancel))
        {
            present.Add(view.Id);
        }

        var lost = acknowledged.Keys.Where(id => !present.Contains(id)).ToList();
        var reported = store.Losses.SelectMany(loss => loss.Operations).ToHashSet(StringComparer.Ordinal);
        output.WriteLine($"appendfsync {fsync}: {acknowledged.Count} acknowledged over {kills} kills, {lost.Count} lost, {reported.Count} reported lost in {store.Losses.Count} incidents");
        lost.Except(reported).ShouldBeEmpty("every lost operation is reported");
        if (fsync == "always")
        {
            lost.ShouldBeEmpty();
            store.Losses.ShouldBeEmpty();
        }

        var audit = await LedgerAudit.RunAsync(store, cancellationToken: Cancel);
        audit.ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task FLUSHALL_is_noticed_and_never_answered_as_if_nothing_was_ever_sold()
    {
        await using var server = await RedisServer.StartAsync();
        var log = new CriticalLog();
        await using var store = await OpenAsync(server, log);
        await store.RestockAsync("r1", [("a", 5)], cancellationToken: Cancel);
        await store.DeductAsync("o1", [("a", 5)], cancellationToken: Cancel);
        await server.CliAsync("FLUSHALL");
        StockCommand[] commands = [StockCommand.Deduct("o1", [("a", 5)]), StockCommand.Deduct("o2", [("a", 1)]), StockCommand.Restock("r2", [("a", 1)])];
        foreach (var result in await store.ExecuteAsync(commands, Cancel))
        {
            result.Status.ShouldBe(StockStatus.Busy);
            result.Detail!.ShouldContain("the store is gone");
        }

        (await Should.ThrowAsync<RedisStoreException>(async () => await store.GetStockAsync(["a"], cancellationToken: Cancel))).MayPass.ShouldBeTrue();
        log.Critical.ShouldContain(text => text.Contains("the store is gone", StringComparison.Ordinal));
        (await server.CliAsync("DBSIZE")).ShouldBe("0", "nothing was written into the empty server");

        // Opened anew on purpose, it begins with an empty store; the old engine still answers for its own only.
        await using var fresh = await OpenAsync(server);
        (await fresh.DeductAsync("o3", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.UnknownSku);
        (await store.DeductAsync("o3", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Busy);
    }

    [Fact]
    public async Task SCRIPT_FLUSH_is_not_noticed_by_callers()
    {
        await using var server = await RedisServer.StartAsync();
        await using var store = await OpenAsync(server);
        await store.RestockAsync("r1", [("a", 1_000)], cancellationToken: Cancel);
        for (var round = 0; round < 10; round++)
        {
            var calls = Enumerable.Range(0, 50).Select(i => store.DeductAsync($"o{round}-{i}", [("a", 1)], cancellationToken: Cancel).AsTask()).ToList();
            await server.CliAsync("SCRIPT", "FLUSH");
            (await Task.WhenAll(calls)).ShouldAllBe(result => result.Status == StockStatus.Done);
        }

        (await store.GetStockAsync(["a"], cancellationToken: Cancel))[0].Available.ShouldBe(500);
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    [Theory]
    [InlineData(RedisLossPolicy.Report)]
    [InlineData(RedisLossPolicy.Stop)]
    public async Task A_restart_from_an_old_snapshot_is_reported_with_every_operation_that_it_lost(RedisLossPolicy policy)
    {
        await using var server = await RedisServer.StartAsync("appendonly no", "save 3600 1");
        var log = new CriticalLog();
        await using var store = await OpenAsync(server, log, policy);
        await store.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        await store.ReserveAsync("h1", [("a", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel);
        await store.DeductAsync("kept", [("a", 1)], cancellationToken: Cancel);
        await server.CliAsync("SAVE");
        await store.DeductAsync("lost-1", [("a", 1)], cancellationToken: Cancel);
        await store.DeductAsync("lost-2", [("a", 1)], cancellationToken: Cancel);
        await store.ConfirmAsync("h1", cancellationToken: Cancel);
        await server.RestartAsync();
        await UntilAsync(async () => (await store.DeductAsync("after", [("a", 1)], cancellationToken: Cancel)) is { IsRetryable: false } || store.Losses.Count > 0);
        var loss = store.Losses.ShouldHaveSingleItem();
        loss.Operations.ShouldBe(["lost-1", "lost-2", "h1"]);
        loss.JournalEndAfter.ShouldBeLessThan(loss.JournalEndBefore);
        log.Critical.ShouldContain(text => text.Contains("lost-1, lost-2, h1", StringComparison.Ordinal));
        var after = await store.DeductAsync("after", [("a", 1)], cancellationToken: Cancel);
        if (policy == RedisLossPolicy.Stop)
        {
            after.Status.ShouldBe(StockStatus.Busy);
            after.Detail!.ShouldContain("has lost 3 operations");
        }
        else
        {
            after.IsApplied.ShouldBeTrue();
            (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
        }
    }

    [Fact]
    public async Task A_replica_that_lagged_and_took_over_is_reported_with_what_it_never_got()
    {
        await using var master = await RedisServer.StartAsync();
        await using var first = await OpenAsync(master);
        await first.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        await using var replica = await master.StartReplicaAsync();
        await UntilAsync(async () => await replica.CliAsync("HGET", "{holdfast}:meta", "end") == await master.CliAsync("HGET", "{holdfast}:meta", "end"));
        await using var store = await RedisEngine.OpenAsync(
            new() { Configuration = $"{master.Configuration},{replica.Configuration}", CallTimeout = TimeSpan.FromSeconds(5) }, cancellationToken: Cancel);
        await replica.PauseAsync();
        for (var i = 0; i < 20; i++)
        {
            (await store.DeductAsync($"o{i}", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        }

        await master.KillAsync();
        await replica.ResumeAsync();
        await replica.CliAsync("REPLICAOF", "NO", "ONE");
        await UntilAsync(async () => (await store.DeductAsync("after", [("a", 1)], cancellationToken: Cancel)).IsApplied);

        var present = new HashSet<string>(StringComparer.Ordinal);
        await foreach (var view in store.ListOperationsAsync(new(), Cancel))
        {
            present.Add(view.Id);
        }

        var lost = Enumerable.Range(0, 20).Select(i => $"o{i}").Where(id => !present.Contains(id)).ToList();
        store.Losses.SelectMany(loss => loss.Operations).ShouldBe(lost, "each of what the replica never got, and nothing else");
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task Without_memory_left_commands_are_Busy_and_nothing_is_half_written()
    {
        await using var server = await RedisServer.StartAsync("maxmemory-policy noeviction");
        await using var store = await OpenAsync(server);
        await store.RestockAsync("r1", [("a", 1_000_000), ("b", 1_000_000)], cancellationToken: Cancel);
        await server.CliAsync("CONFIG", "SET", "maxmemory", "6mb");
        var done = 0;
        StockResult result;
        do
        {
            result = (await store.ExecuteAsync([.. Enumerable.Range(0, 200).Select(i => StockCommand.Deduct($"{new string('x', 50)}{done}-{i}", [("a", 1), ("b", 1)]))], Cancel))[199];
            done += result.Status == StockStatus.Done ? 200 : 0;
        }
        while (result.Status == StockStatus.Done && done < 1_000_000);
        result.Status.ShouldBe(StockStatus.Busy);
        result.Detail!.ShouldContain("maxmemory");
        (await store.GetStockAsync(["a"], cancellationToken: Cancel))[0].Available.ShouldBe(1_000_000 - done);
        await server.CliAsync("CONFIG", "SET", "maxmemory", "0");
        (await store.DeductAsync("after", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    [Theory]
    [InlineData("stock")]
    [InlineData("op")]
    [InlineData("due")]
    [InlineData("f:0")]
    [InlineData("v:0:a")]
    [InlineData("h:a")]
    [InlineData("skus")]
    public async Task A_key_of_the_wrong_type_is_named_and_nothing_is_half_written(string key)
    {
        await using var server = await RedisServer.StartAsync();
        await using var store = await OpenAsync(server);
        await store.RestockAsync("r1", [("a", 10), ("b", 10)], cancellationToken: Cancel);
        await store.ReserveAsync("h0", [("a", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel);
        await server.CliAsync("RENAME", $"{{holdfast}}:{key}", "{holdfast}:aside");
        await server.CliAsync(key is "stock" or "op" or "due" or "skus" or "h:a" ? "SET" : "SADD", $"{{holdfast}}:{key}", "foreign");
        var before = await StateAsync(server);
        var failure = await Should.ThrowAsync<RedisStoreException>(async () => await store.ExecuteAsync(
            [
                StockCommand.Deduct("o1", [("a", 1), ("b", 1)]), StockCommand.Reserve("h1", [("a", 1)], TimeSpan.FromHours(1)), StockCommand.Restock("r2", [("c", 1)]),
            ],
            Cancel));
        failure.Message.ShouldContain($"{{holdfast}}:{key}");
        failure.Message.ShouldContain("WRONGTYPE");
        (await StateAsync(server)).ShouldBe(before, "no row, no operation and no end of the journal has changed");
        if (key is "v:0:a" or "h:a")
        {
            (await store.DeductAsync("o2", [("b", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done, "another SKU's sales go on");
        }

        await server.CliAsync("DEL", $"{{holdfast}}:{key}");
        await server.CliAsync("RENAME", "{holdfast}:aside", $"{{holdfast}}:{key}");
        (await store.DeductAsync("o3", [("a", 1), ("b", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    [Fact]
    public async Task A_server_that_stands_still_for_ten_seconds_leaves_nothing_lost_and_nothing_twice()
    {
        await using var server = await RedisServer.StartAsync();
        await using var store = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration, CallTimeout = TimeSpan.FromSeconds(1) }, cancellationToken: Cancel);
        await store.RestockAsync("r1", [("a", 1_000)], cancellationToken: Cancel);
        await server.PauseAsync();
        var began = TimeProvider.System.GetTimestamp();
        var calls = Enumerable.Range(0, 20).Select(i => store.DeductAsync($"o{i}", [("a", 1)], cancellationToken: Cancel).AsTask()).ToList();
        foreach (var result in await Task.WhenAll(calls))
        {
            result.Status.ShouldBeOneOf(StockStatus.InDoubt, StockStatus.Busy);
        }

        TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(20), "waits are bounded");
        await Task.Delay(TimeSpan.FromSeconds(10), TimeProvider.System, Cancel);
        await server.ResumeAsync();
        await UntilAsync(async () => !(await store.DeductAsync("probe", [("a", 1)], cancellationToken: Cancel)).IsRetryable);
        for (var i = 0; i < 20; i++)
        {
            StockResult result = default;
            await UntilAsync(async () => !(result = await store.DeductAsync($"o{i}", [("a", 1)], cancellationToken: Cancel)).IsRetryable);
            result.IsApplied.ShouldBeTrue();
        }

        (await store.GetStockAsync(["a"], cancellationToken: Cancel))[0].Available.ShouldBe(979);
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    /// <summary>The first answer went to another process, or was lost with the connection: the caller was told by the repetition.</summary>
    [Fact]
    public async Task What_was_acknowledged_by_a_repetition_is_reported_when_it_is_lost()
    {
        await using var server = await RedisServer.StartAsync("appendonly no", "save 3600 1");
        await using var other = await OpenAsync(server);
        await using var store = await OpenAsync(server);
        await other.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        await other.DeductAsync("undone", [("a", 1)], cancellationToken: Cancel);
        await server.CliAsync("SAVE");
        await other.DeductAsync("o1", [("a", 1)], cancellationToken: Cancel);
        await other.CancelAsync("undone", Cancel);
        (await store.DeductAsync("o1", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Replayed);
        (await store.CancelAsync("undone", Cancel)).Status.ShouldBe(StockStatus.Replayed);
        await server.RestartAsync();
        await UntilAsync(async () => (await store.AbandonAsync("after", Cancel)) is { IsRetryable: false } || store.Losses.Count > 0);
        store.Losses.ShouldHaveSingleItem().Operations.ShouldBe(["o1", "undone"]);
    }

    /// <summary>What came since then lies where the lost entries lay; an export that went on from there would leave it out.</summary>
    [Theory]
    [InlineData("lost-1", "kept-1")]
    [InlineData("lost-1", "another length")]
    public async Task A_cursor_behind_an_entry_that_was_lost_is_refused(string lost, string later)
    {
        await using var server = await RedisServer.StartAsync("appendonly no", "save 3600 1");
        await using var store = await OpenAsync(server);
        await store.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        var kept = (await store.ReadFlowAsync(new(), Cancel).ToListAsync(Cancel))[^1].Cursor;
        await server.CliAsync("SAVE");
        await store.DeductAsync(lost, [("a", 1)], cancellationToken: Cancel);
        var cursor = (await store.ReadFlowAsync(new(), Cancel).ToListAsync(Cancel))[^1].Cursor;
        await server.RestartAsync();
        await UntilAsync(async () => (await store.ConfirmAsync("none", Cancel)) is { IsRetryable: false });
        for (var i = 0; i < 3; i++)
        {
            await store.DeductAsync($"{later}{i}"[^later.Length..], [("a", 1)], cancellationToken: Cancel);
        }

        await Should.ThrowAsync<ArgumentException>(async () => await store.ReadFlowAsync(new() { After = cursor }, Cancel).ToListAsync(Cancel));
        (await store.ReadFlowAsync(new() { After = kept }, Cancel).CountAsync(Cancel)).ShouldBe(3);
    }

    [Theory]
    [InlineData("f:0")]
    [InlineData("v:0:a")]
    [InlineData("h:a")]
    public async Task A_key_that_is_missing_is_not_begun_anew(string key)
    {
        await using var server = await RedisServer.StartAsync();
        await using var store = await OpenAsync(server);
        await store.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        await store.ReserveAsync("h1", [("a", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel);
        (await server.CliAsync("DEL", "{holdfast}:" + key)).ShouldBe("1");
        var before = await StateAsync(server);
        (await Should.ThrowAsync<RedisStoreException>(async () => await store.ReserveAsync("h2", [("a", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel))).Message.ShouldContain("{holdfast}:" + key);
        (await StateAsync(server)).ShouldBe(before);
    }

    /// <summary>A node that already has some keys of a slot answers as if the others had never been: a retry would be applied again.</summary>
    [Fact]
    public async Task While_a_slot_moves_to_another_node_nothing_is_decided_from_half_a_store()
    {
        await using var cluster = await RedisCluster.StartAsync();
        await using var store = await RedisEngine.OpenAsync(new() { Configuration = cluster.Configuration, CallTimeout = TimeSpan.FromSeconds(10) }, cancellationToken: Cancel);
        await store.RestockAsync("r1", [("a", 100)], cancellationToken: Cancel);
        await store.DeductAsync("o1", [("a", 1)], cancellationToken: Cancel);
        await store.ReserveAsync("h1", [("a", 1)], TimeSpan.FromHours(1), cancellationToken: Cancel);
        var slot = await cluster.Nodes[0].CliAsync("CLUSTER", "KEYSLOT", "{holdfast}:meta");
        var from = cluster.Nodes[int.Parse(slot, System.Globalization.CultureInfo.InvariantCulture) * 3 / 16_384];
        var to = cluster.Nodes.First(node => node != from);
        var (fromId, toId) = (await from.CliAsync("CLUSTER", "MYID"), await to.CliAsync("CLUSTER", "MYID"));
        (await to.CliAsync("CLUSTER", "SETSLOT", slot, "IMPORTING", fromId)).ShouldBe("OK");
        (await from.CliAsync("CLUSTER", "SETSLOT", slot, "MIGRATING", toId)).ShouldBe("OK");
        var port = to.Port.ToString(System.Globalization.CultureInfo.InvariantCulture);
        foreach (var key in (string[])["meta", "stock"])
        {
            (await from.CliAsync("MIGRATE", "127.0.0.1", port, "{holdfast}:" + key, "0", "10000")).ShouldBe("OK");
        }

        for (var i = 0; i < 3; i++)
        {
            (await store.DeductAsync("o1", [("a", 1)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Busy);
            (await Should.ThrowAsync<RedisStoreException>(async () => await store.GetOperationAsync("o1", Cancel))).MayPass.ShouldBeTrue();
        }

        foreach (var key in (await from.CliAsync("KEYS", "{holdfast}:*")).Split('\n'))
        {
            (await from.CliAsync("MIGRATE", "127.0.0.1", port, key, "0", "10000")).ShouldBe("OK");
        }

        foreach (var node in cluster.Nodes)
        {
            (await node.CliAsync("CLUSTER", "SETSLOT", slot, "NODE", toId)).ShouldBe("OK");
        }

        await UntilAsync(async () => (await store.DeductAsync("o1", [("a", 1)], cancellationToken: Cancel)) is { Status: StockStatus.Replayed });
        store.Losses.ShouldBeEmpty();
        (await LedgerAudit.RunAsync(store, cancellationToken: Cancel)).ToString().ShouldStartWith("audit passed");
    }

    private static async Task<RedisEngine> OpenAsync(RedisServer server, CriticalLog? log = null, RedisLossPolicy policy = RedisLossPolicy.Report) =>
        await RedisEngine.OpenAsync(new() { Configuration = server.Configuration, CallTimeout = TimeSpan.FromSeconds(10), OnLoss = policy }, logger: log, cancellationToken: Cancel);

    private static async Task<string> StateAsync(RedisServer server) =>
        string.Join('\n', await server.CliAsync("HGETALL", "{holdfast}:meta"), await server.CliAsync("HGETALL", "{holdfast}:stock"), await server.CliAsync("HGETALL", "{holdfast}:op"));

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(90));
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Cancel);
        }
    }

    private sealed class CriticalLog : ILogger<RedisEngine>
    {
        private readonly List<string> _critical = [];

        public IReadOnlyList<string> Critical
        {
            get
            {
                lock (_critical)
                {
                    return [.. _critical];
                }
            }
        }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (logLevel == LogLevel.Critical)
            {
                lock (_critical)
                {
                    _critical.Add(formatter(state, exception));
                }
            }
        }
    }
}
