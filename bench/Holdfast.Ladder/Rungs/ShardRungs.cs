using System.Diagnostics.Metrics;
using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>Several shards as one, against one of them.</summary>
internal static class ShardRungs
{
    private const int Shards = 4;

    /// <summary>
    /// How fast several are depends on how evenly the popular SKUs fall on them, which is luck with names. With these the
    /// fullest of four has 27.4 % of the zipf load, so that it is the layer that is measured: 3.65 is the most there can be.
    /// </summary>
    private const string EvenNames = "even2";

    public static Rung Scale(RungOptions options) => new()
    {
        Name = "shards-scale",
        Question = "single lines over 10,000 SKUs, zipf 0.99: 4 shards against one store, each a memory engine under group commit that gets through 5,000 commands a second",
        SubjectName = "4 shards",
        BaselineName = "one store",
        Bound = 3.5,
        Settings = [options.Describe(), $"SKUs named {EvenNames}-00000 and on, of which the fullest shard has 27.4 % of the load: the most there can be is 3.65"],
        Subject = cancellationToken => MeasureAsync(new Sharding([.. Enumerable.Range(0, Shards).Select(_ => Limited())]), "zipf", EvenNames, options, cancellationToken),
        Baseline = cancellationToken => MeasureAsync(Limited(), "zipf", EvenNames, options, cancellationToken),
    };

    public static Rung Carts(RungOptions options) => InMemory("shards-carts", "carts of 5 lines over 10,000 SKUs, zipf 0.99: 4 shards against one store", options, new CartLoad(10_000, Units: 1_000_000_000));

    public static Rung Contention(RungOptions options) => InMemory("shards-contention", "carts of 5 lines over 8 SKUs that run short, restocked as they are sold: 4 shards against one store", options, new CartLoad(8, Units: 2_000));

    /// <summary>The true figure: servers that share this machine's cores, and its disk.</summary>
    public static async Task<bool> PostgreSqlAsync(string workload, RungOptions options, Output output, CancellationToken cancellationToken)
    {
        var databases = new List<BenchDatabase>();
        try
        {
            for (var shard = 0; shard < Shards; shard++)
            {
                databases.Add(await BenchDatabase.StartAsync("shared_buffers=128MB").ConfigureAwait(false));
            }

            var load = workload == "carts" ? new CartLoad(10_000, Units: 1_000_000_000) : null;
            return await Pairs.RunAsync(
                new()
                {
                    Name = $"shards-postgres{(load is null ? "" : "-carts")}",
                    Question = $"{(load is null ? "single lines" : "carts of 5 lines")} over 10,000 SKUs, zipf 0.99: 4 PostgreSQL servers on this machine against one of them",
                    SubjectName = "4 servers",
                    BaselineName = "one server",
                    Bound = 0,
                    Settings = [options.Describe(), databases[0].Description],
                    Subject = token => OnServersAsync(databases, load, options, token),
                    Baseline = token => OnServersAsync(databases[..1], load, options, token),
                },
                options.Pairs,
                output,
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            foreach (var database in databases)
            {
                await database.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private static Rung InMemory(string name, string question, RungOptions options, CartLoad load) => new()
    {
        Name = name,
        Question = question + ", memory engines under group commit",
        SubjectName = "4 shards",
        BaselineName = "one store",
        Bound = 0,
        Settings = [options.Describe()],
        Subject = token => CartsAsync(new Sharding([.. Enumerable.Range(0, Shards).Select(_ => new GroupCommit(new MemoryEngine()))]), load, options, token),
        Baseline = token => CartsAsync(new GroupCommit(new MemoryEngine()), load, options, token),
    };

    private static async Task<Measured> OnServersAsync(List<BenchDatabase> databases, CartLoad? load, RungOptions options, CancellationToken cancellationToken)
    {
        var stores = new List<BenchStore>();
        try
        {
            foreach (var database in databases)
            {
                stores.Add(await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false));
            }

            IStockEngine engine = stores.Count == 1 ? stores[0].Engine : new Sharding([.. stores.Select(store => new Kept(store.Engine))]);
            var kept = new Kept(engine);
            return load is null
                ? await MeasureAsync(kept, "zipf", EvenNames, options, cancellationToken).ConfigureAwait(false)
                : await CartsAsync(kept, load, options, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            foreach (var store in stores)
            {
                await store.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private static GroupCommit Limited() => new GroupCommit(new TokenBucket(new MemoryEngine(), commandsPerSecond: 5_000), new() { MaxBatchCommands = 250 });

    private static async Task<Measured> MeasureAsync(IStockEngine engine, string workloadName, string run, RungOptions options, CancellationToken cancellationToken)
    {
        await using (engine.ConfigureAwait(false))
        {
            var workload = Workload.Of(workloadName, run, seed: 1);
            await EngineLoad.OpenAsync(engine, workload, 1_000_000_000, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            var result = await LoadGenerator.RunAsync(options.Load, EngineLoad.Callers(engine, workload), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
            return EngineMeasure.Describe(result, await LoadAudit.RunAsync(options.Terminal, engine, workload, result, cancellationToken).ConfigureAwait(false));
        }
    }

    private static async Task<Measured> CartsAsync(IStockEngine engine, CartLoad load, RungOptions options, CancellationToken cancellationToken)
    {
        await using (engine.ConfigureAwait(false))
        {
            using var attempts = new Attempts();
            await load.OpenAsync(engine).ConfigureAwait(false);
            var result = await LoadGenerator.RunAsync(options.Load, load.Callers(engine), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
            var audit = await LoadAudit.LedgerAsync(options.Terminal, engine, cancellationToken).ConfigureAwait(false);
            var measured = EngineMeasure.Describe(result, audit);
            return attempts.Begun == 0 ? measured : measured with { Detail = $"{measured.Detail}; {attempts.Begun:#,##0} attempts over several shards, {100.0 * attempts.Aborted / attempts.Begun:0.00} % of them let go" };
        }
    }

    /// <summary>Carts of five lines, by zipf's law. What is sold is restocked now and then, so that a short supply stays short and does not end.</summary>
    private sealed record CartLoad(int Skus, long Units)
    {
        private const int RestockEvery = 20;

        private readonly string[] _skus = [.. Enumerable.Range(0, Skus).Select(i => $"{EvenNames}-{i:d5}")];
        private readonly Holdfast.Testing.Zipf _zipf = new(Skus);

        public async Task OpenAsync(IStockEngine engine)
        {
            foreach (var (skus, i) in _skus.Chunk(StockLimits.MaxLines).Select((skus, i) => (skus, i)))
            {
                var result = await engine.RestockAsync($"opening-{i}", [.. skus.Select(sku => new StockLine(sku, Units))]).ConfigureAwait(false);
                if (!result.IsApplied)
                {
                    throw new InvalidOperationException($"The opening stock was answered {result}.");
                }
            }
        }

        public Func<int, Func<ValueTask<LoadAnswer>>> Callers(IStockEngine engine) => number =>
        {
            var random = new Random(number);
            var index = 0L;
            return async () =>
            {
                var id = $"{number:x}-{index++:x8}";
                var lines = new StockLine[5];
                for (var i = 0; i < lines.Length; i++)
                {
                    lines[i] = new(_skus[_zipf.Next(random)], 1);
                }

                var result = await engine.DeductAsync(id, lines).ConfigureAwait(false);
                if (Units < 1_000_000 && index % RestockEvery == 0)
                {
                    await engine.RestockAsync($"r{id}", [.. lines.Select(line => line with { Quantity = RestockEvery })]).ConfigureAwait(false);
                }

                return EngineLoad.AnswerOf(result);
            };
        };
    }

    /// <summary>Lets so many commands through a second, in calls of any size.</summary>
    private sealed class TokenBucket(IStockEngine inner, int commandsPerSecond) : DelegatingStockEngine(inner)
    {
        private readonly long _started = TimeProvider.System.GetTimestamp();
        private double _paidUntil;

        /// <summary>Under group commit, so one call at a time.</summary>
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var now = TimeProvider.System.GetElapsedTime(_started).TotalSeconds;

            // A call that comes a little late, because timers are coarse, does not lose what it could have had.
            _paidUntil = Math.Max(_paidUntil, now - 0.1) + ((double)commands.Count / commandsPerSecond);
            if (_paidUntil > now)
            {
                await Task.Delay(TimeSpan.FromSeconds(_paidUntil - now), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            }

            return await base.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>An engine that is disposed by whoever made it.</summary>
    private sealed class Kept(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private readonly bool _isKept = true;

        public override ValueTask DisposeAsync() => _isKept ? ValueTask.CompletedTask : base.DisposeAsync();
    }

    /// <summary>Counts what the layer says of its attempts.</summary>
    private sealed class Attempts : IDisposable
    {
        private readonly MeterListener _listener = new();
        private long _begun, _aborted;

        public Attempts()
        {
            _listener.InstrumentPublished = static (instrument, listener) =>
            {
                if (instrument.Name is "holdfast.sharding.attempts" or "holdfast.sharding.aborts")
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            };
            _listener.SetMeasurementEventCallback<long>((instrument, count, _, _) => Interlocked.Add(ref instrument.Name.EndsWith("attempts", StringComparison.Ordinal) ? ref _begun : ref _aborted, count));
            _listener.Start();
        }

        public long Begun => Interlocked.Read(ref _begun);

        public long Aborted => Interlocked.Read(ref _aborted);

        public void Dispose() => _listener.Dispose();
    }
}
