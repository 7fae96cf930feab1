using System.Text;
using Holdfast.Wire;

namespace Holdfast.Queueing;

/// <summary>A command on its way through a queue, with what the queue must know of it. Its JSON form is <see cref="QueuedCommandJson"/>.</summary>
public sealed record QueuedCommand
{
    /// <summary>The command.</summary>
    public required StockCommand Command { get; init; }

    /// <summary>When the queue accepted it, in whole milliseconds, by the clock of whoever sent it.</summary>
    public required DateTimeOffset AcceptedAt { get; init; }

    /// <summary>From then on it is not executed any more but abandoned: an order that is too late for anybody.</summary>
    public required DateTimeOffset Deadline { get; init; }

    /// <summary>How often it made the engine fail.</summary>
    public int Tries { get; init; }

    /// <summary>
    /// The id that its verdict is recorded under and asked for by: needed for Confirm, Cancel and Abandon, which have no id
    /// of their own, and allowed for every verb. Lives beside the operation ids and follows the same rules.
    /// </summary>
    public string? RequestId { get; init; }

    /// <summary>What its verdict is asked for by; <see langword="null"/> for a Confirm, Cancel or Abandon without a request id.</summary>
    public string? VerdictId => RequestId ?? (Command.IsTransition ? null : Command.Id);

    /// <summary>The queue that it belongs to: by the order that it speaks of, so that the verbs of one order stay in order. The same in every process and version.</summary>
    /// <param name="queues">How many queues there are.</param>
    public int QueueOf(int queues)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);

        // FNV-1a: no hash of the framework is promised to stay the same. The high bits are mixed in, since the low ones alone are weak.
        Span<byte> key = stackalloc byte[StockLimits.MaxKeyLength * 3];
        var hash = 2166136261u;
        foreach (var b in key[..Encoding.UTF8.GetBytes(Command.Target ?? Command.Id, key)])
        {
            hash = unchecked((hash ^ b) * 16777619u);
        }

        return (int)((hash ^ (hash >> 16)) % (uint)queues);
    }
}
