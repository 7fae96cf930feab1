using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>One command as its caller saw it. Times are those of <see cref="Stopwatch.GetTimestamp"/>: monotonic, of one machine.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct HistoryEvent
{
    /// <summary>The command.</summary>
    public required StockCommand Command { get; init; }

    /// <summary>When it was sent.</summary>
    public required long SentAt { get; init; }

    /// <summary>When its answer came, or when the caller gave up.</summary>
    public required long AnsweredAt { get; init; }

    /// <summary>The answer; its status is None where there was none (an exception, a cancelled wait).</summary>
    public StockResult Result { get; init; }
}

/// <summary>What callers sent and what they were answered, for <see cref="HistoryAudit"/>. Thread-safe.</summary>
public sealed class History
{
    private readonly ConcurrentQueue<HistoryEvent> _events = new();

    /// <summary>How many commands were recorded.</summary>
    public int Count => _events.Count;

    /// <summary>The events so far, in no particular order.</summary>
    public IReadOnlyCollection<HistoryEvent> Events => _events;

    /// <summary>
    /// Records one command. The repetition of a refusal that a queue remembers is left out: it tells nothing about the stock
    /// of its time, and the refusal itself was recorded, or its answer was lost.
    /// </summary>
    public void Add(in HistoryEvent happened)
    {
        if (happened.Result is not { Status: StockStatus.Replayed, Original: not (StockStatus.None or StockStatus.Done or StockStatus.Cancelled or StockStatus.Expired) })
        {
            _events.Enqueue(happened);
        }
    }

    /// <summary>An engine that records what passes through it.</summary>
    public IStockEngine Record(IStockEngine inner) => new RecordingEngine(inner, this);

    private sealed class RecordingEngine(IStockEngine inner, History history) : DelegatingStockEngine(inner)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var sentAt = Stopwatch.GetTimestamp();
            IReadOnlyList<StockResult>? results = null;
            try
            {
                results = await base.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
                return results;
            }
            finally
            {
                var answeredAt = Stopwatch.GetTimestamp();
                for (var i = 0; i < commands.Count; i++)
                {
                    history.Add(new() { Command = commands[i], SentAt = sentAt, AnsweredAt = answeredAt, Result = results is null ? default : results[i] });
                }
            }
        }
    }
}
