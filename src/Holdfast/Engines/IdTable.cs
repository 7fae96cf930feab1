namespace Holdfast;

/// <summary>
/// Numbers ids 0, 1, 2 … in the order they come, and finds the number of an id. Keeps characters, not string objects:
/// millions of ids then cost the garbage collector nothing. Not thread-safe.
/// </summary>
internal sealed class IdTable
{
    private const int TextChunk = 1 << 16;

    private readonly ChunkedList<Entry> _entries = new();
    private readonly List<char[]> _texts = [];
    private int _textUsed = TextChunk;
    private int[] _buckets = new int[1 << 10];

    /// <summary>The number of <paramref name="id"/>, or −1.</summary>
    public int Find(string id)
    {
        var hash = id.GetHashCode(StringComparison.Ordinal);
        for (var number = _buckets[hash & (_buckets.Length - 1)] - 1; number >= 0;)
        {
            ref var entry = ref _entries[number];
            if (entry.Hash == hash && Text(entry).SequenceEqual(id))
            {
                return number;
            }

            number = entry.Next;
        }

        return -1;
    }

    /// <summary>Gives the next number to an id that <see cref="Find"/> does not know.</summary>
    public int Add(string id)
    {
        if (_entries.Count >= _buckets.Length)
        {
            Grow();
        }

        if (_textUsed + id.Length > TextChunk)
        {
            _texts.Add(GC.AllocateUninitializedArray<char>(TextChunk));
            _textUsed = 0;
        }

        id.CopyTo(_texts[^1].AsSpan(_textUsed));
        var number = _entries.Count;
        var hash = id.GetHashCode(StringComparison.Ordinal);
        ref var bucket = ref _buckets[hash & (_buckets.Length - 1)];
        _entries.Add(new(hash, bucket - 1, _texts.Count - 1, _textUsed, id.Length));
        bucket = number + 1;
        _textUsed += id.Length;
        return number;
    }

    /// <summary>Forgets an id; its number is not given again.</summary>
    public void Remove(string id)
    {
        var removed = Find(id);
        ref var entry = ref _entries[removed];
        ref var bucket = ref _buckets[entry.Hash & (_buckets.Length - 1)];
        if (bucket == removed + 1)
        {
            bucket = entry.Next + 1;
        }
        else
        {
            var number = bucket - 1;
            while (_entries[number].Next != removed)
            {
                number = _entries[number].Next;
            }

            ref var before = ref _entries[number];
            before = before with { Next = entry.Next };
        }

        // Not to be found when the table grows and chains its entries anew.
        entry = entry with { IsRemoved = true };
    }

    /// <summary>The id with this number.</summary>
    public string this[int number] => Text(_entries[number]).ToString();

    private ReadOnlySpan<char> Text(in Entry entry) => _texts[entry.Chunk].AsSpan(entry.Start, entry.Length);

    private void Grow()
    {
        _buckets = new int[_buckets.Length * 2];
        for (var number = 0; number < _entries.Count; number++)
        {
            ref var entry = ref _entries[number];
            if (entry.IsRemoved)
            {
                continue;
            }

            ref var bucket = ref _buckets[entry.Hash & (_buckets.Length - 1)];
            entry = entry with { Next = bucket - 1 };
            bucket = number + 1;
        }
    }

    private readonly record struct Entry(int Hash, int Next, int Chunk, int Start, int Length, bool IsRemoved = false);
}
