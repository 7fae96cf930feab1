using System.Collections.Immutable;

namespace Holdfast;

/// <summary>
/// Which shard has a SKU: SKUs hash to slots, slots map to shards. The hash is part of the stored format: the same in
/// every process and for ever. Immutable and thread-safe.
/// </summary>
internal sealed class SlotMap
{
    public const int Slots = 16_384;

    private readonly ushort[] _shards;

    private SlotMap(ushort[] shards) => _shards = shards;

    /// <summary>Every shard has as many slots as every other, one more or less.</summary>
    public static SlotMap Even(int shards)
    {
        var slots = new ushort[Slots];
        for (var slot = 0; slot < Slots; slot++)
        {
            slots[slot] = (ushort)(slot % shards);
        }

        return new(slots);
    }

    public static int SlotOf(string sku)
    {
        // FNV-1a over UTF-16 code units, and a last mix, because its low bits alone spread short names badly.
        var hash = 0xcbf29ce484222325UL;
        foreach (var c in sku)
        {
            hash = unchecked((hash ^ c) * 0x100000001b3UL);
        }

        hash = unchecked((hash ^ (hash >> 33)) * 0xff51afd7ed558ccdUL);
        return (int)(hash >> 50);
    }

    public int ShardOf(string sku) => _shards[SlotOf(sku)];

    /// <summary>The shards of a command's lines, ascending, each with its lines; at least one.</summary>
    public ShardPart[] Split(ImmutableArray<StockLine> lines)
    {
        var first = ShardOf(lines[0].Sku);
        var isOne = true;
        foreach (var line in lines)
        {
            isOne = isOne && ShardOf(line.Sku) == first;
        }

        return isOne
            ? [new(first, lines)]
            : [.. lines.GroupBy(line => ShardOf(line.Sku)).OrderBy(group => group.Key).Select(group => new ShardPart(group.Key, [.. group]))];
    }
}

/// <summary>The lines of a command that one shard has.</summary>
internal readonly record struct ShardPart(int Shard, ImmutableArray<StockLine> Lines);
