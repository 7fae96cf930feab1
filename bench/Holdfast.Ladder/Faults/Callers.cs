using Holdfast.Cli;
using Holdfast.Client;
using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>Callers of all verbs through one client, who go on whatever becomes of the servers; and what they were answered.</summary>
internal sealed class Callers : IAsyncDisposable
{
    /// <summary>Longest wait for the last answers once the callers were told to stop.</summary>
    public static readonly TimeSpan WindDown = TimeSpan.FromMinutes(2);

    private const int Skus = 8;

    private readonly HoldfastClient _client;
    private readonly Resumption _engine;
    private readonly CancellationTokenSource _stop;
    private Task _load = Task.CompletedTask;

    private Callers(HoldfastClient client, CancellationToken cancellationToken)
    {
        _client = client;
        _engine = new(History.Record(client));
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
    }

    /// <summary>What they sent and were answered.</summary>
    public History History { get; } = new();

    /// <summary>Whether a command was answered as applied, by this answer or, where the first was lost, by the client's repetition.</summary>
    public static bool IsAcknowledged(HistoryEvent sent) => sent.Result.Status is StockStatus.Done or StockStatus.Replayed;

    /// <summary>How many commands were acknowledged, and how many stayed without an answer.</summary>
    public (int Acknowledged, int Unknown) Count() =>
        (History.Events.Count(IsAcknowledged), History.Events.Count(sent => sent.Result.IsRetryable || sent.Result.Status == StockStatus.None));

    /// <summary>A client that goes on asking with the same ids for longer than any of these faults lasts.</summary>
    public static ValueTask<HoldfastClient> ConnectAsync(ServerProcess server, CancellationToken cancellationToken) => HoldfastClient.ConnectAsync(
        new() { Addresses = { server.Address }, Deadline = TimeSpan.FromSeconds(60), RestAfterFailure = TimeSpan.FromMilliseconds(50), MaxRetryDelay = TimeSpan.FromMilliseconds(200) },
        cancellationToken);

    /// <summary>Stocks what they buy, plentifully, and lets them begin.</summary>
    public static async Task<Callers> StartAsync(ServerProcess server, int count, int seed, CancellationToken cancellationToken)
    {
        var callers = new Callers(await ConnectAsync(server, cancellationToken).ConfigureAwait(false), cancellationToken);
        var run = RunName.New(TimeProvider.System);
        var opening = await callers._engine.RestockAsync($"{run}-opening", [.. Enumerable.Range(0, Skus).Select(i => new StockLine($"{run}-{i}", 1_000_000))], cancellationToken: cancellationToken).ConfigureAwait(false);
        if (!opening.IsApplied)
        {
            await callers.DisposeAsync().ConfigureAwait(false);
            throw new InvalidOperationException($"The opening stock was answered {opening}.");
        }

        callers._load = Task.WhenAll(Enumerable.Range(0, count).Select(i => WorkAsync(callers._engine, run, i, seed, callers._stop.Token)));
        return callers;
    }

    /// <inheritdoc cref="Resumption.NextAsync"/>
    public Task<long> NextAppliedAsync(CancellationToken cancellationToken) => _engine.NextAsync(cancellationToken);

    /// <inheritdoc cref="WorkForAsync(Task, TimeSpan, CancellationToken)"/>
    public Task WorkForAsync(TimeSpan time, CancellationToken cancellationToken) => WorkForAsync(_load, time, cancellationToken);

    /// <summary>Lets each finish what it is at, and waits for the last answer.</summary>
    public async Task StopAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _load.WaitAsync(WindDown, TimeProvider.System, CancellationToken.None).ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _client.DisposeAsync().ConfigureAwait(false);
        _stop.Dispose();
    }

    /// <summary>Lets them work for a while; fails at once when one of them fails.</summary>
    public static async Task WorkForAsync(Task load, TimeSpan time, CancellationToken cancellationToken)
    {
        if (await Task.WhenAny(load, Task.Delay(time, TimeProvider.System, cancellationToken)).ConfigureAwait(false) == load)
        {
            await load.ConfigureAwait(false);
            throw new InvalidOperationException("The callers ended before they were told to.");
        }
    }

    /// <summary>One caller: orders, and now and then what follows them.</summary>
    private static async Task WorkAsync(IStockEngine engine, string run, int caller, int seed, CancellationToken stop)
    {
        var random = new Random(unchecked((seed * 1_000_003) + caller));
        await Task.Yield();
        for (var i = 0; !stop.IsCancellationRequested; i++)
        {
            var id = $"{run}-{caller:x}-{i:x}";
            StockLine[] cart = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => new StockLine($"{run}-{random.Next(Skus)}", random.Next(1, 4)))];
            switch (random.Next(10))
            {
                case < 6:
                    await SendAsync(StockCommand.Deduct(id, cart)).ConfigureAwait(false);
                    break;
                case < 8:
                    await SendAsync(StockCommand.Deduct(id, cart)).ConfigureAwait(false);
                    await SendAsync(random.Next(3) == 0 ? StockCommand.Cancel(id) : StockCommand.Refund($"{id}-back", id, [cart[0] with { Quantity = 1 }])).ConfigureAwait(false);
                    break;
                case 8:
                    await SendAsync(StockCommand.Reserve(id, cart, TimeSpan.FromHours(1))).ConfigureAwait(false);
                    await SendAsync(random.Next(2) == 0 ? StockCommand.Confirm(id) : StockCommand.Cancel(id)).ConfigureAwait(false);
                    break;
                default:
                    await SendAsync(StockCommand.Restock(id, [cart[0]])).ConfigureAwait(false);
                    break;
            }
        }

        // Never cancelled in flight: an answer that comes late is still an answer.
        async ValueTask SendAsync(StockCommand command) => await engine.ExecuteAsync(command, CancellationToken.None).ConfigureAwait(false);
    }
}
