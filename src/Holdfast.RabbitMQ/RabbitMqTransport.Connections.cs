using System.Threading.Channels;
using Holdfast.Queueing;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace Holdfast;

/// <summary>Connections and channels, and the queues that are made on them.</summary>
public sealed partial class RabbitMqTransport
{
    /// <summary>A new channel, on a connection that is made anew where it was lost; publishing ones are in confirm mode. Publishing and consuming are apart, since a broker that is short of memory stops reading from those who publish.</summary>
    internal async ValueTask<IChannel> ChannelAsync(bool isPublishing, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isClosed) == 1, this);
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(_options.ConnectTimeout);
        IConnection connection;
        await _connecting.WaitAsync(limit.Token).ConfigureAwait(false);
        try
        {
            connection = isPublishing
                ? _publishing = await ConnectAsync(_publishing, limit.Token).ConfigureAwait(false)
                : _consuming = await ConnectAsync(_consuming, limit.Token).ConfigureAwait(false);
            if (!_isDeclared)
            {
                // Before and not after: what is found missing meanwhile is not forgotten.
                _isDeclared = true;
                try
                {
                    await DeclareAsync(connection, limit.Token).ConfigureAwait(false);
                }
                catch
                {
                    ForgetQueues();
                    throw;
                }
            }
        }
        finally
        {
            _connecting.Release();
        }

        var options = new CreateChannelOptions(publisherConfirmationsEnabled: isPublishing, publisherConfirmationTrackingEnabled: false);
        return await connection.CreateChannelAsync(options, limit.Token).ConfigureAwait(false);
    }

    private async ValueTask<IConnection> ConnectAsync(IConnection? known, CancellationToken cancellationToken)
    {
        if (known is { IsOpen: true })
        {
            return known;
        }

        if (known is not null)
        {
            await CloseAsync(known).ConfigureAwait(false);
        }

        // A broker that comes back may have come back empty.
        _isDeclared = false;
        return await _factory.CreateConnectionAsync(cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask DeclareAsync(IConnection connection, CancellationToken cancellationToken)
    {
        var channel = await connection.CreateChannelAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposing = channel.ConfigureAwait(false);
        await channel.ExchangeDeclareAsync(_options.Name, ExchangeType.Direct, durable: true, autoDelete: false, cancellationToken: cancellationToken).ConfigureAwait(false);
        await channel.ExchangeDeclareAsync(_later, ExchangeType.Fanout, durable: true, autoDelete: false, cancellationToken: cancellationToken).ConfigureAwait(false);
        for (var queue = 0; queue < _queues.Length; queue++)
        {
            var arguments = Arguments((_options.MaxMessages + Queues - 1) / Queues);
            arguments["x-single-active-consumer"] = true;
            await channel.QueueDeclareAsync(QueueName(queue), durable: true, exclusive: false, autoDelete: false, arguments, cancellationToken: cancellationToken).ConfigureAwait(false);
            await channel.QueueBindAsync(QueueName(queue), _options.Name, Key(queue), cancellationToken: cancellationToken).ConfigureAwait(false);
        }

        // What is put aside waits here until its time is over, and goes back to the queue that its routing key names. At
        // least once: the broker keeps it until the queue has it.
        var later = Arguments(_options.MaxMessages);
        later["x-message-ttl"] = (long)_options.RetryDelay.TotalMilliseconds;
        later["x-dead-letter-exchange"] = _options.Name;
        later["x-dead-letter-strategy"] = "at-least-once";
        await channel.QueueDeclareAsync(_later, durable: true, exclusive: false, autoDelete: false, later, cancellationToken: cancellationToken).ConfigureAwait(false);
        await channel.QueueBindAsync(_later, _later, "", cancellationToken: cancellationToken).ConfigureAwait(false);
        await channel.QueueDeclareAsync(_dead, durable: true, exclusive: false, autoDelete: false, Arguments(_options.MaxDeadLetters), cancellationToken: cancellationToken).ConfigureAwait(false);
    }

    private static Dictionary<string, object?> Arguments(long maxLength) => new(StringComparer.Ordinal)
    {
        ["x-queue-type"] = "quorum",
        ["x-max-length"] = maxLength,

        // Without it a full queue drops its oldest messages without a word.
        ["x-overflow"] = "reject-publish",

        // RabbitMQ 4 drops what was handed out more than 20 times where nothing is said: an order would be forgotten, and a
        // dead letter be gone by being looked at. That there is no limit is said differently by 3 and by 4; a number as large
        // as this is taken by both.
        ["x-delivery-limit"] = int.MaxValue,
    };

    private async ValueTask<Reader> OpenReaderAsync(One one, int queue, CancellationToken cancellationToken)
    {
        var channel = await ChannelAsync(isPublishing: false, cancellationToken).ConfigureAwait(false);
        try
        {
            var reader = new Reader(channel);
            channel.ChannelShutdownAsync += (_, _) =>
            {
                reader.Arrived.Writer.TryComplete();
                return Task.CompletedTask;
            };
            var consumer = new AsyncEventingBasicConsumer(channel);
            consumer.ReceivedAsync += (_, e) =>
            {
                // The driver takes the body back when this returns.
                reader.Arrived.Writer.TryWrite(new((long)e.DeliveryTag, e.Body.ToArray(), DeliveriesOf(e.BasicProperties)));
                one.LastAcceptedAt = e.BasicProperties.Timestamp.UnixTime;
                return Task.CompletedTask;
            };

            // Cancelled by the broker: the queue was deleted.
            consumer.UnregisteredAsync += (_, _) =>
            {
                ForgetQueues();
                reader.Arrived.Writer.TryComplete();
                return Task.CompletedTask;
            };
            await channel.BasicQosAsync(0, (ushort)_options.Prefetch, global: false, cancellationToken).ConfigureAwait(false);
            await channel.BasicConsumeAsync(QueueName(queue), autoAck: false, consumer, cancellationToken).ConfigureAwait(false);
            return reader;
        }
        catch
        {
            await CloseAsync(channel).ConfigureAwait(false);
            throw;
        }
    }

    private static async ValueTask CloseAsync(IChannel channel)
    {
        try
        {
            await channel.AbortAsync(CancellationToken.None).ConfigureAwait(false);
            await channel.DisposeAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (IsOfBroker(e))
        {
            // It was to be closed, and is.
        }
    }

    private static async ValueTask CloseAsync(IConnection connection)
    {
        try
        {
            await connection.AbortAsync().ConfigureAwait(false);
            await connection.DisposeAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (IsOfBroker(e))
        {
            // It was to be closed, and is.
        }
    }

    /// <summary>A consumer's channel, and what has arrived on it: at most as many as the prefetch.</summary>
    private sealed class Reader(IChannel channel)
    {
        public IChannel Channel { get; } = channel;

        public Channel<QueueDelivery> Arrived { get; } = System.Threading.Channels.Channel.CreateUnbounded<QueueDelivery>(new() { SingleReader = true, SingleWriter = true });
    }
}
