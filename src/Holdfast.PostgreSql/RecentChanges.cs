namespace Holdfast.PostgreSql;

/// <summary>When this process last changed each SKU, as far as a standby may not show it yet. Not thread-safe.</summary>
internal sealed class RecentChanges
{
    /// <summary>SKUs that are remembered one by one; past it all are taken as changed.</summary>
    public const int Most = 10_000;

    private readonly Dictionary<string, long> _changed = new(StringComparer.Ordinal);

    /// <summary>Up to when any SKU may have changed of which nothing is remembered.</summary>
    private long _allChanged = long.MinValue;

    public void Note(string sku, long at) => _changed[sku] = at;

    public void NoteAll(long at) => _allChanged = Math.Max(_allChanged, at);

    /// <summary>Whether a state that was complete up to an instant may miss a change of this SKU.</summary>
    public bool MayMiss(string sku, long seenUpTo)
    {
        if (!_changed.TryGetValue(sku, out var at))
        {
            return _allChanged >= seenUpTo;
        }

        if (at < seenUpTo)
        {
            Forget(sku, at);
        }

        return at >= seenUpTo || _allChanged >= seenUpTo;
    }

    /// <summary>Forgets, when there are too many, what a standby has shown, or else which SKUs changed.</summary>
    public void MakeRoom(long? seenUpTo, long now)
    {
        if (_changed.Count <= Most)
        {
            return;
        }

        foreach (var (sku, at) in _changed)
        {
            if (at < seenUpTo)
            {
                Forget(sku, at);
            }
        }

        if (_changed.Count > Most / 2)
        {
            _changed.Clear();
            NoteAll(now);
        }
    }

    /// <summary>A look at the standby that began earlier, and is judged later, may still lack the change.</summary>
    private void Forget(string sku, long at)
    {
        _changed.Remove(sku);
        NoteAll(at);
    }
}
