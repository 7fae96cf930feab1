using System.Globalization;

namespace Holdfast.Queueing;

/// <summary>Queues in the memory of one process: for tests and rehearsals, gone with the process. Thread-safe.</summary>
public sealed class MemoryTransport : ICommandTransport
{
    private readonly TimeProvider _clock;
    private readonly long _maxMessages;
    private readonly Lock _lock = new();
    private readonly One[] _queues;
    private readonly List<DeadLetter> _dead = [];
    private long _lastTag;
    private bool _isClosed;

    /// <summary>Makes empty queues.</summary>
    /// <param name="queues">How many.</param>
    /// <param name="maxMessages">Most messages in all of them.</param>
    /// <param name="clock">The clock of what is put aside; the system's by default.</param>
    public MemoryTransport(int queues = 4, long maxMessages = 1_000_000, TimeProvider? clock = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxMessages, 1);
        _clock = clock ?? TimeProvider.System;
        _maxMessages = maxMessages;
        _queues = [.. Enumerable.Range(0, queues).Select(_ => new One())];
    }

    /// <inheritdoc/>
    public int Queues => _queues.Length;

    /// <inheritdoc/>
    public string Location => "the memory of this process";

    /// <inheritdoc/>
    public bool IsDurable => false;

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var statuses = new SendStatus[messages.Count];
        lock (_lock)
        {
            for (var i = 0; i < statuses.Length; i++)
            {
                statuses[i] = Send(messages[i]);
            }
        }

        return new(statuses);
    }

    /// <inheritdoc/>
    public async ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default)
    {
        var one = _queues[queue];
        await ReleaseAsync(queue).ConfigureAwait(false);
        while (true)
        {
            TimeSpan pause;
            lock (_lock)
            {
                var now = _clock.GetUtcNow();
                foreach (var due in one.Deferred.Where(each => each.Due <= now).ToArray())
                {
                    one.Deferred.Remove(due);
                    one.Waiting.AddLast(due.Message);
                }

                if (one.Waiting.Count > 0)
                {
                    while (one.Held.Count < most && one.Waiting.First is { } first)
                    {
                        one.Waiting.RemoveFirst();
                        one.Held.Add(first.Value with { Deliveries = first.Value.Deliveries + 1 });
                    }

                    return [.. one.Held];
                }

                pause = one.Deferred.Count == 0 ? Timeout.InfiniteTimeSpan : one.Deferred.Min(each => each.Due) - now;
            }

            await one.Signal.WaitAsync(pause, _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(settlements);
        var one = _queues[queue];
        lock (_lock)
        {
            foreach (var settlement in settlements)
            {
                if (one.Held.RemoveAll(held => held.Tag == settlement.Delivery.Tag) == 0)
                {
                    continue;
                }

                switch (settlement.Kind)
                {
                    case SettlementKind.Later:
                        one.Deferred.Add((_clock.GetUtcNow() + settlement.Delay, new(++_lastTag, settlement.Body, 0)));
                        break;
                    case SettlementKind.Dead:
                        _dead.Add(new() { Letter = (++_lastTag).ToString(CultureInfo.InvariantCulture), Queue = queue, Reason = settlement.Reason ?? "", At = _clock.GetUtcNow(), Body = settlement.Delivery.Body });
                        break;
                }
            }
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public ValueTask ReleaseAsync(int queue)
    {
        lock (_lock)
        {
            var one = _queues[queue];
            for (var i = one.Held.Count - 1; i >= 0; i--)
            {
                one.Waiting.AddFirst(one.Held[i]);
            }

            if (one.Held.Count > 0)
            {
                one.Held.Clear();
                one.Signal.Set();
            }
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            return new(new QueueDepth { Waiting = _queues.Sum(one => (long)one.Waiting.Count), Deferred = _queues.Sum(one => (long)one.Deferred.Count), Dead = _dead.Count });
        }
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            return new([.. _dead.Take(most)]);
        }
    }

    /// <inheritdoc/>
    public ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            var at = _dead.FindIndex(each => each.Letter == letter);
            if (at < 0)
            {
                return new(SendStatus.None);
            }

            var status = Send(message);
            if (status == SendStatus.Accepted)
            {
                _dead.RemoveAt(at);
            }

            return new(status);
        }
    }

    /// <inheritdoc/>
    public ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            return new(_dead.RemoveAll(each => each.Letter == letter) > 0);
        }
    }

    /// <summary>Takes no more messages.</summary>
    public ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            _isClosed = true;
        }

        return ValueTask.CompletedTask;
    }

    private SendStatus Send(QueueMessage message)
    {
        if (_isClosed)
        {
            return SendStatus.Unreachable;
        }

        if (_queues.Sum(each => (long)each.Waiting.Count + each.Held.Count + each.Deferred.Count) >= _maxMessages)
        {
            return SendStatus.Full;
        }

        var one = _queues[message.Queue];
        one.Waiting.AddLast(new QueueDelivery(++_lastTag, message.Body, 0));
        one.Signal.Set();
        return SendStatus.Accepted;
    }

    private sealed class One
    {
        public LinkedList<QueueDelivery> Waiting { get; } = [];

        public List<QueueDelivery> Held { get; } = [];

        public List<(DateTimeOffset Due, QueueDelivery Message)> Deferred { get; } = [];

        public QueueSignal Signal { get; } = new();
    }
}
