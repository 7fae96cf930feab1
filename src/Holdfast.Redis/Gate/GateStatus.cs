using System.Globalization;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>What gate-status.lua answers.</summary>
internal sealed record GateStatus(long Epoch, StreamPlace Done, StreamPlace? Last, StreamPlace? First, long Backlog, long Now, string[] Taken)
{
    public TimeSpan? OldestAge => First is { } first ? TimeSpan.FromMilliseconds(Math.Max(0, Now - (long)first.Time)) : null;

    public static GateStatus Read(RedisResult result)
    {
        var all = (RedisResult[])result;
        var (last, first) = ((string)all[2], (string)all[3]);
        return new(
            long.Parse((string)all[0], CultureInfo.InvariantCulture),
            StreamPlace.Parse((string)all[1] ?? ""),
            string.IsNullOrEmpty(last) ? null : StreamPlace.Parse(last),
            string.IsNullOrEmpty(first) ? null : StreamPlace.Parse(first),
            long.Parse((string)all[4], CultureInfo.InvariantCulture),
            long.Parse((string)all[5], CultureInfo.InvariantCulture),
            (string[])all[6]);
    }
}
