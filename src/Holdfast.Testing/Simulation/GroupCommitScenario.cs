using Microsoft.Extensions.Logging;

namespace Holdfast.Testing;

/// <summary>
/// One or two nodes with group commit over one store. The store decides a call in one step, and keeps what it decided;
/// calls to it, and from callers to the nodes, are lost, late and broken; nodes and the store crash and pause.
/// </summary>
/// <param name="concurrentBatches">Calls of the store that a node may have under way at once.</param>
/// <param name="compose">
/// Makes a node's engine of the connection to the store and of what puts group commit around an engine: for tests of the
/// simulation itself, which plant bugs on either side.
/// </param>
internal sealed class GroupCommitScenario(int concurrentBatches, Func<IStockEngine, Func<IStockEngine, IStockEngine>, IStockEngine>? compose = null) : SimulationScenario
{
    /// <summary>How much later than it is due a timer may fire in a world of pauses.</summary>
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromSeconds(60);

    private readonly Dictionary<string, int> _idsUnderWay = new(StringComparer.Ordinal);
    private IStockEngine? _store;
    private StormWorkload _workload = StormWorkload.Hot("s-", 0);
    private string? _problem;

    public override string Name => concurrentBatches == 1 ? "group-commit" : "group-commit-concurrent";

    public override IStockEngine Truth => _store!;

    public override IReadOnlyCollection<string> Skus => [.. _workload.Skus];

    public override void Build(SimulatedWorld world)
    {
        var random = world.Random;
        _workload = StormWorkload.AllVerbs("s-", random.Next(), skus: random.Next(1, 5), ids: world.Pick(3, 10, 30));
        _store = world.NewMemory();
        var store = world.AddMortal("store");
        var options = new GroupCommitOptions
        {
            MaxConcurrentBatches = concurrentBatches,
            MaxBatchCommands = world.Pick(1, 2, 5, 100),
            MaxQueuedCommands = world.Pick(2, 20, 1_000),
            QueueTimeout = TimeSpan.FromMilliseconds(world.Pick(50, 2_000, 30_000)),
            CallTimeout = TimeSpan.FromMilliseconds(world.Pick(20, 500, 10_000)),
            RetryTimeout = TimeSpan.FromMilliseconds(world.Pick(0, 100, 3_000, 10_000)),
            RetryDelay = TimeSpan.FromMilliseconds(world.Pick(1, 20)),
            ShutdownTimeout = TimeSpan.FromMilliseconds(world.Pick(50, 5_000, 30_000)),
        };
        var nodes = Enumerable.Range(1, world.Pick(1, 1, 2)).Select(number => AddNode(world, $"node {number}", store, options)).ToArray();
        world.Run("opening", () => world.SendAsync(_store, _workload.Opening(random.Next(0, 40))));
        var largest = world.Pick(1, 3, 8);
        for (var i = random.Next(1, 7); i > 0; i--)
        {
            var (node, engine) = nodes[random.Next(nodes.Length)];
            world.AddCaller(process => new SimulatedConnection(process, node, engine, world.Faults), Batches(_workload.Commands(i).Take(random.Next(1, 16)), random, largest));
        }
    }

    public override ValueTask<string?> FindProblemAsync() => new(_problem);

    private (SimulatedProcess Node, Func<IStockEngine> Engine) AddNode(SimulatedWorld world, string name, SimulatedProcess store, GroupCommitOptions options)
    {
        var node = world.AddMortal(name);
        var ignoresTokens = world.Pick(true, false, false);
        var lives = 0;
        IStockEngine? engine = null;
        Start();
        node.OnStart(Start);
        if (world.Random.Next(3) == 0)
        {
            world.Scheduler.Post(node, "shuts down", TimeSpan.FromMilliseconds(world.Random.Next(0, world.Pick(10, 1_000))), () => _ = ShutDownAsync());
        }

        return (node, () => engine!);

        async Task ShutDownAsync()
        {
            // In good order, and up again: what it accepted is answered, and what comes meanwhile is Busy.
            var began = world.Scheduler.Clock.Ticks;
            try
            {
                await engine!.DisposeAsync().ConfigureAwait(false);
            }
            catch (Exception e)
            {
                _problem ??= $"{name} could not be shut down: {e}";
            }

            var took = TimeSpan.FromTicks(world.Scheduler.Clock.Ticks - began);
            world.Scheduler.Note(node, "is shut down");
            if (took > options.ShutdownTimeout + s_longestDelay)
            {
                _problem ??= $"{name} took {took} to shut down.";
            }

            Start();
        }

        void Start()
        {
            // What it had under way went with its memory; calls that are still at the store are of a time before.
            var life = $"{name}, life {++lives}";
            IStockEngine connection = new SimulatedConnection(node, store, () => _store!, world.Faults)
            {
                IsFenced = true,
                IgnoresTokens = ignoresTokens,
                OnCall = ignoresTokens ? null : (commands, begins) => Watch(life, commands, begins),
            };
            engine = compose is null ? Group(connection) : compose(connection, Group);

            GroupCommit Group(IStockEngine inner) => new(inner, options, world.Scheduler.Clock, new Critical(this));
        }
    }

    private static IEnumerable<IReadOnlyList<StockCommand>> Batches(IEnumerable<StockCommand> commands, Random random, int largest)
    {
        var batch = new List<StockCommand>();
        var size = random.Next(1, largest + 1);
        foreach (var command in commands)
        {
            batch.Add(command);
            if (batch.Count == size)
            {
                yield return batch;
                batch = [];
                size = random.Next(1, largest + 1);
            }
        }

        if (batch.Count > 0)
        {
            yield return batch;
        }
    }

    /// <summary>Two calls that a node waits for never share an id.</summary>
    private void Watch(string node, IReadOnlyList<StockCommand> commands, bool begins)
    {
        foreach (var id in commands.SelectMany(command => command.Target is null ? [command.Id] : new[] { command.Id, command.Target }).Distinct(StringComparer.Ordinal))
        {
            var key = $"{node}: {id}";
            var calls = _idsUnderWay.GetValueOrDefault(key) + (begins ? 1 : -1);
            _idsUnderWay[key] = Math.Max(calls, 0);
            if (calls > 1)
            {
                _problem ??= $"{node} had {calls} calls of the store under way with the id {id}.";
            }
        }
    }

    /// <summary>Group commit logs as critical what it could not answer by its own fault.</summary>
    private sealed class Critical(GroupCommitScenario scenario) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel == LogLevel.Critical;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (logLevel == LogLevel.Critical)
            {
                scenario._problem ??= $"{formatter(state, exception)} {exception}";
            }
        }
    }
}
