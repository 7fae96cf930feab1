using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.Ladder.Rungs;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// Two processes' gates over one PostgreSQL and one Redis, a sale of all verbs and one of carts, and each fault in the middle of it; whichever of
/// the two acknowledges. Nothing may be lost or applied twice, and everything must add up again within half a minute.
/// </summary>
internal static class GateFaultsRun
{
    public static readonly string[] All =
    [
        "redis-killed-no", "redis-killed-everysec", "redis-killed-always", "flushall", "script-flush", "old-snapshot", "stale-replica", "maxmemory", "wrong-types", "redis-paused",
        "node-killed", "persister-stopped", "postgres-down", "node-and-redis-lost",
    ];

    private static readonly TimeSpan s_healing = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_gap = TimeSpan.FromMilliseconds(700);

    /// <summary>Runs some of the faults, or all.</summary>
    /// <param name="faults">Their names.</param>
    /// <param name="acknowledge">Who acknowledges.</param>
    /// <param name="commands">Commands of each of 32 callers.</param>
    /// <param name="outage">How many seconds PostgreSQL is down, Redis paused and the persister stopped.</param>
    /// <param name="seed">What the commands hang on.</param>
    /// <param name="output">Where the report goes.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public static async Task<bool> RunAsync(IReadOnlyList<string> faults, GateAcknowledgement acknowledge, int commands, int outage, int seed, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            Text($"gate-faults: faults under the scheme cached, acknowledging after the {acknowledge.ToString().ToLowerInvariant()}"),
            Text($"two gates as two processes would be, one PostgreSQL, one Redis; 16 callers of all verbs, 16 of carts with repetitions, {commands} commands each; outages of {outage} s; seed {seed}"),
            "bounds: nothing acknowledged is lost or applied twice (but where Redis and the process are lost together: reported), audits of ledger and history pass, reconcile clean within 30 s");
        output.Line("fault                   acknowledged  by the gate  lost  twice  incidents  goes on after  reconciled after  audit");
        var all = new List<object>();
        var passed = true;
        foreach (var fault in faults)
        {
            var report = await RunAsync(fault, acknowledge, commands, outage, seed, cancellationToken).ConfigureAwait(false);
            passed &= report.Passed;
            all.Add(report);
            output.Line(Text(
                $"{report.Fault,-22}  {report.Acknowledged,12:#,##0}  {report.ByGate,11:#,##0}  {report.Lost,4}  {report.Twice,5}  {report.Incidents,9}  {report.GoesOnAfter,11:0.00} s  {report.ReconciledAfter,14:0.0} s  {report.Audit}"));
        }

        await output.FinishAsync(new { run = "gate-faults", acknowledge = acknowledge.ToString(), seed, faults = all, passed }).ConfigureAwait(false);
        return passed;
    }

    private static async Task<Report> RunAsync(string fault, GateAcknowledgement acknowledge, int commands, int outage, int seed, CancellationToken cancellationToken)
    {
        await using var stage = new Stage(fault, acknowledge, outage, cancellationToken);
        await stage.OpenAsync().ConfigureAwait(false);
        var options = new StormOptions { Callers = 16, CommandsPerCaller = commands, Patience = TimeSpan.FromSeconds(90 + (2 * outage)), RetryDelay = TimeSpan.FromMilliseconds(5), Truth = stage.Truth };
        var lossy = fault == "node-and-redis-lost" && acknowledge == GateAcknowledgement.Gate;

        // A loss that is expected is looked for by itself; the audit of the history would find nothing else.
        var everything = StormRunner.RunAsync(stage.Engine, StormWorkload.AllVerbs("s-", seed, skus: 6, ids: 20_000), options with { OpeningUnits = 300 }, cancellationToken);
        var crowd = StormRunner.RunAsync(stage.Engine, StormWorkload.Carts("c-", seed + 1, skus: 5, duplicates: 0.2), options with { OpeningUnits = 3_000 }, cancellationToken);
        var storms = Task.WhenAll(everything, crowd);
        var goesOn = 0.0;
        for (var i = 0; i < 3 && !storms.IsCompleted; i++)
        {
            await Task.WhenAny(storms, Task.Delay(s_gap, TimeProvider.System, cancellationToken)).ConfigureAwait(false);
            var began = Stopwatch.GetTimestamp();
            await stage.StrikeAsync(i).ConfigureAwait(false);
            var next = stage.NextAppliedAsync();
            if (await Task.WhenAny(storms, next).ConfigureAwait(false) == next)
            {
                goesOn = Math.Max(goesOn, Stopwatch.GetElapsedTime(began, await next.ConfigureAwait(false)).TotalSeconds);
            }
        }

        var reports = await storms.ConfigureAwait(false);
        var ended = Stopwatch.GetTimestamp();
        var clean = await stage.UntilReconciledAsync(s_healing).ConfigureAwait(false);
        var reconciled = Stopwatch.GetElapsedTime(ended).TotalSeconds;
        var (lost, twice) = await CountAsync(stage.Truth, [.. reports.SelectMany(static report => report.History.Events)], cancellationToken).ConfigureAwait(false);
        var difference = reports.Select(static report => report.Audit.FirstDifference ?? report.AnException?.Message).FirstOrDefault(static text => text is not null);
        var ledger = await LedgerAudit.RunAsync(stage.Truth, cancellationToken: cancellationToken).ConfigureAwait(false);
        var audit = !ledger.Passed ? $"FAIL: {ledger}" : difference is null ? "pass" : lossy ? "ledger passes; what was lost is missing in it" : $"FAIL: {difference}";
        return new(
            fault,
            reports.Sum(static report => report.Applied),
            stage.AcknowledgedByGate,
            lost,
            twice,
            stage.Incidents,
            goesOn,
            reconciled,
            clean ? audit : $"FAIL: not reconciled; {audit}",
            clean && ledger.Passed && twice == 0 && (lossy || (lost == 0 && difference is null)));
    }

    /// <summary>Acknowledged commands that the store does not know, and those that it has applied twice.</summary>
    private static async Task<(int Lost, int Twice)> CountAsync(IStockEngine truth, HistoryEvent[] events, CancellationToken cancellationToken)
    {
        var known = new Dictionary<string, StockVerb>(StringComparer.Ordinal);
        await foreach (var view in truth.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
        {
            known[view.Id] = view.Verb;
        }

        var lost = events
            .Where(static sent => sent.Result.IsApplied && !sent.Command.IsTransition)
            .Select(static sent => sent.Command)
            .DistinctBy(static command => command.Id)
            .Count(command => !known.TryGetValue(command.Id, out var verb) || verb != command.Verb);
        var seen = new HashSet<(string, string, FlowKind)>();
        var twice = 0;
        await foreach (var entry in truth.ReadFlowAsync(new(), cancellationToken).ConfigureAwait(false))
        {
            twice += seen.Add((entry.OperationId, entry.Sku, entry.Kind)) ? 0 : 1;
        }

        return (lost, twice);
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private sealed record Report(string Fault, long Acknowledged, long ByGate, int Lost, int Twice, long Incidents, double GoesOnAfter, double ReconciledAfter, string Audit, bool Passed);

    /// <summary>The servers and the gates of one fault.</summary>
    private sealed class Stage(string fault, GateAcknowledgement acknowledge, int outage, CancellationToken cancellationToken) : IAsyncDisposable
    {
        private static readonly string[] s_failpoints = ["read", "executed", "reported", "looked", "settled"];

        private readonly List<RedisGate> _gone = [];
        private readonly Nodes _nodes = new();
        private PostgreSqlServer _database = null!;
        private PostgreSqlEngine _store = null!;
        private GroupCommit _batched = null!;
        private RedisServer _redis = null!;
        private RedisServer? _replica;
        private Resumption _resumption = null!;

        public IStockEngine Engine => _resumption;

        /// <summary>Reads of the store that wait for what the gate has acknowledged.</summary>
        public IStockEngine Truth => field ??= new SettledStore(_batched, this);

        public long AcknowledgedByGate => _gone.Concat(_nodes.Gates).Distinct().Sum(static gate => gate.Counts.Acknowledged);

        public long Incidents => _gone.Concat(_nodes.Gates).Distinct().Sum(static gate => gate.Counts.Incidents);

        public async Task OpenAsync()
        {
            _database = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
            string[] settings = fault switch
            {
                "redis-killed-no" => ["appendfsync no"],
                "redis-killed-always" => ["appendfsync always"],
                "old-snapshot" => ["appendonly no", "save 3600 1"],
                _ => [],
            };
            _redis = await RedisServer.StartAsync(settings).ConfigureAwait(false);
            if (fault == "stale-replica")
            {
                _replica = await _redis.StartReplicaAsync().ConfigureAwait(false);
            }

            _store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = _database.ConnectionString, StatementTimeout = TimeSpan.FromSeconds(5) }, cancellationToken: cancellationToken).ConfigureAwait(false);
            _batched = new GroupCommit(_store);
            _nodes.Gates = [await OpenGateAsync().ConfigureAwait(false), await OpenGateAsync().ConfigureAwait(false)];
            _resumption = new(_nodes);
            await UntilSureAsync().ConfigureAwait(false);
        }

        public async Task<long> NextAppliedAsync() => await _resumption.NextAsync(cancellationToken).ConfigureAwait(false);

        public async Task StrikeAsync(int number)
        {
            switch (fault)
            {
                case "flushall":
                    await _redis.CliAsync("FLUSHALL").ConfigureAwait(false);
                    break;
                case "script-flush":
                    await _redis.CliAsync("SCRIPT", "FLUSH").ConfigureAwait(false);
                    break;
                case "old-snapshot":
                    await _redis.CliAsync("SAVE").ConfigureAwait(false);
                    await PauseAsync(0.5).ConfigureAwait(false);
                    await _redis.RestartAsync().ConfigureAwait(false);
                    break;
                case "stale-replica" when number == 0:
                    await _replica!.PauseAsync().ConfigureAwait(false);
                    await PauseAsync(0.7).ConfigureAwait(false);
                    await _redis.KillAsync().ConfigureAwait(false);
                    await _replica.ResumeAsync().ConfigureAwait(false);
                    await _replica.CliAsync("REPLICAOF", "NO", "ONE").ConfigureAwait(false);
                    break;
                case "maxmemory":
                    await _redis.CliAsync("CONFIG", "SET", "maxmemory", "1mb").ConfigureAwait(false);
                    await PauseAsync(1).ConfigureAwait(false);
                    await _redis.CliAsync("CONFIG", "SET", "maxmemory", "0").ConfigureAwait(false);
                    break;
                case "wrong-types":
                    string[] keys = ["gate", "gate:nodes", "gate:ids", "gate:s:s-sku0", "gate:stream", "gate:taken"];
                    foreach (var key in number == 0 ? keys : [keys[number + 3]])
                    {
                        await _redis.CliAsync("DEL", $"{{holdfast}}:{key}").ConfigureAwait(false);
                        await _redis.CliAsync("RPUSH", $"{{holdfast}}:{key}", "nonsense").ConfigureAwait(false);
                    }

                    break;
                case "redis-paused" when number == 0:
                    await _redis.PauseAsync().ConfigureAwait(false);
                    await PauseAsync(outage).ConfigureAwait(false);
                    await _redis.ResumeAsync().ConfigureAwait(false);
                    break;
                case "node-killed":
                    foreach (var failpoint in acknowledge == GateAcknowledgement.Gate ? s_failpoints : [""])
                    {
                        await KillNodeAsync(failpoint).ConfigureAwait(false);
                    }

                    break;
                case "persister-stopped" when number == 0 && acknowledge == GateAcknowledgement.Gate:
                    Array.ForEach(_nodes.Gates, static gate => gate.Sale!.Persister.IsPaused = true);
                    await PauseAsync(outage).ConfigureAwait(false);
                    Array.ForEach(_nodes.Gates, static gate => gate.Sale!.Persister.IsPaused = false);
                    break;
                case "postgres-down" when number == 0:
                    await _database.KillAsync().ConfigureAwait(false);
                    await PauseAsync(outage).ConfigureAwait(false);
                    await _database.StartAsync().ConfigureAwait(false);
                    break;
                case "node-and-redis-lost" when number == 0:
                    await _redis.PauseAsync().ConfigureAwait(false);
                    var lost = _nodes.Gates[0];
                    _nodes.Gates = [_nodes.Gates[1], _nodes.Gates[1]];
                    await lost.AbandonAsync().ConfigureAwait(false);
                    _gone.Add(lost);
                    await _redis.KillAsync().ConfigureAwait(false);
                    await _redis.StartAsync().ConfigureAwait(false);
                    await _redis.CliAsync("FLUSHALL").ConfigureAwait(false);
                    _nodes.Gates = [await OpenGateAsync().ConfigureAwait(false), _nodes.Gates[1]];
                    break;
                case var _ when fault.StartsWith("redis-killed", StringComparison.Ordinal):
                    await _redis.RestartAsync().ConfigureAwait(false);
                    break;
            }
        }

        /// <summary>Waits until the store has what was acknowledged.</summary>
        public async Task SettleAsync()
        {
            for (var began = Stopwatch.GetTimestamp(); ;)
            {
                try
                {
                    await _nodes.Gates[1].SettleAsync(cancellationToken).ConfigureAwait(false);
                    return;
                }
                catch (Exception e) when (e is RedisStoreException or ObjectDisposedException && Stopwatch.GetElapsedTime(began) < TimeSpan.FromSeconds(60 + outage))
                {
                    await PauseAsync(0.05).ConfigureAwait(false);
                }
            }
        }

        /// <summary>Waits until gate, stream and store agree.</summary>
        public async Task<bool> UntilReconciledAsync(TimeSpan bound)
        {
            var began = Stopwatch.GetTimestamp();
            while (true)
            {
                try
                {
                    var gate = _nodes.Gates[1];
                    if (gate.IsSure)
                    {
                        await gate.SettleAsync(cancellationToken).ConfigureAwait(false);
                        var reconciler = await gate.OpenReconcilerAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
                        await using var disposing = reconciler.ConfigureAwait(false);
                        if (await reconciler.RunAsync(cancellationToken: cancellationToken).ConfigureAwait(false) is { IsOpen: true, IsClean: true, Lagging: 0, Backlog: 0 })
                        {
                            return true;
                        }
                    }
                }
                catch (Exception e) when (e is RedisStoreException or PostgreSqlStoreException)
                {
                    // Not healed yet.
                }

                if (Stopwatch.GetElapsedTime(began) > bound)
                {
                    return false;
                }

                await PauseAsync(0.05).ConfigureAwait(false);
            }
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var gate in _nodes.Gates)
            {
                await gate.DisposeAsync().ConfigureAwait(false);
            }

            if (_batched is not null)
            {
                await _batched.DisposeAsync().ConfigureAwait(false);
            }

            foreach (var server in (IAsyncDisposable?[])[_replica, _redis, _database])
            {
                if (server is not null)
                {
                    await server.DisposeAsync().ConfigureAwait(false);
                }
            }
        }

        /// <summary>Ends a node as if it were killed, in acknowledging mode when its persister stands at a place; another takes its part.</summary>
        private async Task KillNodeAsync(string failpoint)
        {
            var node = _nodes.Gates[0];
            if (node.Sale is { } sale)
            {
                var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                sale.Persister.Failpoint = place =>
                {
                    if (place != failpoint)
                    {
                        return Task.CompletedTask;
                    }

                    reached.TrySetResult();
                    throw new InvalidOperationException($"The node is gone at '{place}'.");
                };

                // It gets there only if it is the one that takes the stream to the store.
                await Task.WhenAny(reached.Task, Task.Delay(TimeSpan.FromMilliseconds(300), TimeProvider.System, cancellationToken)).ConfigureAwait(false);
            }

            // Buyers are sent to the others; what it was at is left where it stands.
            _nodes.Gates = [_nodes.Gates[1], _nodes.Gates[1]];
            await node.AbandonAsync().ConfigureAwait(false);
            _gone.Add(node);
            _nodes.Gates = [_nodes.Gates[1], await OpenGateAsync().ConfigureAwait(false)];
        }

        private async Task<RedisGate> OpenGateAsync()
        {
            var servers = _replica is null ? _redis.Configuration : $"{_redis.Configuration},{_replica.Configuration}";
            var options = new RedisGateOptions
            {
                Redis = servers,
                Acknowledge = acknowledge,
                Lease = TimeSpan.FromMilliseconds(300),
                FollowInterval = TimeSpan.FromMilliseconds(20),
                ForgetAfter = TimeSpan.FromSeconds(3),
                StoreLease = fault == "postgres-down" ? TimeSpan.FromSeconds(outage + 5) : TimeSpan.FromSeconds(3),
                MaxBacklog = fault is "postgres-down" or "persister-stopped" ? 5_000 : 100_000,
                IdBits = 22,
            };
            for (var tries = 0; ; tries++)
            {
                try
                {
                    return await RedisGate.OpenAsync(new GateRungs.KeptOpen(_batched), options, cancellationToken: cancellationToken).ConfigureAwait(false);
                }
                catch (RedisStoreException) when (tries < 100)
                {
                    await PauseAsync(0.1).ConfigureAwait(false);
                }
            }
        }

        private async Task UntilSureAsync()
        {
            while (!Array.TrueForAll(_nodes.Gates, static gate => gate.IsSure))
            {
                await PauseAsync(0.01).ConfigureAwait(false);
            }
        }

        private Task PauseAsync(double seconds) => Task.Delay(TimeSpan.FromSeconds(seconds), TimeProvider.System, cancellationToken);
    }

    /// <summary>Sends calls to the gates in turn, as a load balancer does.</summary>
    private sealed class Nodes : IStockEngine
    {
        private int _calls;

        public RedisGate[] Gates { get => Volatile.Read(ref field); set => Volatile.Write(ref field, value); } = [];

        public StockTraits Traits => Gates[0].Traits;

        public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            Gates[Interlocked.Increment(ref _calls) & 1].ExecuteAsync(commands, cancellationToken);

        public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private static NotSupportedException Unused() => new("Buyers only buy; the audit reads the store.");
    }

    /// <summary>The store itself, read when it has what a gate had acknowledged before; which of them is there then may change meanwhile.</summary>
    private sealed class SettledStore(IStockEngine store, Stage stage) : DelegatingStockEngine(store)
    {
        public override async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
        {
            await stage.SettleAsync().ConfigureAwait(false);
            return await base.GetStockAsync(skus, options, cancellationToken).ConfigureAwait(false);
        }

        public override async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
        {
            await stage.SettleAsync().ConfigureAwait(false);
            await foreach (var level in base.ListStockAsync(prefix, after, cancellationToken).ConfigureAwait(false))
            {
                yield return level;
            }
        }
    }
}
