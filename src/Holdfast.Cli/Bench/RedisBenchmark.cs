using System.Diagnostics;
using System.Globalization;
using Holdfast.TestServers;

namespace Holdfast.Cli.Bench;

/// <summary>redis-benchmark as the other side of a pair: 50 connections, 16 calls in the pipe of each, the way Redis's own figures are made.</summary>
internal static class RedisBenchmark
{
    public const string Settings = "redis-benchmark: -P 16 -c 50, ids from a range of 10^9";

    /// <summary>The deduction that the engine makes, as a script a call would write it by hand: duplicate marker, stock check, balance and version, ledger entry with the balance.</summary>
    private const string Deduct = """
        if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then return -2 end
        local left = redis.call('HGET', KEYS[1], 'available') - ARGV[2]
        if left < 0 then
          redis.call('HDEL', KEYS[2], ARGV[1])
          return -1
        end
        redis.call('HSET', KEYS[1], 'available', left)
        local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
        local time = redis.call('TIME')
        redis.call('RPUSH', KEYS[3], ARGV[1] .. '|-' .. ARGV[2] .. '|' .. left .. '|' .. version .. '|' .. time[1])
        return left
        """;

    /// <summary>Duplicate marker and counter, and nothing else: no version, no ledger.</summary>
    private const string DeductMinimal = """
        if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then return -2 end
        local left = redis.call('HGET', KEYS[1], 'available') - ARGV[2]
        if left < 0 then
          redis.call('HDEL', KEYS[2], ARGV[1])
          return -1
        end
        redis.call('HSET', KEYS[1], 'available', left)
        return left
        """;

    /// <summary>redis-benchmark keeps its range in 32 bits; a larger one makes all ids the same, and it would measure repetitions.</summary>
    private const long Ids = 1_000_000_000;
    private const long Plenty = 1_000_000_000_000;

    /// <summary>One deduction a call of a script, on a server of its own.</summary>
    public static async Task<Measured> DeductAsync(bool isMinimal, string appendFsync, Load load, CancellationToken cancellationToken)
    {
        var server = await RedisServer.StartAsync($"appendfsync {appendFsync}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var sha = await server.CliAsync("SCRIPT", "LOAD", isMinimal ? DeductMinimal : Deduct).ConfigureAwait(false);
            await server.CliAsync("HSET", "stock", "available", Text(Plenty), "version", "0").ConfigureAwait(false);
            var measured = await RunAsync(server, load, Ids, ["EVALSHA", sha, "3", "stock", "done", "flow", "order-__rand_int__", "1"], cancellationToken).ConfigureAwait(false);

            // As many markers, ledger entries and units less as there were calls; a random id in a thousand may have come twice.
            var sold = Plenty - Number(await server.CliAsync("HGET", "stock", "available").ConfigureAwait(false));
            var markers = Number(await server.CliAsync("HLEN", "done").ConfigureAwait(false));
            var entries = isMinimal ? markers : Number(await server.CliAsync("LLEN", "flow").ConfigureAwait(false));
            return measured.Side with
            {
                PerSecond = measured.Side.PerSecond * sold / measured.Calls,
                Audit = sold == markers && sold == entries && sold > measured.Calls * 0.99 ? "pass" : $"fail: {measured.Calls} calls, {sold} sold, {markers} markers, {entries} entries",
            };
        }
    }

    /// <summary>One HGET a call, over the rows of a store that is there.</summary>
    public static async Task<Measured> ReadAsync(RedisServer server, string key, Load load, long range, CancellationToken cancellationToken) =>
        (await RunAsync(server, load, range, ["HGET", key, "sku-__rand_int__"], cancellationToken).ConfigureAwait(false)).Side;

    /// <summary>Runs for about the load's duration: redis-benchmark takes a number of calls, so a first run finds out how many.</summary>
    private static async Task<(Measured Side, long Calls)> RunAsync(RedisServer server, Load load, long range, string[] command, CancellationToken cancellationToken)
    {
        const long first = 100_000;
        var (warm, _) = await RunAsync(server, first, range, command, cancellationToken).ConfigureAwait(false);
        var calls = (long)Math.Max(first, warm * load.Duration.TotalSeconds);
        var (perSecond, latency) = await RunAsync(server, calls, range, command, cancellationToken).ConfigureAwait(false);
        return (new(perSecond, $"{calls:#,##0} calls, {latency}", null), first + calls);
    }

    private static async Task<(double PerSecond, string Latency)> RunAsync(RedisServer server, long calls, long range, string[] command, CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo(
            RedisServer.Binary("redis-benchmark"), ["-h", "127.0.0.1", "-p", Text(server.Port), "-P", "16", "-c", "50", "-n", Text(calls), "-r", Text(range), "--csv", .. command])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync(cancellationToken);
        var output = await process.StandardOutput.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
        await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);

        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
        var values = output.Trim().Split('\n')[^1].Trim('"').Split("\",\"");
        return values.Length == 8 && double.TryParse(values[1], CultureInfo.InvariantCulture, out var perSecond)
            ? (perSecond, $"p50 {values[4]} ms, p99 {values[6]} ms")
            : throw new InvalidOperationException($"redis-benchmark said: {output} {await error.ConfigureAwait(false)}");
    }

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
