using System.Text;
using Holdfast.Queueing;
using RabbitMQ.Client;

namespace Holdfast;

/// <summary>What was given up: looked at, sent again, dropped.</summary>
public sealed partial class RabbitMqTransport
{
    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<DeadLetter>> PeekDeadAsync(int most, CancellationToken cancellationToken = default) => WithDeadAsync<IReadOnlyList<DeadLetter>>(
        async channel =>
        {
            // Got and not acknowledged: they go back when the channel closes.
            var letters = new List<DeadLetter>();
            while (letters.Count < most && await channel.BasicGetAsync(_dead, autoAck: false, cancellationToken).ConfigureAwait(false) is { } got)
            {
                letters.Add(LetterOf(got));
            }

            return letters;
        },
        cancellationToken);

    /// <inheritdoc/>
    public ValueTask<SendStatus> RequeueDeadAsync(string letter, QueueMessage message, CancellationToken cancellationToken = default) => WithDeadAsync(
        async channel =>
        {
            if (await FindDeadAsync(channel, letter, cancellationToken).ConfigureAwait(false) is not { } tag)
            {
                return SendStatus.None;
            }

            var status = (await SendAsync([message], cancellationToken).ConfigureAwait(false))[0];
            if (status == SendStatus.Accepted)
            {
                await channel.BasicAckAsync(tag, multiple: false, cancellationToken).ConfigureAwait(false);
            }

            return status;
        },
        cancellationToken);

    /// <inheritdoc/>
    public ValueTask<bool> DropDeadAsync(string letter, CancellationToken cancellationToken = default) => WithDeadAsync(
        async channel =>
        {
            if (await FindDeadAsync(channel, letter, cancellationToken).ConfigureAwait(false) is not { } tag)
            {
                return false;
            }

            await channel.BasicAckAsync(tag, multiple: false, cancellationToken).ConfigureAwait(false);
            return true;
        },
        cancellationToken);

    private static DeadLetter LetterOf(BasicGetResult got) => new()
    {
        Letter = got.BasicProperties.MessageId ?? "",
        Queue = got.BasicProperties.Headers?.TryGetValue(QueueHeader, out var queue) == true && queue is int number ? number : 0,
        Reason = got.BasicProperties.Headers?.TryGetValue(ReasonHeader, out var reason) == true && reason is byte[] text ? Encoding.UTF8.GetString(text) : "",
        At = DateTimeOffset.FromUnixTimeSeconds(got.BasicProperties.Timestamp.UnixTime),
        Body = got.Body.ToArray(),
    };

    private async ValueTask<ulong?> FindDeadAsync(IChannel channel, string letter, CancellationToken cancellationToken)
    {
        while (await channel.BasicGetAsync(_dead, autoAck: false, cancellationToken).ConfigureAwait(false) is { } got)
        {
            if (got.BasicProperties.MessageId == letter)
            {
                return got.DeliveryTag;
            }
        }

        return null;
    }

    /// <summary>Works with dead letters on a channel of its own; what it got and did not acknowledge goes back when the channel closes.</summary>
    private async ValueTask<T> WithDeadAsync<T>(Func<IChannel, Task<T>> work, CancellationToken cancellationToken)
    {
        try
        {
            var channel = await ChannelAsync(isPublishing: false, cancellationToken).ConfigureAwait(false);
            await using var disposing = channel.ConfigureAwait(false);
            var result = await work(channel).ConfigureAwait(false);
            await channel.CloseAsync(cancellationToken).ConfigureAwait(false);
            return result;
        }
        catch (Exception e) when (IsOfBroker(e) && e is not CommandTransportException && !cancellationToken.IsCancellationRequested)
        {
            throw Failed(e);
        }
    }
}
