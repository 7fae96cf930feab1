using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast.Testing;

/// <summary>
/// One to three nodes, each with the sharding layer over the same two to four shards, alone or under group commit; all of
/// them crash, pause and lose each other's messages. In the end every cart must be whole or absent, and nothing held.
/// </summary>
/// <param name="plant">Puts something between a node's layer and its connection to a shard: a bug, for tests of the simulation itself.</param>
internal sealed class ShardingScenario(Func<ShardConnection, IStockEngine>? plant = null) : SimulationScenario
{
    /// <summary>By then recovery has settled everything, however slow the messages.</summary>
    private static readonly TimeSpan s_recovery = TimeSpan.FromMinutes(2);

    private readonly List<SimulatedProcess> _nodes = [];
    private SimulatedWorld? _world;
    private IStockEngine[] _shards = [];
    private IStockEngine? _truth;
    private CartWorkload? _workload;
    private bool _isFenced;

    public override string Name => "sharding";

    public override IStockEngine Truth => _truth!;

    public override IReadOnlyCollection<string> Skus => [.. _workload!.Skus];

    public override TimeSpan Settling => TimeSpan.FromSeconds(5);

    public override void Build(SimulatedWorld world)
    {
        var random = world.Random;
        _world = world;
        var isFenced = world.Pick(true, false);
        _workload = new(random.Next(), skus: random.Next(2, 7), ids: world.Pick(2, 5, 20), longest: random.Next(2, 6));
        _shards = [.. Enumerable.Range(0, random.Next(2, 5)).Select(_ => (IStockEngine)world.NewMemory())];
        _truth = world.NewSharding(_shards);
        var shards = _shards.Select((_, number) => world.AddMortal($"shard {number}")).ToArray();
        var options = new ShardingOptions
        {
            DecideTimeout = TimeSpan.FromMilliseconds(world.Pick(20, 1_000, 10_000)),
            CallTimeout = TimeSpan.FromMilliseconds(world.Pick(20, 1_000, 10_000)),
            RetryDelay = TimeSpan.FromMilliseconds(world.Pick(1, 2, 20)),
            RecoverAfter = TimeSpan.FromMilliseconds(world.Pick(1, 300, 3_000)),
            RecoverInterval = TimeSpan.FromMilliseconds(world.Pick(300, 1_000)),
        };
        var groups = world.Pick(true, false);

        // Group commit sends again what ended in doubt, and so needs a store whose late calls are harmless.
        _isFenced = isFenced || groups;
        var nodes = Enumerable.Range(1, random.Next(1, 4)).Select(number => AddNode(string.Create(CultureInfo.InvariantCulture, $"node {number}"), shards, options, groups)).ToArray();
        world.Run("opening", () => world.SendAsync(_truth, [_workload.Opening(random.Next(0, 30))]));
        var largest = world.Pick(1, 1, 4);
        for (var i = random.Next(1, 6); i > 0; i--)
        {
            var (node, engine) = nodes[random.Next(nodes.Length)];
            world.AddCaller(process => new SimulatedConnection(process, node, engine, world.Faults), _workload.Commands(i).Take(random.Next(1, 13)).Chunk(largest));
        }
    }

    public override async Task RestAsync()
    {
        await AwaitRecoveryAsync(_shards, _world!.Scheduler, s_recovery).ConfigureAwait(false);
        _nodes.ForEach(static node => node.Crash());
    }

    public override async ValueTask<string?> FindProblemAsync() =>
        await new CartAudit(_shards, _truth!, _world!.History, _workload!.Skus).FindProblemAsync().ConfigureAwait(false);

    /// <summary>Waits until no shard has anything undecided any more.</summary>
    public static async Task AwaitRecoveryAsync(IReadOnlyList<IStockEngine> shards, SimulationScheduler scheduler, TimeSpan limit)
    {
        var began = scheduler.Clock.Ticks;
        while (await FirstUndecidedAsync(shards).ConfigureAwait(false) is { } undecided)
        {
            if (TimeSpan.FromTicks(scheduler.Clock.Ticks - began) > limit)
            {
                throw new SimulationException($"Not settled by recovery within {limit}: {undecided}.");
            }

            await Task.Delay(TimeSpan.FromSeconds(1), scheduler.Clock).ConfigureAwait(false);
        }
    }

    private static async ValueTask<string?> FirstUndecidedAsync(IReadOnlyList<IStockEngine> shards)
    {
        for (var shard = 0; shard < shards.Count; shard++)
        {
            await foreach (var view in shards[shard].ListOperationsAsync(new() { UndecidedOnly = true }).ConfigureAwait(false))
            {
                return $"{view.Verb} {view.Id} on shard {shard} ({view.Cart}, pending {view.Pending})";
            }
        }

        return null;
    }

    private (SimulatedProcess Node, Func<IStockEngine> Engine) AddNode(string name, SimulatedProcess[] shards, ShardingOptions options, bool groups)
    {
        var world = _world!;
        var node = world.AddMortal(name);
        IStockEngine? engine = null;
        world.Scheduler.Within(node, () => Start());
        node.OnStart(() => Start());
        _nodes.Add(node);
        return (node, () => engine!);

        // Its recovery begins with it.
        IStockEngine Start()
        {
            var memory = new HashSet<string>(StringComparer.Ordinal);
            return engine = new Sharding([.. shards.Select((shard, number) => Connect(shard, number, memory))], options, world.Scheduler.Clock, NullLogger.Instance, new(world.Random.Next()));
        }

        IStockEngine Connect(SimulatedProcess shard, int number, HashSet<string> memory)
        {
            IStockEngine connection = new SimulatedConnection(node, shard, () => _shards[number], world.Faults) { IsFenced = _isFenced };
            connection = plant is null ? connection : plant(new(number, connection, world.Scheduler.Clock, memory));
            return groups ? new HandingOn(new GroupCommit(connection, clock: world.Scheduler.Clock), world.Scheduler) : connection;
        }
    }
}

/// <summary>A node's connection to a shard, for those who plant a bug there.</summary>
/// <param name="Shard">The shard's number.</param>
/// <param name="Engine">The connection.</param>
/// <param name="Clock">The world's clock.</param>
/// <param name="Memory">What all connections of one life of the node may share.</param>
internal sealed record ShardConnection(int Shard, IStockEngine Engine, TimeProvider Clock, HashSet<string> Memory);
