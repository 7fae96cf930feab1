using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using Holdfast.Redis;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast;

/// <summary>
/// Compares the copies of a <see cref="RedisGate"/> with the store's rows, while both are at work, and repairs them when
/// told to. It only reads until then, and is not one of the gate's processes. Thread-safe; comparisons run one at a time.
/// </summary>
/// <remarks>
/// <para>Copies and rows carry versions, so traffic is no difference: of equal versions the numbers must agree; a copy that is
/// ahead of a row read after it is wrong; one that is behind is wrong only when a pass over the ledger that was begun after the
/// row was read has been taken over and the copy is still behind after <see cref="RedisGateReconcilerOptions.Patience"/>.</para>
/// <para>A repair never writes a number of its own: the row is read from the store and handed to the gate by version, as every
/// process of the gate does. Where a copy is ahead, versions can't be trusted, and a new epoch is begun. Each repair is logged.</para>
/// </remarks>
public sealed class RedisGateReconciler : IAsyncDisposable
{
    /// <summary>Most differences that a comparison lists; it counts all.</summary>
    public const int MostListed = 100;

    /// <summary>SKUs that are looked at again one by one in one comparison; those past it are counted as lagging, and looked at by the next.</summary>
    private const int MostSuspects = 100_000;

    private const int KeysAScan = 1_000;

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(100);

    /// <summary>The longest time that a gate's options allow: a reconciler never makes a gate forget a process.</summary>
    private static readonly TimeSpan s_forgetAfter = TimeSpan.FromDays(1);

    private readonly IStockEngine _store;
    private readonly RedisConnection _redis;
    private readonly RedisKey[] _keys;
    private readonly GateCopies _copies;
    private readonly RedisGateOptions _gate;
    private readonly RedisGateReconcilerOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _running = new(1);
    private Dictionary<string, DateTimeOffset> _since = new(StringComparer.Ordinal);

    private RedisGateReconciler(IStockEngine store, RedisConnection redis, RedisGateOptions gate, RedisGateReconcilerOptions options, TimeProvider clock, ILogger logger)
    {
        _store = store;
        _redis = redis;
        _keys = GateNode.KeysOf(gate);
        _copies = new(redis, _keys, gate);
        _gate = gate;
        _options = options;
        _clock = clock;
        _logger = logger;
    }

    /// <summary>The gate's Redis, for people: host and port, no password.</summary>
    public string Server => _redis.Server;

    /// <summary>Connects to a gate's Redis.</summary>
    /// <param name="store">The store behind the gate, or an engine around it; never the gate. It stays the caller's.</param>
    /// <param name="gate">Where the gate is: its Redis, its name, and how long a call may take. The rest is not looked at.</param>
    /// <param name="options">How fast it goes.</param>
    /// <param name="clock">The clock of waits and ages; the system's by default.</param>
    /// <param name="logger">Told of every repair; nobody by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="RedisStoreException">Redis can't be reached.</exception>
    public static async ValueTask<RedisGateReconciler> OpenAsync(
        IStockEngine store,
        RedisGateOptions gate,
        RedisGateReconcilerOptions? options = null,
        TimeProvider? clock = null,
        ILogger<RedisGateReconciler>? logger = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(store);
        ArgumentNullException.ThrowIfNull(gate);
        gate.Validate();
        options ??= new();
        options.Validate();
        clock ??= TimeProvider.System;
        var log = (ILogger?)logger ?? NullLogger.Instance;
        var redis = await RedisConnection.OpenAsync(gate.Redis, gate.CallTimeout, gate.MaxInFlight, clock, log, cancellationToken).ConfigureAwait(false);
        return new(store, redis, gate, options, clock, log);
    }

    /// <summary>Compares every copy with its row.</summary>
    /// <param name="repairs">Whether to repair what differs.</param>
    /// <param name="progress">Told how many SKUs were compared.</param>
    /// <param name="cancellationToken">Stops it; what was repaired by then stays repaired.</param>
    /// <exception cref="RedisStoreException">Redis does not answer.</exception>
    public async Task<GateComparison> RunAsync(bool repairs = false, IProgress<long>? progress = null, CancellationToken cancellationToken = default)
    {
        await _running.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var run = new Run(_clock.GetUtcNow());
            var began = _clock.GetTimestamp();
            var isOpen = (await ReadAsync([], cancellationToken).ConfigureAwait(false)).Epoch != 0;
            await ListAsync(run, progress, cancellationToken).ConfigureAwait(false);
            await ScanAsync(run, cancellationToken).ConfigureAwait(false);
            await SettleAsync(run, cancellationToken).ConfigureAwait(false);
            if (repairs && run.Differences.Count > 0)
            {
                await RepairAsync(run, cancellationToken).ConfigureAwait(false);
            }

            var status = GateStatus.Read(await _redis.RunAsync(GateScripts.Status, _keys, [1], cancellationToken).ConfigureAwait(false));
            var incidents = await FindOpenIncidentsAsync(cancellationToken).ConfigureAwait(false);

            // Only what still differs is remembered, so this never grows past one comparison's differences.
            _since = run.Differences.Where(static difference => !difference.IsRepaired).ToDictionary(static difference => difference.Sku, static difference => difference.Since, StringComparer.Ordinal);
            return new()
            {
                At = run.At,
                Duration = _clock.GetElapsedTime(began),
                IsOpen = isOpen,
                Skus = run.Same + run.Lagging + run.Unloaded + run.Differences.Count,
                Same = run.Same,
                Lagging = run.Lagging,
                Unloaded = run.Unloaded,
                Differing = run.Differences.Count,
                Repaired = run.Differences.Count(static difference => difference.IsRepaired),
                HasBegunEpoch = run.HasBegunEpoch,
                Units = run.Differences.Sum(static difference => difference.Units),
                OldestAge = _since.Count == 0 ? null : _clock.GetUtcNow() - _since.Values.Min(),
                Differences = [.. run.Differences.Take(MostListed)],
                Backlog = status.Backlog,
                BacklogAge = status.OldestAge,
                Pending = ReadTaken(status.Taken),
                OpenIncidents = incidents.Count,
                Incidents = [.. incidents.Take(MostListed)],
            };
        }
        finally
        {
            _running.Release();
        }
    }

    /// <summary>Closes the connection; the store stays open.</summary>
    public async ValueTask DisposeAsync()
    {
        await _redis.DisposeAsync().ConfigureAwait(false);
        _running.Dispose();
    }

    /// <summary>Incidents whose command is not in the store by now, and was not closed either.</summary>
    private async Task<List<GateIncident>> FindOpenIncidentsAsync(CancellationToken cancellationToken)
    {
        var open = new List<GateIncident>();
        var store = _store;
        while (store is DelegatingStockEngine layer)
        {
            store = layer.Inner;
        }

        if (store is IGateStore gates)
        {
            await foreach (var incident in gates.ReadIncidentsAsync(_gate.Name, cancellationToken).ConfigureAwait(false))
            {
                if (await _store.GetOperationAsync(incident.Command.Id, cancellationToken).ConfigureAwait(false) is null)
                {
                    open.Add(incident);
                }
            }
        }

        return open;
    }

    private static ImmutableArray<StockLine> ReadTaken(string[] taken)
    {
        var lines = ImmutableArray.CreateBuilder<StockLine>(taken.Length / 2);
        for (var i = 0; i + 1 < taken.Length; i += 2)
        {
            if (taken[i].Length > 0 && long.TryParse(taken[i + 1], CultureInfo.InvariantCulture, out var units))
            {
                lines.Add(new(taken[i], units));
            }
        }

        return lines.DrainToImmutable();
    }

    /// <summary>Every row of the store: its copy is the row, or not loaded, or has to be looked at closely.</summary>
    private async Task ListAsync(Run run, IProgress<long>? progress, CancellationToken cancellationToken)
    {
        string? after = null;
        while (true)
        {
            var page = new List<StockLevel>(_options.PageSize);
            await foreach (var row in _store.ListStockAsync(after: after, cancellationToken: cancellationToken).ConfigureAwait(false))
            {
                page.Add(row);
                if (page.Count == _options.PageSize)
                {
                    break;
                }
            }

            var read = await ReadAsync([.. page.Select(static row => row.Sku)], cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < page.Count; i++)
            {
                run.Listed.Add(page[i].Sku);
                if (read.Copies[i] is not { } copy)
                {
                    run.Unloaded++;
                }
                else if (copy.Compare(page[i]) == GateDifferenceKind.None)
                {
                    run.Same++;
                }
                else
                {
                    run.Suspect(page[i].Sku, MostSuspects);
                }
            }

            progress?.Report(run.Listed.Count);
            if (page.Count < _options.PageSize)
            {
                return;
            }

            after = page[^1].Sku;
            await PauseAsync(_options.PagePause, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Copies of SKUs that the store does not know, or has come to know since it was listed.</summary>
    private async Task ScanAsync(Run run, CancellationToken cancellationToken)
    {
        var at = "0";
        do
        {
            var page = (string[])await _redis.RunAsync(GateScripts.Scan, _keys, [at, KeysAScan], cancellationToken).ConfigureAwait(false);
            at = page[0];
            foreach (var sku in page.AsSpan(1))
            {
                // Copies of older epochs are as good as none; the close look tells. A key that is no SKU is nobody's copy.
                if (StockKey.Problem(sku) is null && run.Listed.Add(sku))
                {
                    run.Suspect(sku, MostSuspects);
                }
            }

            await PauseAsync(_options.PagePause, cancellationToken).ConfigureAwait(false);
        }
        while (at != "0");
    }

    /// <summary>Looks at suspects, again and again within the patience, each time first at the copy and then at the row.</summary>
    private async Task SettleAsync(Run run, CancellationToken cancellationToken)
    {
        var began = _clock.GetTimestamp();
        var awaited = new Dictionary<string, Awaited>(StringComparer.Ordinal);
        while (run.Suspects.Count > 0)
        {
            var isLast = _clock.GetElapsedTime(began) >= _options.Patience;
            foreach (var skus in run.Suspects.Chunk(GateCopies.MostRows))
            {
                await LookAsync(run, skus, awaited, isLast, cancellationToken).ConfigureAwait(false);
            }

            if (run.Suspects.Count > 0 && !isLast)
            {
                await PauseAsync(s_look, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task LookAsync(Run run, string[] skus, Dictionary<string, Awaited> awaited, bool isLast, CancellationToken cancellationToken)
    {
        var read = await ReadAsync(skus, cancellationToken).ConfigureAwait(false);
        var rows = await _store.GetStockAsync(skus, cancellationToken: cancellationToken).ConfigureAwait(false);
        var now = (await ReadAsync([], cancellationToken).ConfigureAwait(false)).Now;
        for (var i = 0; i < skus.Length; i++)
        {
            var sku = skus[i];
            if (read.Copies[i] is not { } copy)
            {
                run.Unloaded += rows[i].IsKnown ? 1 : 0;
                run.Suspects.Remove(sku);
                continue;
            }

            var kind = copy.Compare(rows[i]);
            if (kind == GateDifferenceKind.Missed)
            {
                ref var waiting = ref CollectionsMarshal.GetValueRefOrAddDefault(awaited, sku, out var isAwaited);
                if (isAwaited && copy.Version >= waiting.Version)
                {
                    // It has come to where the row was at first; the SKU is being sold, and the copy goes along.
                    run.Lagging++;
                    run.Suspects.Remove(sku);
                    continue;
                }

                if (!isAwaited)
                {
                    waiting = new(rows[i].Version, now, read.Epoch);
                }

                if (!isLast)
                {
                    continue;
                }

                if (waiting.Epoch != read.Epoch || read.Fresh < waiting.ReadBy)
                {
                    run.Lagging++;
                    run.Suspects.Remove(sku);
                    continue;
                }
            }

            run.Suspects.Remove(sku);
            if (kind == GateDifferenceKind.None)
            {
                run.Same++;
                continue;
            }

            run.Differences.Add(new()
            {
                Sku = sku,
                Kind = kind,
                Stored = rows[i],
                Version = copy.Version,
                Available = copy.Available,
                Reserved = copy.Reserved,
                Since = _since.GetValueOrDefault(sku, _clock.GetUtcNow()),
            });
        }
    }

    private async Task RepairAsync(Run run, CancellationToken cancellationToken)
    {
        if (run.Differences.Exists(static difference => difference.Kind == GateDifferenceKind.Ahead))
        {
            await BeginEpochAsync(cancellationToken).ConfigureAwait(false);
            run.HasBegunEpoch = true;
        }

        for (var from = 0; from < run.Differences.Count; from += GateCopies.MostRows)
        {
            var some = run.Differences.GetRange(from, Math.Min(GateCopies.MostRows, run.Differences.Count - from));
            string[] skus = [.. some.Select(static difference => difference.Sku)];
            if (!run.HasBegunEpoch)
            {
                var before = await ReadAsync([], cancellationToken).ConfigureAwait(false);
                var rows = await _store.GetStockAsync(skus, cancellationToken: cancellationToken).ConfigureAwait(false);
                await _copies.PushAsync(before.Epoch, [.. rows.Where(static row => row.IsKnown).Select(GateRow.Of)], before.Now, default, [], cancellationToken).ConfigureAwait(false);
            }

            // Whatever was done, only what is there afterwards counts.
            var after = await ReadAsync(skus, cancellationToken).ConfigureAwait(false);
            var truth = await _store.GetStockAsync(skus, cancellationToken: cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < some.Count; i++)
            {
                // A copy that is behind a row read after it may have been right when it was written: it has at least the version of the difference.
                var isRepaired = after.Copies[i] is not { } copy
                    || copy.Compare(truth[i]) is GateDifferenceKind.None
                    || (copy.Compare(truth[i]) is GateDifferenceKind.Missed && copy.Version >= some[i].Stored.Version && copy.Version != some[i].Version);
                run.Differences[from + i] = some[i] with { IsRepaired = isRepaired };
                Tell(run.Differences[from + i], run.HasBegunEpoch);
            }
        }
    }

    private void Tell(GateDifference difference, bool hasBegunEpoch)
    {
        var how = hasBegunEpoch ? "by a new epoch" : "by the store's row";
        if (difference.IsRepaired)
        {
            _logger.LogWarning(
                "Repaired the copy of {Sku} {How}: it was {Kind}, version {CopyVersion} with {CopyAvailable} available and {CopyReserved} reserved; the store has version {Version} with {Available} and {Reserved}.",
                difference.Sku, how, difference.Kind, difference.Version, difference.Available, difference.Reserved, difference.Stored.Version, difference.Stored.Available, difference.Stored.Reserved);
        }
        else
        {
            _logger.LogError("The copy of {Sku} could not be repaired {How}: it is still {Kind}.", difference.Sku, how, difference.Kind);
        }
    }

    /// <summary>Begins an epoch as a process does that finds the gate of another store: nothing that was loaded before counts any more.</summary>
    private async Task BeginEpochAsync(CancellationToken cancellationToken)
    {
        if ((string?)await _redis.CallAsync(["HGET", _keys[0], "ack"], cancellationToken).ConfigureAwait(false) == "gate")
        {
            // Only its processes may begin an epoch: they have to bring what was acknowledged to the store first. Without this mark the gate is closed.
            await _redis.CallAsync(["HDEL", (RedisKey)$"{{{_gate.Name}}}:gate:taken", ""], cancellationToken).ConfigureAwait(false);
            _logger.LogWarning("Closed the gate {Name} in {Server}: a copy was ahead of the store. Its processes bring what was acknowledged to the store and begin a new epoch.", _gate.Name, _redis.Server);
            return;
        }

        var gate = await ReadAsync([], cancellationToken).ConfigureAwait(false);
        var cursor = await RedisGate.FindEndAsync(_store, cancellationToken).ConfigureAwait(false);
        var name = string.Create(CultureInfo.InvariantCulture, $"reconciler-{Environment.ProcessId}-{Guid.NewGuid():N}");
        RedisValue[] Arguments(string heardUntil, int missed) =>
            [name, heardUntil, 0, (long)s_forgetAfter.TotalMilliseconds, gate.Epoch, cursor, 0, (long)_gate.Lease.TotalMilliseconds, missed, 2 * (long)_gate.Lease.TotalMilliseconds, gate.IdsEnd, "store"];

        await _redis.RunAsync(GateScripts.Tick, _keys, Arguments("0", missed: 3), cancellationToken).ConfigureAwait(false);
        _logger.LogWarning("Began a new epoch of the gate {Name} in {Server}: a copy was ahead of the store. The processes of the gate load the stock anew.", _gate.Name, _redis.Server);

        // It was heard like a process of the gate; nobody is to wait for it.
        await _redis.RunAsync(GateScripts.Tick, _keys, Arguments("-1", missed: 0), CancellationToken.None).ConfigureAwait(false);
    }

    private async Task<GateCopiesRead> ReadAsync(string[] skus, CancellationToken cancellationToken)
    {
        var read = GateCopiesRead.Read(await _redis.RunAsync(GateScripts.Compare, _keys, [.. skus.Take(GateCopies.MostRows).Select(static sku => (RedisValue)sku)], cancellationToken).ConfigureAwait(false));
        if (skus.Length <= GateCopies.MostRows)
        {
            return read;
        }

        var copies = new List<GateCopy?>(read.Copies);
        foreach (var chunk in skus[GateCopies.MostRows..].Chunk(GateCopies.MostRows))
        {
            copies.AddRange(GateCopiesRead.Read(await _redis.RunAsync(GateScripts.Compare, _keys, [.. chunk.Select(static sku => (RedisValue)sku)], cancellationToken).ConfigureAwait(false)).Copies);
        }

        return read with { Copies = [.. copies] };
    }

    private async Task PauseAsync(TimeSpan pause, CancellationToken cancellationToken)
    {
        if (pause > TimeSpan.Zero)
        {
            await Task.Delay(pause, _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A copy that was behind: the version it is to reach, and by when of Redis's time the row was read that has it.</summary>
    private readonly record struct Awaited(long Version, long ReadBy, long Epoch);

    /// <summary>What a comparison has counted so far.</summary>
    private sealed class Run(DateTimeOffset at)
    {
        public DateTimeOffset At { get; } = at;

        public long Same { get; set; }

        public long Lagging { get; set; }

        public long Unloaded { get; set; }

        public bool HasBegunEpoch { get; set; }

        /// <summary>SKUs that were met, so that a copy is not looked at twice. Grows with the number of SKUs.</summary>
        public HashSet<string> Listed { get; } = new(StringComparer.Ordinal);

        public HashSet<string> Suspects { get; } = new(StringComparer.Ordinal);

        public List<GateDifference> Differences { get; } = [];

        public void Suspect(string sku, int most)
        {
            if (Suspects.Count < most)
            {
                Suspects.Add(sku);
            }
            else
            {
                Lagging++;
            }
        }
    }
}
