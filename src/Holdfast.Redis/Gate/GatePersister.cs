using System.Globalization;
using System.Text.Json;
using Holdfast.Wire;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>
/// Takes the gate's stream to the store, in its order, and answers those who wait for that. Thread-safe.
/// </summary>
/// <remarks>
/// One process of the gate does it, the one that leads. Two may take themselves for it for a moment; so it takes a turn, which the store and
/// Redis know: what another turn still has in hand neither commits nor settles. It goes from the stream's head in order, the store knows every id, and an
/// entry leaves the stream once: what a process leaves behind, the next one finds there.
/// </remarks>
internal sealed class GatePersister : IAsyncDisposable
{
    private const int EntriesAStep = 16;
    private const int CommandsAStep = 2_048;
    private const int LinesAStep = 16_384;
    private const int EntriesALook = 200;

    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_pauseOfFailure = TimeSpan.FromMilliseconds(50);

    private readonly IStockEngine _engine;
    private readonly IGateStore _store;
    private readonly GateExecutor _executor;
    private readonly RedisConnection _redis;
    private readonly GateNode _node;
    private readonly GateEpochs _epochs;
    private readonly GateUnsettled _unsettled;
    private readonly GateIncidents _incidents;
    private readonly RedisGateOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private readonly SortedDictionary<StreamPlace, TaskCompletionSource<Dictionary<int, StockResult>?>> _waits = [];
    private readonly List<(StreamPlace Place, TaskCompletionSource<bool> Done)> _drains = [];
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly CancellationTokenSource _stop = new();
    private Task _running = Task.CompletedTask;
    private StreamPlace _done;
    private long _doneEpoch;
    private (long Epoch, long Number) _turn;
    private bool _isPaused;
    private bool _hasFailed;
    private bool _isDisposed;

    public GatePersister(
        IStockEngine engine, IGateStore store, RedisConnection redis, GateNode node, GateEpochs epochs, GateUnsettled unsettled, GateIncidents incidents, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _engine = engine;
        _store = store;
        _executor = new(store, options.Name, logger);
        _redis = redis;
        _node = node;
        _epochs = epochs;
        _unsettled = unsettled;
        _incidents = incidents;
        _options = options;
        _clock = clock;
        _logger = logger;
    }

    /// <summary>For tests: stands still while set.</summary>
    internal bool IsPaused
    {
        get => Volatile.Read(ref _isPaused);
        set
        {
            Volatile.Write(ref _isPaused, value);
            Wake();
        }
    }

    /// <summary>For tests: awaited before and after each thing that the persister does; throws to break off there.</summary>
    internal Func<string, Task>? Failpoint { get; set; }

    public void Start() => _running = RunAsync(_stop.Token);

    /// <summary>An entry was written by this process.</summary>
    public void Added() => Wake();

    /// <summary>
    /// Waits for what the store makes of those commands of an entry, just written by this process, that wait;
    /// <see langword="null"/> when that is not known in time.
    /// </summary>
    public Task<Dictionary<int, StockResult>?> WaitAsync(StreamPlace place)
    {
        var wait = new TaskCompletionSource<Dictionary<int, StockResult>?>(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            _waits[place] = wait;
        }

        return AwaitAsync(place, wait.Task);
    }

    private async Task<Dictionary<int, StockResult>?> AwaitAsync(StreamPlace place, Task<Dictionary<int, StockResult>?> wait)
    {
        try
        {
            return await wait.WaitAsync(_options.DecisionTimeout, _clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            return null;
        }
        finally
        {
            lock (_lock)
            {
                _waits.Remove(place);
            }
        }
    }

    /// <summary>Waits until everything up to an entry is in the store; <see langword="false"/> when the epoch ended before that.</summary>
    public async Task<bool> DrainAsync(StreamPlace place, TimeSpan bound, CancellationToken cancellationToken)
    {
        var drain = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            if (_doneEpoch == _epochs.Current && place <= _done)
            {
                return true;
            }

            _drains.Add((place, drain));
        }

        Wake();
        try
        {
            return await drain.Task.WaitAsync(bound, _clock, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            lock (_lock)
            {
                _drains.RemoveAll(each => each.Done == drain);
            }
        }
    }

    /// <summary>An epoch has ended: whoever waits in it has to ask again.</summary>
    public void End()
    {
        TaskCompletionSource<Dictionary<int, StockResult>?>[] waits;
        TaskCompletionSource<bool>[] drains;
        lock (_lock)
        {
            waits = [.. _waits.Values];
            drains = [.. _drains.Select(static drain => drain.Done)];
        }

        Array.ForEach(waits, static wait => wait.TrySetResult(null));
        Array.ForEach(drains, static drain => drain.TrySetResult(false));
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _running.ConfigureAwait(false);
        End();
        lock (_lock)
        {
            // Calls that are under way may still want to wake it.
            _isDisposed = true;
        }

        _stop.Dispose();
        _wake.Dispose();
    }

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

    private bool IsAwaited
    {
        get
        {
            lock (_lock)
            {
                return _waits.Count > 0 || _drains.Count > 0;
            }
        }
    }

    private async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        var pause = s_pause;
        while (!cancellationToken.IsCancellationRequested)
        {
            try
            {
                using (var limit = new CancellationTokenSource(pause, _clock))
                using (var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken))
                {
                    await _wake.WaitAsync(both.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                }

                var isIdle = !IsAwaited && _unsettled.Count == 0;
                while (!IsPaused && _epochs.Current is not 0 and var epoch && !cancellationToken.IsCancellationRequested)
                {
                    if (!await (_node.Latest.Leads ? StepAsync(epoch, cancellationToken) : LookAsync(epoch, cancellationToken)).ConfigureAwait(false))
                    {
                        break;
                    }

                    isIdle = false;
                }

                // Redis is asked less and less often while nothing comes, from 5 to 50 ms in a second; what this process adds is seen at once.
                pause = !isIdle ? s_pause : pause * 1.05 < s_longestPause ? pause * 1.05 : s_longestPause;
                _hasFailed = false;
            }
            catch (RedisStoreException e)
            {
                _epochs.Suspect(e);
                pause = s_pauseOfFailure;
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested)
            {
                // What was not settled still stands at the head of the stream.
                _epochs.StoreAnswers = false;
                _logger.Log(_hasFailed ? LogLevel.Debug : LogLevel.Warning, e, "What the gate has acknowledged could not be taken to the store; trying again.");
                _hasFailed = true;
                pause = s_pauseOfFailure;
            }
            catch (Exception e)
            {
                // Disposed in the middle of something.
                _logger.LogDebug(e, "The stream is left where it is.");
            }
        }
    }

    /// <summary>Sees how far another process has come.</summary>
    /// <returns>Whether to go on at once.</returns>
    private async Task<bool> LookAsync(long epoch, CancellationToken cancellationToken)
    {
        if (_doneEpoch != epoch || IsAwaited || _unsettled.Count > 0)
        {
            await FetchAsync(epoch, cancellationToken).ConfigureAwait(false);
        }

        return false;
    }

    /// <summary>Takes what stands at the head of the stream to the store.</summary>
    /// <returns>Whether there may be more.</returns>
    private async Task<bool> StepAsync(long epoch, CancellationToken cancellationToken)
    {
        if (_turn.Epoch != epoch)
        {
            _turn = (epoch, await _store.TakeGateTurnAsync(_options.Name, epoch, cancellationToken).ConfigureAwait(false));
            if (_turn.Number == 0)
            {
                _turn = default;
                _epochs.Suspect();
                return false;
            }
        }

        var answer = (RedisResult[])await _redis.RunAsync(GateScripts.Entries, _node.Keys, [epoch, EntriesAStep, _turn.Number], cancellationToken).ConfigureAwait(false);
        if (answer.Length == 0)
        {
            _epochs.Suspect();
            return false;
        }

        if (answer.Length == 1)
        {
            // Another process has taken the turn; whether this one is to take it back, the next look at who leads tells.
            _turn = default;
            await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
            return false;
        }

        var entries = (RedisResult[])answer[1];
        if (entries.Length == 0)
        {
            await MoveAsync(epoch, StreamPlace.Parse((string)answer[0]), [], cancellationToken).ConfigureAwait(false);
            return false;
        }

        var (commands, ends) = ReadEntries(entries);
        await PassAsync("read").ConfigureAwait(false);
        if (await _executor.ExecuteAsync(epoch, _turn.Number, commands, cancellationToken).ConfigureAwait(false) is not { } results)
        {
            // The turn is another's, or the epoch is over: the next turn that is taken tells.
            _turn = default;
            await _node.RefreshAsync(cancellationToken).ConfigureAwait(false);
            return false;
        }

        await PassAsync("executed").ConfigureAwait(false);

        // Whole entries before the first command that is not decided yet.
        var decided = 0;
        while (decided < ends.Count && !results[(decided == 0 ? 0 : ends[decided - 1])..ends[decided]].Any(static result => result.IsRetryable))
        {
            decided++;
        }

        if (decided == 0)
        {
            throw new RedisGateStallException(results.First(static result => result.IsRetryable).Detail);
        }

        _epochs.StoreAnswers = true;
        var (some, answers) = (commands[..ends[decided - 1]], results[..ends[decided - 1]]);
        await _incidents.ReportAsync(epoch, some, answers, cancellationToken).ConfigureAwait(false);
        await PassAsync("reported").ConfigureAwait(false);
        await SettleAsync(epoch, some, answers, cancellationToken).ConfigureAwait(false);
        await PassAsync("settled").ConfigureAwait(false);
        return true;
    }

    private Task PassAsync(string place) => Failpoint?.Invoke(place) ?? Task.CompletedTask;

    /// <summary>The commands of entries, and where in that list each entry ends.</summary>
    private static (GateCommand[] Commands, List<int> Ends) ReadEntries(RedisResult[] entries)
    {
        var commands = new List<GateCommand>();
        var ends = new List<int>();
        var lines = 0;
        foreach (var entry in entries)
        {
            if (ends.Count > 0 && (commands.Count >= CommandsAStep || lines >= LinesAStep))
            {
                break;
            }

            if (!GateCommand.TryReadEntry(entry, commands))
            {
                throw new InvalidOperationException($"Entry {(string)((RedisResult[])entry)[0]} of the gate's stream can't be read, and was not written by a gate: remove it (XDEL), and a new epoch is begun.");
            }

            lines += commands.Skip(ends.Count == 0 ? 0 : ends[^1]).Sum(static each => each.Command.Lines.Length);
            ends.Add(commands.Count);
        }

        return ([.. commands], ends);
    }

    /// <summary>Lets entries leave the stream, shows the store's rows at the gate, and answers those who wait.</summary>
    private async Task SettleAsync(long epoch, GateCommand[] commands, StockResult[] results, CancellationToken cancellationToken)
    {
        var skus = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < commands.Length; i++)
        {
            skus.UnionWith(commands[i].Command.Lines.Select(static line => line.Sku));
            skus.UnionWith(results[i].Left.Select(static left => left.Sku));
        }

        var readAt = _node.RedisTimeAtLeast();
        var rows = new List<GateRow>(skus.Count);
        foreach (var chunk in skus.Chunk(GateCopies.MostRows))
        {
            rows.AddRange((await _engine.GetStockAsync(chunk, cancellationToken: cancellationToken).ConfigureAwait(false)).Where(static level => level.IsKnown).Select(GateRow.Of));
        }

        await PassAsync("looked").ConfigureAwait(false);
        var arguments = new List<RedisValue>(4 + (rows.Count * 6) + (commands.Length * 4)) { epoch, _turn.Number, readAt, rows.Count };
        foreach (var row in rows)
        {
            arguments.AddRange([row.Sku, row.Version, row.Available, row.Reserved, row.Restocked ?? RedisValue.EmptyString, row.Adjusted ?? RedisValue.EmptyString]);
        }

        var verdicts = new Dictionary<StreamPlace, Dictionary<int, StockResult>>();
        for (var start = 0; start < commands.Length;)
        {
            var (end, place) = (start, commands[start].Place);
            var takings = new Dictionary<string, long>(StringComparer.Ordinal);
            var answers = new Dictionary<int, StockResult>();
            for (; end < commands.Length && commands[end].Place == place; end++)
            {
                foreach (var (sku, units) in Takings.Of(commands[end].Command))
                {
                    takings[sku] = takings.GetValueOrDefault(sku) + units;
                }

                if (!commands[end].IsAcknowledged)
                {
                    answers.Add(commands[end].Number, results[end].Status == StockStatus.None ? StockResult.Of(StockStatus.InDoubt, "the store failed at this command") : results[end]);
                }
            }

            arguments.AddRange([place.ToString(), end - start, takings.Count]);
            arguments.AddRange(takings.SelectMany(static taking => (RedisValue[])[taking.Key, taking.Value]));
            arguments.Add(answers.Count);
            arguments.AddRange(answers.SelectMany(static answer => (RedisValue[])[answer.Key, Write(answer.Value)]));
            verdicts.Add(place, answers);
            start = end;
        }

        var done = (RedisResult[])await _redis.RunAsync(GateScripts.Settle, _node.Keys, [.. arguments], cancellationToken).ConfigureAwait(false);
        if (done.Length == 0)
        {
            // Nobody was answered: whoever has the next turn, or begins the next epoch, decides anew.
            _turn = default;
            return;
        }

        await MoveAsync(epoch, StreamPlace.Parse((string)done[0]), verdicts, cancellationToken).ConfigureAwait(false);
    }

    private static byte[] Write(in StockResult result)
    {
        var buffer = new System.Buffers.ArrayBufferWriter<byte>(128);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            StockJson.WriteResult(writer, result);
        }

        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Everything up to an entry is in the store.</summary>
    private async Task MoveAsync(long epoch, StreamPlace done, Dictionary<StreamPlace, Dictionary<int, StockResult>> verdicts, CancellationToken cancellationToken)
    {
        _unsettled.Settle(done);
        var needsMore = Move(epoch, done, verdicts);
        if (needsMore)
        {
            await FetchAsync(epoch, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <returns>Whether somebody waits for an answer that another process has.</returns>
    private bool Move(long epoch, StreamPlace done, Dictionary<StreamPlace, Dictionary<int, StockResult>> verdicts)
    {
        List<(TaskCompletionSource<Dictionary<int, StockResult>?>, Dictionary<int, StockResult>)>? answered = null;
        List<TaskCompletionSource<bool>>? drained = null;
        var needsMore = false;
        lock (_lock)
        {
            (_doneEpoch, _done) = (epoch, done);
            foreach (var (place, wait) in _waits)
            {
                if (place > done)
                {
                    break;
                }

                if (verdicts.TryGetValue(place, out var answers))
                {
                    (answered ??= []).Add((wait, answers));
                }
                else
                {
                    needsMore |= !wait.Task.IsCompleted;
                }
            }

            foreach (var (place, drain) in _drains)
            {
                if (place <= done)
                {
                    (drained ??= []).Add(drain);
                }
            }
        }

        answered?.ForEach(static each => each.Item1.TrySetResult(each.Item2));
        drained?.ForEach(static drain => drain.TrySetResult(true));
        return needsMore;
    }

    /// <summary>Asks how far the store has come, and for the answers that somebody here waits for.</summary>
    private async Task FetchAsync(long epoch, CancellationToken cancellationToken)
    {
        StreamPlace[] places;
        lock (_lock)
        {
            places = [.. _waits.Where(static wait => !wait.Value.Task.IsCompleted).Take(EntriesALook).Select(static wait => wait.Key)];
        }

        var answer = (RedisResult[])await _redis.RunAsync(GateScripts.Verdicts, _node.Keys, [epoch, .. places.Select(static place => (RedisValue)place.ToString())], cancellationToken).ConfigureAwait(false);
        if (answer.Length == 0)
        {
            _epochs.Suspect();
            return;
        }

        var done = StreamPlace.Parse((string)answer[0]);
        var verdicts = new Dictionary<StreamPlace, Dictionary<int, StockResult>>();
        for (var i = 0; i < places.Length; i++)
        {
            if (places[i] > done)
            {
                break;
            }

            // One that is settled and has no answer any more stays unknown.
            var fields = (RedisResult[])answer[i + 1];
            var answers = new Dictionary<int, StockResult>();
            for (var field = 0; field + 1 < fields.Length; field += 2)
            {
                answers[int.Parse((string)fields[field], CultureInfo.InvariantCulture)] = StockJson.ReadResult((byte[])fields[field + 1]);
            }

            verdicts.Add(places[i], answers);
        }

        _unsettled.Settle(done);
        Move(epoch, done, verdicts);
    }
}

/// <summary>The store decided nothing of what stands at the head of the stream.</summary>
internal sealed class RedisGateStallException(string? detail) : Exception($"The store can't decide what stands in the gate's stream at present. {detail}");
