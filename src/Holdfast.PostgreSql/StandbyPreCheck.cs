using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Holdfast.PostgreSql;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>
/// Read-write splitting: a streaming standby tells the crowd that a SKU is sold out, so that the primary only sees those
/// who may get something. Refuses only, never accepts; judges deductions and reservations only, and never an id that the
/// primary already knows. Reads that allow staleness are served from the standby too. Thread-safe.
/// </summary>
/// <remarks>
/// <para>The lag is measured, not guessed: a numbered heartbeat goes to the primary, and the time since the one that the
/// standby shows was sent bounds the age of its state, whatever either server's clock says and however idle the primary
/// is. Past <see cref="StandbyOptions.MaxLag"/>, when the standby is down, and for SKUs whose holds may have expired, the
/// pre-check stands aside, and everything is as if it were not there.</para>
/// <para>What this process took, stocked or gave back is never overlooked: until the standby shows a later heartbeat, those
/// SKUs are not judged. Units that another process gave back may be, for as long as the lag: that is the window of a false
/// sold-out, and why this layer does not promise <see cref="StockTraits.ExactRefusal"/>. What another process took may
/// still be counted as long in the number that a refusal names.</para>
/// <para>Goes around group commit. Checks of many callers share round trips as their commands do.</para>
/// </remarks>
public sealed class StandbyPreCheck : DelegatingStockEngine
{
    private readonly PostgreSqlEngine _primary;
    private readonly PostgreSqlEngine _standby;
    private readonly StandbyOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly GroupCommit _checks;
    private readonly string _node;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _beating;
    private readonly Lock _lock = new();

    /// <summary>When each heartbeat was sent, by its number modulo the length.</summary>
    private readonly long[] _sentAt = new long[1024];

    /// <summary>Up to which position the ledger was final before each heartbeat, likewise.</summary>
    private readonly (long Beat, long Position)[] _finalAt = new (long, long)[1024];

    private readonly RecentChanges _changes = new();
    private long _beats;

    /// <summary>The number of the latest heartbeat that the standby has shown; 0 until the first.</summary>
    private long _shown;
    private bool _standsAside = true;

    /// <summary>Questions whose answer nobody waits for any more; see <see cref="AskAsync"/>.</summary>
    private int _leftBehind;
    private int _disposed;

    /// <summary>Wraps an engine.</summary>
    /// <param name="inner">The engine that decides, usually group commit around <paramref name="primary"/>.</param>
    /// <param name="primary">The store, for heartbeats and the look at known ids.</param>
    /// <param name="options">How to reach and trust the standby.</param>
    /// <param name="clock">The clock of heartbeats and waits; the system's by default.</param>
    /// <param name="logger">Told when it stands aside and when it is back; nobody by default.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    public StandbyPreCheck(IStockEngine inner, PostgreSqlEngine primary, StandbyOptions options, TimeProvider? clock = null, ILogger<StandbyPreCheck>? logger = null)
        : base(inner)
    {
        ArgumentNullException.ThrowIfNull(primary);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        _primary = primary;
        _options = options;
        _clock = clock ?? TimeProvider.System;
        _logger = (ILogger?)logger ?? NullLogger.Instance;
        _standby = PostgreSqlEngine.ForStandby(primary, options, _clock);
        _node = string.Create(CultureInfo.InvariantCulture, $"{Environment.MachineName}-{Environment.ProcessId}-{_clock.GetTimestamp():x}-{GetHashCode():x}");
        _checks = new(new Checker(this), new() { MaxConcurrentBatches = 2, RetryTimeout = TimeSpan.Zero }, _clock, _logger);
        _beating = BeatAsync(_stop.Token);
    }

    /// <inheritdoc/>
    public override StockTraits Traits => Inner.Traits & ~StockTraits.ExactRefusal;

    /// <summary>
    /// How old the standby's state may be at most; <see langword="null"/> while that is not known. What is asked of it is
    /// answered only within <see cref="StandbyOptions.MaxLag"/>.
    /// </summary>
    public TimeSpan? Lag => LagOf(Interlocked.Read(ref _shown));

    /// <inheritdoc/>
    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        return IsWorthChecking(commands) ? CheckAndExecuteAsync(commands, cancellationToken) : ExecuteAndRememberAsync(commands, cancellationToken);
    }

    /// <inheritdoc/>
    public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        if (options.MaxStaleness > TimeSpan.Zero && Lag <= options.MaxStaleness && Volatile.Read(ref _leftBehind) == 0)
        {
            try
            {
                return await AskAsync(() => _standby.GetStockAsync(skus, options, CancellationToken.None).AsTask(), cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (e is PostgreSqlStoreException or TimeoutException)
            {
                _logger.LogDebug(e, "The standby did not answer a read; the primary does.");
            }
        }

        return await Inner.GetStockAsync(skus, options, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var shown = Interlocked.Read(ref _shown);
        if (query.MaxStaleness > TimeSpan.Zero && LagOf(shown) <= query.MaxStaleness && FinalAt(shown) is { } end)
        {
            while (query.Limit is not <= 0 && Volatile.Read(ref _leftBehind) == 0)
            {
                var page = query with { Limit = Math.Min(query.Limit ?? Tuning.PageRows, Tuning.PageRows) };
                List<FlowEntry> entries;
                try
                {
                    entries = await AskAsync(() => _standby.ReadFlowOfStandbyAsync(page, end), cancellationToken).ConfigureAwait(false);
                }
                catch (Exception e) when (e is PostgreSqlStoreException or TimeoutException)
                {
                    _logger.LogDebug(e, "The standby did not answer a read; the primary goes on with it.");
                    break;
                }

                foreach (var entry in entries)
                {
                    yield return entry;
                }

                if (entries.Count < page.Limit)
                {
                    yield break;
                }

                query = query with { After = entries[^1].Cursor, Limit = query.Limit - entries.Count };
            }
        }

        await foreach (var entry in Inner.ReadFlowAsync(query, cancellationToken).ConfigureAwait(false))
        {
            yield return entry;
        }
    }

    /// <summary>Stops the heartbeats and disposes the engine inside.</summary>
    public override async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 1)
        {
            return;
        }

        await _stop.CancelAsync().ConfigureAwait(false);
        await _beating.ConfigureAwait(false);
        await _checks.DisposeAsync().ConfigureAwait(false);
        await _standby.DisposeAsync().ConfigureAwait(false);
        _stop.Dispose();
        await base.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>
    /// Whether the standby may judge this call: nothing in it gives units back or ends anything, and no id stands twice,
    /// so each command can be judged by itself.
    /// </summary>
    private bool IsWorthChecking(IReadOnlyList<StockCommand> commands)
    {
        if (!(Lag <= _options.MaxLag) || Volatile.Read(ref _leftBehind) > 0)
        {
            return false;
        }

        if (commands.Count == 1)
        {
            return commands[0].Verb is StockVerb.Deduct or StockVerb.Reserve;
        }

        var ids = new HashSet<string>(commands.Count, StringComparer.Ordinal);
        foreach (var command in commands)
        {
            if (command.Verb is not (StockVerb.Deduct or StockVerb.Reserve) || !ids.Add(command.Id))
            {
                return false;
            }
        }

        return commands.Count > 0;
    }

    private async ValueTask<IReadOnlyList<StockResult>> CheckAndExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        var checks = await _checks.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        var isRefused = new bool[checks.Count];
        var passed = new List<StockCommand>(commands.Count);
        var touched = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < checks.Count; i++)
        {
            // Decided in the order given: one before it may change the number that the refusal would name.
            if (checks[i] is { Status: StockStatus.Insufficient, Sku: { } shortSku } && !touched.Contains(shortSku))
            {
                isRefused[i] = true;
                continue;
            }

            passed.Add(commands[i]);
            if (commands.Count > 1)
            {
                foreach (var (sku, _) in commands[i].Lines)
                {
                    touched.Add(sku);
                }
            }
        }

        if (passed.Count == 0)
        {
            return checks;
        }

        var answers = await ExecuteAndRememberAsync(passed.Count == commands.Count ? commands : passed, cancellationToken).ConfigureAwait(false);
        if (passed.Count == commands.Count)
        {
            return answers;
        }

        var results = new StockResult[checks.Count];
        for (int i = 0, next = 0; i < results.Length; i++)
        {
            results[i] = isRefused[i] ? checks[i] : answers[next++];
        }

        return results;
    }

    /// <summary>Executes on the primary, and remembers the SKUs that changed until the standby is known to have seen it.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteAndRememberAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        IReadOnlyList<StockResult>? results = null;
        try
        {
            return results = await Inner.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Remember(commands, results);
        }
    }

    private void Remember(IReadOnlyList<StockCommand> commands, IReadOnlyList<StockResult>? results)
    {
        var now = _clock.GetTimestamp();
        lock (_lock)
        {
            for (var i = 0; i < commands.Count; i++)
            {
                var command = commands[i];
                var status = results is null ? StockStatus.InDoubt : results[i].Status;
                if (status is not (StockStatus.Done or StockStatus.Replayed or StockStatus.InDoubt))
                {
                    // Refused: nothing changed, but for reservations that were due, and those are not judged anyway.
                    continue;
                }

                if (status == StockStatus.InDoubt && command.Lines.IsEmpty)
                {
                    // It may have ended something, and which SKUs that had is not said.
                    _changes.NoteAll(now);
                    continue;
                }

                foreach (var (sku, _) in command.Lines)
                {
                    _changes.Note(sku, now);
                }

                foreach (var (sku, _) in results is null ? [] : results[i].Left)
                {
                    _changes.Note(sku, now);
                }
            }

            _changes.MakeRoom(SentAt(Interlocked.Read(ref _shown)), now);
        }
    }

    /// <summary>Whether the standby's state may miss what this process did to this SKU.</summary>
    /// <param name="sku">The SKU.</param>
    /// <param name="seenUpTo">When the heartbeat that the standby shows was sent.</param>
    private bool MayMiss(string sku, long seenUpTo)
    {
        lock (_lock)
        {
            return _changes.MayMiss(sku, seenUpTo);
        }
    }

    private TimeSpan? LagOf(long beat) => SentAt(beat) is { } sent ? _clock.GetElapsedTime(sent) : null;

    /// <summary>When a heartbeat was sent; <see langword="null"/> when that is too long ago to be remembered.</summary>
    private long? SentAt(long beat) => beat > 0 && beat > Interlocked.Read(ref _beats) - _sentAt.Length ? Interlocked.Read(ref _sentAt[beat % _sentAt.Length]) : null;

    /// <summary>Up to which position the ledger was final before a heartbeat; <see langword="null"/> when that is not known.</summary>
    private long? FinalAt(long beat)
    {
        lock (_lock)
        {
            var (number, position) = _finalAt[beat % _finalAt.Length];
            return number == beat && beat > 0 ? position : null;
        }
    }

    /// <summary>Sends heartbeats to the primary and looks at the standby, until stopped.</summary>
    private async Task BeatAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(_options.HeartbeatInterval, _clock);
        try
        {
            do
            {
                if (Volatile.Read(ref _leftBehind) == 0)
                {
                    await BeatOnceAsync(cancellationToken).ConfigureAwait(false);
                }

                SayWhetherAside();
            }
            while (await timer.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false));
        }
        catch (Exception e) when (cancellationToken.IsCancellationRequested && (e is OperationCanceledException || Failure.IsOfStore(e)))
        {
            // Disposed; the driver may say so in words of its own.
        }
    }

    private async Task BeatOnceAsync(CancellationToken cancellationToken)
    {
        var beat = Interlocked.Read(ref _beats) + 1;
        Interlocked.Exchange(ref _sentAt[beat % _sentAt.Length], _clock.GetTimestamp());
        Interlocked.Exchange(ref _beats, beat);
        try
        {
            await AskAsync(() => SendBeatAsync(beat), cancellationToken).ConfigureAwait(false);
            NoteShown(await AskAsync(() => _standby.ReadBeatAsync(_node, CancellationToken.None), cancellationToken).ConfigureAwait(false));
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && Failure.IsOfStore(e))
        {
            _logger.LogDebug(e, "A heartbeat did not get through.");
        }
    }

    private async Task<long> SendBeatAsync(long beat)
    {
        if (beat == 1)
        {
            await _primary.ForgetBeatsAsync(_node, CancellationToken.None).ConfigureAwait(false);
        }

        var final = await _primary.BeatAsync(_node, beat, CancellationToken.None).ConfigureAwait(false);
        lock (_lock)
        {
            _finalAt[beat % _finalAt.Length] = (beat, final);
        }

        return beat;
    }

    /// <summary>
    /// Asks a server, and waits no longer than <see cref="StandbyOptions.MaxLag"/>. A server that stands still takes no
    /// cancellation either, and the driver waits for that as long as for a connection: so the question gets no token, and
    /// is left behind. Until it has ended nothing more is asked, so that questions don't pile up.
    /// </summary>
    /// <exception cref="TimeoutException">There was no answer in time.</exception>
    private async Task<T> AskAsync<T>(Func<Task<T>> ask, CancellationToken cancellationToken)
    {
        var asking = ask();
        try
        {
            return await asking.WaitAsync(_options.MaxLag, _clock, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (!asking.IsCompleted && e is TimeoutException or OperationCanceledException)
        {
            Interlocked.Increment(ref _leftBehind);
            _ = EndAsync();
            throw;
        }

        async Task EndAsync()
        {
            try
            {
                await asking.ConfigureAwait(false);
            }
            catch (Exception e)
            {
                _logger.LogDebug(e, "A server did not answer within {MaxLag}, nor later.", _options.MaxLag);
            }
            finally
            {
                Interlocked.Decrement(ref _leftBehind);
            }
        }
    }

    private void NoteShown(long beat)
    {
        var known = Interlocked.Read(ref _shown);
        while (known < beat)
        {
            var before = Interlocked.CompareExchange(ref _shown, beat, known);
            if (before == known)
            {
                return;
            }

            known = before;
        }
    }

    private void SayWhetherAside()
    {
        var aside = !(Lag <= _options.MaxLag);
        if (aside != _standsAside)
        {
            _standsAside = aside;
            if (aside)
            {
                _logger.LogWarning("The standby is down or more than {MaxLag} behind: the pre-check stands aside.", _options.MaxLag);
            }
            else
            {
                _logger.LogInformation("The standby is within {MaxLag} of the primary: the pre-check is at work.", _options.MaxLag);
            }
        }
    }

    /// <summary>Judges a batch: Insufficient where the standby is sure, an empty result otherwise. Never fails.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> JudgeAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        var verdicts = new StockResult[commands.Count];
        try
        {
            var skus = new HashSet<string>(StringComparer.Ordinal);
            foreach (var command in commands)
            {
                foreach (var (sku, _) in command.Lines)
                {
                    skus.Add(sku);
                }
            }

            var rows = new Dictionary<string, CheckRow>(StringComparer.Ordinal);
            var beat = await AskAsync(() => _standby.CheckAsync(_node, [.. skus], _primary.Highest, _options.ClockTolerance + _options.MaxLag, rows, CancellationToken.None), cancellationToken).ConfigureAwait(false);
            NoteShown(beat);
            if (SentAt(beat) is not { } seenUpTo || _clock.GetElapsedTime(seenUpTo) > _options.MaxLag)
            {
                return verdicts;
            }

            var refused = new List<int>();
            for (var i = 0; i < verdicts.Length; i++)
            {
                if (FindShort(commands[i], rows, seenUpTo) is { } shortage)
                {
                    verdicts[i] = StockResult.Refused(StockStatus.Insufficient, shortage.Sku, shortage.Available);
                    refused.Add(i);
                }
            }

            if (refused.Count > 0)
            {
                string[] ids = [.. refused.Select(i => commands[i].Id).Distinct(StringComparer.Ordinal)];
                var known = await AskAsync(() => _primary.FindKnownAsync(ids, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                foreach (var i in refused)
                {
                    if (known.Contains(commands[i].Id))
                    {
                        verdicts[i] = default;
                    }
                }
            }
        }
        catch (Exception e) when (Failure.IsOfStore(e) || e is OperationCanceledException)
        {
            _logger.LogDebug(e, "The standby could not be asked; {Commands} commands go to the primary unchecked.", commands.Count);
            Array.Clear(verdicts);
        }

        return verdicts;
    }

    /// <summary>The first line that is short, if all lines can be judged.</summary>
    private LineBalance? FindShort(StockCommand command, Dictionary<string, CheckRow> rows, long seenUpTo)
    {
        LineBalance? first = null;
        foreach (var (sku, quantity) in command.Lines)
        {
            // Not known here: it may be new, and if it is not, another outcome comes before Insufficient.
            if (!rows.TryGetValue(sku, out var row))
            {
                return null;
            }

            if (first is null && row.Available < quantity && !row.HasExpiring && !MayMiss(sku, seenUpTo))
            {
                first = new(sku, row.Available);
            }
        }

        return first;
    }

    [StructLayout(LayoutKind.Auto)]
    internal readonly record struct CheckRow(long Available, bool HasExpiring);

    /// <summary>What group commit sees of the checks, so that those of many callers share round trips.</summary>
    private sealed class Checker(StandbyPreCheck owner) : IStockEngine
    {
        public StockTraits Traits => StockTraits.None;

        public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            owner.JudgeAsync(commands, cancellationToken);

        public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private static NotSupportedException Unused() => new("The check of a standby executes only.");
    }
}
