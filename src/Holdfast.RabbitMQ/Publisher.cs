using System.Runtime.InteropServices;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace Holdfast.RabbitMQ;

/// <summary>What the broker said about a publish.</summary>
internal enum Confirmation
{
    /// <summary>It never left.</summary>
    NotSent = 0,

    /// <summary>Nothing: the connection was lost, or it took too long.</summary>
    Unknown = 1,

    /// <summary>It is on the disks of a majority.</summary>
    Confirmed = 2,

    /// <summary>The queue is full.</summary>
    Rejected = 3,
}

/// <summary>A message to be published.</summary>
/// <param name="Exchange">The exchange.</param>
/// <param name="RoutingKey">The routing key.</param>
/// <param name="Body">The body.</param>
/// <param name="Properties">The properties; those of a plain command when <see langword="null"/>.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct Outgoing(string Exchange, string RoutingKey, ReadOnlyMemory<byte> Body, BasicProperties? Properties = null);

/// <summary>
/// Publishes batches over a channel of its own, all confirmed: the messages of a batch are written one after the other and
/// their confirmations awaited together. The driver's own tracking would cost a task and a header a message. Thread-safe.
/// </summary>
internal sealed class Publisher(RabbitMqTransport owner, TimeSpan confirmTimeout, TimeProvider clock) : IAsyncDisposable
{
    private readonly SemaphoreSlim _turn = new(1, 1);
    private Session? _session;

    public async ValueTask<Confirmation[]> PublishAsync(IReadOnlyList<Outgoing> messages, CancellationToken cancellationToken)
    {
        var confirmations = new Confirmation[messages.Count];
        if (confirmations.Length == 0 || !await _turn.WaitAsync(confirmTimeout, cancellationToken).ConfigureAwait(false))
        {
            return confirmations;
        }

        Session? session = null;
        Batch? batch = null;
        try
        {
            using var limit = new CancellationTokenSource(confirmTimeout, clock);
            session = _session is { IsOpen: true } open ? open : _session = await Session.OpenAsync(owner, await owner.ChannelAsync(isPublishing: true, limit.Token).ConfigureAwait(false)).ConfigureAwait(false);
            batch = new(confirmations);
            await session.PublishAsync(messages, batch, new() { DeliveryMode = DeliveryModes.Persistent, Timestamp = new(clock.GetUtcNow().ToUnixTimeSeconds()) }, limit.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (RabbitMqTransport.IsOfBroker(e))
        {
            // What was written is unknown, what was not is not sent; the next batch begins on a new channel.
            owner.Note(e);
            session?.Abandon();
        }
        finally
        {
            _turn.Release();
        }

        if (batch is not null)
        {
            try
            {
                await batch.Completed.WaitAsync(confirmTimeout, clock, CancellationToken.None).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                session!.Abandon();
                await batch.Completed.ConfigureAwait(false);
            }
        }

        return confirmations;
    }

    public async ValueTask DisposeAsync()
    {
        _session?.Abandon();
        _turn.Dispose();
        await ValueTask.CompletedTask.ConfigureAwait(false);
    }

    /// <summary>The confirmations of one batch, written by the session under its lock.</summary>
    private sealed class Batch(Confirmation[] confirmations)
    {
        private readonly TaskCompletionSource _completed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int _unsent = confirmations.Length;
        private int _open;

        public Task Completed => _completed.Task;

        public void Sending(int index)
        {
            confirmations[index] = Confirmation.Unknown;
            _unsent--;
            _open++;
        }

        public void Take(int index, Confirmation confirmation)
        {
            confirmations[index] = confirmation;
            _open--;
            EndWhenDone();
        }

        /// <summary>Nothing more is sent or confirmed: what is open stays unknown.</summary>
        public void Abandon()
        {
            _unsent = 0;
            _open = 0;
            EndWhenDone();
        }

        private void EndWhenDone()
        {
            if (_open == 0 && _unsent == 0)
            {
                _completed.TrySetResult();
            }
        }
    }

    /// <summary>A channel in confirm mode, and what it has not confirmed yet.</summary>
    private sealed class Session
    {
        private readonly RabbitMqTransport _owner;
        private readonly IChannel _channel;
        private readonly Lock _lock = new();
        private readonly Dictionary<ulong, (Batch Batch, int Index)> _outstanding = [];
        private readonly HashSet<Batch> _batches = [];
        private ulong _last;
        private ulong _lowest = 1;
        private bool _isAbandoned;

        private Session(RabbitMqTransport owner, IChannel channel)
        {
            _owner = owner;
            _channel = channel;
        }

        public bool IsOpen => _channel.IsOpen && !Volatile.Read(ref _isAbandoned);

        public static ValueTask<Session> OpenAsync(RabbitMqTransport owner, IChannel channel)
        {
            var session = new Session(owner, channel);
            channel.BasicAcksAsync += (_, e) => session.TakeAsync(e.DeliveryTag, e.Multiple, Confirmation.Confirmed);
            channel.BasicNacksAsync += (_, e) => session.TakeAsync(e.DeliveryTag, e.Multiple, Confirmation.Rejected);

            // A queue is gone. Which message it was the broker does not say in a way that is cheap to follow, so the fate of
            // all that are out is unknown; the next session makes the queues anew.
            channel.BasicReturnAsync += session.ReturnedAsync;
            channel.ChannelShutdownAsync += session.ClosedAsync;
            return new(session);
        }

        public async ValueTask PublishAsync(IReadOnlyList<Outgoing> messages, Batch batch, BasicProperties plain, CancellationToken cancellationToken)
        {
            lock (_lock)
            {
                _batches.Add(batch);
            }

            for (var i = 0; i < messages.Count; i++)
            {
                lock (_lock)
                {
                    if (_isAbandoned)
                    {
                        batch.Abandon();
                        return;
                    }

                    _outstanding.Add(++_last, (batch, i));
                    batch.Sending(i);
                }

                var (exchange, routingKey, body, properties) = messages[i];
                await _channel.BasicPublishAsync(exchange, routingKey, mandatory: true, properties ?? plain, body, cancellationToken).ConfigureAwait(false);
            }
        }

        /// <summary>Gives the channel up: what it has not confirmed stays unknown.</summary>
        public void Abandon()
        {
            lock (_lock)
            {
                Volatile.Write(ref _isAbandoned, true);
                _outstanding.Clear();
                foreach (var batch in _batches)
                {
                    batch.Abandon();
                }

                _batches.Clear();
            }

            _ = CloseAsync();
        }

        private async Task CloseAsync()
        {
            try
            {
                await _channel.AbortAsync(CancellationToken.None).ConfigureAwait(false);
                await _channel.DisposeAsync().ConfigureAwait(false);
            }
            catch (Exception e) when (RabbitMqTransport.IsOfBroker(e))
            {
                // It was to be closed, and is.
            }
        }

        private Task TakeAsync(ulong tag, bool isMultiple, Confirmation confirmation)
        {
            lock (_lock)
            {
                for (var each = isMultiple ? _lowest : tag; each <= tag; each++)
                {
                    if (_outstanding.Remove(each, out var sent))
                    {
                        sent.Batch.Take(sent.Index, confirmation);
                        if (sent.Batch.Completed.IsCompleted)
                        {
                            _batches.Remove(sent.Batch);
                        }
                    }
                }

                // Confirmations come mostly in order.
                while (_lowest <= _last && !_outstanding.ContainsKey(_lowest))
                {
                    _lowest++;
                }
            }

            return Task.CompletedTask;
        }

        private Task ReturnedAsync(object sender, BasicReturnEventArgs e)
        {
            _owner.ForgetQueues();
            Abandon();
            return Task.CompletedTask;
        }

        private Task ClosedAsync(object sender, ShutdownEventArgs e)
        {
            Abandon();
            return Task.CompletedTask;
        }
    }
}
