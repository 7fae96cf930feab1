using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>
/// Whether this process may sell at the gate, and what happens when Redis has lost something. Thread-safe.
/// </summary>
/// <remarks>
/// <para>The number of the epoch stands in the store. A process sells only in the epoch that both the store and Redis name, and
/// only as long as its lease on it runs, which the store gave. Whoever finds the gate closed or damaged ends the epoch in the store, waits
/// until each process has handed over what it had acknowledged or its lease has run out, takes that and what is left of the stream
/// into the store in the order in which it was acknowledged, and opens the gate anew.</para>
/// <para>A process that comes back after the others had given it up sends what it had acknowledged through the gate once more.</para>
/// </remarks>
internal sealed partial class GateEpochs : IAsyncDisposable
{
    private const int CommandsACall = 500;

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20);

    private readonly IGateStore _store;
    private readonly GateExecutor _executor;
    private readonly IStockEngine _engine;
    private readonly RedisConnection _redis;
    private readonly GateNode _node;
    private readonly GateUnsettled _unsettled;
    private readonly GateIncidents _incidents;
    private readonly RedisGateOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _wake = new(0, 1);
    private Task _beating = Task.CompletedTask;
    private long _epoch;
    private long _leaseEnds;
    private int _selling;
    private TaskCompletionSource? _sealed;
    private long _carried;
    private bool _wasLate;
    private bool _isReachable;
    private bool _storeAnswers;
    private bool _hasFailed;
    private bool _isDisposed;
    private GateStatus? _status;

    public GateEpochs(IStockEngine engine, IGateStore store, RedisConnection redis, GateNode node, GateUnsettled unsettled, GateIncidents incidents, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _engine = engine;
        _store = store;
        _executor = new(store, options.Name, logger);
        _redis = redis;
        _node = node;
        _unsettled = unsettled;
        _incidents = incidents;
        _options = options;
        _clock = clock;
        _logger = logger;
    }

    /// <summary>Told when an epoch ends, before the next is known.</summary>
    public Action? Ended { get; set; }

    /// <summary>Told what this process had acknowledged and nobody has taken to the store; it is to be sent again.</summary>
    public Action<GateCommand[]>? FoundLate { get; set; }

    /// <summary>The epoch in which this process sells; 0 while the gate is closed to it.</summary>
    public long Current => Volatile.Read(ref _epoch);

    /// <summary>Whether the store answered when it was asked last.</summary>
    public bool StoreAnswers
    {
        get => Volatile.Read(ref _storeAnswers);
        set
        {
            // Another process may do better.
            _node.MayLead = value;
            Volatile.Write(ref _storeAnswers, value);
        }
    }

    /// <summary>What the last look at the gate showed; <see langword="null"/> before the first.</summary>
    public GateStatus? Status => Volatile.Read(ref _status);

    /// <summary>Whether it takes leave of the store when it ends; a process that is killed does not.</summary>
    internal bool Leaves { get; set; } = true;

    /// <summary>How often the gate was opened anew by this process, and how long the last time took.</summary>
    public int Begun { get; private set; }

    /// <summary>Processes that were given up with what only they remembered.</summary>
    public int GivenUp { get; private set; }

    /// <summary>Looks at the store and at the gate once, and goes on doing so.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await BeatOnceAsync(cancellationToken).ConfigureAwait(false);
        await BeatOnceAsync(cancellationToken).ConfigureAwait(false);
        _beating = BeatAsync(_stop.Token);
    }

    /// <summary>Begins a call that may acknowledge, until <see cref="Leave"/>, or says why not.</summary>
    public bool TryEnter(out long epoch, out string? whyNot)
    {
        lock (_lock)
        {
            epoch = _epoch;
            whyNot = !_isReachable ? $"the gate in {_redis.Server} can't be used at present" : epoch == 0 ? "the gate is being opened anew" : IsLeased ? null : "the store was not heard for too long";
            if (whyNot is not null)
            {
                return false;
            }

            _selling++;
            return true;
        }
    }

    /// <summary>Ends what <see cref="TryEnter"/> began.</summary>
    /// <returns>Whether what was decided meanwhile may be acknowledged: otherwise a new epoch may already sell the same units.</returns>
    public bool Leave()
    {
        lock (_lock)
        {
            var isLeased = IsLeased;
            if (--_selling == 0)
            {
                _sealed?.TrySetResult();
            }

            return isLeased;
        }
    }

    /// <summary>A call has shown that something is wrong: nothing is sold until the gate was looked at.</summary>
    public void Suspect(Exception? failure = null)
    {
        lock (_lock)
        {
            if (_isReachable)
            {
                _isReachable = false;
                if (failure is not null)
                {
                    _logger.LogWarning(failure, "The gate can't be used: {Failure} Commands are answered Busy until it can.", failure.Message);
                }
            }
        }

        Wake();
    }

    /// <summary>Looks at the gate now.</summary>
    public async Task<GateStatus> LookAsync(bool taken, CancellationToken cancellationToken)
    {
        var status = GateStatus.Read(await _redis.RunAsync(GateScripts.Status, _node.Keys, [taken ? 1 : 0], cancellationToken).ConfigureAwait(false));
        Volatile.Write(ref _status, status);
        return status;
    }

    /// <summary>Takes leave of the store, where nothing is left to be carried.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _beating.ConfigureAwait(false);

        // Who has taken leave is not waited for, so it must not sell any more.
        await SealAsync(CancellationToken.None).ConfigureAwait(false);
        if (Leaves && _unsettled.Count == 0)
        {
            try
            {
                using var limit = new CancellationTokenSource(_options.CallTimeout, _clock);
                await _store.LeaveGateAsync(_options.Name, _node.Name, limit.Token).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                _logger.LogDebug(e, "Could not take leave of the gate; a new epoch waits for this process until {Lease} have passed.", _options.StoreLease);
            }
        }

        lock (_lock)
        {
            // Calls that are under way may still want to wake it.
            _isDisposed = true;
        }

        _stop.Dispose();
        _wake.Dispose();
    }

    private bool IsLeased => _clock.GetTimestamp() < _leaseEnds;

    private void Wake()
    {
        lock (_lock)
        {
            if (!_isDisposed && _wake.CurrentCount == 0)
            {
                _wake.Release();
            }
        }
    }

    private async Task BeatAsync(CancellationToken cancellationToken)
    {
        try
        {
            while (true)
            {
                // Closed, it is looked at more often: somebody waits.
                var pause = Current == 0 || !_isReachable ? _options.Lease / 20 : _options.Lease / 4;
                using (var limit = new CancellationTokenSource(pause, _clock))
                using (var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken))
                {
                    await _wake.WaitAsync(both.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                }

                cancellationToken.ThrowIfCancellationRequested();
                await BeatOnceAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (cancellationToken.IsCancellationRequested)
        {
            // Disposed. A call that was under way may have ended otherwise than by its token, since its connection may be closing, too.
            _logger.LogDebug(e, "Stopped while the store's lease was being renewed.");
        }
    }

    private async Task BeatOnceAsync(CancellationToken cancellationToken)
    {
        try
        {
            var known = await KeepAsync(cancellationToken).ConfigureAwait(false);
            GateStatus status;
            try
            {
                status = await LookAsync(taken: false, cancellationToken).ConfigureAwait(false);
            }
            catch (RedisStoreException e)
            {
                Suspect(e);
                return;
            }

            if (known is { } epoch)
            {
                await FollowAsync(epoch, status, cancellationToken).ConfigureAwait(false);
            }

            lock (_lock)
            {
                // Without the store nothing can have been begun anew, so what Redis shows is what this process knows, or damaged.
                _isReachable = _epoch != 0 && status.Epoch == _epoch;
            }

            _hasFailed = false;
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            _logger.Log(_hasFailed ? LogLevel.Debug : LogLevel.Warning, e, "The gate could not be opened; trying again.");
            _hasFailed = true;
        }
    }

    /// <summary>Renews the lease.</summary>
    /// <returns>The epoch by the store; <see langword="null"/> when it does not answer.</returns>
    private async Task<long?> KeepAsync(CancellationToken cancellationToken)
    {
        var from = _clock.GetTimestamp();
        try
        {
            using var limit = new CancellationTokenSource(_options.CallTimeout, _clock);
            using var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
            var epoch = await _store.KeepGateAsync(_options.Name, _node.Name, _carried, _options.StoreLease, both.Token).ConfigureAwait(false);
            StoreAnswers = true;
            lock (_lock)
            {
                if (epoch == _epoch && epoch != 0)
                {
                    // A little less than the store grants: clocks differ in their pace.
                    _leaseEnds = from + (long)(_options.StoreLease.TotalSeconds * 0.95 * _clock.TimestampFrequency);
                }
            }

            return epoch;
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            StoreAnswers = false;
            _logger.LogDebug(e, "The store was not heard; this process sells on until its lease has run out.");
            return null;
        }
    }

    /// <summary>Goes along with what the store says the epoch is, or begins a new one where the gate is closed in it.</summary>
    private async Task FollowAsync(long epoch, GateStatus status, CancellationToken cancellationToken)
    {
        if (epoch != 0 && epoch == _epoch && status.Epoch == epoch)
        {
            return;
        }

        var isCarried = true;
        if (epoch != _epoch || epoch == 0)
        {
            isCarried = await CarryAsync(epoch, cancellationToken).ConfigureAwait(false);
            await KeepAsync(cancellationToken).ConfigureAwait(false);
        }

        if (epoch == 0 || status.Epoch != epoch)
        {
            if (await TryBeginAsync(cancellationToken).ConfigureAwait(false) is not { } begun)
            {
                return;
            }

            epoch = begun;
        }
        else if (!isCarried)
        {
            // Another server answers by now than the one that was looked at.
            return;
        }

        await AdoptAsync(epoch, cancellationToken).ConfigureAwait(false);
    }

    private async Task AdoptAsync(long epoch, CancellationToken cancellationToken)
    {
        // What was handed over is in the store by now; what came too late for that has to be sent again.
        var carried = _unsettled.Clear();
        lock (_lock)
        {
            _epoch = epoch;
        }

        if (_wasLate && carried.Length > 0)
        {
            FoundLate?.Invoke(carried);
        }

        _wasLate = false;
        await KeepAsync(cancellationToken).ConfigureAwait(false);

        // Whoever follows the ledger goes on in the new epoch at once.
        await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Stops selling, and hands over to a new epoch what this process had acknowledged.</summary>
    /// <returns>Whether that is done, or the epoch has begun without it; otherwise the epoch is not being begun on the server that answers.</returns>
    private async Task<bool> CarryAsync(long epoch, CancellationToken cancellationToken)
    {
        await SealAsync(cancellationToken).ConfigureAwait(false);
        if (_carried >= epoch)
        {
            return true;
        }

        foreach (var chunk in _unsettled.All().Chunk(CommandsACall))
        {
            RedisValue[] arguments = [epoch, "", .. chunk.SelectMany(static command => (RedisValue[])[command.Key, command.ToCarried()])];
            var answer = (long)await _redis.RunAsync(GateScripts.Carry, _node.Keys, arguments, cancellationToken).ConfigureAwait(false);
            if (answer < 0)
            {
                return false;
            }

            _wasLate |= answer == 0;
        }

        _carried = epoch;
        return true;
    }

    private async Task SealAsync(CancellationToken cancellationToken)
    {
        Task drained;
        lock (_lock)
        {
            _epoch = 0;
            _sealed = new(TaskCreationOptions.RunContinuationsAsynchronously);
            if (_selling == 0)
            {
                _sealed.SetResult();
            }

            drained = _sealed.Task;
        }

        // Each of them is one call of Redis, which is bounded. Those that were under way may have begun to wait for the store.
        await drained.WaitAsync(cancellationToken).ConfigureAwait(false);
        Ended?.Invoke();
    }
}
