namespace Holdfast.Queueing;

/// <summary>Verdicts in the memory of one process, beside a <see cref="MemoryEngine"/>: for tests and rehearsals. Thread-safe.</summary>
/// <param name="engine">Where the operations are.</param>
/// <param name="clock">The clock of leases; the system's by default.</param>
public sealed class MemoryVerdicts(IStockEngine engine, TimeProvider? clock = null) : IVerdictStore
{
    private readonly TimeProvider _clock = clock ?? TimeProvider.System;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Row> _rows = new(StringComparer.Ordinal);

    /// <inheritdoc/>
    public ValueTask RecordAsync(IReadOnlyList<Verdict> verdicts, bool announce = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(verdicts);
        lock (_lock)
        {
            foreach (var verdict in verdicts)
            {
                _rows.TryAdd(verdict.Id, new(verdict) { DueAt = announce ? _clock.GetUtcNow() : null });
            }
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public async ValueTask<IReadOnlyList<Verdict?>> FindAsync(IReadOnlyList<string> ids, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(ids);
        var found = new Verdict?[ids.Count];
        for (var i = 0; i < found.Length; i++)
        {
            lock (_lock)
            {
                found[i] = _rows.GetValueOrDefault(ids[i])?.Verdict;
            }

            found[i] ??= await engine.GetOperationAsync(ids[i], cancellationToken).ConfigureAwait(false) is { } operation ? Verdict.Of(operation) : null;
        }

        return found;
    }

    /// <inheritdoc/>
    public ValueTask<int> PurgeAsync(DateTimeOffset before, int most, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            var old = _rows.Values.Where(row => row.DueAt is null && row.Verdict.At < before).Take(most).Select(row => row.Verdict.Id).ToArray();
            foreach (var id in old)
            {
                _rows.Remove(id);
            }

            return new(old.Length);
        }
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<Announcement>> TakeAnnouncementsAsync(int most, TimeSpan lease, CancellationToken cancellationToken = default)
    {
        var now = _clock.GetUtcNow();
        lock (_lock)
        {
            var due = _rows.Values.Where(row => row.DueAt <= now).OrderBy(row => row.DueAt).Take(most).ToArray();
            foreach (var row in due)
            {
                row.DueAt = now + lease;
                row.Attempts++;
            }

            return new(Array.ConvertAll(due, static row => new Announcement(row.Verdict, row.Attempts)));
        }
    }

    /// <inheritdoc/>
    public ValueTask SettleAnnouncementAsync(string id, bool isDelivered, DateTimeOffset? again = null, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            if (_rows.TryGetValue(id, out var row))
            {
                row.DueAt = isDelivered ? null : again;
                row.IsGivenUp = !isDelivered && again is null;
            }
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public ValueTask<AnnouncementCounts> CountAnnouncementsAsync(CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            return new(new AnnouncementCounts(_rows.Values.Count(row => row.DueAt is not null), _rows.Values.Count(row => row.IsGivenUp)));
        }
    }

    private sealed class Row(Verdict verdict)
    {
        public Verdict Verdict { get; } = verdict;

        public DateTimeOffset? DueAt { get; set; }

        public int Attempts { get; set; }

        public bool IsGivenUp { get; set; }
    }
}
