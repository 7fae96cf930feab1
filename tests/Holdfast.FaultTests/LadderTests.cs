using Holdfast.Ladder;
using Holdfast.Ladder.Faults;
using Holdfast.Ladder.Queueing;

namespace Holdfast.FaultTests;

/// <summary>
/// A slice of each of the ladder's long runs (bench/Holdfast.Ladder/Faults): the same code, with one kill. Each ends in
/// the audit of the ledger and of the callers' history, and fails past its bounds.
/// </summary>
public sealed class LadderTests
{
    private const int Seed = 1;

    /// <summary>Longer than the command's own, since here the other tests run beside it: that a server comes back is what is tested, how fast is measured.</summary>
    private static readonly TimeSpan s_restartBound = TimeSpan.FromSeconds(30);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public Task PostgreSql_killed_and_the_server_killed() => RunAsync(output => PostgreSqlCrashRun.RunAsync(kills: 1, callers: 16, Seed, output, Token));

    [Fact]
    public Task The_primary_lost_and_its_standby_promoted() => RunAsync(output => FailoverRun.RunAsync(failovers: 1, callers: 16, Seed, output, Token));

    [Fact]
    public Task A_standby_that_lags_stands_still_and_is_down() => RunAsync(output => ReplicaRun.RunAsync(seconds: 1, callers: 12, Seed, output, Token));

    [Fact]
    public Task Three_server_processes_sell_one_hot_sku() => RunAsync(output => NodesRun.RunAsync(units: 500, callers: 24, Seed, output, Token));

    [Fact]
    public Task A_gate_that_loses_everything_in_mid_sale() => RunAsync(output => GateRebuildRun.RunAsync(skus: 3_000, callers: 16, Seed, output, Token));

    [Fact]
    public Task A_server_on_several_shards_killed() => RunAsync(output => CrashRun.RunAsync(isSharded: true, kills: 2, callers: 16, Seed, s_restartBound, output, Token));

    [Theory]
    [MemberData(nameof(Faults))]
    public Task A_gate_that_acknowledges_by_itself_under(string fault) =>
        RunAsync(output => GateFaultsRun.RunAsync([fault], GateAcknowledgement.Gate, commands: 150, outage: 2, Seed, output, Token));

    [Theory]
    [InlineData("node-killed")]
    [InlineData("postgres-down")]
    [InlineData("stale-replica")]
    [InlineData("old-snapshot")]
    public Task A_gate_before_a_store_that_acknowledges_under(string fault) =>
        RunAsync(output => GateFaultsRun.RunAsync([fault], GateAcknowledgement.Store, commands: 150, outage: 2, Seed, output, Token));

    /// <summary>The names of the faults, for theories.</summary>
    public static TheoryData<string> Faults => [.. GateFaultsRun.All];

    [Fact]
    public Task A_burst_through_a_queue() => RunAsync(output => QueueBurstRun.RunAsync(orders: 2_000, units: 50, callers: 64, "rabbitmq", output, Token));

    [Fact]
    public Task RabbitMQ_the_consumer_and_PostgreSql_killed_under_a_queue() => RunAsync(output => QueueCrashRun.RunAsync(kills: 1, callers: 8, Seed, output, Token));

    [Fact]
    public Task A_consumer_stopped_while_orders_go_on() => RunAsync(output => QueueStoppedRun.RunAsync(seconds: 2, bound: 100, callers: 8, output, Token));

    private static async Task RunAsync(Func<Output, Task<bool>> run)
    {
        GivenServer.SkipWhereGiven();
        var report = new StringWriter();
        (await run(new(report, TextWriter.Null, json: false, file: null))).ShouldBeTrue(report.ToString());
    }
}
