using Holdfast.Cli.Bench;

namespace Holdfast.Cli.Compare;

/// <summary>What is measured, and how long.</summary>
internal sealed record CompareOptions
{
    public required IReadOnlyList<ComparedScheme> Schemes { get; init; }

    public required IReadOnlyList<string> Workloads { get; init; }

    public required int Callers { get; init; }

    public required int Seconds { get; init; }

    public required int Seed { get; init; }

    /// <summary>The command that measures it again.</summary>
    public required string Command { get; init; }
}

/// <summary>
/// Measures every scheme under every workload, each on a store of its own, and audits each store afterwards. One after the
/// other: nothing else of the comparison runs meanwhile.
/// </summary>
internal sealed class CompareRun(Terminal terminal, CompareOptions options, CompareServers servers)
{
    private static readonly TimeSpan s_warmUp = TimeSpan.FromSeconds(1);

    /// <summary>Latency is measured with so much of the capacity offered.</summary>
    private static readonly double[] s_shares = [0.5, 0.75, 0.9];

    /// <summary>Of these workloads the latency is measured; under the others a scheme's answers differ in kind, and so would their latencies.</summary>
    private static readonly string[] s_openLoops = ["hot", "zipf", "carts-10"];

    /// <summary>The workload and the numbers of callers of the curve that says what a crowd costs.</summary>
    private const string CurveWorkload = "hot";

    private static readonly int[] s_curve = [1, 8, 64, 1_024];

    /// <summary>So many seconds at least: pgbench's clients take a while to connect.</summary>
    private const int ShortestBaseline = 3;

    /// <summary>Runs all of it. Cancelled, it ends with what was measured until then.</summary>
    public async Task<CompareReport> RunAsync(CancellationToken cancellationToken)
    {
        var began = terminal.Time.GetUtcNow();
        var started = terminal.Time.GetTimestamp();
        var rows = new List<CompareRow>();
        var baselines = new List<CompareBaseline>();
        var able = options.Schemes.Where(scheme => servers.Missing(scheme.Needs) is null).ToList();
        var (done, all) = (0, able.Count * options.Workloads.Count);
        var isCutShort = false;
        try
        {
            foreach (var scheme in options.Schemes)
            {
                rows.Add(await MeasureAsync(scheme, cells => Progress(scheme, cells), cancellationToken).ConfigureAwait(false));
            }

            await MeasureBaselinesAsync(baselines, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            isCutShort = true;
        }

        return new()
        {
            Began = began,
            Minutes = Math.Round(terminal.Time.GetElapsedTime(started).TotalMinutes, 1),
            Command = options.Command,
            Machine = MachineText.Describe(),
            Servers = servers.Descriptions,
            Callers = options.Callers,
            Seconds = options.Seconds,
            Seed = options.Seed,
            Workloads = [.. options.Workloads.Select(name => new ComparedWorkload(name, Workload.Of(name, "", options.Seed).Meaning))],
            Rows = rows,
            Baselines = baselines,
            IsCutShort = isCutShort,
        };

        void Progress(ComparedScheme scheme, CompareCell cell)
        {
            done++;
            var elapsed = terminal.Time.GetElapsedTime(started);
            var left = elapsed / done * (all - done);
            terminal.Note($"[{done}/{all}] {scheme.Name} × {cell.Workload}: {(cell.Closed is { } closed ? $"{closed.AcceptedPerSecond:#,##0} accepted/s, {closed.RefusedPerSecond:#,##0} refused/s, p99 {closed.P99Ms:0.0} ms, " : "")}audit {cell.Audit}; about {Math.Ceiling(left.TotalMinutes):0} min left");
        }
    }

    private async Task<CompareRow> MeasureAsync(ComparedScheme scheme, Action<CompareCell> progress, CancellationToken cancellationToken)
    {
        if (servers.Missing(scheme.Needs) is { } missing)
        {
            terminal.Note($"{scheme.Name}: not measured, {missing}");
            return new() { Name = scheme.Name, Meaning = scheme.Meaning, NotMeasured = missing, Cells = [] };
        }

        var cells = new List<CompareCell>();
        string? traits = null, durability = null;
        foreach (var workload in options.Workloads)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var folder = Directory.CreateTempSubdirectory("holdfast-compare-").FullName;
            try
            {
                var choice = await scheme.ChooseAsync(servers, folder).ConfigureAwait(false);
                var deployment = await Deployment.OpenAsync(choice, cancellationToken).ConfigureAwait(false);
                await using (deployment.ConfigureAwait(false))
                {
                    (traits, durability) = (deployment.Engine.Traits.ToString(), deployment.Durability);
                    cells.Add(await MeasureAsync(deployment.Engine, workload, cancellationToken).ConfigureAwait(false));
                }
            }
            finally
            {
                Directory.Delete(folder, recursive: true);
            }

            await servers.ClearAsync().ConfigureAwait(false);
            progress(cells[^1]);
        }

        return new() { Name = scheme.Name, Meaning = scheme.Meaning, Traits = traits, Durability = durability, Cells = cells };
    }

    private async Task<CompareCell> MeasureAsync(IStockEngine engine, string workload, CancellationToken cancellationToken)
    {
        var counts = new List<LoadCount>();
        var duration = TimeSpan.FromSeconds(options.Seconds);
        var closed = await LoadAsync(new(options.Callers, s_warmUp, duration)).ConfigureAwait(false);
        var open = new List<CompareFigures>();
        if (s_openLoops.Contains(workload) && closed.AnsweredPerSecond > 0)
        {
            foreach (var share in s_shares)
            {
                open.Add(await LoadAsync(new(options.Callers, s_warmUp / 2, duration, share * closed.AnsweredPerSecond), share).ConfigureAwait(false));
            }
        }

        var curve = new List<CompareFigures>();
        if (workload == CurveWorkload)
        {
            foreach (var callers in s_curve.Append(options.Callers).Distinct().Order())
            {
                curve.Add(callers == options.Callers ? closed : await LoadAsync(new(callers, s_warmUp / 2, duration)).ConfigureAwait(false));
            }
        }

        var audit = await LoadAudit.RunAsync(terminal, engine, counts, cancellationToken).ConfigureAwait(false);
        return audit == "pass"
            ? new() { Workload = workload, Closed = closed, Open = open, Callers = curve, Audit = audit }
            : new() { Workload = workload, Open = [], Callers = [], Audit = audit };

        async Task<CompareFigures> LoadAsync(Load load, double? share = null)
        {
            // SKUs and ids of its own, so that a load finds its stock as the first one did.
            var orders = Workload.Of(workload, $"{RunName.New(terminal.Time)}{counts.Count}", options.Seed);
            await EngineLoad.OpenAsync(engine, orders, orders.UnitsFor(load.Callers), terminal.Time, cancellationToken).ConfigureAwait(false);
            var result = await LoadGenerator.RunAsync(load, EngineLoad.Callers(engine, orders), terminal.Time, cancellationToken: cancellationToken).ConfigureAwait(false);
            counts.Add(new(orders.Run + "-", result.AllAccepted, result.AllUnknown));
            cancellationToken.ThrowIfCancellationRequested();
            return CompareFigures.Of(load, result, share);
        }
    }

    /// <summary>The load generators of PostgreSQL and Redis, on servers of the comparison's own.</summary>
    private async Task MeasureBaselinesAsync(List<CompareBaseline> baselines, CancellationToken cancellationToken)
    {
        if (servers.OwnPostgreSql is { } postgres)
        {
            terminal.Note("pgbench with the article's transaction");
            foreach (var clients in (int[])[8, 64])
            {
                var measured = await PgBench.RunAsync(postgres, clients, Math.Max(options.Seconds, ShortestBaseline), cancellationToken).ConfigureAwait(false);
                baselines.Add(new($"pgbench, {clients} clients", "the article's transaction on one hot SKU: a conditional update and a ledger row, prepared; no ids, no duplicates", measured.PerSecond, measured.Detail, measured.Audit ?? "pass"));
            }
        }

        if (servers.OwnsRedis)
        {
            terminal.Note("redis-benchmark with a one-deduction script");
            var measured = await RedisBenchmark.DeductAsync(isMinimal: false, "everysec", new(50, TimeSpan.Zero, TimeSpan.FromSeconds(options.Seconds)), cancellationToken).ConfigureAwait(false);
            baselines.Add(new("redis-benchmark -P 16 -c 50", "one deduction a call in Lua on one hot SKU: duplicate marker, stock check, balance, version, ledger entry", measured.PerSecond, measured.Detail, measured.Audit ?? "pass"));
        }
    }
}
