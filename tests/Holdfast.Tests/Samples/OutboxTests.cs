using System.Collections.Concurrent;
using System.Globalization;
using Holdfast.Testing;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.PostgreSql;
using Npgsql;
using Outbox;

namespace Holdfast.Tests.Samples;

/// <summary>samples/Outbox does what it says: each order ends with one verdict, and the verdict agrees with the ledger, wherever a process dies.</summary>
public sealed class OutboxTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(100);

    private static readonly string[] s_steps =
    [
        "before the order's commit", "after the order's commit", "before sending", "after sending", "after closing",
        "before the verdict's commit", "after the verdict's commit", "after taking up",
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public static TheoryData<string> Steps => [.. s_steps];

    /// <summary>A shop, or its worker, dies at one step, first with an order that succeeds and then with one that is refused; the next worker heals it.</summary>
    [Theory]
    [MemberData(nameof(Steps))]
    public async Task A_crash_at_any_step_is_healed_by_sending_again(string step)
    {
        await using var world = await World.CreateAsync();
        await world.Stock.RestockAsync("in", [("A", 3)], cancellationToken: Token);
        var crashed = 0;
        foreach (var (id, units) in new[] { ("sold", 2L), ("short", 2L) })
        {
            var crash = 1;
            var dying = world.Shop(world.Stock, at =>
            {
                if (at == step && Interlocked.Exchange(ref crash, 0) == 1)
                {
                    crashed++;
                    throw new CrashException(at);
                }
            });
            try
            {
                await dying.PlaceOrderAsync(id, "Ada", [("A", units)], Token);
                await dying.SendLeftOversAsync(cancellationToken: Token);
            }
            catch (CrashException)
            {
                // As if the process were gone: the next knows only what is in the databases.
            }

            await world.HealAsync();
        }

        crashed.ShouldBe(step == "after closing" ? 1 : 2, "the step exists");
        var placed = step == "before the order's commit" ? null : nameof(StockStatus.Done);
        (await world.Shop().GetVerdictAsync("sold", Token)).ShouldBe(placed);
        (await world.Stock.GetStockAsync("A", cancellationToken: Token)).Sold.ShouldBe(placed is null ? 0 : 2);
        await world.AuditAsync();
    }

    /// <summary>
    /// A refusal that is on its way while another worker's attempt succeeds: without Abandon the order would be written
    /// down as sold out, with its units taken.
    /// </summary>
    [Fact]
    public async Task A_late_refusal_never_contradicts_a_sale()
    {
        await using var world = await World.CreateAsync();
        await world.Stock.RestockAsync("in", [("A", 0)], cancellationToken: Token);
        var restocked = false;
        var slow = world.Shop(world.Stock, at =>
        {
            if (at == "after sending" && !restocked)
            {
                restocked = true;
                world.Stock.RestockAsync("more", [("A", 1)], cancellationToken: Token).AsTask().Wait(Token);
                world.Stock.DeductAsync("order", [("A", 1)], cancellationToken: Token).AsTask().Wait(Token);
            }
        });
        (await slow.PlaceOrderAsync("order", "Ada", [("A", 1)], Token)).ShouldBe(nameof(StockStatus.Done));
        await world.AuditAsync();
    }

    /// <summary>An order whose id is something else's in the stock was written down as Done, because that something was.</summary>
    [Fact]
    public async Task An_id_that_is_taken_by_something_else_is_no_sale()
    {
        await using var world = await World.CreateAsync();
        await world.Stock.RestockAsync("order", [("A", 5)], cancellationToken: Token);
        (await world.Shop().PlaceOrderAsync("order", "Ada", [("A", 1)], Token)).ShouldBe(nameof(StockStatus.KeyConflict));
        (await world.Shop().SendLeftOversAsync(cancellationToken: Token)).ShouldBe(0);
        (await world.Stock.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(5);
    }

    /// <summary>Before a stock that decides later, an order that is in its queue is not refused: the worker asks again.</summary>
    [Fact]
    public async Task An_order_in_a_queue_has_no_verdict_yet_and_is_not_closed()
    {
        await using var world = await World.CreateAsync();
        await world.Stock.RestockAsync("in", [("A", 5)], cancellationToken: Token);
        (await world.Shop(new QueueingStock(world.Stock)).PlaceOrderAsync("order", "Ada", [("A", 1)], Token)).ShouldBeNull();
        await world.HealAsync();
        (await world.Shop().GetVerdictAsync("order", Token)).ShouldBe(nameof(StockStatus.Done));
        await world.AuditAsync();
    }

    [Fact]
    public async Task An_order_that_is_given_up_keeps_no_units()
    {
        await using var world = await World.CreateAsync();
        var shop = world.Shop();
        await world.Stock.RestockAsync("in", [("A", 5)], cancellationToken: Token);
        (await shop.PlaceOrderAsync("one", "Ada", [("A", 2)], Token)).ShouldBe(nameof(StockStatus.Done));
        (await shop.GiveUpAsync("one", Token)).ShouldBe(OutboxShop.GivenUp);

        var dying = world.Shop(world.Stock, at => _ = at == "before sending" ? throw new CrashException(at) : 0);
        await Should.ThrowAsync<CrashException>(() => dying.PlaceOrderAsync("two", "Ada", [("A", 2)], Token));
        (await shop.GiveUpAsync("two", Token)).ShouldBe(OutboxShop.GivenUp);
        (await world.Stock.DeductAsync("two", [("A", 2)], cancellationToken: Token)).Status.ShouldBe(StockStatus.Cancelled, "whatever arrives late is refused");
        (await world.Stock.GetStockAsync("A", cancellationToken: Token)).Available.ShouldBe(5);
        await world.AuditAsync();
    }

    /// <summary>Shops and workers that die at random steps over a store that loses answers; too little stock, and more of it in the middle; some orders are given up.</summary>
    [Fact]
    public async Task In_a_storm_of_crashes_each_order_gets_one_verdict_that_agrees_with_the_ledger()
    {
        const int callers = 8;
        const int ordersEach = 25;
        await using var world = await World.CreateAsync();
        var faulty = new FaultyEngine(world.Stock, FaultRates.Each(0.03), seed: 7);
        await world.Stock.RestockAsync("in", [("A", 60), ("B", 200)], cancellationToken: Token);
        var crashes = new ConcurrentDictionary<string, int>();
        using var ended = CancellationTokenSource.CreateLinkedTokenSource(Token);
        OutboxShop DyingShop(int seed)
        {
            var random = new Random(seed);
            return world.Shop(faulty, at =>
            {
                lock (random)
                {
                    if (random.Next(12) != 0)
                    {
                        return;
                    }
                }

                crashes.AddOrUpdate(at, 1, static (_, count) => count + 1);
                throw new CrashException(at);
            });
        }

        async Task WorkAsync(int seed)
        {
            var shop = DyingShop(seed);
            while (!ended.IsCancellationRequested)
            {
                if (!await SurvivesAsync(() => shop.SendLeftOversAsync(most: 10, Token)))
                {
                    await Task.Delay(TimeSpan.FromMilliseconds(5), TimeProvider.System, Token);
                }
            }
        }

        var workers = Enumerable.Range(0, 3).Select(worker => WorkAsync(100 + worker)).ToArray();
        await Task.WhenAll(Enumerable.Range(0, callers).Select(async caller =>
        {
            var shop = DyingShop(caller);
            for (var order = 0; order < ordersEach; order++)
            {
                var id = string.Create(CultureInfo.InvariantCulture, $"o{caller}-{order}");
                await SurvivesAsync(() => shop.PlaceOrderAsync(id, "Ada", [("A", 1), ("B", 1)], Token));
                if (order % 9 == 8)
                {
                    await SurvivesAsync(() => shop.GiveUpAsync(id, Token));
                }

                if (order == ordersEach / 2)
                {
                    await world.Stock.RestockAsync($"more{caller}", [("A", 2)], cancellationToken: Token);
                }
            }
        }));
        await ended.CancelAsync();
        await Task.WhenAll(workers);
        await world.HealAsync();

        s_steps.ShouldAllBe(step => crashes.ContainsKey(step), "every step met a crash");
        var sold = await world.AuditAsync();
        sold.ShouldBeGreaterThan(50);
        (await world.Stock.GetStockAsync("A", cancellationToken: Token)).Sold.ShouldBe(sold);
    }

    /// <summary>Runs a piece of a shop's work; whatever it dies of, the next goes on.</summary>
    private static async Task<bool> SurvivesAsync(Func<Task> work)
    {
        try
        {
            await work();
            return true;
        }
        catch (Exception e) when (e is CrashException or FaultException or OperationCanceledException && !Token.IsCancellationRequested)
        {
            return false;
        }
    }

    private sealed class CrashException(string step) : Exception(step);

    /// <summary>A shop's database and the stock's, both in PostgreSQL.</summary>
    private sealed class World : IAsyncDisposable
    {
        private readonly SchemeStart _start;
        private readonly NpgsqlDataSource _source;

        private World(SchemeStart start, NpgsqlDataSource source, IStockEngine stock)
        {
            (_start, _source, Stock) = (start, source, stock);
        }

        /// <summary>The scheme batched.</summary>
        public IStockEngine Stock { get; }

        public static async Task<World> CreateAsync()
        {
            var start = new SchemeStart(new());
            var store = await SharedPostgreSql.NewStoreAsync(start);
            var stock = new GroupCommit(await PostgreSqlEngine.OpenAsync(store, cancellationToken: Token));
            var source = NpgsqlDataSource.Create($"{store.ConnectionString};Search Path={store.Schema};Maximum Pool Size=20");
            await OutboxShop.CreateTablesAsync(source, Token);
            return new(start, source, stock);
        }

        public OutboxShop Shop(IStockEngine? stock = null, Action<string>? atStep = null) => new(_source, stock ?? Stock, Patience, atStep);

        /// <summary>A worker that lives sends everything that is left.</summary>
        public async Task HealAsync()
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(Token);
            limit.CancelAfter(TimeSpan.FromMinutes(2));
            await using var count = _source.CreateCommand("SELECT count(*) FROM outbox");
            while ((long)(await count.ExecuteScalarAsync(limit.Token))! > 0)
            {
                if (await Shop().SendLeftOversAsync(cancellationToken: limit.Token) == 0)
                {
                    await Task.Delay(Patience / 10, TimeProvider.System, limit.Token);
                }
            }
        }

        /// <summary>Each order has a verdict, and it is what the ledger says; the ledger adds up.</summary>
        /// <returns>How many orders were sold.</returns>
        public async Task<int> AuditAsync()
        {
            var sold = 0;
            var orders = new Dictionary<string, string?>();
            await using (var read = _source.CreateCommand("SELECT id, verdict FROM orders"))
            await using (var rows = await read.ExecuteReaderAsync(Token))
            {
                while (await rows.ReadAsync(Token))
                {
                    orders.Add(rows.GetString(0), rows.IsDBNull(1) ? null : rows.GetString(1));
                }
            }

            foreach (var (id, verdict) in orders)
            {
                var operation = (await Stock.GetOperationAsync(id, Token)).ShouldNotBeNull(id);
                operation.State.ShouldBe(
                    verdict.ShouldNotBeNull(id) switch
                    {
                        nameof(StockStatus.Done) => OperationState.Applied,
                        OutboxShop.GivenUp when operation.Verb == StockVerb.Abandon => OperationState.Abandoned,
                        OutboxShop.GivenUp => OperationState.Cancelled,
                        _ => OperationState.Abandoned,
                    },
                    $"{id} {verdict}");
                sold += operation.State == OperationState.Applied ? 1 : 0;
            }

            // And no units are out for an order that the shop does not know.
            await foreach (var operation in Stock.ListOperationsAsync(new() { State = OperationState.Applied }, Token))
            {
                (operation.Verb == StockVerb.Restock || orders.ContainsKey(operation.Id)).ShouldBeTrue(operation.Id);
            }

            (await LedgerAudit.RunAsync(Stock, cancellationToken: Token)).ToString().ShouldStartWith("audit passed");
            return sold;
        }

        public async ValueTask DisposeAsync()
        {
            await Stock.DisposeAsync();
            await _source.DisposeAsync();
            await _start.DisposeAsync();
        }
    }

    /// <summary>Takes commands and says nothing about them yet.</summary>
    private sealed class QueueingStock(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            new(commands.Select(command => command.Verb == StockVerb.Deduct
                ? StockResult.Of(StockStatus.Pending)
                : throw new InvalidOperationException($"{command.Verb} of an order that is in the queue.")).ToArray());
    }
}
