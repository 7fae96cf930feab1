using System.Text.Json;
using Holdfast;
using Npgsql;

namespace Outbox;

/// <summary>
/// A shop with tables <c>orders(id, buyer, verdict)</c> and <c>outbox(order_id, cart, due)</c> in PostgreSQL. The stock
/// may live anywhere: what keeps the two together is the order's id, under which a deduction counts once however often
/// it is sent.
/// </summary>
/// <param name="source">The shop's own database.</param>
/// <param name="stock">The stock, for example the scheme <c>batched</c> or a client of a server.</param>
/// <param name="patience">How long an order is left to whoever placed it, or took it up, before somebody else sends it again; 5 seconds by default.</param>
/// <param name="atStep">Called before and after each thing that may fail; for tests that stop there.</param>
public sealed class OutboxShop(NpgsqlDataSource source, IStockEngine stock, TimeSpan? patience = null, Action<string>? atStep = null)
{
    /// <summary>The verdict of an order that was given up, see <see cref="GiveUpAsync"/>.</summary>
    public const string GivenUp = "GivenUp";

    private readonly TimeSpan _patience = patience ?? TimeSpan.FromSeconds(5);
    private readonly Action<string> _atStep = atStep ?? (static _ => { });

    /// <summary>The shop's tables.</summary>
    public static async Task CreateTablesAsync(NpgsqlDataSource source, CancellationToken cancellationToken = default)
    {
        await using var create = source.CreateCommand(
            """
            CREATE TABLE orders(id text PRIMARY KEY, buyer text NOT NULL, verdict text);
            CREATE TABLE outbox(order_id text PRIMARY KEY, cart text NOT NULL, give_up boolean NOT NULL DEFAULT false, due timestamptz NOT NULL);
            CREATE INDEX ON outbox(due)
            """);
        await create.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>Places an order. An exception leaves it either unplaced or to the worker: ask for it by its id.</summary>
    /// <returns>The verdict, or <see langword="null"/> while there is none: the worker finds it.</returns>
    public async Task<string?> PlaceOrderAsync(string id, string buyer, StockLine[] cart, CancellationToken cancellationToken = default)
    {
        // The order and what is still to be done about it: one commit. No stock row is locked meanwhile.
        await using (var connection = await source.OpenConnectionAsync(cancellationToken))
        await using (var transaction = await connection.BeginTransactionAsync(cancellationToken))
        {
            await using var insert = new NpgsqlCommand(
                "WITH o AS (INSERT INTO orders(id, buyer) VALUES ($1, $2)) INSERT INTO outbox(order_id, cart, due) VALUES ($1, $3, now() + $4)", connection, transaction)
            {
                Parameters = { new() { Value = id }, new() { Value = buyer }, new() { Value = Write(cart) }, new() { Value = _patience } },
            };
            await insert.ExecuteNonQueryAsync(cancellationToken);
            _atStep("before the order's commit");
            await transaction.CommitAsync(cancellationToken);
            _atStep("after the order's commit");
        }

        return await SendAsync(id, cart, giveUp: false, cancellationToken);
    }

    /// <summary>Gives an order up, whatever became of it: it is cancelled, and its units come back if it had taken any.</summary>
    /// <returns>The verdict, or <see langword="null"/> while there is none: the worker finds it.</returns>
    public async Task<string?> GiveUpAsync(string id, CancellationToken cancellationToken = default)
    {
        await using (var note = source.CreateCommand(
            "INSERT INTO outbox(order_id, cart, give_up, due) VALUES ($1, '[]', true, now() + $2) ON CONFLICT (order_id) DO UPDATE SET give_up = true"))
        {
            note.Parameters.Add(new() { Value = id });
            note.Parameters.Add(new() { Value = _patience });
            await note.ExecuteNonQueryAsync(cancellationToken);
        }

        return await SendAsync(id, [], giveUp: true, cancellationToken);
    }

    /// <summary>The worker's round: takes up orders that were left over, and sends each again with its own id.</summary>
    /// <param name="most">At most so many.</param>
    /// <param name="cancellationToken">Stops between two of them.</param>
    /// <returns>How many it took up; 0 when nothing is due.</returns>
    public async Task<int> SendLeftOversAsync(int most = 100, CancellationToken cancellationToken = default)
    {
        // Several workers never take the same row: each passes over what another has locked, and pushes the rows that it
        // takes into the future, so that they are free for others only if it dies. No lock is held while it sends.
        var taken = new List<(string Id, StockLine[] Cart, bool GiveUp)>();
        await using (var take = source.CreateCommand(
            """
            UPDATE outbox SET due = now() + $1
            WHERE order_id IN (SELECT order_id FROM outbox WHERE due <= now() ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING order_id, cart, give_up
            """))
        {
            take.Parameters.Add(new() { Value = _patience });
            take.Parameters.Add(new() { Value = most });
            await using var rows = await take.ExecuteReaderAsync(cancellationToken);
            while (await rows.ReadAsync(cancellationToken))
            {
                taken.Add((rows.GetString(0), Read(rows.GetString(1)), rows.GetBoolean(2)));
            }
        }

        _atStep("after taking up");

        // Together: one call, one flush for all of them.
        await Task.WhenAll(taken.Select(order => SendAsync(order.Id, order.Cart, order.GiveUp, cancellationToken)));
        return taken.Count;
    }

    private async Task<string?> SendAsync(string id, StockLine[] cart, bool giveUp, CancellationToken cancellationToken)
    {
        _atStep("before sending");
        var result = giveUp
            ? await stock.CancelAsync(id, cancellationToken: cancellationToken)
            : await stock.DeductAsync(id, cart, cancellationToken: cancellationToken);
        _atStep("after sending");
        if (!giveUp && result is { IsApplied: false, IsRetryable: false, Status: not (StockStatus.Pending or StockStatus.KeyConflict) })
        {
            // A refusal is not remembered: another sender of this order may get the units after a restock. Abandon makes it
            // final before it is written down, unless the other was faster: then its success is the verdict. (Not so where the
            // id is taken by something else than this order: that one's success is none of ours.)
            var closed = await stock.AbandonAsync(id, cancellationToken: cancellationToken);
            _atStep("after closing");
            result = closed is { Status: StockStatus.Replayed, Original: StockStatus.Done } || closed.IsRetryable ? closed : result;
        }

        if (result.IsRetryable || result.Status == StockStatus.Pending)
        {
            // Busy, in doubt, or in a queue: no verdict. The row stays, and the worker sends it again.
            return null;
        }

        // Whoever gave the order up has the last word; what was applied until then, the cancellation takes back. So a
        // deduction's verdict is only stored while nobody has.
        var verdict = giveUp ? GivenUp : result.IsApplied ? nameof(StockStatus.Done) : result.Status.ToString();
        await using var connection = await source.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var store = new NpgsqlCommand(
            """
            WITH gone AS (DELETE FROM outbox WHERE order_id = $1 AND give_up = $3 RETURNING order_id)
            UPDATE orders SET verdict = $2 FROM gone WHERE orders.id = gone.order_id RETURNING verdict
            """,
            connection,
            transaction)
        {
            Parameters = { new() { Value = id }, new() { Value = verdict }, new() { Value = giveUp } },
        };
        var stored = (string?)await store.ExecuteScalarAsync(cancellationToken);
        _atStep("before the verdict's commit");
        await transaction.CommitAsync(cancellationToken);
        _atStep("after the verdict's commit");
        return stored ?? await GetVerdictAsync(id, cancellationToken);
    }

    /// <summary>What was decided about an order; <see langword="null"/> while nothing is, or when there is no such order.</summary>
    public async Task<string?> GetVerdictAsync(string id, CancellationToken cancellationToken = default)
    {
        await using var read = source.CreateCommand("SELECT verdict FROM orders WHERE id = $1");
        read.Parameters.Add(new() { Value = id });
        return await read.ExecuteScalarAsync(cancellationToken) as string;
    }

    private static string Write(StockLine[] cart) => JsonSerializer.Serialize(cart.Select(line => new Item(line.Sku, line.Quantity)));

    private static StockLine[] Read(string cart) => [.. JsonSerializer.Deserialize<Item[]>(cart)!.Select(item => new StockLine(item.Sku, item.Quantity))];

    private sealed record Item(string Sku, long Quantity);
}
