using System.Diagnostics;
using Holdfast.Testing;

namespace Holdfast.Tests.Sqlite;

/// <summary>Reads, listings and their order, cursors, big carts, and reads beside writes.</summary>
public sealed class SqliteReadTests : IAsyncLifetime
{
    private readonly StockFile _file = new();
    private readonly ManualTimeProvider _clock = new();
    private SqliteEngine _store = null!;

    public ValueTask InitializeAsync()
    {
        _store = _file.Open(_clock);
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _store.DisposeAsync();
        _file.Dispose();
    }

    [Fact]
    public async Task SKUs_are_listed_in_the_order_of_their_bytes()
    {
        string[] skus = ["\U0001F600", "\uFFFDx", "z", "é", "a", "B", "85123A", "85123a", "85123A@leeds", "日本", "\uE000", "\U0001F600b"];
        await _store.RestockAsync("r1", [.. skus.Select(sku => new StockLine(sku, 1))]);
        (await Skus(null)).ShouldBe(skus.Order(StockKey.ByteOrder));
        (await Skus("")).ShouldBe(skus.Order(StockKey.ByteOrder));
        (await Skus("85123A")).ShouldBe(["85123A", "85123A@leeds"]);
        (await Skus("\U0001F600")).ShouldBe(["\U0001F600", "\U0001F600b"]);
        (await Skus("none")).ShouldBeEmpty();
        (await _store.GetStockAsync(skus)).Select(level => level.Sku).ShouldBe(skus);

        async Task<string[]> Skus(string? prefix) => [.. (await _store.ListStockAsync(prefix).ToListAsync()).Select(level => level.Sku)];
    }

    [Fact]
    public async Task Half_a_surrogate_pair_names_nothing_but_may_be_a_prefix()
    {
        await _store.RestockAsync("\uFFFD", [("\uFFFD", 1), ("\U0001F600", 1), ("x", 1)]);
        (await _store.GetStockAsync("\uD83D")).IsKnown.ShouldBeFalse();
        (await _store.GetOperationAsync("\uD83D")).ShouldBeNull();
        (await _store.ReadFlowAsync(new() { Sku = "\uD83D" }).ToListAsync()).ShouldBeEmpty();
        (await _store.ListStockAsync("\uD83D").ToListAsync()).Select(level => level.Sku).ShouldBe(["\U0001F600"]);
    }

    [Fact]
    public async Task Listings_longer_than_a_page_are_whole_and_go_on_from_any_cursor()
    {
        const int count = 1_300;
        await _store.ExecuteAsync([.. Enumerable.Range(0, count).Select(i => StockCommand.Restock($"r{i}", [($"s{i:0000}", i)]))]);
        await _store.ExecuteAsync([.. Enumerable.Range(0, count).Select(i => StockCommand.Restock($"again{i}", [("s0000", 1)]))]);

        (await _store.ListStockAsync().ToListAsync()).Select(level => level.Sku).ShouldBe(Enumerable.Range(0, count).Select(i => $"s{i:0000}"));

        var operations = await _store.ListOperationsAsync(new()).ToListAsync();
        operations.Select(view => view.Id).ShouldBe([.. Enumerable.Range(0, count).Select(i => $"r{i}"), .. Enumerable.Range(0, count).Select(i => $"again{i}")]);
        (await _store.ListOperationsAsync(new() { After = operations[599].Cursor, Limit = 700 }).ToListAsync()).Select(view => view.Id)
            .ShouldBe(operations.Skip(600).Take(700).Select(view => view.Id));

        var flow = await _store.ReadFlowAsync(new()).ToListAsync();
        flow.Count.ShouldBe(2 * count);
        (await _store.ReadFlowAsync(new() { After = flow[599].Cursor, Limit = 700 }).ToListAsync()).ShouldBe(flow.Skip(600).Take(700));

        var one = await _store.ReadFlowAsync(new() { Sku = "s0000" }).ToListAsync();
        one.Select(entry => entry.Version).ShouldBe(Enumerable.Range(1, count + 1).Select(version => (long)version));
        (await _store.ReadFlowAsync(new() { Sku = "s0000", After = one[599].Cursor }).ToListAsync()).ShouldBe(one.Skip(600));

        (await _store.ReadFlowAsync(new() { Limit = 0 }).ToListAsync()).ShouldBeEmpty();
        (await _store.ListOperationsAsync(new() { Limit = 0 }).ToListAsync()).ShouldBeEmpty();
        (await _store.ReadFlowAsync(new() { After = flow[^1].Cursor }).ToListAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task A_reader_that_dawdles_ends_where_the_ledger_ended_when_it_began()
    {
        await _store.ExecuteAsync([.. Enumerable.Range(0, 600).Select(i => StockCommand.Restock($"r{i}", [("A", 1)]))]);
        var read = 0;
        await foreach (var _ in _store.ReadFlowAsync(new()))
        {
            read++;
            (await _store.RestockAsync($"during{read}", [("A", 1)])).Status.ShouldBe(StockStatus.Done);
        }

        read.ShouldBe(600);
    }

    [Theory]
    [InlineData("nonsense")]
    [InlineData("-1")]
    [InlineData("")]
    [InlineData("99999999999999999999")]
    public async Task A_cursor_of_something_else_is_refused(string cursor)
    {
        await Should.ThrowAsync<ArgumentException>(async () => await _store.ReadFlowAsync(new() { After = cursor }).ToListAsync());
        await Should.ThrowAsync<ArgumentException>(async () => await _store.ReadFlowAsync(new() { Sku = "A", After = cursor }).ToListAsync());
        await Should.ThrowAsync<ArgumentException>(async () => await _store.ListOperationsAsync(new() { After = cursor }).ToListAsync());
        await Should.ThrowAsync<ArgumentException>(async () => await _store.ListOperationsAsync(new() { DueOnly = true, After = cursor }).ToListAsync());
        await Should.ThrowAsync<ArgumentException>(async () => await _store.ListOperationsAsync(new() { DueOnly = true, After = "1" }).ToListAsync());
    }

    [Fact]
    public async Task Operations_are_listed_by_state_target_and_age_and_a_due_reservation_counts_as_expired()
    {
        await _store.RestockAsync("r1", [("A", 100), ("B", 100)]);
        await _store.ReserveAsync("expired-and-swept", [("A", 1)], TimeSpan.FromSeconds(1));
        _clock.Advance(TimeSpan.FromSeconds(2));
        await _store.CancelAsync("expired-and-swept");
        await _store.ReserveAsync("due-second", [("A", 1)], TimeSpan.FromSeconds(20));
        await _store.ReserveAsync("due-first", [("A", 1)], TimeSpan.FromSeconds(10));
        await _store.ReserveAsync("live", [("A", 1)], TimeSpan.FromHours(1));
        await _store.ReserveAsync("confirmed", [("A", 1)], TimeSpan.FromSeconds(1));
        await _store.ConfirmAsync("confirmed");
        await _store.DeductAsync("o1", [("B", 5)]);
        await _store.RefundAsync("f1", "o1", [("B", 1)]);
        await _store.DeductAsync("o2", [("B", 5)]);
        await _store.CancelAsync("o2");
        await _store.AbandonAsync("gone");
        var middle = _clock.GetUtcNow() + TimeSpan.FromSeconds(1);
        _clock.Advance(TimeSpan.FromSeconds(30));
        await _store.RefundAsync("f2", "o1", [("B", 1)]);

        (await Ids(new() { State = OperationState.Expired })).ShouldBe(["expired-and-swept", "due-second", "due-first"], ignoreOrder: true);
        (await Ids(new() { State = OperationState.Reserved })).ShouldBe(["live"]);
        (await Ids(new() { State = OperationState.Confirmed })).ShouldBe(["confirmed"]);
        (await Ids(new() { State = OperationState.Cancelled })).ShouldBe(["o2"]);
        (await Ids(new() { State = OperationState.Abandoned })).ShouldBe(["gone"]);
        (await Ids(new() { State = OperationState.Applied })).ShouldBe(["r1", "o1", "f1", "f2"]);
        (await Ids(new() { Target = "o1" })).ShouldBe(["f1", "f2"]);
        (await Ids(new() { Target = "o1", CreatedBefore = middle })).ShouldBe(["f1"]);
        (await Ids(new() { Target = "none" })).ShouldBeEmpty();
        (await Ids(new() { CreatedBefore = middle })).Length.ShouldBe(10);
        (await Ids(new() { DueOnly = true })).ShouldBe(["due-first", "due-second"]);

        var first = (await _store.ListOperationsAsync(new() { DueOnly = true, Limit = 1 }).ToListAsync()).ShouldHaveSingleItem();
        (await Ids(new() { DueOnly = true, After = first.Cursor })).ShouldBe(["due-second"]);

        // The sweeper's work: asked to end, a due reservation is released.
        await _store.CancelAsync("due-first");
        (await Ids(new() { DueOnly = true })).ShouldBe(["due-second"]);

        async Task<string[]> Ids(OperationQuery query) => [.. (await _store.ListOperationsAsync(query).ToListAsync()).Select(view => view.Id)];
    }

    [Fact]
    public async Task A_cart_of_4096_lines_is_deducted_repeated_refunded_and_cancelled()
    {
        StockLine[] lines = [.. Enumerable.Range(0, StockLimits.MaxLines).Select(i => new StockLine($"{i:0000}-{new string('ü', 50)}", 2))];
        (await _store.RestockAsync("r1", lines)).Status.ShouldBe(StockStatus.Done);
        (await _store.DeductAsync("big", lines)).Left.Length.ShouldBe(lines.Length);
        (await _store.DeductAsync("big", lines)).Status.ShouldBe(StockStatus.Replayed);
        (await _store.RefundAsync("f1", "big", [lines[0], lines[^1]])).Status.ShouldBe(StockStatus.Done);
        var view = (await _store.GetOperationAsync("big")).ShouldNotBeNull();
        view.Lines.Select(line => new StockLine(line.Sku, line.Quantity)).ShouldBe(lines);
        view.Lines.Select(line => line.Refunded).ShouldBe([2, .. Enumerable.Repeat(0L, lines.Length - 2), 2]);
        (await _store.CancelAsync("big")).Status.ShouldBe(StockStatus.Done);
        (await _store.ListStockAsync().ToListAsync()).ShouldAllBe(level => level.Available == 2 && level.Reserved == 0);
        (await _store.ListOperationsAsync(new()).ToListAsync()).Count.ShouldBe(3);
        await SqliteFaultTests.AuditAsync(_store);
    }

    [Fact]
    public async Task A_huge_call_is_split_and_keeps_its_order()
    {
        await _store.RestockAsync("r1", [("A", 10_000)]);
        var results = await _store.ExecuteAsync([.. Enumerable.Range(0, 12_000).Select(i => StockCommand.Deduct($"o{i % 11_000}", [("A", 1)]))]);
        results.Take(10_000).Select(result => result.Left[0].Available).ShouldBe(Enumerable.Range(0, 10_000).Select(i => 9_999L - i));
        results.Skip(10_000).Take(1_000).ShouldAllBe(result => result.Status == StockStatus.Insufficient);
        results.Skip(11_000).ShouldAllBe(result => result.Status == StockStatus.Replayed);
        await SqliteFaultTests.AuditAsync(_store);
    }

    [Fact]
    public async Task Readers_see_carts_whole_while_they_are_written()
    {
        await _store.RestockAsync("r1", [("A", 100_000), ("B", 100_000)]);
        using var stop = new CancellationTokenSource();
        var reads = new int[8];
        var readers = Enumerable.Range(0, reads.Length).Select(reader => SqliteFaultTests.OnThePool(async () =>
        {
            for (var last = long.MaxValue; !stop.IsCancellationRequested; Interlocked.Increment(ref reads[reader]))
            {
                var levels = await _store.GetStockAsync(["A", "B"]);
                levels[0].Available.ShouldBe(levels[1].Available);
                levels[0].Available.ShouldBeLessThanOrEqualTo(last);
                last = levels[0].Available;
                await Task.Yield();
            }

            return true;
        })).ToArray();

        // Every reader has to have looked while there was writing, however late a busy machine lets it begin.
        var patience = Stopwatch.StartNew();
        var written = 0;
        while (written < 300 || (reads.Any(count => Volatile.Read(ref count) < 3) && patience.Elapsed < TimeSpan.FromSeconds(60) && written < 90_000))
        {
            var result = await _store.DeductAsync($"o{written++}", [("A", 1), ("B", 1)]);

            // A read after an answer sees its effects.
            (await _store.GetStockAsync("A")).Available.ShouldBe(result.Left[0].Available);
            await Task.Yield();
        }

        await stop.CancelAsync();
        await Task.WhenAll(readers);
        reads.ShouldAllBe(count => count >= 3);
    }

    [Fact]
    public async Task Many_reservations_that_fell_due_at_once_are_released_by_the_next_buyer()
    {
        await _store.RestockAsync("r1", [("A", 3_000), ("B", 3_000)]);
        await _store.ExecuteAsync([.. Enumerable.Range(0, 3_000).Select(i => StockCommand.Reserve($"h{i}", [("A", 1), ("B", 1)], TimeSpan.FromSeconds(1 + (i % 7))))]);
        (await _store.DeductAsync("o1", [("A", 1)])).Status.ShouldBe(StockStatus.Insufficient);
        _clock.Advance(TimeSpan.FromSeconds(4));
        var due = (await _store.ListOperationsAsync(new() { DueOnly = true }).ToListAsync()).Count;
        (await _store.GetStockAsync("B")).Available.ShouldBe(due);
        (await _store.DeductAsync("o2", [("A", due)])).Left.ShouldBe([new LineBalance("A", 0)]);
        (await _store.ListOperationsAsync(new() { DueOnly = true }).ToListAsync()).ShouldBeEmpty();
        (await _store.GetStockAsync("B")).Available.ShouldBe(due);
        _file.Ask("SELECT count(*) FROM hold WHERE expires_at <= (SELECT highest_time FROM store)").ShouldBe(0L);
        await SqliteFaultTests.AuditAsync(_store);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task The_file_and_the_memory_engine_tell_one_story_over_restarts(int seed)
    {
#pragma warning disable RS0030 // Seeded.
        var random = new Random(seed);
#pragma warning restore RS0030
        await using var memory = new MemoryEngine(_clock);
        string[] skus = ["a", "B", "é", "\U0001F600", "zz 1"];
        for (var step = 0; step < 400; step++)
        {
            if (random.Next(5) == 0)
            {
                _clock.Advance(TimeSpan.FromMilliseconds(random.Next(1_500)));
            }

            if (random.Next(100) == 0)
            {
                await _store.DisposeAsync();
                _store = _file.Open(_clock);
            }

            StockCommand[] commands = [.. Enumerable.Range(0, random.Next(1, 12)).Select(_ => Any())];
            var expected = await memory.ExecuteAsync(commands);
            var actual = await _store.ExecuteAsync(commands);
            for (var i = 0; i < commands.Length; i++)
            {
                $"{actual[i]} {actual[i].Original} {string.Join(' ', actual[i].Left)}".ShouldBe(
                    $"{expected[i]} {expected[i].Original} {string.Join(' ', expected[i].Left)}", $"seed {seed}, step {step}, command {i}: {commands[i].Verb} {commands[i].Id}");
            }
        }

        (await _store.ListStockAsync().ToListAsync()).ShouldBe(await memory.ListStockAsync().ToListAsync());
        (await _store.ReadFlowAsync(new()).ToListAsync()).ShouldBe(await memory.ReadFlowAsync(new()).ToListAsync());

        StockCommand Any() => random.Next(10) switch
        {
            0 or 1 => StockCommand.Deduct(Id(), Lines(1, 4)),
            2 or 3 => StockCommand.Reserve(Id(), Lines(1, 4), TimeSpan.FromSeconds(random.Next(1, 4))),
            4 or 5 => StockCommand.Confirm(Id()),
            6 => random.Next(2) == 0 ? StockCommand.Abandon(Id()) : StockCommand.Cancel(Id()),
            7 => StockCommand.Refund(Id(), Id(), Lines(1, 2)),
            8 => StockCommand.Restock(Id(), Lines(0, 12)),
            _ => StockCommand.Adjust(Id(), [(skus[random.Next(skus.Length)], random.Next(2) == 0 ? -2 : 3)]),
        };

        string Id() => $"o{random.Next(300)}";

        StockLine[] Lines(int least, int most) =>
            [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => new StockLine(skus[random.Next(skus.Length)], random.Next(least, most)))];
    }
}
