using Holdfast.Redis;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast.Tests.Redis;

/// <summary>The one file that knows the driver, over real servers that are paused, killed and robbed of their scripts.</summary>
public sealed class RedisConnectionTests
{
    private static readonly RedisScript s_count = new("count", "return redis.call('INCRBY', KEYS[1], ARGV[1])");

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_script_that_the_server_does_not_have_is_sent_whole_and_runs_once()
    {
        await using var server = await RedisServer.StartAsync();
        await using var connection = await OpenAsync(server.Configuration);
        ((long)await connection.RunAsync(s_count, ["n"], [1], Cancel)).ShouldBe(1);
        await server.CliAsync("SCRIPT", "FLUSH");
        ((long)await connection.RunAsync(s_count, ["n"], [1], Cancel)).ShouldBe(2);
        ((long)await connection.RunAsync(s_count, ["n"], [1], Cancel)).ShouldBe(3);
    }

    [Fact]
    public async Task Calls_in_flight_survive_SCRIPT_FLUSH()
    {
        await using var server = await RedisServer.StartAsync();
        await using var connection = await OpenAsync(server.Configuration);
        for (var round = 0; round < 5; round++)
        {
            var calls = Enumerable.Range(0, 200).Select(_ => connection.RunAsync(s_count, ["n"], [1], Cancel)).ToList();
            await server.CliAsync("SCRIPT", "FLUSH");
            await Task.WhenAll(calls);
        }

        (await server.CliAsync("GET", "n")).ShouldBe("1000");
    }

    [Fact]
    public async Task A_paused_server_leaves_calls_in_doubt_within_the_bound_and_then_refuses_more()
    {
        await using var server = await RedisServer.StartAsync();
        await using var connection = await OpenAsync(server.Configuration, TimeSpan.FromMilliseconds(500), maxInFlight: 10);
        await server.PauseAsync();
        var began = TimeProvider.System.GetTimestamp();
        var calls = Enumerable.Range(0, 10).Select(_ => FailureOfAsync(connection.RunAsync(s_count, ["n"], [1], Cancel))).ToList();
        (await FailureOfAsync(connection.RunAsync(s_count, ["n"], [1], Cancel))).ShouldBe(CallFailure.NotSent, "the bound of calls under way");
        (await Task.WhenAll(calls)).ShouldAllBe(failure => failure == CallFailure.InDoubt);
        TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(20));
        await server.ResumeAsync();
        await UntilAsync(async () => await FailureOfAsync(connection.CallAsync(["PING"], Cancel)) is null);
    }

    [Fact]
    public async Task A_killed_server_is_not_sent_to_and_found_again_when_it_is_back()
    {
        await using var server = await RedisServer.StartAsync("appendfsync always");
        await using var connection = await OpenAsync(server.Configuration);
        await connection.RunAsync(s_count, ["n"], [5], Cancel);
        await server.KillAsync();
        await UntilAsync(async () => await FailureOfAsync(connection.RunAsync(s_count, ["n"], [0], Cancel)) == CallFailure.NotSent);
        await server.StartAsync();
        await UntilAsync(async () => await FailureOfAsync(connection.RunAsync(s_count, ["n"], [0], Cancel)) is null);
        ((long)await connection.RunAsync(s_count, ["n"], [0], Cancel)).ShouldBe(5);
        connection.Reconnects.ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Errors_of_the_server_tell_whether_a_retry_can_help()
    {
        await using var server = await RedisServer.StartAsync("maxmemory-policy noeviction");
        await using var connection = await OpenAsync(server.Configuration);
        await server.CliAsync("RPUSH", "list", "a");
        (await FailureOfAsync(connection.RunAsync(s_count, ["list"], [1], Cancel))).ShouldBe(CallFailure.Broken, "a key of the wrong type");
        await server.CliAsync("CONFIG", "SET", "maxmemory", "1mb");
        (await FailureOfAsync(connection.RunAsync(s_count, ["n"], [1], Cancel))).ShouldBe(CallFailure.Refused, "no memory left");
        await server.CliAsync("CONFIG", "SET", "maxmemory", "0");
        (await FailureOfAsync(connection.RunAsync(s_count, ["n"], [1], Cancel))).ShouldBeNull();
        (await connection.ConfigAsync("n", "maxmemory-policy", Cancel)).ShouldBe("noeviction");
        (await connection.InfoAsync("n", "server", Cancel))["redis_version"].ShouldStartWith("7");
    }

    [Fact]
    public async Task On_a_cluster_scripts_run_where_their_keys_are()
    {
        await using var cluster = await RedisCluster.StartAsync();
        await using var connection = await OpenAsync(cluster.Configuration);
        foreach (var key in Enumerable.Range(0, 30))
        {
            ((long)await connection.RunAsync(s_count, [$"{{{key}}}n"], [key], Cancel)).ShouldBe(key);
        }

        var sizes = await Task.WhenAll(cluster.Nodes.Select(node => node.CliAsync("DBSIZE")));
        sizes.ShouldAllBe(size => size != "0", "each node has some of 30 keys");
    }

    [Fact]
    public async Task Where_nothing_answers_opening_says_so()
    {
        var failure = await Should.ThrowAsync<RedisStoreException>(() => OpenAsync("127.0.0.1:1,password=correct-horse", TimeSpan.FromSeconds(1)));
        failure.Message.ShouldStartWith("Redis at 127.0.0.1:1 can't be reached");
        failure.Message.ShouldNotContain("correct-horse");
        failure.MayPass.ShouldBeTrue();
    }

    private static Task<RedisConnection> OpenAsync(string configuration, TimeSpan? timeout = null, int maxInFlight = 1_000) =>
        RedisConnection.OpenAsync(configuration, timeout ?? TimeSpan.FromSeconds(5), maxInFlight, TimeProvider.System, NullLogger.Instance, Cancel);

    private static async Task<CallFailure?> FailureOfAsync(Task<RedisResult> call)
    {
        try
        {
            await call;
            return null;
        }
        catch (RedisStoreException e)
        {
            return e.Failure;
        }
    }

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(TimeSpan.FromSeconds(60));
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, Cancel);
        }
    }
}
