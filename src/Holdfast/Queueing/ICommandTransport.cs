namespace Holdfast.Queueing;

/// <summary>What became of a message that was sent.</summary>
public enum SendStatus
{
    /// <summary>Not a status.</summary>
    None = 0,

    /// <summary>The queue holds it durably.</summary>
    Accepted = 1,

    /// <summary>The queue is full: it was not taken.</summary>
    Full = 2,

    /// <summary>The queue could not be reached: it was not taken.</summary>
    Unreachable = 3,

    /// <summary>The connection was lost while it was on its way: it may have been taken.</summary>
    InDoubt = 4,
}

/// <summary>How a consumer is done with a delivery.</summary>
public enum SettlementKind
{
    /// <summary>Not a settlement.</summary>
    None = 0,

    /// <summary>It is finished and goes.</summary>
    Done = 1,

    /// <summary>It comes again later, with the body that the settlement carries.</summary>
    Later = 2,

    /// <summary>It goes to the dead letters, with the reason.</summary>
    Dead = 3,
}

/// <summary>A message on its way to one of the queues of a transport.</summary>
/// <param name="Queue">The queue, from 0.</param>
/// <param name="Body">What the queue keeps; not to be changed until the call has ended.</param>
public readonly record struct QueueMessage(int Queue, ReadOnlyMemory<byte> Body);

/// <summary>A message that a consumer holds until it settles it, or until the consumer is gone and another gets it.</summary>
/// <param name="Tag">The transport's own name of it.</param>
/// <param name="Body">What was sent.</param>
/// <param name="Deliveries">How often it was handed out, this time included; 1 where the transport does not count.</param>
public sealed record QueueDelivery(long Tag, ReadOnlyMemory<byte> Body, int Deliveries = 1);

/// <summary>How a consumer is done with one delivery.</summary>
/// <param name="Delivery">The delivery.</param>
/// <param name="Kind">How.</param>
public sealed record QueueSettlement(QueueDelivery Delivery, SettlementKind Kind)
{
    /// <summary>For <see cref="SettlementKind.Later"/>: the message that takes its place.</summary>
    public ReadOnlyMemory<byte> Body { get; init; }

    /// <summary>For <see cref="SettlementKind.Later"/>: for how long it stays away, at least; transports may round up to what they were opened with.</summary>
    public TimeSpan Delay { get; init; }

    /// <summary>For <see cref="SettlementKind.Dead"/>: why, for people.</summary>
    public string? Reason { get; init; }
}

/// <summary>How much a transport holds.</summary>
public sealed record QueueDepth
{
    /// <summary>Messages that wait to be handed out, in all queues.</summary>
    public required long Waiting { get; init; }

    /// <summary>Messages that are put aside for a while.</summary>
    public required long Deferred { get; init; }

    /// <summary>Dead letters.</summary>
    public required long Dead { get; init; }

    /// <summary>When the oldest waiting message was accepted, as far as the transport knows; <see langword="null"/> when it does not or nothing waits.</summary>
    public DateTimeOffset? OldestAcceptedAt { get; init; }
}

/// <summary>A message that was given up.</summary>
public sealed record DeadLetter
{
    /// <summary>What to name it by.</summary>
    public required string Letter { get; init; }

    /// <summary>The queue that it came from.</summary>
    public required int Queue { get; init; }

    /// <summary>Why it was given up.</summary>
    public required string Reason { get; init; }

    /// <summary>When.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>What was sent.</summary>
    public required ReadOnlyMemory<byte> Body { get; init; }
}

/// <summary>The queue could not be reached, or the connection was lost. What was handed out and not settled comes again.</summary>
/// <param name="message">Names the queue and says what to do.</param>
/// <param name="innerException">What caused it.</param>
public sealed class CommandTransportException(string message, Exception? innerException = null) : IOException(message, innerException);

/// <summary>
/// A number of durable, bounded queues, and what is behind them. A queue hands its messages to one consumer at a time, in
/// the order in which they were accepted; what was put aside comes later. Thread-safe; but the deliveries of one queue
/// belong to one consumer, which receives again only when it has settled what it received.
/// </summary>
/// <remarks>Every method throws <see cref="CommandTransportException"/> where the queue can't be reached, except for <see cref="SendAsync"/>, whose statuses say so.</remarks>
public interface ICommandTransport : IAsyncDisposable
{
    /// <summary>How many queues there are.</summary>
    int Queues { get; }

    /// <summary>Where they are, for people: no password.</summary>
    string Location { get; }

    /// <summary>Whether what was accepted survives the loss of any one process.</summary>
    bool IsDurable { get; }

    /// <summary>Sends messages; each succeeds or fails alone, and those to one queue keep their order.</summary>
    /// <returns>One status a message, in order.</returns>
    ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default);

    /// <summary>Takes what is there, up to a number; waits while nothing is, or while another consumer has the queue.</summary>
    /// <returns>At least one delivery.</returns>
    ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default);

    /// <summary>Settles everything that the last receive handed out. Where it fails, what was not settled comes again.</summary>
    ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default);

    /// <summary>Stops receiving from a queue and gives back what was handed out and not settled, so that others get it at once.</summary>
    ValueTask ReleaseAsync(int queue);

    /// <summary>Counts what is there.</summary>
    ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default);

    /// <summary>Shows dead letters, the oldest first, and leaves them where they are.</summary>
    ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default);

    /// <summary>Sends a message in the place of a dead letter, which goes.</summary>
    /// <returns>The status of the message; <see cref="SendStatus.None"/> when there is no such letter.</returns>
    ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default);

    /// <summary>Removes a dead letter.</summary>
    /// <returns>Whether there was one.</returns>
    ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default);
}
