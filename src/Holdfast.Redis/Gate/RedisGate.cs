using System.Runtime.CompilerServices;
using Holdfast.Redis;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>
/// The cache layer in front of a store that owns the truth: Redis tells the crowd what is sold out, so that the store only
/// sees those who may get something. The store decides every command that is let through, and is the one that acknowledges. Any number of processes
/// may share a gate. Thread-safe.
/// </summary>
/// <remarks>
/// <para>Redis keeps a copy of each stock row by its version, and a filter of the ids that are known. A script refuses a
/// deduction or reservation when a copy is short, nothing of the SKU is reserved (only the store can tell what is due),
/// and the id was certainly never let through; everything else is noted and goes to the store. What gives units back tells the
/// gate before it is acknowledged, so a refusal never overlooks them.</para>
/// <para>Nothing is held in Redis: losing it, or a process between Redis and the store, strands nothing.</para>
/// <para>Goes around group commit. Looks of many callers at the gate share calls, as their commands do.</para>
/// </remarks>
public sealed class RedisGate : DelegatingStockEngine
{
    private static readonly TimeSpan s_drainTimeout = TimeSpan.FromSeconds(30);

    private readonly RedisConnection _redis;
    private readonly RedisGateOptions _options;
    private readonly GateNode _node;
    private readonly GateCopies _copies;
    private readonly GateFollower _follower;
    private readonly GateCheck _check;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly GateSale? _sale;
    private int _disposed;

    private RedisGate(IStockEngine inner, RedisConnection redis, RedisGateOptions options, TimeProvider clock, ILogger logger)
        : base(inner)
    {
        _redis = redis;
        _options = options;
        _clock = clock;
        _logger = logger;
        _node = new(redis, options, clock, logger);
        _copies = new(redis, _node.Keys, options);
        _follower = new(inner, _node, _copies, options, clock, logger);
        _check = new(inner, redis, _node, _follower, options, clock, logger);
        if (options.Acknowledge == GateAcknowledgement.Gate)
        {
            _sale = new(inner, FindStore(inner), redis, _node, options, clock, logger);
        }
    }

    /// <summary>Opens a gate in front of an engine, which it owns from then on.</summary>
    /// <param name="inner">The engine that decides, usually group commit around a store.</param>
    /// <param name="options">How it works.</param>
    /// <param name="clock">The clock of leases and waits; the system's by default.</param>
    /// <param name="logger">Told when Redis is lost and when it is back; nobody by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds, or the gate is to acknowledge in front of a store that is no <see cref="IGateStore"/>.</exception>
    /// <exception cref="RedisStoreException">Redis can't be reached, or is set to throw keys away.</exception>
    public static async ValueTask<RedisGate> OpenAsync(
        IStockEngine inner, RedisGateOptions? options = null, TimeProvider? clock = null, ILogger<RedisGate>? logger = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(inner);
        options ??= new();
        options.Validate();
        clock ??= TimeProvider.System;
        var log = (ILogger?)logger ?? NullLogger.Instance;
        if (options.Acknowledge == GateAcknowledgement.Gate)
        {
            FindStore(inner);
        }

        var redis = await RedisConnection.OpenAsync(options.Redis, options.CallTimeout, options.MaxInFlight, clock, log, cancellationToken).ConfigureAwait(false);
        var gate = new RedisGate(inner, redis, options, clock, log);
        try
        {
            // Copies with a time to live, or thrown away under pressure, would only be loaded again; the filter of ids must stay.
            if (await redis.ConfigAsync(gate._node.Keys[0], "maxmemory-policy", cancellationToken).ConfigureAwait(false) is { } policy && policy != "noeviction")
            {
                throw new RedisStoreException($"{redis.Server} is set to maxmemory-policy {policy}, by which it may throw away what the gate must remember; set it to noeviction.");
            }

            await gate._node.StartAsync(token => FindEndAsync(inner, token), gate.HasEntryAsync, cancellationToken).ConfigureAwait(false);
            if (gate._sale is { } sale)
            {
                await sale.StartAsync(cancellationToken).ConfigureAwait(false);
            }

            gate._follower.Start();
            return gate;
        }
        catch
        {
            // The engine inside stays the caller's when the gate could not be opened.
            await gate.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Where a gate's Redis is, for people: host and port, no password.</summary>
    public static string ServerOf(RedisGateOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return RedisConnection.NameOf(options.Redis);
    }

    /// <summary>Opens what compares this gate's copies with the store behind it; it works beside the gate, and does not outlive it.</summary>
    /// <param name="options">How fast it goes.</param>
    /// <param name="logger">Told of every repair; nobody by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="RedisStoreException">Redis can't be reached.</exception>
    public ValueTask<RedisGateReconciler> OpenReconcilerAsync(RedisGateReconcilerOptions? options = null, ILogger<RedisGateReconciler>? logger = null, CancellationToken cancellationToken = default) =>
        RedisGateReconciler.OpenAsync(Inner, _options, options, _clock, logger, cancellationToken);

    /// <summary>Whether the gate refuses by itself at present: all copies and ids are loaded and young, and every process is heard.</summary>
    public bool IsSure
    {
        get
        {
            var tick = _node.Latest;
            var now = _node.RedisTimeAtMost();
            if (_sale is not null)
            {
                return _sale.Epochs.TryEnter(out var epoch, out _) && _sale.Epochs.Leave() && tick.KnowsIds && tick.Epoch == epoch && tick.Fresh > 0;
            }

            return _node.IsAttached && tick.KnowsIds && tick.Sure > now && tick.Fresh > 0 && now - tick.Fresh <= (long)_options.MaxLag.TotalMilliseconds + (long)_options.Lease.TotalMilliseconds;
        }
    }

    /// <summary>Whether Redis can be reached; while it can't, <see cref="RedisGateOptions.WhenDown"/> says what happens.</summary>
    public bool IsAttached => _node.IsAttached;

    /// <summary>How long this process took to use the gate again after it was cut off from Redis the last time; <see langword="null"/> when it never was.</summary>
    public TimeSpan? LastRecovery => _node.LastRecovery;

    /// <summary>What the gate has done in this process so far.</summary>
    public RedisGateCounts Counts => _sale?.Counts ?? _check.Counts;

    /// <summary>The guarantees of the store; where the gate acknowledges, an acknowledged command may be lost with Redis and the process that acknowledged it.</summary>
    public override StockTraits Traits => _sale is null ? Inner.Traits : Inner.Traits & ~StockTraits.DurableAck;

    internal GateSale? Sale => _sale;

    /// <inheritdoc/>
    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) == 1, this);
        if (commands.Count == 0)
        {
            return new([]);
        }

        // What was begun is brought to its end whether or not its caller waits for it: until then it counts as under way.
        var running = _sale is null ? RunAsync([.. commands]) : SellAsync(_sale, [.. commands]);
        return cancellationToken.CanBeCanceled && !running.IsCompleted ? new(running.WaitAsync(cancellationToken)) : new(running);
    }

    /// <inheritdoc/>
    public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        if (options.MaxStaleness <= TimeSpan.Zero || skus.Count == 0 || !_node.IsAttached)
        {
            await SettleAsync(cancellationToken).ConfigureAwait(false);
            return await Inner.GetStockAsync(skus, options, cancellationToken).ConfigureAwait(false);
        }

        IReadOnlyList<GatePageRow> copies;
        try
        {
            copies = await _copies.ReadAsync(skus, cancellationToken).ConfigureAwait(false);
        }
        catch (RedisStoreException e)
        {
            _logger.LogDebug(e, "Redis did not answer a read; the store does.");
            await SettleAsync(cancellationToken).ConfigureAwait(false);
            return await Inner.GetStockAsync(skus, options, cancellationToken).ConfigureAwait(false);
        }

        var levels = new StockLevel[copies.Count];
        var missing = new List<string>();
        for (var i = 0; i < levels.Length; i++)
        {
            levels[i] = copies[i].Level;
            if (copies[i].Age > options.MaxStaleness)
            {
                missing.Add(skus[i]);
            }
        }

        if (missing.Count == 0)
        {
            return levels;
        }

        // The store may be behind the gate by more than the read allows.
        await SettleAsync(cancellationToken).ConfigureAwait(false);
        var read = await Inner.GetStockAsync(missing, options, cancellationToken).ConfigureAwait(false);
        for (int i = 0, next = 0; i < levels.Length; i++)
        {
            levels[i] = copies[i].Age > options.MaxStaleness ? read[next++] : levels[i];
        }

        foreach (var level in read)
        {
            if (level.IsKnown)
            {
                _follower.Want(level.Sku);
            }
        }

        return levels;
    }

    /// <inheritdoc/>
    public override async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        await SettleAsync(cancellationToken).ConfigureAwait(false);
        return await Inner.GetOperationAsync(id, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        Settled(Inner.ListStockAsync(prefix, after, cancellationToken), cancellationToken);

    /// <inheritdoc/>
    public override IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) =>
        Settled(Inner.ListOperationsAsync(query, cancellationToken), cancellationToken);

    /// <inheritdoc/>
    public override IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) =>
        Settled(Inner.ReadFlowAsync(query, cancellationToken), cancellationToken);

    /// <summary>Where the gate acknowledges: waits until the store has everything that was acknowledged before the call. Otherwise it has, always.</summary>
    /// <exception cref="RedisStoreException">It does not get there within <see cref="RedisGateOptions.DecisionTimeout"/>.</exception>
    public ValueTask SettleAsync(CancellationToken cancellationToken = default) => _sale is null ? default : new(_sale.DrainAsync(cancellationToken));

    /// <summary>Stops using the gate, takes leave of it, and disposes the engine inside.</summary>
    public override async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 1)
        {
            return;
        }

        await CloseAsync().ConfigureAwait(false);
        await base.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Follows the ledger to its present end now, so that a test sees what the gate makes of it.</summary>
    internal async Task CatchUpAsync(CancellationToken cancellationToken)
    {
        await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
        await _follower.PassAsync(cancellationToken).ConfigureAwait(false);
        await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>For tests: ends without a farewell, as a process that is killed does.</summary>
    internal async Task AbandonAsync()
    {
        Volatile.Write(ref _disposed, 1);
        await _redis.DisposeAsync().ConfigureAwait(false);
        await (_sale?.AbandonAsync() ?? Task.CompletedTask).ConfigureAwait(false);
        await _check.DisposeAsync().ConfigureAwait(false);
        await _follower.DisposeAsync().ConfigureAwait(false);
        await _node.DisposeAsync().ConfigureAwait(false);
    }

    private async ValueTask CloseAsync()
    {
        await _node.DrainAsync(s_drainTimeout).ConfigureAwait(false);
        if (_sale is not null)
        {
            await _sale.DisposeAsync().ConfigureAwait(false);
        }

        await _check.DisposeAsync().ConfigureAwait(false);
        await _follower.DisposeAsync().ConfigureAwait(false);
        await _node.DisposeAsync().ConfigureAwait(false);
        await _redis.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Where a store's ledger ends at present; empty where it begins, or the store can't tell.</summary>
    internal static async ValueTask<string> FindEndAsync(IStockEngine store, CancellationToken cancellationToken)
    {
        while (store is DelegatingStockEngine layer)
        {
            store = layer.Inner;
        }

        return store is IFlowEnd end ? await end.GetFlowEndAsync(cancellationToken).ConfigureAwait(false) ?? "" : "";
    }

    /// <summary>The store at the bottom, for a gate that acknowledges by itself.</summary>
    internal static IGateStore FindStore(IStockEngine store)
    {
        while (store is DelegatingStockEngine layer)
        {
            store = layer.Inner;
        }

        return store as IGateStore ?? throw new ArgumentException($"Gate.Acknowledge is Gate, and the store ({store.GetType().Name}) can't be told what a gate has acknowledged; PostgreSQL and SQLite can.", nameof(store));
    }

    private async Task<IReadOnlyList<StockResult>> SellAsync(GateSale sale, StockCommand[] commands)
    {
        var epoch = _node.Begin();
        try
        {
            return await sale.ExecuteAsync(commands).ConfigureAwait(false);
        }
        finally
        {
            _node.End(epoch);
        }
    }

    /// <summary>A listing that begins when the store has everything that was acknowledged before.</summary>
    private async IAsyncEnumerable<T> Settled<T>(IAsyncEnumerable<T> listing, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await SettleAsync(cancellationToken).ConfigureAwait(false);
        await foreach (var each in listing.ConfigureAwait(false))
        {
            yield return each;
        }
    }

    private async ValueTask<bool> HasEntryAsync(string operationId, long at, CancellationToken cancellationToken) =>
        await Inner.GetOperationAsync(operationId, cancellationToken).ConfigureAwait(false) is { } view
        && (view.CreatedAt.ToUnixTimeMilliseconds() == at || view.EndedAt?.ToUnixTimeMilliseconds() == at);

    private async Task<IReadOnlyList<StockResult>> RunAsync(StockCommand[] commands)
    {
        var epoch = _node.Begin();
        try
        {
            if (_node.IsAttached)
            {
                var verdicts = await _check.AskAsync(commands).ConfigureAwait(false);
                if (verdicts.All(static verdict => verdict.Status != StockStatus.Busy))
                {
                    return await PassAsync(commands, verdicts).ConfigureAwait(false);
                }

                if (_node.IsAttached)
                {
                    return AllBusy(commands.Length, verdicts.First(static verdict => verdict.Status == StockStatus.Busy).Detail);
                }
            }

            if (!_node.TryGoAround(commands, out var whyNot))
            {
                return AllBusy(commands.Length, whyNot);
            }

            try
            {
                return await Inner.ExecuteAsync(commands).ConfigureAwait(false);
            }
            finally
            {
                _node.EndAround();
            }
        }
        finally
        {
            _node.End(epoch);
        }
    }

    private static StockResult[] AllBusy(int count, string? detail) => [.. Enumerable.Repeat(StockResult.Of(StockStatus.Busy, detail), count)];

    /// <summary>Lets the store decide what the gate has not refused.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> PassAsync(StockCommand[] commands, IReadOnlyList<StockResult> verdicts)
    {
        var passed = commands;
        if (verdicts.Any(static verdict => verdict.Status == StockStatus.Insufficient))
        {
            passed = [.. commands.Where((_, i) => verdicts[i].Status != StockStatus.Insufficient)];
            if (passed.Length == 0)
            {
                return verdicts;
            }
        }

        IReadOnlyList<StockResult>? answers = null;
        try
        {
            answers = await Inner.ExecuteAsync(passed).ConfigureAwait(false);
        }
        finally
        {
            _check.Touch(passed, answers);
        }

        answers = await TellAsync(passed, answers).ConfigureAwait(false);
        if (ReferenceEquals(passed, commands))
        {
            return answers;
        }

        var results = new StockResult[commands.Length];
        for (int i = 0, next = 0; i < results.Length; i++)
        {
            results[i] = verdicts[i].Status == StockStatus.Insufficient ? verdicts[i] : answers[next++];
        }

        return results;
    }

    /// <summary>Tells the gate what was given back, before anybody is told that it was.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> TellAsync(StockCommand[] commands, IReadOnlyList<StockResult> answers)
    {
        HashSet<string>? skus = null;
        for (var i = 0; i < commands.Length; i++)
        {
            var (command, answer) = (commands[i], answers[i]);
            if (command.Verb is StockVerb.Cancel or StockVerb.Refund or StockVerb.Restock or StockVerb.Adjust
                && answer.Status is StockStatus.Done or StockStatus.Replayed)
            {
                skus ??= new(StringComparer.Ordinal);
                skus.UnionWith(command.Lines.Select(static line => line.Sku));
                skus.UnionWith(answer.Left.Select(static left => left.Sku));
            }
        }

        if (skus is null || skus.Count == 0)
        {
            return answers;
        }

        try
        {
            foreach (var chunk in skus.Chunk(GateCopies.MostRows))
            {
                await TellAsync(chunk).ConfigureAwait(false);
            }

            return answers;
        }
        catch (Exception e)
        {
            _logger.LogError(e, "What was given back could not be read from the store to tell the gate.");
            return [.. answers.Select((answer, i) => GivesBack(commands[i]) && answer.Status is StockStatus.Done or StockStatus.Replayed
                ? StockResult.Of(StockStatus.InDoubt, "it applied, but not everybody could be told; send it again")
                : answer)];
        }
    }

    private static bool GivesBack(StockCommand command) => command.Verb is StockVerb.Cancel or StockVerb.Refund or StockVerb.Restock or StockVerb.Adjust;

    private async ValueTask TellAsync(string[] skus)
    {
        while (true)
        {
            try
            {
                var epoch = _node.Latest.Epoch;
                var readAt = _node.RedisTimeAtLeast();
                var levels = await Inner.GetStockAsync(skus).ConfigureAwait(false);

                if (!_node.IsAttached)
                {
                    if (await _node.LapseAsync().ConfigureAwait(false))
                    {
                        return;
                    }

                    // Back meanwhile, and not told yet.
                    continue;
                }

                // Closed: whoever opens it loads what it refuses by from then on.
                if (await _copies.PushAsync(epoch, [.. levels.Where(static level => level.IsKnown).Select(GateRow.Of)], readAt, default, [], CancellationToken.None).ConfigureAwait(false) >= 0)
                {
                    return;
                }

                await _node.RefreshAsync(CancellationToken.None).ConfigureAwait(false);
            }
            catch (RedisStoreException e)
            {
                _node.Detach(e);
                if (await _node.LapseAsync().ConfigureAwait(false))
                {
                    return;
                }
            }
        }
    }
}
