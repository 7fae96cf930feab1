using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>
/// This process as one of a gate's: says that it is there, knows whether it may use the gate or go around it, and what it
/// has under way. Thread-safe.
/// </summary>
/// <remarks>
/// A process is attached as long as Redis answers it. When a call fails it is cut off: it notes nothing at the gate any more,
/// and may go around only when its lease has surely run out, from when on the others refuse nothing. It comes back in
/// two steps: first it uses the gate again while the others still take it for missing; when all that went around has ended
/// and its ids are noted, it renews its lease.
/// </remarks>
internal sealed class GateNode : IAsyncDisposable
{
    /// <summary>Ids that went around the gate and are remembered one by one; past it the store's are listed anew.</summary>
    private const int MostAround = 100_000;

    private readonly RedisConnection _redis;
    private readonly RedisGateOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _ticking = new(1);
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _lock = new();
    private readonly SortedDictionary<long, int> _underWay = [];
    private readonly List<string> _aroundIds = [];
    private readonly string _name;
    private Task _beating = Task.CompletedTask;
    private GateTick _latest = new(0, IsBegun: false, 0, 0, KnowsIds: false, 0, "", IsSettled: false, Leads: false, 0, "", "", []);
    private Func<CancellationToken, ValueTask<string>> _findCursor = static _ => new("");
    private bool _isAttached;
    private bool _mayLead = true;
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _isClosing;
    private bool _isReturning;
    private int _around;
    private bool _hasGoneAround;
    private bool _hasForgottenIds;
    private long _downSince;

    /// <summary>Redis's time, and between which of ours it was read.</summary>
    private (long Milliseconds, long From, long To) _redisTime;

    /// <summary>When the last lease that Redis may have seen has surely run out.</summary>
    private long _lapsesAt;

    public GateNode(RedisConnection redis, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _redis = redis;
        _options = options;
        _clock = clock;
        _logger = logger;
        _name = string.Create(CultureInfo.InvariantCulture, $"{Environment.MachineName}-{Environment.ProcessId}-{Guid.NewGuid():N}");
        Keys = KeysOf(options);
    }

    /// <summary>The keys of every script of a gate.</summary>
    public static RedisKey[] KeysOf(RedisGateOptions options) => [$"{{{options.Name}}}:gate"];

    /// <summary>The keys of every script of the gate.</summary>
    public RedisKey[] Keys { get; }

    /// <summary>Whether this process wants to be the one that follows the ledger.</summary>
    public bool MayLead { get => Volatile.Read(ref _mayLead); set => Volatile.Write(ref _mayLead, value); }

    /// <summary>Another key of the gate.</summary>
    public RedisKey KeyOf(string what) => $"{{{_options.Name}}}:gate:{what}";

    /// <summary>This process's name among the gate's.</summary>
    public string Name => _name;

    /// <summary>What the last look at the gate showed.</summary>
    public GateTick Latest => Volatile.Read(ref _latest);

    /// <summary>Whether commands are to be noted at the gate.</summary>
    public bool IsAttached => Volatile.Read(ref _isAttached);

    /// <summary>How often this process was cut off from Redis.</summary>
    public long TimesDown { get; private set; }

    /// <summary>How long it took the last time until it was back; <see langword="null"/> when it never was cut off.</summary>
    public TimeSpan? LastRecovery { get; private set; }

    /// <summary>Says for the first time that this process is there, and goes on saying it.</summary>
    /// <param name="findCursor">Finds where the ledger ends, for an epoch that has to be begun.</param>
    /// <param name="isOurs">Whether the store has an entry that the gate has followed: its operation, and its time.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    public async Task StartAsync(Func<CancellationToken, ValueTask<string>> findCursor, Func<string, long, CancellationToken, ValueTask<bool>> isOurs, CancellationToken cancellationToken)
    {
        _findCursor = findCursor;
        await TickAsync(Presence.Missing, cancellationToken).ConfigureAwait(false);
        var (id, at) = (Latest.LastId, Latest.LastAt);
        var isAnother = id.Length > 0 && _options.Acknowledge == GateAcknowledgement.Store && !await isOurs(id, long.Parse(at, CultureInfo.InvariantCulture), cancellationToken).ConfigureAwait(false);
        if (isAnother)
        {
            _logger.LogWarning("The gate {Name} in {Server} has followed another ledger than this store's, or this store was set back: the gate is begun anew.", _options.Name, _redis.Server);
        }

        // Only the start of an epoch may not trust what is known of the one before.
        Volatile.Write(ref _latest, Latest with { Cursor = isAnother ? await findCursor(cancellationToken).ConfigureAwait(false) : Latest.Cursor });
        Volatile.Write(ref _isAttached, true);
        await TickAsync(Presence.Here, cancellationToken, missed: isAnother ? 3 : 0).ConfigureAwait(false);
        _beating = BeatAsync(_stop.Token);
    }

    /// <summary>Counts a call as under way in the epoch that is known now, until <see cref="End"/>.</summary>
    public long Begin()
    {
        lock (_lock)
        {
            var epoch = _latest.Epoch;
            _underWay[epoch] = _underWay.GetValueOrDefault(epoch) + 1;
            return epoch;
        }
    }

    public void End(long epoch)
    {
        lock (_lock)
        {
            if (--_underWay[epoch] == 0)
            {
                _underWay.Remove(epoch);
                if (_isClosing && _underWay.Count == 0)
                {
                    _drained.TrySetResult();
                }
            }
        }
    }

    /// <summary>Waits, within a bound, until nothing is under way any more; nothing new may be begun.</summary>
    public async ValueTask DrainAsync(TimeSpan bound)
    {
        lock (_lock)
        {
            _isClosing = true;
            if (_underWay.Count == 0)
            {
                return;
            }
        }

        try
        {
            await _drained.Task.WaitAsync(bound, _clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _logger.LogError("Calls are still under way after {Time}; the gate is closed under them, and the other processes will miss this one for {ForgetAfter}.", bound, _options.ForgetAfter);
        }
    }

    /// <summary>A call of Redis has failed: this process is cut off until <see cref="BeatAsync"/> brings it back.</summary>
    public void Detach(Exception failure)
    {
        lock (_lock)
        {
            if (!_isAttached)
            {
                return;
            }

            _isAttached = false;
            _downSince = _clock.GetTimestamp();
            TimesDown++;
        }

        _logger.LogWarning(failure, "The gate can't be used: {Failure} Commands {Policy}.", failure.Message, _options.GoesAround ? "go straight to the store as soon as no other process relies on this one" : "are answered Busy");
    }

    /// <summary>Lets commands go around the gate, until <see cref="EndAround"/>, or says why not.</summary>
    public bool TryGoAround(IReadOnlyList<StockCommand> commands, [NotNullWhen(false)] out string? whyNot)
    {
        if (!_options.GoesAround)
        {
            whyNot = $"{_redis.Server} can't be reached";
            return false;
        }

        lock (_lock)
        {
            if (_isAttached)
            {
                whyNot = $"{_redis.Server} is back; try again";
                return false;
            }

            if (UntilLapsed() is { } wait)
            {
                whyNot = string.Create(CultureInfo.InvariantCulture, $"{_redis.Server} can't be reached; in {wait.TotalMilliseconds:0} ms the store will be asked without it");
                return false;
            }

            _around++;
            _hasGoneAround = true;
            if (_aroundIds.Count + commands.Count > MostAround)
            {
                _aroundIds.Clear();
                _hasForgottenIds = true;
            }

            if (!_hasForgottenIds)
            {
                foreach (var command in commands)
                {
                    _aroundIds.Add(command.Id);
                }
            }
        }

        whyNot = null;
        return true;
    }

    public void EndAround()
    {
        lock (_lock)
        {
            _around--;
        }
    }

    /// <summary>
    /// Waits until nobody relies on this process any more, so that what it could not say at the gate can't mislead anybody;
    /// <see langword="false"/> when it can say it after all.
    /// </summary>
    public async ValueTask<bool> LapseAsync()
    {
        while (true)
        {
            TimeSpan wait;
            lock (_lock)
            {
                if (_isAttached)
                {
                    return false;
                }

                if (UntilLapsed() is not { } left)
                {
                    _hasGoneAround = true;
                    return true;
                }

                wait = left < TimeSpan.FromMilliseconds(20) ? left : TimeSpan.FromMilliseconds(20);
            }

            await Task.Delay(wait, _clock).ConfigureAwait(false);
        }
    }

    /// <summary>Redis's time now, at the latest.</summary>
    public long RedisTimeAtMost()
    {
        var time = ReadRedisTime();
        return time.Milliseconds + 1 + (long)Math.Ceiling(_clock.GetElapsedTime(time.From).TotalMilliseconds);
    }

    /// <summary>Redis's time now, at the earliest.</summary>
    public long RedisTimeAtLeast()
    {
        var time = ReadRedisTime();
        return time.Milliseconds + (long)_clock.GetElapsedTime(time.To).TotalMilliseconds;
    }

    /// <summary>Looks at the gate now: its epoch is not the one that was known.</summary>
    public async ValueTask RefreshAsync(CancellationToken cancellationToken) =>
        await TickAsync(Presence.Here, cancellationToken).ConfigureAwait(false);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _beating.ConfigureAwait(false);
        bool isDone;
        lock (_lock)
        {
            isDone = _isAttached && !_isReturning && _underWay.Count == 0;
            _isAttached = false;
        }

        if (isDone)
        {
            try
            {
                await TickAsync(Presence.Leaving, CancellationToken.None).ConfigureAwait(false);
            }
            catch (RedisStoreException e)
            {
                _logger.LogDebug(e, "Could not take leave of the gate; the others forget this process after {Time}.", _options.ForgetAfter);
            }
        }

        _ticking.Dispose();
        _stop.Dispose();
    }

    /// <summary>Renews the lease, and brings this process back after it was cut off, until stopped.</summary>
    private async Task BeatAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(_options.Lease / 5, _clock);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false))
            {
                try
                {
                    await (IsAttached && !_isReturning ? TickAsync(Presence.Here, cancellationToken) : ReturnAsync(cancellationToken)).ConfigureAwait(false);
                }
                catch (Exception e) when (!cancellationToken.IsCancellationRequested)
                {
                    // Whatever it is, the next beat tries again: without beats nobody would rely on this process, nor it know that.
                    Detach(e);
                }
            }
        }
        catch (Exception e) when (cancellationToken.IsCancellationRequested)
        {
            // Disposed. A call that was under way may have ended otherwise than by its token, since its connection may be closing, too.
            _logger.LogDebug(e, "Stopped while the lease was being renewed.");
        }
    }

    private async Task ReturnAsync(CancellationToken cancellationToken)
    {
        await TickAsync(Presence.Missing, cancellationToken).ConfigureAwait(false);
        string[] ids;
        bool hasGoneAround, hasForgottenIds;
        lock (_lock)
        {
            // From here on commands are noted at the gate again; those that went around may still be under way.
            _isAttached = true;
            _isReturning = true;
            if (_around > 0)
            {
                return;
            }

            ids = [.. _aroundIds];
            (hasGoneAround, hasForgottenIds) = (_hasGoneAround, _hasForgottenIds);
        }

        foreach (var chunk in ids.Chunk(1_000))
        {
            hasForgottenIds |= await NoteIdsAsync(chunk, Latest.Epoch, 0, cancellationToken).ConfigureAwait(false) != 1;
        }

        await TickAsync(Presence.Back, cancellationToken, missed: hasForgottenIds ? 2 : hasGoneAround ? 1 : 0).ConfigureAwait(false);
        lock (_lock)
        {
            if (!_isAttached)
            {
                // Cut off again on the way; everything that is remembered is still needed.
                return;
            }

            _isReturning = false;
            _hasGoneAround = _hasForgottenIds = false;
            _aroundIds.Clear();
            LastRecovery = _clock.GetElapsedTime(_downSince);
        }

        _logger.LogInformation("The gate is in use again, {Time:0.000} s after it was lost; {Around}.", LastRecovery.Value.TotalSeconds, hasGoneAround ? "commands went around it" : "nothing went around it");
    }

    /// <summary>Notes ids at the gate; see gate-ids.lua for the answer.</summary>
    public async Task<long> NoteIdsAsync(IReadOnlyList<string> ids, long epoch, long endOfListing, CancellationToken cancellationToken)
    {
        var arguments = new RedisValue[3 + ids.Count];
        (arguments[0], arguments[1], arguments[2]) = ("mark", epoch, endOfListing);
        for (var i = 0; i < ids.Count; i++)
        {
            arguments[3 + i] = GateIds.Places(ids[i], _options.IdBits);
        }

        return (long)await _redis.RunAsync(GateScripts.Ids, Keys, arguments, cancellationToken).ConfigureAwait(false);
    }

    private async Task TickAsync(Presence presence, CancellationToken cancellationToken, int missed = 0)
    {
        await _ticking.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_redisTime.Milliseconds == 0)
            {
                await ReadTimeAsync(cancellationToken).ConfigureAwait(false);
            }

            // An epoch that was never seen has to be begun with a cursor of the store's; later ones with the last that is known.
            var latest = Latest;
            var cursor = latest.Epoch == 0 && _options.Acknowledge == GateAcknowledgement.Store ? await _findCursor(cancellationToken).ConfigureAwait(false) : latest.Cursor;
            long oldest;
            lock (_lock)
            {
                oldest = _underWay.Count == 0 ? 0 : _underWay.Keys.First();
            }

            var from = _clock.GetTimestamp();
            long heardUntil = presence == Presence.Leaving ? -1 : 0;
            if (presence is Presence.Here or Presence.Back)
            {
                lock (_lock)
                {
                    // Decided here and not by who called, since the way here may have taken long: in the meantime this process may have been
                    // cut off, and commands gone around the gate, for which nobody must vouch.
                    if (!_isAttached || (_isReturning && presence == Presence.Here))
                    {
                        presence = Presence.Missing;
                    }
                    else
                    {
                        // Before it is sent: a lost answer, or a call that a paused server runs later, grants the lease all the same. By a
                        // clock that is read last: what passes between the two readings must not make the lease end here before it does there.
                        heardUntil = RedisTimeAtMost() + (long)_options.Lease.TotalMilliseconds;
                        _lapsesAt = _clock.GetTimestamp() + ToTimestamp(_options.Lease * 1.05) + (_redisTime.To - _redisTime.From);
                        presence = Presence.Here;
                    }
                }
            }

            RedisValue[] arguments =
            [
                _name, heardUntil, oldest, (long)_options.ForgetAfter.TotalMilliseconds, latest.Epoch, cursor, presence == Presence.Here && MayLead ? 1 : 0,
                (long)_options.Lease.TotalMilliseconds, missed, _options.Acknowledge == GateAcknowledgement.Gate ? 0 : 2 * (long)_options.Lease.TotalMilliseconds, 1L << _options.IdBits,
                _options.Acknowledge == GateAcknowledgement.Gate ? "gate" : "store", .. latest.Nodes.Select(node => (RedisValue)node),
            ];
            var answer = await _redis.RunAsync(GateScripts.Tick, Keys, arguments, cancellationToken).ConfigureAwait(false);
            if (GateTick.Read(answer) is { } tick)
            {
                lock (_lock)
                {
                    _redisTime = (tick.Now, from, _clock.GetTimestamp());
                    Volatile.Write(ref _latest, tick);
                }

                if (tick.IsBegun)
                {
                    _logger.LogInformation("Epoch {Epoch} of the gate is begun on {Server}: it refuses again when the stock and the ids are loaded.", tick.Epoch, _redis.Server);
                }
            }
        }
        finally
        {
            _ticking.Release();
        }
    }

    private async Task ReadTimeAsync(CancellationToken cancellationToken)
    {
        var from = _clock.GetTimestamp();
        var time = (string[])await _redis.CallAsync(["TIME"], cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            _redisTime = ((long.Parse(time[0], CultureInfo.InvariantCulture) * 1_000) + (long.Parse(time[1], CultureInfo.InvariantCulture) / 1_000), from, _clock.GetTimestamp());
        }
    }

    private (long Milliseconds, long From, long To) ReadRedisTime()
    {
        lock (_lock)
        {
            return _redisTime;
        }
    }

    private TimeSpan? UntilLapsed()
    {
        var left = _lapsesAt - _clock.GetTimestamp();
        return left < 0 ? null : _clock.GetElapsedTime(0, left + 1);
    }

    private long ToTimestamp(TimeSpan time) => (long)(time.TotalSeconds * _clock.TimestampFrequency);

    private enum Presence
    {
        Here = 0,
        Missing = 1,
        Leaving = 2,

        /// <summary>Here, and all that went around has ended and is noted.</summary>
        Back = 3,
    }
}
