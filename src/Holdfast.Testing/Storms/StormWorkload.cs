using System.Globalization;

namespace Holdfast.Testing;

/// <summary>
/// A seeded stream of commands for storms: one source a caller, same seed, same commands. Immutable and thread-safe; a
/// source belongs to one caller.
/// </summary>
public sealed class StormWorkload
{
    private readonly Func<Random, string, StockCommand> _next;

    private StormWorkload(string name, string prefix, int skus, int seed, Func<Random, string, StockCommand> next)
    {
        Name = name;
        Prefix = prefix;
        Seed = seed;
        Skus = [.. Enumerable.Range(0, skus).Select(i => Sku(prefix, i))];
        _next = next;
    }

    /// <summary>The workload's name.</summary>
    public string Name { get; }

    /// <summary>What every SKU and id begins with.</summary>
    public string Prefix { get; }

    /// <summary>The seed.</summary>
    public int Seed { get; }

    /// <summary>The SKUs that are asked for.</summary>
    public IReadOnlyList<string> Skus { get; }

    /// <summary>How often a caller sends one of its earlier commands again instead of a new one, as a part of all.</summary>
    public double Duplicates { get; private init; }

    /// <summary>One unit of one SKU: the flash sale.</summary>
    public static StormWorkload Hot(string prefix, int seed) =>
        new("hot", prefix, 1, seed, (_, id) => StockCommand.Deduct(id, [new(Sku(prefix, 0), 1)]));

    /// <summary>One unit of one of many SKUs, each as often as the others.</summary>
    public static StormWorkload Uniform(string prefix, int seed, int skus = 1_000) =>
        new("uniform", prefix, skus, seed, (random, id) => StockCommand.Deduct(id, [new(Sku(prefix, random.Next(skus)), 1)]));

    /// <summary>One unit of one of many SKUs, by Zipf's law with the exponent 0.99.</summary>
    public static StormWorkload Zipfian(string prefix, int seed, int skus = 1_000)
    {
        var zipf = new Zipf(skus);
        return new("zipf", prefix, skus, seed, (random, id) => StockCommand.Deduct(id, [new(Sku(prefix, zipf.Next(random)), 1)]));
    }

    /// <summary>Carts of 1 to 10 lines by Zipf's law, 1 to 5 units each.</summary>
    public static StormWorkload Carts(string prefix, int seed, int skus = 1_000, double duplicates = 0)
    {
        var zipf = new Zipf(skus);
        return new("carts", prefix, skus, seed, (random, id) => StockCommand.Deduct(id, Cart(random, zipf, prefix))) { Duplicates = duplicates };
    }

    /// <summary>All verbs over few SKUs and few ids, which the callers share, so that they collide in every way.</summary>
    /// <param name="prefix">What every SKU and id begins with.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="skus">So many SKUs.</param>
    /// <param name="ids">So many ids of each verb.</param>
    /// <param name="conflicts">Whether an id is now and then used for something else, which only engines with <see cref="StockTraits.GlobalIds"/> always notice.</param>
    public static StormWorkload AllVerbs(string prefix, int seed, int skus = 8, int ids = 400, bool conflicts = true)
    {
        var zipf = new Zipf(skus);
        return new("all verbs", prefix, skus, seed, (random, _) =>
        {
            // The number of an id decides what it asks for, so that its repetitions are repetitions; a few are conflicts.
            var number = random.Next(ids);
            var content = random.Next(12) == 0 && conflicts ? random : new Random(HashCode(seed, number));
            string Id(char kind) => string.Create(CultureInfo.InvariantCulture, $"{prefix}{kind}{number}");
            string Order() => string.Create(CultureInfo.InvariantCulture, $"{prefix}{(content.Next(2) == 0 ? 'o' : 'h')}{content.Next(ids)}");
            return random.Next(20) switch
            {
                < 6 => StockCommand.Deduct(Id('o'), Cart(content, zipf, prefix)),
                < 10 => StockCommand.Reserve(Id('h'), Cart(content, zipf, prefix), TimeSpan.FromSeconds(content.Next(1, 20))),
                < 13 => StockCommand.Confirm(Id('h')),
                13 => StockCommand.Cancel(Id(random.Next(2) == 0 ? 'o' : 'h')),
                14 => StockCommand.Abandon(Id(random.Next(2) == 0 ? 'o' : 'h')),
                < 18 => StockCommand.Refund(Id('f'), Order(), [new(Sku(prefix, zipf.Next(content)), content.Next(1, 3))]),
                18 => StockCommand.Restock(Id('r'), [new(Sku(prefix, zipf.Next(content)), content.Next(0, 60))]),
                _ => StockCommand.Adjust(Id('a'), [new(Sku(prefix, zipf.Next(content)), content.Next(2) == 0 ? -1 : 1)]),
            };
        });
    }

    /// <summary>The commands that stock every SKU.</summary>
    /// <param name="units">Units of each.</param>
    public IEnumerable<StockCommand> Opening(long units) => Skus
        .Chunk(StockLimits.MaxLines)
        .Select((chunk, i) => StockCommand.Restock(string.Create(CultureInfo.InvariantCulture, $"{Prefix}open{i}"), [.. chunk.Select(sku => new StockLine(sku, units))]));

    /// <summary>The commands of one caller, without end.</summary>
    /// <param name="caller">The caller's number; each has commands and ids of its own, but for <see cref="AllVerbs"/>, where they share the ids.</param>
    public IEnumerable<StockCommand> Commands(int caller)
    {
        var random = new Random(HashCode(Seed, caller));
        var sent = new List<StockCommand>();
        for (var number = 0; ; number++)
        {
            if (sent.Count > 0 && random.NextDouble() < Duplicates)
            {
                yield return sent[random.Next(sent.Count)];
                continue;
            }

            var command = _next(random, string.Create(CultureInfo.InvariantCulture, $"{Prefix}{caller}-{number}"));
            if (Duplicates > 0)
            {
                sent.Add(command);
            }

            yield return command;
        }
    }

    private static string Sku(string prefix, int number) => string.Create(CultureInfo.InvariantCulture, $"{prefix}sku{number}");

    /// <summary>Unlike <see cref="System.HashCode"/> the same in every process.</summary>
    private static int HashCode(int seed, int caller) => unchecked((seed * 1_000_003) ^ (caller * 7_919));

    private static StockLine[] Cart(Random random, Zipf zipf, string prefix)
    {
        var lines = new StockLine[random.Next(1, 11)];
        for (var i = 0; i < lines.Length; i++)
        {
            lines[i] = new(Sku(prefix, zipf.Next(random)), random.Next(1, 6));
        }

        return lines;
    }
}
