using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>
/// The order in which a batch over several shards is executed. Commands that share an id, a target or a SKU keep the
/// caller's order: in one call where one shard has both, otherwise one wave after the other. The rest need not wait for
/// each other. What ends an operation that is not known yet may touch anything by the time it is executed, so that all
/// the others keep their order with it.
/// </summary>
internal sealed class ShardWaves
{
    private const int Across = -1;

    private readonly SlotMap _map;
    private readonly IReadOnlyDictionary<string, OperationView> _targets;
    private readonly Dictionary<string, StockCommand> _earlier = new(StringComparer.Ordinal);
    private readonly Dictionary<(string Key, bool IsSku), (int Wave, int Shard)> _latest = [];
    private readonly List<Wave> _waves = [];
    private int _first;

    /// <param name="map">Where SKUs are.</param>
    /// <param name="commands">The batch.</param>
    /// <param name="targets">What its confirmations, cancellations and abandonings speak of, as far as it is known.</param>
    public ShardWaves(SlotMap map, StockCommand[] commands, IReadOnlyDictionary<string, OperationView> targets)
    {
        _map = map;
        _targets = targets;
        for (var place = 0; place < commands.Length; place++)
        {
            Place(commands[place], place);
        }
    }

    public IReadOnlyList<Wave> Waves => _waves;

    private void Place(StockCommand command, int place)
    {
        var shard = command.IsTransition ? Across : ShardOf(command);
        var keys = Keys(command);
        var touchesAny = command.IsTransition && !_targets.ContainsKey(command.Id) && !_earlier.ContainsKey(command.Id);
        var wave = touchesAny ? _waves.Count : _first;
        foreach (var key in keys)
        {
            if (_latest.TryGetValue(key, out var latest))
            {
                wave = Math.Max(wave, latest.Shard == shard && shard != Across ? latest.Wave : latest.Wave + 1);
            }
        }

        foreach (var key in keys)
        {
            // Where its shard does not know a refund's order, all are asked, before anything else happens to that id.
            _latest[key] = (wave, command.Verb == StockVerb.Refund && key == (command.Target!, false) ? Across : shard);
        }

        _first = touchesAny ? wave + 1 : _first;

        if (!command.IsTransition)
        {
            _earlier.TryAdd(command.Id, command);
        }

        while (_waves.Count <= wave)
        {
            _waves.Add(new());
        }

        if (shard == Across)
        {
            _waves[wave].Across.Add(place);
        }
        else
        {
            ref var places = ref CollectionsMarshal.GetValueRefOrAddDefault(_waves[wave].ByShard, shard, out _);
            (places ??= []).Add(place);
        }
    }

    private int ShardOf(StockCommand command)
    {
        var shard = _map.ShardOf(command.Lines[0].Sku);
        foreach (var line in command.Lines)
        {
            if (_map.ShardOf(line.Sku) != shard)
            {
                return Across;
            }
        }

        return shard;
    }

    private List<(string Key, bool IsSku)> Keys(StockCommand command)
    {
        var keys = new List<(string, bool)>(command.Lines.Length + 2) { (command.Id, false) };
        if (command.Target is { } target && !command.IsTransition)
        {
            keys.Add((target, false));
        }

        foreach (var line in command.Lines)
        {
            keys.Add((line.Sku, true));
        }

        if (command.IsTransition)
        {
            if (_earlier.TryGetValue(command.Id, out var earlier))
            {
                foreach (var line in earlier.Lines)
                {
                    keys.Add((line.Sku, true));
                }
            }

            if (_targets.TryGetValue(command.Id, out var view))
            {
                foreach (var line in view.Lines)
                {
                    keys.Add((line.Sku, true));
                }
            }
        }

        return keys;
    }

    /// <summary>What is executed at the same time.</summary>
    public sealed class Wave
    {
        /// <summary>Places in the batch, in its order, by the one shard that they concern.</summary>
        public Dictionary<int, List<int>> ByShard { get; } = [];

        /// <summary>Places of commands that concern several shards.</summary>
        public List<int> Across { get; } = [];
    }
}
