using System.Collections.Concurrent;

namespace Holdfast.Server.Http;

/// <summary>
/// Reusable time bounds for requests. They protect real sockets and threads, so they follow the real clock even when the
/// engine runs on another one.
/// </summary>
internal sealed class TimeBounds(TimeSpan limit)
{
    private const int MaxPooled = 256;

    private readonly ConcurrentQueue<CancellationTokenSource> _pool = new();

    public TimeSpan Limit => limit;

    /// <summary>A source that cancels after the limit; give it back when the request ends.</summary>
    public CancellationTokenSource Rent()
    {
        if (!_pool.TryDequeue(out var source))
        {
            source = new();
        }

        source.CancelAfter(limit);
        return source;
    }

    public void Return(CancellationTokenSource source)
    {
        if (source.TryReset() && _pool.Count < MaxPooled)
        {
            _pool.Enqueue(source);
        }
        else
        {
            source.Dispose();
        }
    }
}
