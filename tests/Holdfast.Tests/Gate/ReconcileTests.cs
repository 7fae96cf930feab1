using Holdfast.Testing;
using Holdfast.Tests.Cli;

namespace Holdfast.Tests.Gate;

/// <summary>Copies compared with rows, over a real Redis and a stock file: what is no difference, what is, and how it is repaired.</summary>
public sealed class ReconcileTests
{
    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task After_a_storm_every_copy_is_the_row_and_during_it_nothing_differs()
    {
        await using var shop = await Shop.OpenAsync();
        await using var reconciler = await shop.ReconcilerAsync(new() { PageSize = 3 });
        var storm = StormRunner.RunAsync(shop.Gate, StormWorkload.AllVerbs("s-", 5, skus: 8, ids: 4_000), new() { Callers = 16, CommandsPerCaller = 300, OpeningUnits = 50, Truth = shop.Store, Patience = TimeSpan.FromSeconds(60) }, Cancel);
        var looks = 0;
        do
        {
            (await reconciler.RunAsync(cancellationToken: Cancel)).Differences.ShouldBeEmpty();
            looks++;
        }
        while (!storm.IsCompleted);
        (await storm).Audit.FirstDifference.ShouldBeNull();
        looks.ShouldBeGreaterThan(0);
        await shop.Gate.CatchUpAsync(Cancel);
        var after = await reconciler.RunAsync(cancellationToken: Cancel);
        after.IsClean.ShouldBeTrue();
        after.IsOpen.ShouldBeTrue();
        (after.Lagging, after.Differing, after.Units).ShouldBe((0, 0, 0));
        after.Same.ShouldBe(after.Skus);
        after.OldestAge.ShouldBeNull();
    }

    [Theory]
    [InlineData("a", "7", GateDifferenceKind.Altered, 2)]
    [InlineData("a", "-5", GateDifferenceKind.Altered, 10)]
    [InlineData("a", "many", GateDifferenceKind.Altered, 5)]
    [InlineData("r", "3", GateDifferenceKind.Altered, 3)]
    [InlineData("t", "99", GateDifferenceKind.Altered, 0)]
    [InlineData("v", "1", GateDifferenceKind.Missed, 0)]
    [InlineData("v", "9", GateDifferenceKind.Ahead, 0)]
    [InlineData("v", "", GateDifferenceKind.Altered, 0)]
    public async Task A_copy_that_was_tampered_with_is_found_and_repaired(string field, string value, GateDifferenceKind kind, long units)
    {
        await using var shop = await Shop.OpenAsync();
        await shop.SellAsync();
        await shop.TamperAsync("A", field, value);

        await using var reconciler = await shop.ReconcilerAsync(new() { Patience = TimeSpan.FromSeconds(1) });
        var found = await reconciler.RunAsync(cancellationToken: Cancel);
        found.IsClean.ShouldBeFalse();
        var difference = found.Differences.ShouldHaveSingleItem();
        (difference.Sku, difference.Kind, difference.Units, difference.IsRepaired).ShouldBe(("A", kind, units, false));
        (found.Differing, found.Units, found.Same).ShouldBe((1, units, 1));
        (await shop.FieldAsync("A", field)).ShouldBe(value, "without being told to, it repairs nothing");

        var repaired = await reconciler.RunAsync(repairs: true, cancellationToken: Cancel);
        repaired.IsClean.ShouldBeTrue();
        repaired.Repaired.ShouldBe(1);
        repaired.HasBegunEpoch.ShouldBe(kind == GateDifferenceKind.Ahead);
        repaired.Differences[0].Since.ShouldBe(difference.Since, "it is the same difference as before");
        await SharedGate.UntilSureAsync(shop.Gate);
        await SharedGate.UntilAsync(async () => (await reconciler.RunAsync(cancellationToken: Cancel)).Same == 2, "all copies are loaded and right");
        (await shop.Gate.DeductAsync("o9", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Done);
        (await shop.Gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel)).Status.ShouldBe(StockStatus.Replayed, "ids outlive a repair");
    }

    [Fact]
    public async Task A_copy_of_a_SKU_that_the_store_does_not_know_is_ahead_of_it()
    {
        await using var shop = await Shop.OpenAsync();
        await shop.SellAsync();
        await shop.CopyAsync("A", "ghost");
        await using var reconciler = await shop.ReconcilerAsync();
        var found = await reconciler.RunAsync(cancellationToken: Cancel);
        var difference = found.Differences.ShouldHaveSingleItem();
        (difference.Sku, difference.Kind, difference.Stored.Version).ShouldBe(("ghost", GateDifferenceKind.Ahead, 0));
        (await reconciler.RunAsync(repairs: true, cancellationToken: Cancel)).IsClean.ShouldBeTrue();
        (await reconciler.RunAsync(cancellationToken: Cancel)).Differing.ShouldBe(0, "what is left of an older epoch is no copy");
    }

    [Fact]
    public async Task A_copy_that_lags_is_no_difference()
    {
        await using var shop = await Shop.OpenAsync();
        await shop.SellAsync();
        await shop.Gate.DisposeAsync();

        // Nobody follows the ledger any more, and the store is written past the gate.
        await using var store = SqliteEngine.Open(new() { Path = shop.Path });
        await store.DeductAsync("past", [("A", 1)], cancellationToken: Cancel);
        await using var reconciler = await RedisGateReconciler.OpenAsync(store, shop.Options, new() { Patience = TimeSpan.FromMilliseconds(300) }, cancellationToken: Cancel);
        var found = await reconciler.RunAsync(cancellationToken: Cancel);
        found.IsClean.ShouldBeTrue();
        (found.Same, found.Lagging, found.Differing).ShouldBe((1, 1, 0));
    }

    [Fact]
    public async Task Reserved_units_that_came_due_are_no_difference()
    {
        var clock = new ManualTimeProvider();
        await using var server = await RedisServer.StartAsync();
        await using var store = new MemoryEngine(clock);
        var options = SharedGate.Quick(server);
        await using var gate = await RedisGate.OpenAsync(new RedisGateTests.Shared(store), options, cancellationToken: Cancel);
        await gate.RestockAsync("r1", [("A", 5)], cancellationToken: Cancel);
        await gate.ReserveAsync("h1", [("A", 5)], TimeSpan.FromSeconds(60), cancellationToken: Cancel);
        await SharedGate.UntilSureAsync(gate);
        await gate.CatchUpAsync(Cancel);
        clock.Advance(TimeSpan.FromSeconds(61));
        await using var reconciler = await RedisGateReconciler.OpenAsync(store, options, cancellationToken: Cancel);
        var found = await reconciler.RunAsync(cancellationToken: Cancel);
        (found.Same, found.Differing).ShouldBe((1, 0));
    }

    [Fact]
    public async Task After_FLUSHALL_nothing_is_loaded_and_nothing_differs()
    {
        await using var shop = await Shop.OpenAsync();
        await shop.SellAsync();
        await shop.Gate.DisposeAsync();
        await using var store = SqliteEngine.Open(new() { Path = shop.Path });
        await shop.Server.CliAsync("FLUSHALL");
        await using var reconciler = await RedisGateReconciler.OpenAsync(store, shop.Options, cancellationToken: Cancel);
        var flushed = await reconciler.RunAsync(repairs: true, cancellationToken: Cancel);
        (flushed.IsClean, flushed.IsOpen, flushed.Unloaded, flushed.Same).ShouldBe((true, false, 2, 0));
    }

    [Fact]
    public async Task The_command_says_what_differs_and_repairs_it()
    {
        await using var shop = await Shop.OpenAsync();
        await shop.SellAsync();
        string[] command = ["reconcile", "--store", $"sqlite:{shop.Path}", "--gate", shop.Server.Configuration, "--gate-name", shop.Options.Name, "--patience", "1"];
        var same = await CommandRun.RunAsync(command);
        same.ExitCode.ShouldBe(0, same.Error);
        same.Output.ShouldStartWith("reconcile same: 2 SKUs, 2 same, 0 lagging, 0 not loaded, 0 differ by 0 units in ");

        await shop.TamperAsync("A", "a", "2");
        var text = await CommandRun.RunAsync(command);
        text.ExitCode.ShouldBe(1);
        text.Output.ShouldContain("reconcile DIFFERS: 2 SKUs");
        text.Output.ShouldContain("A: altered; the store has version 2 with 5 available and 0 reserved, the copy version 2 with 2 and 0");

        var json = await CommandRun.RunAsync([.. command, "--json"]);
        json.ExitCode.ShouldBe(1);
        json.Json.GetProperty("reconcile").GetString().ShouldBe("differs");
        (json.Json.GetProperty("skus").GetInt64(), json.Json.GetProperty("same").GetInt64(), json.Json.GetProperty("differing").GetInt64(), json.Json.GetProperty("units").GetInt64()).ShouldBe((2, 1, 1, 3));
        json.Json.GetProperty("oldestSeconds").GetDouble().ShouldBeGreaterThanOrEqualTo(0);
        var difference = json.Json.GetProperty("differences")[0];
        (difference.GetProperty("sku").GetString(), difference.GetProperty("kind").GetString(), difference.GetProperty("copy").GetProperty("available").GetInt64()).ShouldBe(("A", "altered", 2));

        var fix = await CommandRun.RunAsync([.. command, "--fix"]);
        fix.ExitCode.ShouldBe(0, fix.Error);
        fix.Output.ShouldContain("1 repaired");
        fix.Error.ShouldContain("Repaired the copy of A by the store's row");
        (await CommandRun.RunAsync(command)).ExitCode.ShouldBe(0);
    }

    [Fact]
    public async Task Pure_Redis_is_compared_with_its_own_ledger()
    {
        await using var server = await RedisServer.StartAsync();
        await using (var store = await RedisEngine.OpenAsync(new() { Configuration = server.Configuration }, cancellationToken: Cancel))
        {
            await store.RestockAsync("in", [("A", 10)], cancellationToken: Cancel);
            await store.DeductAsync("o1", [("A", 3)], cancellationToken: Cancel);
        }

        string[] command = ["reconcile", "--store", $"redis:{server.Configuration}", "--json"];
        var same = await CommandRun.RunAsync(command);
        same.ExitCode.ShouldBe(0, same.Error);
        (same.Json.GetProperty("reconcile").GetString(), same.Json.GetProperty("entries").GetInt64()).ShouldBe(("same", 2));

        (await CommandRun.RunAsync([.. command, "--fix"])).ExitCode.ShouldBe(2);
    }

    /// <summary>A stock file behind a gate.</summary>
    private sealed class Shop(TestFolder folder, RedisServer server, SqliteEngine store, RedisGate gate, RedisGateOptions options) : IAsyncDisposable
    {
        public RedisServer Server => server;

        public SqliteEngine Store => store;

        public RedisGate Gate => gate;

        public RedisGateOptions Options => options;

        public string Path => folder.File("stock.db");

        public static async Task<Shop> OpenAsync()
        {
            var folder = new TestFolder();
            var server = await RedisServer.StartAsync();
            var options = SharedGate.Quick(server);
            var store = SqliteEngine.Open(new() { Path = folder.File("stock.db") });
            var gate = await RedisGate.OpenAsync(store, options, cancellationToken: Cancel);
            await SharedGate.UntilSureAsync(gate);
            return new(folder, server, store, gate, options);
        }

        public ValueTask<RedisGateReconciler> ReconcilerAsync(RedisGateReconcilerOptions? settings = null) => RedisGateReconciler.OpenAsync(store, options, settings, cancellationToken: Cancel);

        /// <summary>Two SKUs of two versions each, five units left of the first; the copies are up to date.</summary>
        public async Task SellAsync()
        {
            await gate.RestockAsync("r1", [("A", 10), ("B", 10)], cancellationToken: Cancel);
            await gate.DeductAsync("o1", [("A", 5)], cancellationToken: Cancel);
            await gate.DeductAsync("o2", [("B", 10)], cancellationToken: Cancel);
            await gate.CatchUpAsync(Cancel);
        }

        public Task<string> TamperAsync(string sku, string field, string value) => server.CliAsync("HSET", Key(sku), field, value);

        public async Task<string> FieldAsync(string sku, string field) => (await server.CliAsync("HGET", Key(sku), field)).Trim();

        public Task<string> CopyAsync(string from, string to) => server.CliAsync("COPY", Key(from), Key(to));

        public async ValueTask DisposeAsync()
        {
            await gate.DisposeAsync();
            await server.DisposeAsync();
            folder.Dispose();
        }

        private string Key(string sku) => $"{{{options.Name}}}:gate:s:{sku}";
    }
}
