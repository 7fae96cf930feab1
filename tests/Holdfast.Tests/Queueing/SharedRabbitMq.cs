using System.Collections.Concurrent;
using System.Globalization;
using Holdfast.Tests.Queueing;

[assembly: AssemblyFixture(typeof(SharedRabbitMq.Lifetime))]

namespace Holdfast.Tests.Queueing;

/// <summary>
/// One broker for the whole test run, started by the first test that needs it. Making quorum queues takes longer than most
/// tests, so sets of queues are used again: a test gives its set back when it has left nothing in it.
/// </summary>
public static class SharedRabbitMq
{
    private static readonly Lock s_lock = new();
    private static readonly ConcurrentDictionary<int, ConcurrentBag<string>> s_free = [];
    private static Task<RabbitMqServer>? s_server;
    private static int s_names;

    public static Task<RabbitMqServer> ServerAsync()
    {
        lock (s_lock)
        {
            return s_server ??= RabbitMqServer.StartAsync();
        }
    }

    /// <summary>Options for an empty set of queues; settings other than these make a set of their own.</summary>
    public static async Task<RabbitMqOptions> NewQueuesAsync() => new()
    {
        Uri = (await ServerAsync()).Uri,
        Name = string.Create(CultureInfo.InvariantCulture, $"t{Interlocked.Increment(ref s_names)}"),
        Queues = 2,
        RetryDelay = TimeSpan.FromMilliseconds(50),
    };

    /// <summary>Opens an empty set of queues, or one that was emptied; give it back by disposing it.</summary>
    public static async Task<Holdfast.Queueing.ICommandTransport> BorrowAsync(int queues)
    {
        var options = (await NewQueuesAsync()) with { Queues = queues };
        var free = s_free.GetOrAdd(queues, static _ => []);
        if (free.TryTake(out var name))
        {
            options = options with { Name = name };
        }

        return new Borrowed(await RabbitMqTransport.OpenAsync(options), options.Name, free);
    }

    /// <summary>Ends the server with the test run.</summary>
    public sealed class Lifetime : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            if (s_server is not null)
            {
                await (await s_server).DisposeAsync();
            }
        }
    }

    private sealed class Borrowed(RabbitMqTransport inner, string name, ConcurrentBag<string> free) : DelegatingTransport(inner)
    {
        public override async ValueTask DisposeAsync()
        {
            // What a consumer had acknowledged just now may be counted still: then the set is simply not used again.
            var isEmpty = await MeasureAsync() is { Waiting: 0, Deferred: 0, Dead: 0 };
            await base.DisposeAsync();
            if (isEmpty)
            {
                free.Add(name);
            }
        }
    }
}
