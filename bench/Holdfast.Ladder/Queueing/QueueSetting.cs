using Holdfast.Queueing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Queueing;

/// <summary>A store, a queue in front of it, and the servers that they need, of a run's own.</summary>
internal sealed class QueueSetting : IAsyncDisposable
{
    private readonly List<IAsyncDisposable> _servers = [];

    private QueueSetting(string description) => Description = description;

    public string Description { get; }

    public required IStockEngine Store { get; init; }

    public required ICommandTransport Transport { get; init; }

    public required IVerdictStore Verdicts { get; init; }

    public static async Task<QueueSetting> StartAsync(string transport, int queues, CancellationToken cancellationToken)
    {
        List<IAsyncDisposable> servers = [];
        if (transport == "sqlite")
        {
            var scratch = new Scratch();
            var file = SqliteEngine.Open(new() { Path = scratch.File("stock.db") });
            return new($"{file.Durability}; the file is the queue, {queues} queues")
            {
                Store = file,
                Transport = await file.OpenQueueAsync(queues, cancellationToken: cancellationToken).ConfigureAwait(false),
                Verdicts = await file.OpenVerdictsAsync(cancellationToken: cancellationToken).ConfigureAwait(false),
                Files = scratch,
            };
        }

        var postgres = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        servers.Add(postgres);
        var store = await PostgreSqlEngine.OpenAsync(new() { ConnectionString = postgres.ConnectionString }, cancellationToken: cancellationToken).ConfigureAwait(false);
        var verdicts = await store.OpenVerdictsAsync(cancellationToken).ConfigureAwait(false);
        ICommandTransport queue;
        if (transport == "rabbitmq")
        {
            var broker = await RabbitMqServer.StartAsync().ConfigureAwait(false);
            servers.Add(broker);
            queue = await RabbitMqTransport.OpenAsync(QueueBench.NewQueues(broker) with { Queues = queues }, cancellationToken: cancellationToken).ConfigureAwait(false);
        }
        else
        {
            queue = await store.OpenQueueAsync(queues, cancellationToken: cancellationToken).ConfigureAwait(false);
        }

        var setting = new QueueSetting($"{store.Durability}; {(transport == "rabbitmq" ? "RabbitMQ 3.10" : "the database")} is the queue, {queues} queues") { Store = store, Transport = queue, Verdicts = verdicts };
        setting._servers.AddRange(servers);
        return setting;
    }

    private Scratch? Files { get; init; }

    /// <summary>The servers; store and queue are disposed by whoever uses them.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (var server in _servers)
        {
            await server.DisposeAsync().ConfigureAwait(false);
        }

        Files?.Dispose();
    }
}
