using System.Globalization;
using Holdfast.Client;
using Holdfast.PostgreSql;
using Holdfast.Testing;
using Holdfast.Tests.Client;
using Holdfast.Tests.Conformance;
using Holdfast.Wire;
using Npgsql;

namespace Holdfast.Tests.PostgreSql;

/// <summary>Old entries of the ledger move into files, and every audit still proves what there is to prove.</summary>
public sealed class FlowArchiveTests
{
    private static readonly TimeSpan Day = TimeSpan.FromDays(1);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>Everything that can straddle the instant: reservations confirmed, cancelled and expired on either side of it, refunds, cancels and repetitions of archived orders.</summary>
    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task What_straddles_the_archive_adds_up_from_the_opening_and_from_the_first_entry(PostgreSqlTransactions transactions)
    {
        await using var start = new SchemeStart(new());
        await using var engine = await PostgreSqlEngine.OpenAsync(await SharedPostgreSql.NewStoreAsync(start, transactions), cancellationToken: Token);
        var context = new ConformanceContext(engine, "-", start.Clock);
        await context.PlayAsync(
            """
            restock r1: A 100, B 100
            deduct o1: A 5, B 5
            deduct o2: A 5
            deduct o3: A 5, B 1
            refund f1 of o1: A 2
            reserve h1 for 2592000s: A 3, B 3   # confirmed before, cancelled after
            reserve h2 for 2592000s: A 3        # live at the archive, confirmed after
            reserve h3 for 2592000s: B 3        # live, cancelled after
            reserve h4 for 20s: A 3, B 2        # live, expires after
            reserve h5 for 2592000s: A 1        # cancelled before
            reserve h6 for 1s: A 1              # expires before
            reserve h7 for 2592000s: A 2        # confirmed before, refunded after
            reserve h8 for 2592000s: A 2        # stays live
            adjust a1: A -1
            confirm h1
            confirm h7
            cancel h5
            cancel o3
            wait 2s
            restock r2: A 0
            wait 1s
            """);
        var before = start.Clock.GetUtcNow();
        var first = await ArchiveAsync(engine, start, "one", before);
        first.WasDone.ShouldBeFalse();
        first.Entries.ShouldBeGreaterThan(20);
        await AuditAsync(engine, start, "one");

        await context.PlayAsync(
            """
            wait 20s
            deduct o1: A 5, B 5                 => Replayed: A 95, B 95
            deduct o1: A 6                      => KeyConflict
            refund f2 of o1: A 3                => Done: A 84
            refund f3 of o1: A 1                => ExceedsDeducted: A has 0
            refund f1 of o1: A 2                => Replayed: A 87
            cancel o2                           => Done: A 89
            cancel h1                           => Done: A 92, B 92
            confirm h2                          => Done: A 92
            cancel h3                           => Done: B 95
            confirm h4                          => Expired
            refund f4 of h7: A 2                => Done: A 94
            cancel o3                           => Replayed Cancelled: A 77, B 87
            restock r1: A 100, B 100            => Replayed: A 100, B 100
            restock r3: C 5
            deduct o4: A 1, C 1
            wait 1s
            """);
        await AuditAsync(engine, start, "one");

        // And again: the second archive begins with the openings that the first left.
        (await ArchiveAsync(engine, start, "two", start.Clock.GetUtcNow())).Entries.ShouldBeGreaterThan(5);
        await AuditAsync(engine, start, "one", "two");
        await AuditAsync(engine, start, "two");
        await context.PlayAsync(
            """
            confirm h8                          => Done: A 93
            cancel o4                           => Done: A 94, C 5
            deduct o5: A 1, B 1                 => Done: A 93, B 94
            """);
        await AuditAsync(engine, start, "one", "two");
    }

    /// <summary>A cursor from before the archive meets the opening: what it missed is said, and what follows is there.</summary>
    [Fact]
    public async Task A_reader_from_before_the_archive_is_told_and_goes_on()
    {
        await using var start = new SchemeStart(new());
        await using var engine = await PostgreSqlEngine.OpenAsync(await SharedPostgreSql.NewStoreAsync(start), cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 10), ("B", 10)], cancellationToken: Token);
        for (var i = 0; i < 3; i++)
        {
            await engine.DeductAsync($"a{i}", [("A", 1)], cancellationToken: Token);
        }

        var all = await ReadAsync(engine, new());
        var one = await ReadAsync(engine, new() { Sku = "A" });
        start.Clock.Advance(Day);
        await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow());
        await engine.DeductAsync("later", [("A", 1)], cancellationToken: Token);

        await using var server = await RunningServer.StartAsync(engine, start.Clock);
        await using var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: Token);
        foreach (var reader in (IStockEngine[])[engine, client])
        {
            (await ReadAsync(reader, new())).Select(entry => (entry.Kind, entry.Sku, entry.Version, entry.Available))
                .ShouldBe([(FlowKind.Opening, "B", 1, 10), (FlowKind.Opening, "A", 4, 7), (FlowKind.Deduct, "A", 5, 6)]);

            // After the second entry of A, the whole store's third; then after the last before the archive.
            (await ReadAsync(reader, new() { After = all[2].Cursor })).Select(entry => (entry.Kind, entry.Version)).ShouldBe([(FlowKind.Opening, 4L), (FlowKind.Deduct, 5L)]);
            (await ReadAsync(reader, new() { Sku = "A", After = one[1].Cursor })).Select(entry => (entry.Kind, entry.Version)).ShouldBe([(FlowKind.Opening, 4L), (FlowKind.Deduct, 5L)]);
            (await ReadAsync(reader, new() { After = all[^1].Cursor })).Select(entry => (entry.Kind, entry.Version)).ShouldBe([(FlowKind.Deduct, 5L)]);
            (await ReadAsync(reader, new() { Sku = "A", After = one[^1].Cursor, Limit = 1 })).Select(entry => (entry.Kind, entry.Version)).ShouldBe([(FlowKind.Deduct, 5L)]);
            (await LedgerAudit.RunAsync(reader, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
        }
    }

    /// <summary>Stopped after any step, as by a kill: the store is whole, and the same call goes on with it. No entry is lost or doubled.</summary>
    [Theory]
    [InlineData(FlowArchiveStep.Written)]
    [InlineData(FlowArchiveStep.Named)]
    [InlineData(FlowArchiveStep.Recorded)]
    [InlineData(FlowArchiveStep.Locked)]
    [InlineData(FlowArchiveStep.Dropped)]
    [InlineData(FlowArchiveStep.Committed)]
    internal async Task Stopped_after_any_step_it_is_simply_run_again(FlowArchiveStep stoppedAfter)
    {
        await using var start = new SchemeStart(new());
        await using var engine = await PostgreSqlEngine.OpenAsync(await SharedPostgreSql.NewStoreAsync(start), cancellationToken: Token);
        await SellAsync(engine, "first", 30);

        // Two months on, so that a whole month is dropped and a part of another deleted.
        start.Clock.Advance(32 * Day);
        await SellAsync(engine, "second", 30);
        var written = await ReadAsync(engine, new());
        start.Clock.Advance(Day);
        var before = start.Clock.GetUtcNow();
        await SellAsync(engine, "third", 3);

        var options = new FlowArchiveOptions { Before = before, Path = Path.Combine(start.Folder, "one"), AtStep = step => step == stoppedAfter ? throw new InvalidOperationException("stopped") : default };
        await Should.ThrowAsync<InvalidOperationException>(() => engine.ArchiveFlowAsync(options, Token));
        await AuditAsync(engine, start, stoppedAfter == FlowArchiveStep.Committed ? ["one"] : []);
        (await ReadAsync(engine, new())).Count.ShouldBe(stoppedAfter == FlowArchiveStep.Committed ? 1 + 3 + 1 : written.Count + 3 + 1);
        await SellAsync(engine, "fourth", 3);

        var again = await engine.ArchiveFlowAsync(options with { AtStep = null }, Token);
        again.WasDone.ShouldBe(stoppedAfter == FlowArchiveStep.Committed);
        again.Entries.ShouldBe(written.Count);
        again.Sha256.ShouldBe(await FlowArchiveFile.HashAsync(options.Path, Token));
        (await FlowArchiveFile.ReadAsync(options.Path, Token).ToListAsync(Token)).ShouldBe(written.Select(entry => entry with { Cursor = null }));
        File.Exists(options.Path + ".partial").ShouldBeFalse();
        await AuditAsync(engine, start, "one");

        // Nothing is left to do, and a name that is taken is not overwritten.
        (await engine.ArchiveFlowAsync(options with { AtStep = null }, Token)).WasDone.ShouldBeTrue();
        var nothing = await engine.ArchiveFlowAsync(options with { AtStep = null, Path = Path.Combine(start.Folder, "two") }, Token);
        (nothing.WasDone, nothing.Entries, nothing.Sha256).ShouldBe((true, 0, null));
        File.Exists(Path.Combine(start.Folder, "two")).ShouldBeFalse();
        start.Clock.Advance(Day);
        await Should.ThrowAsync<IOException>(() => engine.ArchiveFlowAsync(new() { Before = start.Clock.GetUtcNow(), Path = options.Path }, Token));
        await AuditAsync(engine, start, "one");
    }

    /// <summary>All verbs on two nodes, with clocks that move on, while a third process archives again and again.</summary>
    [Theory]
    [InlineData(PostgreSqlTransactions.Call)]
    [InlineData(PostgreSqlTransactions.Command)]
    [InlineData(PostgreSqlTransactions.Version)]
    public async Task Archives_in_a_storm_lose_and_double_nothing(PostgreSqlTransactions transactions)
    {
        // How many archives fall into a storm hangs on the machine: longer storms until there were several.
        var commands = transactions == PostgreSqlTransactions.Call ? 60 : 25;
        while (await ArchiveInStormAsync(transactions, commands) < 2)
        {
            commands *= 2;
            commands.ShouldBeLessThan(2_000, "hardly an archive was made while thousands of commands ran");
        }
    }

    /// <summary>Archives over and over while a storm runs, and audits; how many archives were made.</summary>
    private static async Task<int> ArchiveInStormAsync(PostgreSqlTransactions transactions, int commandsPerCaller)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start, transactions);
        await using var one = new GroupCommit(await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token));
        await using var two = await PostgreSqlEngine.OpenAsync(store with { Transactions = PostgreSqlTransactions.Call }, cancellationToken: Token);
        await using var archiver = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(Token);
        var archiving = Task.CompletedTask;
        var truth = new LateArchives(archiver, async () =>
        {
            await ended.CancelAsync();
            await archiving;
        });
        archiving = Task.Run(
            async () =>
            {
                while (!ended.IsCancellationRequested)
                {
                    // Up to the present: what comes late must be noticed.
                    var path = Path.Combine(start.Folder, string.Create(CultureInfo.InvariantCulture, $"storm-{truth.Files.Count}"));
                    var result = await archiver.ArchiveFlowAsync(new() { Before = start.Clock.GetUtcNow(), Path = path }, Token);
                    if (result.Entries > 0)
                    {
                        truth.Files.Add(path);
                    }

                    (await LedgerAudit.RunAsync(archiver, cancellationToken: Token)).FirstDifference.ShouldBeNull();
                }
            },
            Token);
        var report = await StormRunner.RunAsync(
            new TwoNodes(one, two),
            StormWorkload.AllVerbs("s-", 11),
            new() { Callers = 24, CommandsPerCaller = commandsPerCaller, Clock = start.Clock, Truth = truth },
            Token);
        report.Audit.FirstDifference.ShouldBeNull();
        await AuditAsync(archiver, start, [.. truth.Files]);
        return truth.Files.Count;
    }

    /// <summary>An application's transaction that was open before the instant, and is not committed yet, is neither lost nor overtaken.</summary>
    [Fact]
    public async Task A_transaction_from_before_the_instant_keeps_the_archive_waiting()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start) with { StatementTimeout = TimeSpan.FromMilliseconds(300) };
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5), ("B", 5)], cancellationToken: Token);
        await using var connection = new NpgsqlConnection(store.ConnectionString);
        await connection.OpenAsync(Token);
        await using var slow = await connection.BeginTransactionAsync(Token);
        (await engine.ExecuteInTransactionAsync(slow, [StockCommand.Deduct("slow", [("A", 1)])], Token))[0].Status.ShouldBe(StockStatus.Done);
        start.Clock.Advance(Day);

        var busy = await Should.ThrowAsync<PostgreSqlStoreException>(() => ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow()));
        busy.MayPass.ShouldBeTrue();
        (await engine.DeductAsync("quick", [("B", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        await slow.CommitAsync(Token);

        File.Exists(Path.Combine(start.Folder, "one")).ShouldBeTrue("the file has its name before the entries go");
        File.Delete(Path.Combine(start.Folder, "one"));
        (await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow())).Entries.ShouldBe(3);
        await AuditAsync(engine, start, "one");
    }

    /// <summary>A vacuum of a large month goes on for minutes, and only gives way to who waits longer than the archive usually does.</summary>
    [Fact]
    public async Task An_autovacuum_of_the_ledger_does_not_keep_the_archive_away()
    {
        await using var server = await SharedPostgreSql.StartOwnAsync("fsync=off", "autovacuum_naptime=1s");
        await using var start = new SchemeStart(new());
        await using var engine = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = server.ConnectionString, StatementTimeout = TimeSpan.FromSeconds(3), TestClock = start.Clock }, cancellationToken: Token);
        var store = engine.Options;
        await SharedPostgreSql.RunSqlAsync(store, "ALTER TABLE holdfast.flow_2010_12 SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)");
        for (var i = 0; i < 5; i++)
        {
            (await engine.RestockAsync($"r{i}", [.. Enumerable.Range(0, 4096).Select(sku => ($"sku-{sku}", 1L))], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        }

        while (await SharedPostgreSql.RunSqlAsync(store, "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'holdfast.flow_2010_12'::regclass") is not 1L)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, Token);
        }

        start.Clock.Advance(40 * Day);
        (await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow())).Entries.ShouldBe(5 * 4096);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).FirstDifference.ShouldBeNull();
    }

    /// <summary>A process that stood still with a time taken before the archive writes nothing at that time: the schema refuses, and it is decided anew.</summary>
    [Fact]
    public async Task A_writer_that_stood_still_over_the_archive_can_not_write_before_it()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 5)], cancellationToken: Token);
        start.Clock.Advance(Day);
        var late = start.Clock.GetUtcNow().ToUnixTimeMilliseconds() - 1;
        await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow());

        await using var connection = new NpgsqlConnection(store.ConnectionString);
        await connection.OpenAsync(Token);
        await using var batch = new NpgsqlBatch(connection);
        batch.Add(new Statements(store.Schema).InsertFlow).With([long.MaxValue]).With(["A"]).With([2L]).With(["late"]).With([(short)1]).With([-1L]).With([0L]).With([4L]).With([0L]).With(late);
        var refused = await Should.ThrowAsync<PostgresException>(() => batch.ExecuteNonQueryAsync(Token));
        Failure.RemedyFor(refused, Stage.Committing).ShouldBe(Remedy.TryAgain);
    }

    /// <summary>Nobody made the month's partition: sales go on, and so does everything else.</summary>
    [Fact]
    public async Task A_missing_month_fails_no_sale_and_is_archived_from_the_rest()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await SellAsync(engine, "first", 3);
        (await CountAsync(store, "flow_2010_12")).ShouldBe(4);

        // Into a month that nobody has made, while nobody can make one.
        await using (var other = await ForeignTransaction.BeginAsync(store))
        {
            await other.RunAsync("SELECT count(*) FROM {s}.flow_rest");
            start.Clock.Advance(100 * Day);
            await SellAsync(engine, "second", 3);
        }

        (await CountAsync(store, "flow_rest")).ShouldBe(4);
        start.Clock.Advance(31 * Day);
        await SellAsync(engine, "third", 1);

        // Whoever opens the store makes it too; whether this one or the one that sells was first is all the same.
        using (var limit = CancellationTokenSource.CreateLinkedTokenSource(Token))
        {
            limit.CancelAfter(TimeSpan.FromMinutes(1));
            while (await SharedPostgreSql.RunSqlAsync(store, "SELECT to_regclass('{s}.flow_2011_05')::text") is DBNull)
            {
                await (await PostgreSqlEngine.OpenAsync(store, cancellationToken: limit.Token)).DisposeAsync();
            }
        }

        await AuditAsync(engine, start);
        start.Clock.Advance(Day);
        (await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow())).Entries.ShouldBe(10);
        (await CountAsync(store, "flow_rest")).ShouldBe(0);
        (await SharedPostgreSql.RunSqlAsync(store, "SELECT to_regclass('{s}.flow_2010_12')::text")).ShouldBe(DBNull.Value, "it is dropped as a whole");
        await AuditAsync(engine, start, "one");

        await SellAsync(engine, "fourth", 1);
        (await Should.ThrowAsync<PostgresException>(() => SharedPostgreSql.RunSqlAsync(store, "DELETE FROM {s}.flow"))).MessageText.ShouldContain("never altered");
    }

    /// <summary>A store of the first schema is brought up to date with its entries, and archived like any other.</summary>
    [Fact]
    public async Task A_store_of_the_first_schema_is_migrated_with_its_ledger()
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using (var connection = new NpgsqlConnection(store.ConnectionString))
        {
            await connection.OpenAsync(Token);
            await Schema.MigrateAsync(connection, store.Schema, [Schema.Migrations[0]], "it", Token);
        }

        var at = start.Clock.GetUtcNow().ToUnixTimeMilliseconds();
        await SharedPostgreSql.RunSqlAsync(
            store,
            $$"""
            INSERT INTO {s}.stock VALUES (5, 0, 5, 0, 5, 1, {{at}}, 'A');
            INSERT INTO {s}.operation(created_at, verb, state, id, lines) VALUES ({{at}}, {{(int)StockVerb.Restock}}, 1, 'r', '[["A",5,5]]');
            INSERT INTO {s}.flow VALUES (2097152, 1, 5, 0, 5, 0, {{at}}, {{(int)FlowKind.Restock}}, 'A', 'r')
            """);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await SellAsync(engine, "first", 3);
        await AuditAsync(engine, start);
        start.Clock.Advance(40 * Day);
        (await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow())).Entries.ShouldBe(5);
        await AuditAsync(engine, start, "one");
    }

    /// <summary>The audit is not content with an opening because it is one.</summary>
    [Theory]
    [InlineData("UPDATE {s}.flow_opening SET available = available + 1", "A")]
    [InlineData("UPDATE {s}.flow_opening SET restocked = restocked + 1", "A")]
    [InlineData("UPDATE {s}.flow_opening SET version = version + 1", "A")]
    [InlineData("UPDATE {s}.flow_opening SET holds = '[[\"other\",2]]'", "h")]
    [InlineData("DELETE FROM {s}.flow_opening", "A")]
    [InlineData("DELETE FROM {s}.operation WHERE id = 'after'", "after")]
    [InlineData("UPDATE {s}.operation SET created_at = created_at + 86400000 WHERE id = 'o'", "o")]
    public async Task An_opening_that_somebody_changed_is_found(string change, string named)
    {
        await using var start = new SchemeStart(new());
        var store = await SharedPostgreSql.NewStoreAsync(start);
        await using var engine = await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token);
        await engine.RestockAsync("r", [("A", 10)], cancellationToken: Token);
        await engine.DeductAsync("o", [("A", 1)], cancellationToken: Token);
        await engine.ReserveAsync("h", [("A", 2)], 20 * Day, cancellationToken: Token);
        start.Clock.Advance(Day);
        await ArchiveAsync(engine, start, "one", start.Clock.GetUtcNow());
        await engine.DeductAsync("after", [("A", 1)], cancellationToken: Token);
        await engine.CancelAsync("h", cancellationToken: Token);
        await AuditAsync(engine, start, "one");

        await SharedPostgreSql.RunSqlAsync(store, change);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).FirstDifference.ShouldNotBeNull().ShouldContain(named);
        if (named != "o")
        {
            // SKU by SKU only those operations are looked at that have entries left.
            (await LedgerAudit.RunAsync(engine, new() { Skus = ["A"] }, Token)).FirstDifference.ShouldNotBeNull().ShouldContain(named);
        }
    }

    private static Task<FlowArchiveResult> ArchiveAsync(PostgreSqlEngine engine, SchemeStart start, string name, DateTimeOffset before) =>
        engine.ArchiveFlowAsync(new() { Before = before, Path = Path.Combine(start.Folder, name) }, Token);

    /// <summary>Audits the store from its openings, as a whole and SKU by SKU, and with its archives.</summary>
    private static async Task AuditAsync(PostgreSqlEngine engine, SchemeStart start, params string[] archives)
    {
        var skus = await engine.ListStockAsync(cancellationToken: Token).Select(level => level.Sku).ToListAsync(Token);
        (await LedgerAudit.RunAsync(engine, cancellationToken: Token)).FirstDifference.ShouldBeNull();
        (await LedgerAudit.RunAsync(engine, new() { Skus = skus }, Token)).FirstDifference.ShouldBeNull();
        if (archives.Length > 0)
        {
            var whole = await ArchivedLedger.OpenAsync(engine, archives.Reverse().Select(name => Path.Combine(start.Folder, name)), Token);
            (await LedgerAudit.RunAsync(whole, cancellationToken: Token)).FirstDifference.ShouldBeNull();
            (await LedgerAudit.RunAsync(whole, new() { Skus = skus }, Token)).FirstDifference.ShouldBeNull();
        }
    }

    private static async Task SellAsync(PostgreSqlEngine engine, string name, int orders)
    {
        (await engine.RestockAsync($"{name}-in", [("A", orders)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        for (var i = 0; i < orders; i++)
        {
            (await engine.DeductAsync($"{name}-{i}", [("A", 1)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Done);
        }
    }

    private static async Task<long> CountAsync(PostgreSqlOptions store, string table) => (long)(await SharedPostgreSql.RunSqlAsync(store, $"SELECT count(*) FROM {{s}}.{table}"))!;

    private static async Task<List<FlowEntry>> ReadAsync(IStockEngine engine, FlowQuery query) => await engine.ReadFlowAsync(query, Token).ToListAsync(Token);

    /// <summary>The store with those archives that there are when the storm is over and its ledger is read.</summary>
    private sealed class LateArchives(IStockEngine store, Func<Task> stopAsync) : DelegatingStockEngine(store)
    {
        public List<string> Files { get; } = [];

        public override async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken = default)
        {
            await stopAsync();
            var ledger = await ArchivedLedger.OpenAsync(Inner, [.. Files], cancellationToken);
            await foreach (var entry in ledger.ReadFlowAsync(query, cancellationToken))
            {
                yield return entry;
            }
        }
    }

    /// <summary>Two nodes of one store: each command goes to one of them.</summary>
    private sealed class TwoNodes(IStockEngine one, IStockEngine two) : DelegatingStockEngine(one)
    {
        private int _calls;

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            (Interlocked.Increment(ref _calls) % 2 == 0 ? Inner : two).ExecuteAsync(commands, cancellationToken);
    }
}
