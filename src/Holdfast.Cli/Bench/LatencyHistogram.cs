using System.Numerics;

namespace Holdfast.Cli.Bench;

/// <summary>
/// Counts durations in buckets whose width grows with the value: 64 of them for each doubling, so that a percentile is
/// at most 1.6 % too high. Adding is lock-free, thread-safe and allocates nothing; reading is for after the last addition.
/// </summary>
internal sealed class LatencyHistogram
{
    private const int SubBits = 6;
    private const int SubBuckets = 1 << SubBits;

    // 2^44 ns are about five hours.
    private const int MaxBits = 44;

    // One array a processor, so that callers on different processors do not fight for cache lines.
    private readonly long[][] _counts;
    private long _max;

    public LatencyHistogram()
    {
        _counts = new long[Math.Max(1, Environment.ProcessorCount)][];
        for (var i = 0; i < _counts.Length; i++)
        {
            _counts[i] = new long[(MaxBits - SubBits + 1) * SubBuckets];
        }
    }

    /// <summary>How many durations were added.</summary>
    public long Count => _counts.Sum(counts => counts.Sum());

    /// <summary>The longest duration, exactly.</summary>
    public TimeSpan Max => FromNanoseconds(Interlocked.Read(ref _max));

    /// <summary>Adds a duration; below zero counts as zero.</summary>
    public void Add(TimeSpan duration)
    {
        var nanoseconds = Math.Clamp(duration.Ticks, 0, (1L << MaxBits) / TimeSpan.NanosecondsPerTick - 1) * TimeSpan.NanosecondsPerTick;
        var counts = _counts[(uint)Thread.GetCurrentProcessorId() % (uint)_counts.Length];
        Interlocked.Increment(ref counts[BucketOf(nanoseconds)]);
        for (var max = Interlocked.Read(ref _max); nanoseconds > max;)
        {
            var seen = Interlocked.CompareExchange(ref _max, nanoseconds, max);
            if (seen == max)
            {
                break;
            }

            max = seen;
        }
    }

    /// <summary>The duration that a share of all durations does not exceed: the upper end of its bucket. Zero when nothing was added.</summary>
    /// <param name="share">More than 0 and at most 1.</param>
    public TimeSpan Percentile(double share)
    {
        var rank = Math.Max(1, (long)Math.Ceiling(Count * share));
        long below = 0;
        for (var bucket = 0; bucket < _counts[0].Length; bucket++)
        {
            foreach (var counts in _counts)
            {
                below += counts[bucket];
            }

            if (below >= rank)
            {
                return FromNanoseconds(Math.Min(UpperEnd(bucket), Interlocked.Read(ref _max)));
            }
        }

        return TimeSpan.Zero;
    }

    private static int BucketOf(long value)
    {
        // Values below 64 have a bucket each; above, the highest bit selects the row and the next six the bucket in it.
        var row = Math.Max(0, BitOperations.Log2((ulong)value | 1) - SubBits + 1);
        return row == 0 ? (int)value : (row * SubBuckets) + (int)(value >> (row - 1)) - SubBuckets;
    }

    private static long UpperEnd(int bucket)
    {
        var row = bucket >> SubBits;
        var place = bucket & (SubBuckets - 1);
        return row == 0 ? place : ((long)(place + SubBuckets + 1) << (row - 1)) - 1;
    }

    private static TimeSpan FromNanoseconds(long nanoseconds) => TimeSpan.FromTicks(nanoseconds / TimeSpan.NanosecondsPerTick);
}
