using System.Diagnostics;
using Holdfast.Sqlite;
using Holdfast.Testing;

namespace Holdfast.Tests.Sqlite;

/// <summary>Full disks, foreign locks, tampering, crashes and shutdown.</summary>
public sealed class SqliteFaultTests : IDisposable
{
    private readonly StockFile _file = new();

    public void Dispose() => _file.Dispose();

    [Fact]
    public async Task A_full_disk_is_Busy_with_advice_changes_nothing_and_passes()
    {
        var filling = Enumerable.Range(0, 200).Select(i => StockCommand.Deduct($"o{i}", [("A", 1)], new string('n', 256))).ToArray();
        await using (var store = SqliteEngine.Open(_file.Options with { MaxPages = 20 }))
        {
            await store.RestockAsync("r1", [("A", 1000)]);
            var results = await store.ExecuteAsync(filling);
            foreach (var result in results)
            {
                result.Status.ShouldBe(StockStatus.Busy);
                result.Detail.ShouldNotBeNull().ShouldContain(_file.Path);
                result.Detail.ShouldContain("full");
            }

            (await store.GetStockAsync("A")).Available.ShouldBe(1000);
            (await store.GetOperationAsync("o0")).ShouldBeNull();

            // What needs little room still goes.
            (await store.DeductAsync("small", [("A", 1)])).Status.ShouldBe(StockStatus.Done);
            await AuditAsync(store);
        }

        await using var roomy = _file.Open();
        (await roomy.ExecuteAsync(filling)).ShouldAllBe(result => result.Status == StockStatus.Done);
        (await roomy.GetStockAsync("A")).Available.ShouldBe(799);
        await AuditAsync(roomy);
    }

    [Fact]
    public async Task The_part_of_a_call_that_was_committed_before_the_disk_was_full_stays_and_the_rest_is_Busy()
    {
        await using var store = SqliteEngine.Open(_file.Options with { MaxPages = 40, TransactionPer = SqliteTransactionScope.Command });
        await store.RestockAsync("r1", [("A", 1000)]);
        var results = await store.ExecuteAsync([.. Enumerable.Range(0, 500).Select(i => StockCommand.Deduct($"o{i}", [("A", 1)], new string('n', 256)))]);
        var done = results.TakeWhile(result => result.Status == StockStatus.Done).Count();
        done.ShouldBeInRange(1, 499);
        results.Skip(done).ShouldAllBe(result => result.Status == StockStatus.Busy);
        (await store.GetStockAsync("A")).Sold.ShouldBe(done);
        await AuditAsync(store);
    }

    [Fact]
    public async Task A_foreign_lock_is_Busy_for_the_one_and_for_those_behind_it_within_the_time_bound()
    {
        await using var store = SqliteEngine.Open(_file.Options with { BusyTimeout = TimeSpan.FromMilliseconds(300) });
        await store.RestockAsync("r1", [("A", 10)]);
        using (_file.HoldWriteLock())
        {
            var clock = Stopwatch.StartNew();
            var results = await Task.WhenAll(Enumerable.Range(0, 3).Select(i => OnThePool(() => store.DeductAsync($"o{i}", [("A", 1)]))));
            clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(10));
            results.ShouldAllBe(result => result.Status == StockStatus.Busy && result.Detail!.Contains("try again"));

            // Readers do not care.
            (await store.GetStockAsync("A")).Available.ShouldBe(10);
        }

        (await store.DeductAsync("o0", [("A", 1)])).Status.ShouldBe(StockStatus.Done);
    }

    [Fact]
    public async Task Too_many_waiting_are_Busy_at_once()
    {
        await using var store = SqliteEngine.Open(_file.Options with { BusyTimeout = TimeSpan.FromSeconds(1), MaxWaiting = 2 });
        await store.RestockAsync("r1", [("A", 10)]);
        using var foreign = _file.HoldWriteLock();
        var results = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => OnThePool(() => store.DeductAsync($"o{i}", [("A", 1)]))));
        results.ShouldAllBe(result => result.Status == StockStatus.Busy);
        results.Count(result => result.Detail!.StartsWith("More than 2 calls wait", StringComparison.Ordinal)).ShouldBeGreaterThanOrEqualTo(5);
    }

    [Fact]
    public async Task A_long_call_of_small_transactions_and_single_callers_share_the_file()
    {
        await using var store = SqliteEngine.Open(_file.Options with { TransactionPer = SqliteTransactionScope.Command });
        await store.RestockAsync("r1", [("A", 1_000_000)]);
        StockCommand[] commands = [.. Enumerable.Range(0, 3_000).Select(i => StockCommand.Deduct($"long-{i}", [("A", 1)]))];
        var clock = Stopwatch.StartNew();
        var call = OnThePool(() => store.ExecuteAsync(commands));

        // A busy pool may let it begin late; singles made before would count as let in between.
        while (await store.GetOperationAsync("long-0") is null)
        {
            clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60));
            await Task.Yield();
        }

        var singles = 0;
        while (!call.IsCompleted)
        {
            (await OnThePool(() => store.DeductAsync($"single-{singles}", [("A", 1)]))).Status.ShouldBe(StockStatus.Done);
            singles++;
        }

        var results = await call;
        results.ShouldAllBe(result => result.Status == StockStatus.Done);
        results.Select(result => result.Left[0].Available).ShouldBeInOrder(SortDirection.Descending);

        // The single caller was let in between, at most once a turn of the long call; and such a turn has as many
        // commands as fit into its time, however slow the disk.
        singles.ShouldBeInRange(3, (int)(clock.Elapsed / Tuning.LongestTurn) + 2);
        await AuditAsync(store);
    }

    [Fact]
    public async Task A_caller_that_stops_waiting_leaves_nothing_behind()
    {
        await using var store = SqliteEngine.Open(_file.Options with { BusyTimeout = TimeSpan.FromSeconds(2) });
        await store.RestockAsync("r1", [("A", 10)]);
        using (_file.HoldWriteLock())
        {
            // One of them has the turn and waits for the foreign lock, which nothing cuts short; the other waits for its turn.
            using var stop = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
            Task<StockResult>[] calls = [.. new[] { "first", "second" }.Select(id => OnThePool(() => store.DeductAsync(id, [("A", 1)], cancellationToken: stop.Token)))];
            await Task.WhenAll(calls).ContinueWith(_ => { }, TaskScheduler.Default);
            calls.ShouldContain(call => call.IsCanceled);
            calls.Where(call => !call.IsCanceled).ShouldAllBe(call => call.IsCompletedSuccessfully && call.GetAwaiter().GetResult().Status == StockStatus.Busy);
        }

        (await store.GetStockAsync("A")).Available.ShouldBe(10);
        await Should.ThrowAsync<OperationCanceledException>(async () => await store.DeductAsync("third", [("A", 1)], cancellationToken: new(canceled: true)));
        (await store.GetOperationAsync("third")).ShouldBeNull();
    }

    [Theory]
    [InlineData(SqliteTransactionScope.Call, StockStatus.None, 10)]
    [InlineData(SqliteTransactionScope.Command, StockStatus.Done, 9)]
    public async Task The_schema_itself_keeps_units_from_falling_below_zero(SqliteTransactionScope scope, StockStatus before, long left)
    {
        await using var store = SqliteEngine.Open(_file.Options with { TransactionPer = scope });
        await store.RestockAsync("r1", [("A", 10), ("B", 10)]);
        await store.ReserveAsync("h1", [("B", 5)], TimeSpan.FromDays(1));
        _file.Tamper("UPDATE stock SET reserved = 3 WHERE sku = 'B'");

        var refusal = await Should.ThrowAsync<SqliteStoreException>(async () =>
            await store.ExecuteAsync([StockCommand.Deduct("o1", [("A", 1)]), StockCommand.Confirm("h1"), StockCommand.Deduct("o2", [("A", 1)])]));
        refusal.Message.ShouldContain("CHECK constraint failed: reserved >= 0");
        refusal.Message.ShouldContain("run the audit");

        // The transaction of the command is undone as a whole; the store goes on.
        ((await store.GetOperationAsync("o1")) is null ? StockStatus.None : StockStatus.Done).ShouldBe(before);
        (await store.GetStockAsync("A")).Available.ShouldBe(left);
        (await store.DeductAsync("o3", [("A", 1)])).Left.ShouldBe([new LineBalance("A", left - 1)]);
    }

    [Fact]
    public void The_file_refuses_negative_units_and_altered_ledger_entries_from_anybody()
    {
        Writer.Open(_file.Path, _file.Options).Dispose();
        _file.Tamper("INSERT INTO stock VALUES (1, 'A', 1, 0, 1, 0, 1, 1, 0); INSERT INTO flow VALUES (1, 1, 1, 1, 7, 1, 0, 1, 0, 0)");
        Refused("UPDATE stock SET available = -1").ShouldContain("available >= 0");
        Refused("UPDATE stock SET reserved = -1").ShouldContain("reserved >= 0");
        Refused("UPDATE flow SET available = 2").ShouldContain("never altered");
        Refused("DELETE FROM flow").ShouldContain("never altered");
        Refused("INSERT INTO flow VALUES (2, 1, 1, 1, 7, 1, 0, 1, 0, 0)").ShouldContain("UNIQUE");

        string Refused(string sql) => Should.Throw<Microsoft.Data.Sqlite.SqliteException>(() => _file.Tamper(sql)).Message;
    }

    [Fact]
    public async Task A_damaged_file_is_refused()
    {
        await using (var store = _file.Open())
        {
            await store.ExecuteAsync([.. Enumerable.Range(0, 2000).Select(i => StockCommand.Restock($"r{i}", [($"sku-{i}", 1)]))]);
        }

        using (var bytes = File.OpenWrite(_file.Path))
        {
            // All but the first page, which holds the schema.
            bytes.Position = 4096;
            bytes.Write(new byte[(int)bytes.Length - 4096]);
        }

        var refusal = Should.Throw<SqliteStoreException>(() => _file.Open());
        refusal.Message.ShouldContain(_file.Path);
        refusal.Message.ShouldContain("damaged");
    }

    [Fact]
    public async Task What_was_acknowledged_survives_kill_9_under_load()
    {
        await using (var store = _file.Open())
        {
            await store.RestockAsync("open", [("HOT", 1_000_000_000)]);
        }

        var acknowledged = new List<string>();
        for (var round = 0; round < 3; round++)
        {
            await using (var process = StockProcess.Start("load", _file.Path))
            {
                (await process.ReadLineAsync()).ShouldBe("open");
                for (var i = 0; i < 500 * (round + 1); i++)
                {
                    acknowledged.Add((await process.ReadLineAsync()).ShouldNotBeNull());
                }

                process.Kill();

                // What it said before it died counts too; the very last line may be cut off.
                var said = await process.ReadToEndAsync();
                acknowledged.AddRange(said[..(said.LastIndexOf('\n') + 1)].Split('\n', StringSplitOptions.RemoveEmptyEntries));
            }

            // The audit may come before anybody has opened the file for writing again.
            await using (var reader = SqliteEngine.Open(_file.Options with { ReadOnly = true }))
            {
                (await reader.GetOperationAsync(acknowledged[^1])).ShouldNotBeNull();
                await AuditAsync(reader);
            }

            var opening = Stopwatch.StartNew();
            await using var again = _file.Open();
            opening.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(3));
            var ledger = (await again.ReadFlowAsync(new()).ToListAsync()).CountBy(entry => entry.OperationId).ToDictionary();
            acknowledged.ShouldAllBe(id => ledger[id] == 1);
            await AuditAsync(again);
        }

        acknowledged.Count.ShouldBe(acknowledged.Distinct().Count());
    }

    [Fact]
    public async Task A_commit_that_the_disk_refuses_is_in_doubt_and_the_same_id_settles_it()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Needs a limit on the size of files, which Windows does not have.");
        await using (var store = _file.Open())
        {
            await store.RestockAsync("open", [("HOT", 1_000_000)]);
        }

        var said = new List<string>();
        await using (var process = StockProcess.StartWithFilesUpTo(600, "limit", _file.Path))
        {
            (await process.ReadLineAsync()).ShouldBe("open");
            while (await process.ReadLineAsync() is { } line)
            {
                said.Add(line);
            }

            (await process.EndAsync()).ShouldBe(0);
        }

        // Acknowledged is acknowledged; the last answer was no verdict, and is asked for again.
        said[..^1].ShouldAllBe(line => line == "Done");
        said[^1].ShouldStartWith("InDoubt: ");
        said[^1].ShouldContain(_file.Path);
        await using var again = _file.Open();
        (await again.GetStockAsync("HOT")).Sold.ShouldBeInRange(said.Count - 1, said.Count);
        for (var i = 0; i < said.Count; i++)
        {
            (await again.DeductAsync($"limit-{i}", [("HOT", 1)])).IsApplied.ShouldBeTrue();
        }

        (await again.GetStockAsync("HOT")).Sold.ShouldBe(said.Count);
        await AuditAsync(again);
    }

    [Fact]
    public async Task Shutting_down_answers_everybody_and_keeps_what_it_acknowledged()
    {
        var store = SqliteEngine.Open(_file.Options with { TransactionPer = SqliteTransactionScope.Command });
        await store.RestockAsync("r1", [("A", 1_000_000)]);
        var callers = Enumerable.Range(0, 32).Select(caller => OnThePool(async () =>
        {
            for (var i = 0; ; i++)
            {
                var result = await store.DeductAsync($"{caller}-{i}", [("A", 1)]);
                if (result.Status != StockStatus.Done)
                {
                    return (Done: i, Last: result);
                }
            }
        })).ToArray();
        while ((await store.GetStockAsync("A")).Sold < 100)
        {
            await Task.Yield();
        }

        await store.DisposeAsync();
        await store.DisposeAsync();
        var answers = await Task.WhenAll(callers);
        answers.ShouldAllBe(answer => answer.Last.Status == StockStatus.Busy && answer.Last.Detail!.Contains("shutting down"));
        await Should.ThrowAsync<ObjectDisposedException>(async () => await store.GetStockAsync("A"));
        await Should.ThrowAsync<ObjectDisposedException>(async () => await store.ReadFlowAsync(new()).ToListAsync());

        await using var again = _file.Open();
        (await again.GetStockAsync("A")).Sold.ShouldBe(answers.Sum(answer => answer.Done));
        await AuditAsync(again);
    }

    [Fact]
    public async Task The_log_stays_short_while_reads_never_pause()
    {
        const long limit = 1 << 20;
        await using var store = SqliteEngine.Open(_file.Options with { LongLog = limit });
        await store.RestockAsync("r1", [("A", 1_000_000)]);
        using var stop = new CancellationTokenSource();
        var readers = Enumerable.Range(0, 3).Select(_ => OnThePool(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                (await store.GetStockAsync("A")).IsKnown.ShouldBeTrue();
                await Task.Yield();
            }

            return 0;
        })).ToArray();
        var longest = 0L;
        for (var i = 0; i < 100; i++)
        {
            await store.ExecuteAsync([.. Enumerable.Range(0, 200).Select(k => StockCommand.Deduct($"{i}-{k}", [("A", 1)], new string('n', 200)))]);
            longest = Math.Max(longest, new FileInfo(_file.Path + "-wal").Length);
        }

        await stop.CancelAsync();
        await Task.WhenAll(readers);
        longest.ShouldBeLessThan(2 * limit);
        await AuditAsync(store);
    }

    internal static async Task AuditAsync(IStockEngine store)
    {
        var audit = await LedgerAudit.RunAsync(store);
        audit.Passed.ShouldBeTrue(audit.ToString());
    }

    /// <summary>Calls from another thread, as callers do: the store works on its caller's.</summary>
    internal static async Task<T> OnThePool<T>(Func<ValueTask<T>> call)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        return await call();
    }
}
