using System.Diagnostics.Metrics;
using Microsoft.Extensions.Logging;

namespace Holdfast.Redis;

/// <summary>
/// A gate that acknowledges by itself. Every command goes through one stream in Redis, in the order in which the store decides it; what is
/// certain is answered as soon as it stands there, everything else when the store has decided. Thread-safe.
/// </summary>
internal sealed class GateSale : IAsyncDisposable
{
    private static readonly TimeSpan s_drainTimeout = TimeSpan.FromSeconds(30);

    private readonly RedisGateOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly GateUnsettled _unsettled = new();
    private readonly GateIncidents _incidents;
    private readonly GateTaker _taker;
    private readonly IStockEngine _engine;
    private readonly Meter _meter = new(Telemetry.SourceName);
    private readonly CancellationTokenSource _stop = new();
    private Task _late = Task.CompletedTask;

    public GateSale(IStockEngine engine, IGateStore store, RedisConnection redis, GateNode node, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _engine = engine;
        _options = options;
        _clock = clock;
        _logger = logger;
        _incidents = new(engine, store, options.Name, clock, logger);
        Epochs = new(engine, store, redis, node, _unsettled, _incidents, options, clock, logger);
        Persister = new(engine, store, redis, node, Epochs, _unsettled, _incidents, options, clock, logger);
        _taker = new(redis, node, Epochs, _unsettled, Persister, options);
        Epochs.Ended = Persister.End;
        Epochs.FoundLate = commands => _late = SendLateAsync(_late, commands);
        _meter.CreateObservableGauge("holdfast.gate.backlog", () => Epochs.Status?.Backlog ?? 0, "{command}", "Commands in the gate's stream that the store does not have yet.");
        _meter.CreateObservableGauge("holdfast.gate.backlog.age", () => Epochs.Status?.OldestAge?.TotalSeconds ?? 0, "s", "How long the oldest of them has waited.");
        _meter.CreateObservableGauge("holdfast.gate.unsettled", () => _unsettled.Count, "{command}", "Commands that this process has acknowledged and remembers until the store has them.");
        _meter.CreateObservableCounter("holdfast.gate.acknowledged", () => Counts.Acknowledged, "{command}", "Commands that the gate acknowledged by itself.");
        _meter.CreateObservableCounter("holdfast.gate.incidents", () => _incidents.Count, "{command}", "Commands that the gate had acknowledged and the store refused.");
        _meter.CreateObservableCounter("holdfast.gate.given_up", () => Epochs.GivenUp, "{process}", "Processes that a new epoch gave up with what only they remembered.");
    }

    public GateEpochs Epochs { get; }

    public GatePersister Persister { get; }

    public RedisGateCounts Counts => _taker.Counts with { Incidents = _incidents.Count };

    public int Unsettled => _unsettled.Count;

    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await Epochs.StartAsync(cancellationToken).ConfigureAwait(false);
        Persister.Start();
    }

    public async Task<IReadOnlyList<StockResult>> ExecuteAsync(StockCommand[] commands)
    {
        var results = new StockResult[commands.Length];

        // Each sees the effects of those before it: what the store has to decide is awaited before the next are handed over.
        for (int start = 0, end; start < commands.Length; start = end)
        {
            end = EndOfCall(commands, start);
            var some = new ArraySegment<StockCommand>(commands, start, end - start);
            var taken = await _taker.TakeAsync(some).ConfigureAwait(false);
            for (var i = 0; i < taken.Length; i++)
            {
                if (taken[i].Decision is not { } decision)
                {
                    results[start + i] = taken[i].Result;
                    continue;
                }

                // All of them wait for one entry.
                results[start + i] = await decision.ConfigureAwait(false) is { } verdicts && verdicts.TryGetValue(taken[i].Number, out var verdict)
                    ? verdict
                    : StockResult.Of(StockStatus.InDoubt, "It stands in the gate's stream, and the store has not decided in time; try again with the same id.");
            }
        }

        return results;
    }

    /// <summary>Where the call that begins with command <paramref name="start"/> ends: one script takes so much, and holds everybody else up meanwhile.</summary>
    private static int EndOfCall(StockCommand[] commands, int start)
    {
        var most = Math.Min(commands.Length, start + GateTaker.MostCommands);
        var lines = commands[start].Lines.Length;
        var end = start + 1;
        while (end < most && (lines += commands[end].Lines.Length) <= GateTaker.MostLines)
        {
            end++;
        }

        return end;
    }

    /// <summary>Waits until the store has everything that was acknowledged before, so that a read of it sees that.</summary>
    /// <exception cref="RedisStoreException">It does not get there in time.</exception>
    public async Task DrainAsync(CancellationToken cancellationToken)
    {
        var began = _clock.GetTimestamp();
        while (true)
        {
            string reason;
            if (Epochs.TryEnter(out var epoch, out var whyNot))
            {
                Epochs.Leave();
                try
                {
                    var status = await Epochs.LookAsync(taken: false, cancellationToken).ConfigureAwait(false);
                    reason = $"{status.Backlog} commands still wait for the store";
                    if (status.Epoch == epoch && (status.Last is not { } last || await Persister.DrainAsync(last, _options.DecisionTimeout, cancellationToken).ConfigureAwait(false)))
                    {
                        return;
                    }
                }
                catch (TimeoutException)
                {
                    reason = "the store is behind";
                }
                catch (RedisStoreException e)
                {
                    Epochs.Suspect(e);
                    reason = e.Message.TrimEnd('.');
                }
            }
            else
            {
                reason = whyNot!;
            }

            if (_clock.GetElapsedTime(began) > _options.DecisionTimeout)
            {
                throw new RedisStoreException($"The store does not have yet what the gate has acknowledged, so it can't be read: {reason}. Try again later, or allow for some staleness.", CallFailure.Refused);
            }

            await Task.Delay(TimeSpan.FromMilliseconds(5), _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Brings what this process has acknowledged to the store, within a bound; what is left stays in the stream for the other processes.</summary>
    public async ValueTask DisposeAsync()
    {
        var began = _clock.GetTimestamp();
        while (_unsettled.Count > 0 && _clock.GetElapsedTime(began) < s_drainTimeout)
        {
            try
            {
                await DrainAsync(CancellationToken.None).ConfigureAwait(false);
            }
            catch (RedisStoreException e)
            {
                _logger.LogWarning(e, "What this process has acknowledged is not in the store yet: {Count} commands.", _unsettled.Count);
                break;
            }
        }

        // What an epoch that was begun without this process has not seen is nowhere but here.
        var left = s_drainTimeout - _clock.GetElapsedTime(began);
        using (var bound = new CancellationTokenSource(left > TimeSpan.Zero ? left : TimeSpan.Zero, _clock))
        {
            await _late.WaitAsync(bound.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        await _stop.CancelAsync().ConfigureAwait(false);
        await _late.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Persister.DisposeAsync().ConfigureAwait(false);
        await Epochs.DisposeAsync().ConfigureAwait(false);
        if (_unsettled.Count > 0)
        {
            _logger.LogError("This process ends with {Count} commands that it had acknowledged and the store does not have yet; they stand in Redis, for the other processes, or the next.", _unsettled.Count);
        }

        _meter.Dispose();
        _stop.Dispose();
    }

    /// <summary>For tests: ends without a farewell, as a process that is killed does.</summary>
    internal async Task AbandonAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await Persister.DisposeAsync().ConfigureAwait(false);
        Epochs.Leaves = false;
        await Epochs.DisposeAsync().ConfigureAwait(false);
        _meter.Dispose();
    }

    /// <summary>What was acknowledged in an epoch that was ended without this process: sent again, as if by the buyers.</summary>
    private async Task SendLateAsync(Task before, GateCommand[] commands)
    {
        await before.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        var open = commands.ToList();
        while (open.Count > 0 && !_stop.IsCancellationRequested)
        {
            try
            {
                var results = await ExecuteAsync([.. open.Select(static each => each.Command)]).ConfigureAwait(false);
                var refused = Enumerable.Range(0, open.Count).Where(i => !results[i].IsApplied && !results[i].IsRetryable).ToArray();
                if (refused.Length > 0)
                {
                    await _incidents.ReportAsync(Epochs.Current, [.. refused.Select(i => open[i])], [.. refused.Select(i => results[i])], CancellationToken.None).ConfigureAwait(false);
                }

                open = [.. Enumerable.Range(0, open.Count).Where(i => results[i].IsRetryable).Select(i => open[i])];
            }
            catch (Exception e)
            {
                _logger.LogWarning(e, "What this process had acknowledged in an earlier epoch could not be sent yet: {Count} commands.", open.Count);
            }

            if (open.Count > 0)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(50), _clock).ConfigureAwait(false);
            }
        }

        if (open.Count > 0)
        {
            _logger.LogError("This process ends with {Count} commands that it had acknowledged in an epoch that was ended without it, and could not send again: {Ids}.", open.Count, string.Join(", ", open.Take(100).Select(static each => each.Command.Id)));
        }
    }
}
