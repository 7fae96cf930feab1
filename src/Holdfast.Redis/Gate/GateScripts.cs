using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>The scripts of the gate, files of the folder Scripts; each says what it is given and what it answers.</summary>
internal static class GateScripts
{
    public static readonly RedisScript Check = Load("gate-check");
    public static readonly RedisScript Tick = Load("gate-tick");
    public static readonly RedisScript Levels = Load("gate-levels");
    public static readonly RedisScript Ids = Load("gate-ids");
    public static readonly RedisScript Read = Load("gate-read");
    public static readonly RedisScript Compare = Load("gate-compare");
    public static readonly RedisScript Scan = Load("gate-scan");

    // Of a gate that acknowledges by itself.
    public static readonly RedisScript Take = LoadSale("gate-take");
    public static readonly RedisScript Entries = LoadSale("gate-entries");
    public static readonly RedisScript Settle = LoadSale("gate-settle");
    public static readonly RedisScript Verdicts = LoadSale("gate-verdicts");
    public static readonly RedisScript Status = LoadSale("gate-status");
    public static readonly RedisScript Carry = LoadSale("gate-carry");
    public static readonly RedisScript Begin = LoadSale("gate-begin");

    private static RedisScript Load(string name) => new(name, ReadText("gate-common") + "\n" + ReadText(name));

    private static RedisScript LoadSale(string name) => new(name, ReadText("gate-common") + "\n" + ReadText("gate-sale-common") + "\n" + ReadText(name));

    private static string ReadText(string name)
    {
        using var stream = typeof(GateScripts).Assembly.GetManifestResourceStream(name + ".lua") ?? throw new InvalidOperationException($"The script {name}.lua is not part of this build.");
        using var reader = new StreamReader(stream, Encoding.UTF8);
        return reader.ReadToEnd();
    }
}

/// <summary>
/// Where an id stands in the gate's bits: a Bloom filter, so an id that was noted is never taken for an unknown one, and an
/// unknown one now and then for one that was noted, which costs a question to the store and nothing else.
/// </summary>
internal static class GateIds
{
    /// <summary>The id's four places, as the scripts unpack them.</summary>
    /// <param name="id">The id.</param>
    /// <param name="bits">The filter has two to the power of so many places.</param>
    public static RedisValue Places(string id, int bits)
    {
        const ulong prime = 1_099_511_628_211;
        Span<byte> utf8 = stackalloc byte[StockLimits.MaxKeyLength * 4];
        var length = Encoding.UTF8.GetBytes(id, utf8);
        var hash = 14_695_981_039_346_656_037;
        foreach (var each in utf8[..length])
        {
            hash = unchecked((hash ^ each) * prime);
        }

        var mask = (uint)((1UL << bits) - 1);
        var (low, high) = (Mix(hash), Mix(hash ^ 0x9E37_79B9_7F4A_7C15));
        var places = new byte[16];
        BinaryPrimitives.WriteUInt32LittleEndian(places, (uint)low & mask);
        BinaryPrimitives.WriteUInt32LittleEndian(places.AsSpan(4), (uint)(low >> 32) & mask);
        BinaryPrimitives.WriteUInt32LittleEndian(places.AsSpan(8), (uint)high & mask);
        BinaryPrimitives.WriteUInt32LittleEndian(places.AsSpan(12), (uint)(high >> 32) & mask);
        return places;
    }

    /// <summary>The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.</summary>
    private static ulong Mix(ulong hash)
    {
        unchecked
        {
            hash = (hash ^ (hash >> 30)) * 0xBF58_476D_1CE4_E5B9;
            hash = (hash ^ (hash >> 27)) * 0x94D0_49BB_1331_11EB;
            return hash ^ (hash >> 31);
        }
    }
}

/// <summary>What a process learns from gate-tick.lua.</summary>
internal sealed record GateTick(long Epoch, bool IsBegun, long Now, long Fresh, bool KnowsIds, long Listing, string Cursor, bool IsSettled, bool Leads, long Sure, string LastId, string LastAt, string[] Nodes)
{
    public static GateTick? Read(RedisResult result)
    {
        var all = (RedisResult[])result;
        return all.Length == 0
            ? null
            : new(
                Number(all[0]), (long)all[1] == 1, Number(all[2]), Number(all[3]), Number(all[4]) == 1, Number(all[5]), (string)all[6] ?? "",
                (long)all[7] == 1, (long)all[8] == 1, Number(all[9]), (string)all[10] ?? "", (string)all[11] ?? "", (string[])all[12]);
    }

    private static long Number(RedisResult result) => long.Parse((string)result, CultureInfo.InvariantCulture);
}
