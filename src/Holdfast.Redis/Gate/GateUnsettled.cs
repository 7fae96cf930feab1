namespace Holdfast.Redis;

/// <summary>
/// What this process has acknowledged and the store may not have yet, in the order of the stream: what Redis loses is carried into the
/// store from here. Bounded, since the stream is. Thread-safe.
/// </summary>
internal sealed class GateUnsettled
{
    private readonly Lock _lock = new();
    private readonly SortedDictionary<StreamPlace, List<GateCommand>> _entries = [];
    private int _count;

    public int Count => Volatile.Read(ref _count);

    public void Add(StreamPlace place, List<GateCommand> commands)
    {
        lock (_lock)
        {
            _entries[place] = commands;
            _count += commands.Count;
        }
    }

    /// <summary>Forgets what is in the store: everything up to an entry.</summary>
    public void Settle(StreamPlace done)
    {
        lock (_lock)
        {
            while (_entries.Count > 0)
            {
                var (place, commands) = _entries.First();
                if (place > done)
                {
                    return;
                }

                _entries.Remove(place);
                _count -= commands.Count;
            }
        }
    }

    public GateCommand[] All()
    {
        lock (_lock)
        {
            return [.. _entries.Values.SelectMany(static commands => commands)];
        }
    }

    /// <summary>Takes everything out: it has been carried.</summary>
    public GateCommand[] Clear()
    {
        lock (_lock)
        {
            GateCommand[] all = [.. _entries.Values.SelectMany(static commands => commands)];
            _entries.Clear();
            _count = 0;
            return all;
        }
    }
}
