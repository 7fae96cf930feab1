using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>
/// The ledger of one SKU's partition beside real time. Each entry was written at some instant after its command was sent
/// and before it was answered; and entries were written in the order of their versions.
/// </summary>
internal sealed class SkuTimeline(string sku)
{
    private const int BlockSize = 256;

    private readonly List<Written> _entries = [];

    /// <summary>For each entry the earliest answer among it and all later ones: by then it was certainly written.</summary>
    private long[] _certainBy = [];

    /// <summary>For each entry the latest sending among it and all earlier ones: until then it certainly was not.</summary>
    private long[] _impossibleUntil = [];
    private long[] _leastOfBlock = [];

    public long LastVersion => _entries.Count == 0 ? 0 : _entries[^1].Version;

    public void Add(in FlowEntry entry, long sentAt, long answeredAt) => _entries.Add(new(entry.Version, entry.OperationId, entry.Available, sentAt, answeredAt));

    public void Prepare()
    {
        var count = _entries.Count;
        _certainBy = new long[count];
        _impossibleUntil = new long[count];
        _leastOfBlock = new long[(count / BlockSize) + 1];
        Array.Fill(_leastOfBlock, long.MaxValue);
        var (answered, sent) = (long.MaxValue, long.MinValue);
        for (var i = count - 1; i >= 0; i--)
        {
            _certainBy[i] = answered = Math.Min(answered, _entries[i].AnsweredAt);
        }

        for (var i = 0; i < count; i++)
        {
            _impossibleUntil[i] = sent = Math.Max(sent, _entries[i].SentAt);
        }

        for (var state = 0; state <= count; state++)
        {
            ref var least = ref _leastOfBlock[state / BlockSize];
            least = Math.Min(least, Available(state));
        }
    }

    /// <summary>An operation that was answered before another was sent, and yet has the higher version.</summary>
    public string? FindDisorder()
    {
        var latest = -1;
        for (var i = 0; i < _entries.Count; i++)
        {
            if (latest >= 0 && _entries[i].AnsweredAt < _entries[latest].SentAt)
            {
                var (earlier, later) = (_entries[i], _entries[latest]);
                return $"{sku}: {earlier.OperationId} was answered before {later.OperationId} was sent, but has version {earlier.Version}, after {later.Version}.";
            }

            latest = latest < 0 || _entries[i].SentAt > _entries[latest].SentAt ? i : latest;
        }

        return null;
    }

    /// <summary>Whether the first entry was certainly written before an instant.</summary>
    public bool HasBegunBy(long instant) => _certainBy.Length > 0 && _certainBy[0] < instant;

    /// <summary>The least that may have been available at some instant between a sending and its answer.</summary>
    public long LeastAvailable(long sentAt, long answeredAt)
    {
        // States are counted by the entries written: from all that certainly were at the sending, to all that may have been at the answer.
        var first = CountBelow(_certainBy, sentAt);
        var last = Math.Max(first, CountBelow(_impossibleUntil, answeredAt));
        var least = long.MaxValue;
        for (var state = first; state <= last;)
        {
            if (state % BlockSize == 0 && state + BlockSize <= last + 1)
            {
                least = Math.Min(least, _leastOfBlock[state / BlockSize]);
                state += BlockSize;
            }
            else
            {
                least = Math.Min(least, Available(state++));
            }
        }

        return least;
    }

    /// <summary>How many of ascending numbers are below a bound.</summary>
    private static int CountBelow(long[] ascending, long bound)
    {
        var (low, high) = (0, ascending.Length);
        while (low < high)
        {
            var middle = (low + high) / 2;
            (low, high) = ascending[middle] < bound ? (middle + 1, high) : (low, middle);
        }

        return low;
    }

    private long Available(int state) => state == 0 ? 0 : _entries[state - 1].Available;

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Written(long Version, string OperationId, long Available, long SentAt, long AnsweredAt);
}
