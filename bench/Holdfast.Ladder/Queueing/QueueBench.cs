using System.Globalization;
using System.Text;
using Holdfast.TestServers;
using RabbitMQ.Client;

namespace Holdfast.Ladder.Queueing;

/// <summary>Servers and queues of the queue's measurements: RabbitMQ and PostgreSQL of their own, both durable, and the same queues for both sides.</summary>
internal static class QueueBench
{
    public const int Queues = 4;

    private static int s_names;

    /// <summary>Options for a new set of queues.</summary>
    public static RabbitMqOptions NewQueues(RabbitMqServer server, long maxMessages = 10_000_000) => new()
    {
        Uri = server.Uri,
        Name = string.Create(CultureInfo.InvariantCulture, $"bench{Interlocked.Increment(ref s_names)}"),
        Queues = Queues,
        MaxMessages = maxMessages,
        RetryDelay = TimeSpan.FromMilliseconds(200),
    };

    /// <summary>A command's message as the layer writes it: what the bare loops send, too.</summary>
    public static byte[] MessageOf(string id) => Holdfast.Wire.QueuedCommandJson.Write(new()
    {
        Command = StockCommand.Deduct(id, [new("hot", 1)]),
        AcceptedAt = TimeProvider.System.GetUtcNow(),
        Deadline = TimeProvider.System.GetUtcNow().AddMinutes(10),
    });

    /// <summary>A connection for a bare loop.</summary>
    public static Task<IConnection> ConnectAsync(RabbitMqServer server, CancellationToken cancellationToken) =>
        new ConnectionFactory { Uri = new(server.Uri), AutomaticRecoveryEnabled = false }.CreateConnectionAsync(cancellationToken);

    /// <summary>Makes the queues of a set and nothing else; the layer's own declarations, so that both sides have the same.</summary>
    public static async Task MakeAsync(RabbitMqOptions options, CancellationToken cancellationToken)
    {
        var transport = await RabbitMqTransport.OpenAsync(options, cancellationToken: cancellationToken).ConfigureAwait(false);
        await transport.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Removes a set of queues, so that the next side begins with an empty broker.</summary>
    public static async Task DeleteAsync(RabbitMqServer server, RabbitMqOptions options, CancellationToken cancellationToken)
    {
        var connection = await ConnectAsync(server, cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var channel = await connection.CreateChannelAsync(cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposingToo = channel.ConfigureAwait(false);
        foreach (var queue in Enumerable.Range(0, options.Queues).Select(i => string.Create(CultureInfo.InvariantCulture, $"{options.Name}.{i}")).Append(options.Name + ".later").Append(options.Name + ".dead"))
        {
            await channel.QueueDeleteAsync(queue, cancellationToken: cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The text of a body, for what correlates by id.</summary>
    public static string Text(ReadOnlySpan<byte> body) => Encoding.UTF8.GetString(body);
}
