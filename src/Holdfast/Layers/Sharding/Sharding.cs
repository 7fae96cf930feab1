using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>
/// Several engines as one: each SKU, with its stock and its ledger, is on one of them. What concerns one shard goes straight
/// to it, in the caller's order; what concerns several is prepared on each, decided on one, and applied on all before it is
/// answered, so that it applies whole or not at all whatever crashes in between. Thread-safe.
/// </summary>
/// <remarks>
/// <para>The shards have to be given in the same order for ever, and their stores have to know branches
/// (<see cref="StockCommand.Branch"/>): those of this product do, alone and under <see cref="GroupCommit"/>.</para>
/// <para>Traits: those that all shards have, without <see cref="StockTraits.GlobalIds"/> (an id that is used again for a
/// cart on other shards is not noticed) and without <see cref="StockTraits.AtomicCart"/> (a cart applies on its shards one
/// after the other, before its caller is answered; who reads meanwhile may see one of its SKUs before another).</para>
/// </remarks>
public sealed partial class Sharding : IStockEngine, IFlowEnd
{
    private readonly IStockEngine[] _shards;
    private readonly SlotMap _map;
    private readonly ShardCalls _calls;
    private readonly CartCoordinator _coordinator;
    private readonly ShardRecovery _recovery;
    private readonly ShardReads _reads;
    private readonly CancellationTokenSource _closing = new();
    private readonly TaskCompletionSource _idle = new(Dispatcher.Current.PromiseOptions);
    private readonly Task _recovering;
    private int _running = 1;
    private int _isClosing;

    /// <summary>Puts shards together.</summary>
    /// <param name="shards">The engines, 1 to 1,024, in an order that never changes; the layer owns and disposes them.</param>
    /// <param name="options">Bounds; the defaults when <see langword="null"/>. Not to be changed afterwards.</param>
    /// <param name="clock">The clock of every wait; the system's by default.</param>
    /// <param name="logger">Told of calls that failed and of what recovery did; nobody by default.</param>
    /// <param name="random">Names attempts and spreads retries; by default names are unique among all processes.</param>
    /// <exception cref="ArgumentException">An option is out of its range, or the number of shards.</exception>
    public Sharding(IReadOnlyList<IStockEngine> shards, ShardingOptions? options = null, TimeProvider? clock = null, ILogger? logger = null, Random? random = null)
    {
        ArgumentNullException.ThrowIfNull(shards);
        if (shards.Count is < 1 or > 1_024)
        {
            throw new ArgumentException($"{shards.Count} shards were given; there must be from 1 to 1024.", nameof(shards));
        }

        options ??= new();
        options.Validate();
        _shards = [.. shards];
        _map = SlotMap.Even(_shards.Length);
        _calls = new(_shards, options, clock ?? TimeProvider.System, logger ?? NullLogger.Instance, random);
        _coordinator = new(_calls);
        _recovery = new(_calls);
        _reads = new(_shards, _map, _calls);
        Traits = _shards.Aggregate(StockTraits.All, (traits, shard) => traits & shard.Traits) & ~(StockTraits.GlobalIds | StockTraits.AtomicCart);
        _recovering = options.Recovery && _shards.Length > 1 ? RecoverForEverAsync() : Task.CompletedTask;
    }

    /// <inheritdoc/>
    public StockTraits Traits { get; }

    /// <summary>The shards, by their numbers.</summary>
    public IReadOnlyList<IStockEngine> Shards => _shards;

    /// <summary>Called at every step of a command over several shards; for tests.</summary>
    internal Func<string, ValueTask>? Failpoint
    {
        get => _calls.Failpoint;
        set => _calls.Failpoint = value;
    }

    /// <summary>The number of the shard that has a SKU.</summary>
    public int ShardOf(string sku)
    {
        ArgumentNullException.ThrowIfNull(sku);
        return _map.ShardOf(sku);
    }

    /// <summary>Settles now what has been seen undecided for long enough; what runs in the background by itself where it is enabled.</summary>
    /// <returns>How many parts were settled.</returns>
    internal ValueTask<int> RecoverAsync(CancellationToken cancellationToken = default) => _recovery.RunAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) =>
        _reads.GetStockAsync(skus, options, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) => _reads.GetOperationAsync(id, cancellationToken);

    /// <inheritdoc/>
    public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        _reads.ListStockAsync(prefix, after, cancellationToken);

    /// <inheritdoc/>
    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) => _reads.ListOperationsAsync(query, cancellationToken);

    /// <inheritdoc/>
    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) => _reads.ReadFlowAsync(query, cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="NotSupportedException">A shard does not know where its ledger ends.</exception>
    public ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default) => _reads.GetFlowEndAsync(cancellationToken);

    /// <summary>Stops taking commands, waits for those under way, and disposes the shards.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isClosing, 1) == 1)
        {
            return;
        }

        _closing.Cancel();
        await _recovering.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        Leave();
        try
        {
            await _idle.Task.WaitAsync(_calls.Options.ShutdownTimeout, _calls.Clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _calls.Logger.LogError("Shutting down took longer than {Timeout}; what commands over several shards leave undecided is settled by recovery.", _calls.Options.ShutdownTimeout);
        }

        foreach (var shard in _shards)
        {
            await shard.DisposeAsync().ConfigureAwait(false);
        }

        _closing.Dispose();
    }

    /// <summary>Counts in a command over several shards, unless the layer is closing.</summary>
    private bool TryEnter()
    {
        Interlocked.Increment(ref _running);
        if (Volatile.Read(ref _isClosing) == 0)
        {
            return true;
        }

        Leave();
        return false;
    }

    private void Leave()
    {
        if (Interlocked.Decrement(ref _running) == 0)
        {
            _idle.TrySetResult();
        }
    }

    private async Task RecoverForEverAsync()
    {
        try
        {
            while (true)
            {
                await Task.Delay(_calls.Options.RecoverInterval, _calls.Clock, _closing.Token).ConfigureAwait(false);
                try
                {
                    await _recovery.RunAsync(_closing.Token).ConfigureAwait(false);
                }
                catch (Exception e) when (!_closing.IsCancellationRequested)
                {
                    _calls.Logger.LogError(e, "Recovery failed; the next round tries again.");
                }
            }
        }
        catch (Exception e) when (_closing.IsCancellationRequested)
        {
            // Closing. A shard that is asked may fail otherwise than by the token.
            _calls.Logger.LogDebug(e, "Recovery stopped.");
        }
    }
}
