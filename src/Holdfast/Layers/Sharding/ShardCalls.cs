using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <summary>Calls of the shards, each within its bound, and what all who retry share: pauses, randomness, failpoints. Thread-safe.</summary>
internal sealed class ShardCalls(IReadOnlyList<IStockEngine> shards, ShardingOptions options, TimeProvider clock, ILogger logger, Random? random)
{
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromMilliseconds(100);

    private readonly Lock _lock = new();
    private readonly Random _jitter = random ?? new(Guid.NewGuid().GetHashCode());

    public IReadOnlyList<IStockEngine> Shards => shards;

    public ShardingOptions Options => options;

    public TimeProvider Clock => clock;

    public ILogger Logger => logger;

    /// <summary>Called at every step of a command over several shards, with the step's name; for tests, which throw to end the coordinator there.</summary>
    public Func<string, ValueTask>? Failpoint { get; set; }

    public ValueTask ReachAsync(string step) => Failpoint?.Invoke(step) ?? ValueTask.CompletedTask;

    /// <summary>Executes one command on a shard. Whatever goes wrong with the call itself is an answer: it may have applied.</summary>
    public async ValueTask<StockResult> ExecuteAsync(int shard, StockCommand command) =>
        (await ExecuteAsync(shard, [command]).ConfigureAwait(false))[0];

    /// <inheritdoc cref="ExecuteAsync(int, StockCommand)"/>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(int shard, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        try
        {
            var call = shards[shard].ExecuteAsync(commands, cancellationToken);
            return call.IsCompletedSuccessfully
                ? call.GetAwaiter().GetResult()
                : await call.AsTask().WaitAsync(options.CallTimeout, clock, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            logger.LogWarning(e, "A call of shard {Shard} with {Count} commands failed; they are in doubt.", shard, commands.Count);
            return GroupCommitRequest.Filled(commands.Count, StockStatus.InDoubt, $"shard {shard} failed: {e.Message}");
        }
    }

    /// <summary>Reads an operation of a shard.</summary>
    public async ValueTask<OperationView?> FindAsync(int shard, string id, CancellationToken cancellationToken = default)
    {
        var call = shards[shard].GetOperationAsync(id, cancellationToken);
        return call.IsCompletedSuccessfully
            ? call.GetAwaiter().GetResult()
            : await call.AsTask().WaitAsync(options.CallTimeout, clock, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What every shard knows of an id, by shard.</summary>
    public Task<OperationView?[]> FindEverywhereAsync(string id, CancellationToken cancellationToken = default) =>
        AllAsync(shards.Count, shard => FindAsync(shard, id, cancellationToken));

    /// <summary>Begins calls 0, 1, 2 … at once and awaits them all, also where one fails.</summary>
    public static Task<T[]> AllAsync<T>(int count, Func<int, ValueTask<T>> call)
    {
        var running = new Task<T>[count];
        for (var i = 0; i < count; i++)
        {
            running[i] = call(i).AsTask();
        }

        return Task.WhenAll(running);
    }

    /// <summary>A name that no other attempt of any process has.</summary>
    public string NewAttempt()
    {
        if (random is null)
        {
            return Guid.NewGuid().ToString("N");
        }

        lock (_lock)
        {
            return $"{random.NextInt64():x16}{random.NextInt64():x16}";
        }
    }

    /// <summary>Pauses before try number <paramref name="tries"/> + 1.</summary>
    public Task PauseAsync(int tries)
    {
        double part;
        lock (_lock)
        {
            part = 0.5 + (_jitter.NextDouble() / 2);
        }

        var delay = options.RetryDelay * Math.Pow(2, Math.Min(tries, 16));
        return Task.Delay((delay < s_longestDelay ? delay : s_longestDelay) * part, clock);
    }
}
