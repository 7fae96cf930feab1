using System.Globalization;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>What is known of a stock row; the last two only where the whole row was read.</summary>
internal readonly record struct GateRow(string Sku, long Version, long Available, long Reserved, long? Restocked = null, long? Adjusted = null)
{
    public static GateRow Of(StockLevel level) => new(level.Sku, level.Version, level.Available, level.Reserved, level.Restocked, level.Adjusted);
}

/// <summary>Part of a pass over the ledger: what was read of it.</summary>
/// <param name="From">The cursor from which it was read.</param>
/// <param name="To">The cursor after it.</param>
/// <param name="Fresh">Redis's time before the pass was begun, when this is its end; otherwise 0.</param>
/// <param name="Last">The last entry that was read.</param>
internal readonly record struct GatePass(string From, string To, long Fresh, FlowEntry? Last = null);

/// <summary>The copies of the stock in Redis. Thread-safe.</summary>
internal sealed class GateCopies(RedisConnection redis, RedisKey[] keys, RedisGateOptions options)
{
    /// <summary>SKUs of one call: scripts hold everybody else up while they run.</summary>
    public const int MostRows = 500;

    /// <summary>Hands rows over; see gate-levels.lua for the answer.</summary>
    public async Task<long> PushAsync(long epoch, IReadOnlyList<GateRow> rows, long readAt, GatePass pass, IReadOnlyCollection<string> ids, CancellationToken cancellationToken)
    {
        var arguments = new RedisValue[8 + (6 * rows.Count) + ids.Count];
        (arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]) = (epoch, pass.From ?? "", pass.To ?? "", pass.Fresh, rows.Count, readAt);
        (arguments[6], arguments[7]) = pass.Last is { } last ? (last.OperationId, last.At.ToUnixTimeMilliseconds()) : ((RedisValue)"", (RedisValue)"");
        var at = 8;
        foreach (var row in rows)
        {
            arguments[at++] = row.Sku;
            arguments[at++] = row.Version;
            arguments[at++] = row.Available;
            arguments[at++] = row.Reserved;
            arguments[at++] = row.Restocked ?? RedisValue.EmptyString;
            arguments[at++] = row.Adjusted ?? RedisValue.EmptyString;
        }

        foreach (var id in ids)
        {
            arguments[at++] = GateIds.Places(id, options.IdBits);
        }

        return (long)await redis.RunAsync(GateScripts.Levels, keys, arguments, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Reads copies that are young enough; <see langword="null"/> for a SKU whose copy is not.</summary>
    public async Task<StockLevel?[]> ReadAsync(IReadOnlyList<string> skus, TimeSpan maxStaleness, CancellationToken cancellationToken)
    {
        var arguments = new RedisValue[1 + skus.Count];
        arguments[0] = (long)Math.Min(maxStaleness.TotalMilliseconds, int.MaxValue);
        for (var i = 0; i < skus.Count; i++)
        {
            arguments[1 + i] = skus[i];
        }

        var answers = (RedisResult[])await redis.RunAsync(GateScripts.Read, keys, arguments, cancellationToken).ConfigureAwait(false);
        var levels = new StockLevel?[skus.Count];
        for (var i = 0; i < levels.Length; i++)
        {
            if ((string[])answers[i] is { Length: > 0 } fields)
            {
                levels[i] = new()
                {
                    Sku = skus[i],
                    Version = Number(fields[0]),
                    Available = Number(fields[1]),
                    Reserved = Number(fields[2]),
                    Restocked = Number(fields[3]),
                    Adjusted = Number(fields[4]),
                };
            }
        }

        return levels;
    }

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
}
