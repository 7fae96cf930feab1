using System.Globalization;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.Gate;

[assembly: AssemblyFixture(typeof(SharedGate.Lifetime))]

namespace Holdfast.Tests.Gate;

/// <summary>One Redis server for the gates of a whole test run; each gate has a name of its own.</summary>
public static class SharedGate
{
    private static readonly Lock s_lock = new();
    private static Task<RedisServer>? s_server;
    private static int s_gates;

    /// <summary>The server.</summary>
    public static Task<RedisServer> ServerAsync()
    {
        lock (s_lock)
        {
            return s_server ??= RedisServer.StartAsync();
        }
    }

    /// <summary>A name that no other gate has.</summary>
    public static string NewName() => string.Create(CultureInfo.InvariantCulture, $"gate{Interlocked.Increment(ref s_gates)}");

    /// <summary>Options with which a gate is soon at work.</summary>
    public static RedisGateOptions Quick(RedisServer server) => new()
    {
        Redis = server.Configuration,
        Name = NewName(),
        Lease = TimeSpan.FromMilliseconds(200),
        FollowInterval = TimeSpan.FromMilliseconds(20),
        MaxLag = TimeSpan.FromSeconds(10),
        ForgetAfter = TimeSpan.FromSeconds(2),
        CallTimeout = TimeSpan.FromSeconds(10),
        IdBits = 20,
    };

    /// <summary>Opens an empty store behind a gate that is at work.</summary>
    public static async ValueTask<IStockEngine> OpenAsync(SchemeStart start, IStockEngine inner, GateAcknowledgement acknowledge = GateAcknowledgement.Store)
    {
        var server = await ServerAsync();
        var options = Quick(server);
        options.Acknowledge = acknowledge;
        start.Own(new RemovedGate(options.Name, server));
        var gate = await RedisGate.OpenAsync(inner, options);
        await UntilSureAsync(gate);
        return gate;
    }

    /// <summary>
    /// Opens an empty store behind a gate that acknowledges by itself, and waits after each call until the store has it: a test that moves the
    /// clock must not do so while a reservation is on its way there.
    /// </summary>
    public static async ValueTask<IStockEngine> OpenSettledAsync(SchemeStart start, IStockEngine inner) =>
        new Settled((RedisGate)await OpenAsync(start, inner, GateAcknowledgement.Gate));

    /// <summary>Waits until a gate refuses by itself.</summary>
    public static Task UntilSureAsync(RedisGate gate) => UntilAsync(() => gate.IsSure, "the gate is at work");

    /// <summary>Waits for a condition that comes true by itself.</summary>
    public static Task UntilAsync(Func<bool> condition, string what) => UntilAsync(() => Task.FromResult(condition()), what);

    /// <summary>Waits for a condition that comes true by itself.</summary>
    public static async Task UntilAsync(Func<Task<bool>> condition, string what)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(90), $"waited in vain until {what}");
            await Task.Delay(TimeSpan.FromMilliseconds(10), TimeProvider.System, TestContext.Current.CancellationToken);
        }
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

    private sealed class Settled(RedisGate gate) : DelegatingStockEngine(gate)
    {
        public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            var results = await base.ExecuteAsync(commands, cancellationToken);
            await gate.SettleAsync(cancellationToken);
            return results;
        }
    }

    private sealed class RemovedGate(string name, RedisServer server) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync() =>
            await server.CliAsync("EVAL", "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end", "1", $"{{{name}}}:gate", $"{{{name}}}:*");
    }
}
