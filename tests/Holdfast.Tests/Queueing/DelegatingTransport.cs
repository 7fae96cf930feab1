using Holdfast.Queueing;

namespace Holdfast.Tests.Queueing;

/// <summary>Passes each call on: what the tests break transports with.</summary>
internal abstract class DelegatingTransport(ICommandTransport inner) : ICommandTransport
{
    public ICommandTransport Inner { get; } = inner;

    public int Queues => Inner.Queues;

    public string Location => Inner.Location;

    public bool IsDurable => Inner.IsDurable;

    public virtual ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default) => Inner.SendAsync(messages, cancellationToken);

    public virtual ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default) => Inner.ReceiveAsync(queue, most, cancellationToken);

    public virtual ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default) => Inner.SettleAsync(queue, settlements, cancellationToken);

    public virtual ValueTask ReleaseAsync(int queue) => Inner.ReleaseAsync(queue);

    public ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default) => Inner.MeasureAsync(cancellationToken);

    public ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default) => Inner.PeekDeadAsync(most, cancellationToken);

    public ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default) => Inner.RequeueDeadAsync(letter, message, cancellationToken);

    public ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default) => Inner.DropDeadAsync(letter, cancellationToken);

    public virtual ValueTask DisposeAsync() => Inner.DisposeAsync();
}
