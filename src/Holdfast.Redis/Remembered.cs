namespace Holdfast.Redis;

/// <summary>The latest acknowledged operations, the oldest forgotten first: what is looked for when Redis comes back. Thread-safe.</summary>
internal sealed class Remembered(int capacity)
{
    private readonly (string Id, StockVerb Verb)[] _ring = new (string, StockVerb)[capacity];
    private readonly Lock _lock = new();
    private long _count;

    public void Add(ReadOnlySpan<StockCommand> commands, ReadOnlySpan<StockResult> results)
    {
        if (capacity == 0)
        {
            return;
        }

        lock (_lock)
        {
            for (var i = 0; i < commands.Length; i++)
            {
                // What is only prepared is not there to stay.
                if (results[i].Status == StockStatus.Done && commands[i].Branch is null or { Phase: BranchPhase.Commit })
                {
                    _ring[_count++ % capacity] = (commands[i].Id, commands[i].Verb);
                }
            }
        }
    }

    /// <summary>What is remembered, the oldest first.</summary>
    public (string Id, StockVerb Verb)[] All()
    {
        lock (_lock)
        {
            var size = (int)Math.Min(_count, capacity);
            var all = new (string, StockVerb)[size];
            for (var i = 0; i < size; i++)
            {
                all[i] = _ring[(_count - size + i) % capacity];
            }

            return all;
        }
    }

    /// <summary>Forgets everything: after a loss it would be reported again.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _count = 0;
        }
    }

    /// <summary>Whether a state is one that this acknowledged verb leaves, or one that may follow it.</summary>
    public static bool Stands(StockVerb verb, OperationState state) => verb switch
    {
        StockVerb.Confirm => state is OperationState.Confirmed or OperationState.Cancelled,
        StockVerb.Cancel => state is OperationState.Cancelled,
        _ => state != OperationState.None,
    };
}
