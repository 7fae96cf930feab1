using Holdfast.Client;

namespace Holdfast.Ladder.Faults;

/// <summary>Callers of all verbs, who go on whatever becomes of the servers.</summary>
internal static class Callers
{
    /// <summary>Longest wait for the last answers once the callers were told to stop.</summary>
    public static readonly TimeSpan WindDown = TimeSpan.FromMinutes(2);

    private const int Skus = 8;

    /// <summary>A client that goes on asking with the same ids for longer than any of these faults lasts.</summary>
    public static ValueTask<HoldfastClient> ConnectAsync(ServerProcess server, CancellationToken cancellationToken) => HoldfastClient.ConnectAsync(
        new() { Addresses = { server.Address }, Deadline = TimeSpan.FromSeconds(60), RestAfterFailure = TimeSpan.FromMilliseconds(50), MaxRetryDelay = TimeSpan.FromMilliseconds(200) },
        cancellationToken);

    /// <summary>Stocks what they buy, plentifully.</summary>
    public static async Task OpenAsync(IStockEngine engine, string run, CancellationToken cancellationToken)
    {
        var opening = await engine.RestockAsync($"{run}-opening", [.. Enumerable.Range(0, Skus).Select(i => new StockLine($"{run}-{i}", 1_000_000))], cancellationToken: cancellationToken).ConfigureAwait(false);
        if (!opening.IsApplied)
        {
            throw new InvalidOperationException($"The opening stock was answered {opening}.");
        }
    }

    /// <summary>Runs them until they are stopped, each on one of the engines.</summary>
    public static Task RunAsync(IReadOnlyList<IStockEngine> engines, string run, int callers, int seed, CancellationToken stop) =>
        Task.WhenAll(Enumerable.Range(0, callers).Select(i => WorkAsync(engines[i % engines.Count], run, i, seed, stop)));

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
