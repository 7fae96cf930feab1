using System.Globalization;
using System.Runtime.InteropServices;
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

/// <summary>A copy as it is read for a page.</summary>
/// <param name="Level">The row.</param>
/// <param name="Age">How old it may be; the largest there is when there is no copy.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct GatePageRow(StockLevel Level, TimeSpan Age);

/// <summary>The copies of the stock in Redis. Thread-safe.</summary>
internal sealed class GateCopies(RedisConnection redis, RedisKey[] keys, RedisGateOptions options)
{
    /// <summary>SKUs of one call: scripts hold everybody else up while they run.</summary>
    public const int MostRows = 500;

    private readonly StockReads<GatePageRow> _reads = new((skus, cancellationToken) => ReadAsync(redis, keys, skus, cancellationToken), options.CallTimeout * 2, TimeProvider.System);

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

    /// <summary>Reads copies; those of many callers go together.</summary>
    public Task<IReadOnlyList<GatePageRow>> ReadAsync(IReadOnlyList<string> skus, CancellationToken cancellationToken) => _reads.ReadAsync(skus, cancellationToken);

    private static async Task<GatePageRow[]> ReadAsync(RedisConnection redis, RedisKey[] keys, IReadOnlyList<string> skus, CancellationToken cancellationToken)
    {
        var arguments = new RedisValue[skus.Count];
        for (var i = 0; i < arguments.Length; i++)
        {
            arguments[i] = skus[i];
        }

        var answers = (RedisResult[])await redis.RunAsync(GateScripts.Read, keys, arguments, cancellationToken).ConfigureAwait(false);
        var copies = new GatePageRow[answers.Length];
        for (var i = 0; i < copies.Length; i++)
        {
            var fields = (string[])answers[i];
            copies[i] = fields.Length == 0
                ? new(default, TimeSpan.MaxValue)
                : new(
                    new() { Sku = skus[i], Version = Number(fields[0]), Available = Number(fields[1]), Reserved = Number(fields[2]), Restocked = Number(fields[3]), Adjusted = Number(fields[4]) },
                    TimeSpan.FromMilliseconds(Number(fields[5])));
        }

        return copies;
    }

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
}
