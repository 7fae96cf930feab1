using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast.Testing;

/// <summary>
/// Few commands at once, each on a node of its own, over the same shards, in a world where nothing goes wrong by chance:
/// small enough to try every order of its steps, and every step for one thing that happens in between.
/// </summary>
/// <param name="before">What has happened before.</param>
/// <param name="racing">What is sent at once, each to a node of its own.</param>
/// <param name="crashBefore">The step before which the first node crashes, if it does.</param>
/// <param name="passBefore">The step before which a minute passes, if it does.</param>
/// <param name="shards">How many shards.</param>
internal sealed class RaceScenario(IReadOnlyList<StockCommand> before, IReadOnlyList<StockCommand> racing, int? crashBefore = null, int? passBefore = null, int shards = 2) : SimulationScenario
{
    private static readonly TimeSpan s_recovery = TimeSpan.FromMinutes(1);

    private readonly List<SimulatedProcess> _nodes = [];
    private SimulatedWorld? _world;
    private IStockEngine[] _shards = [];
    private IStockEngine? _truth;

    public override string Name => "race";

    public override bool IsCalm => true;

    public override IStockEngine Truth => _truth!;

    public override IReadOnlyCollection<string> Skus => [.. before.Concat(racing).SelectMany(command => command.Lines).Select(line => line.Sku).Distinct(StringComparer.Ordinal)];

    public override TimeSpan Settling => TimeSpan.FromSeconds(3);

    /// <summary>How many steps the race took, once it was run: so many can have something happen before them.</summary>
    public int RacingSteps { get; private set; }

    /// <summary>SKUs of which no two are on the same of so many shards.</summary>
    public static string[] SkusApart(int shards)
    {
        var map = SlotMap.Even(shards);
        return [.. Enumerable.Range(0, shards).Select(shard => Enumerable.Range(0, 1_000).Select(number => string.Create(CultureInfo.InvariantCulture, $"sku{number}")).First(sku => map.ShardOf(sku) == shard))];
    }

    public override void Build(SimulatedWorld world)
    {
        _world = world;
        _shards = [.. Enumerable.Range(0, shards).Select(_ => (IStockEngine)world.NewMemory())];
        _truth = world.NewSharding(_shards);
        var processes = _shards.Select((_, number) => world.AddMortal(string.Create(CultureInfo.InvariantCulture, $"shard {number}"))).ToArray();
        var options = new ShardingOptions { RecoverAfter = TimeSpan.FromMilliseconds(500) };
        world.Run("before", () => world.SendAsync(_truth, before));
        foreach (var command in racing)
        {
            var (node, engine) = AddNode(string.Create(CultureInfo.InvariantCulture, $"node {_nodes.Count}"), processes, options);
            world.AddCaller(process => new SimulatedConnection(process, node, engine, world.Faults), [[command]]);
        }

        world.Scheduler.OnStep = step =>
        {
            RacingSteps = step + 1;
            if (step == passBefore)
            {
                world.Scheduler.Clock.MoveTo(world.Scheduler.Clock.Ticks + TimeSpan.TicksPerMinute);
            }

            if (step == crashBefore)
            {
                world.Strike(_nodes[0]);
            }
        };
    }

    public override async Task RestAsync()
    {
        await ShardingScenario.AwaitRecoveryAsync(_shards, _world!.Scheduler, s_recovery).ConfigureAwait(false);
        _nodes.ForEach(static node => node.Crash());
    }

    public override async ValueTask<string?> FindProblemAsync() => await new CartAudit(_shards, _truth!, _world!.History, [.. Skus]).FindProblemAsync().ConfigureAwait(false);

    private (SimulatedProcess Node, Func<IStockEngine> Engine) AddNode(string name, SimulatedProcess[] processes, ShardingOptions options)
    {
        var world = _world!;
        var node = world.AddMortal(name);
        IStockEngine? engine = null;
        world.Scheduler.Within(node, Start);
        node.OnStart(() => Start());
        _nodes.Add(node);
        return (node, () => engine!);

        IStockEngine Start() => engine = new Sharding(
            [.. processes.Select((shard, number) => new SimulatedConnection(node, shard, () => _shards[number], world.Faults))],
            options,
            world.Scheduler.Clock,
            NullLogger.Instance,
            new(world.Random.Next()));
    }
}
