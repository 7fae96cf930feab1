using System.Diagnostics;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// The primary is lost under load and its standby promoted; the Holdfast server has both in its connection string and
/// finds the new one by itself. With a synchronous standby nothing that was acknowledged is lost. With an asynchronous
/// one that lags, what was lost is listed, and lies inside the lag.
/// </summary>
internal static class FailoverRun
{
    private const string Scheme = "batched";
    private const int MostListed = 5;

    /// <summary>From the promotion's end to the first command that is applied; on a shared machine.</summary>
    private static readonly TimeSpan ResumeBound = TimeSpan.FromSeconds(15);

    /// <summary>How much earlier than the lag began a lost command may have been answered: the way to the standby takes time.</summary>
    private static readonly TimeSpan Underway = TimeSpan.FromSeconds(1);

    public static async Task<bool> RunAsync(int failovers, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            $"failover: kill -9 of the primary under load, its standby is promoted; {failovers} times with a synchronous and {failovers} times with an asynchronous standby",
            $"server: its own process, scheme {Scheme}, store postgres:Host=PRIMARY,STANDBY; {callers} callers of all verbs through one client that retries with the same ids; seed {seed}",
            "the asynchronous standby is sent nothing for a while before the primary is lost, so that there is something to lose: that is its lag",
            $"bounds: synchronous: no acknowledged operation lost; asynchronous: every lost one was answered inside the lag; audits pass; traffic resumes by itself within {ResumeBound.TotalSeconds:0} s of the promotion");
        output.Line($"{"standby",-14}{"acknowledged",13}{"lag",10}{"lost",7}{"oldest lost",13}{"promoted after",16}{"first applied after",21}   audit");
        var random = new Random(seed);
        var results = new List<Failover>();
        for (var i = 0; i < 2 * failovers; i++)
        {
            var failover = await FailOverAsync(i < failovers, callers, random.Next(), output, cancellationToken).ConfigureAwait(false);
            results.Add(failover);
            var lag = failover.IsSynchronous ? "" : $"{failover.Lag.TotalSeconds:0.00} s";
            var oldest = failover.Lost.Count == 0 ? "" : $"{failover.OldestLost.TotalSeconds:0.00} s";
            output.Line($"{(failover.IsSynchronous ? "synchronous" : "asynchronous"),-14}{failover.Acknowledged,13:#,##0}{lag,10}{failover.Lost.Count,7:#,##0}{oldest,13}{failover.Promoted.TotalSeconds,14:0.00} s{failover.Resumed.TotalSeconds,19:0.00} s   {failover.Audit}{(failover.Passed ? "" : "   NOT as it must be")}");
        }

        output.Line();
        output.Line("oldest lost: how long before the primary was lost it had been answered; promoted and first applied: after the primary was lost");
        foreach (var failover in results.Where(failover => failover.Lost.Count > 0))
        {
            var more = failover.Lost.Count > MostListed ? $", and {failover.Lost.Count - MostListed:#,##0} more (--json lists all)" : "";
            output.Line($"lost     {string.Join(", ", failover.Lost.Take(MostListed))}{more}");
        }

        var passed = results.TrueForAll(failover => failover.Passed);
        var slowest = results.Max(failover => failover.Resumed);
        output.Line($"recovery at most {slowest.TotalSeconds:0.00} s from the loss of the primary to the first applied command, {results.Max(failover => failover.Resumed - failover.Promoted).TotalSeconds:0.00} s of them after the promotion");
        await output.FinishAsync(new
        {
            run = "failover",
            failovers,
            callers,
            seed,
            results = results.Select(failover => new
            {
                synchronous = failover.IsSynchronous,
                failover.Acknowledged,
                lagSeconds = Math.Round(failover.Lag.TotalSeconds, 3),
                lost = failover.Lost,
                oldestLostSeconds = Math.Round(failover.OldestLost.TotalSeconds, 3),
                promotedSeconds = Math.Round(failover.Promoted.TotalSeconds, 3),
                resumedSeconds = Math.Round(failover.Resumed.TotalSeconds, 3),
                audit = failover.Audit.Passed ? "pass" : $"fail: {failover.Audit.FirstDifference}",
                failover.Passed,
            }),
            passed,
        }).ConfigureAwait(false);
        return passed;
    }

    private static async Task<Failover> FailOverAsync(bool isSynchronous, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        var random = new Random(seed);
        var primary = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = primary.ConfigureAwait(false);
        var standby = await primary.StartStandbyAsync().ConfigureAwait(false);
        await using var disposingToo = standby.ConfigureAwait(false);
        if (isSynchronous)
        {
            await primary.SetAsync("synchronous_standby_names", "*").ConfigureAwait(false);
        }

        History history;
        var lag = TimeSpan.Zero;
        long lostAt, promotedAt, resumedAt;
        var server = await ServerProcess.StartAsync(Scheme, $"postgres:{PostgreSqlServer.ConnectionStringOf(primary, standby)}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var load = await Callers.StartAsync(server, callers, seed, cancellationToken).ConfigureAwait(false);
            await using (load.ConfigureAwait(false))
            {
                history = load.History;
                await load.WorkForAsync(TimeSpan.FromMilliseconds(random.Next(1_000, 2_000)), cancellationToken).ConfigureAwait(false);
                if (!isSynchronous)
                {
                    var since = Stopwatch.GetTimestamp();
                    await primary.PauseReplicationAsync().ConfigureAwait(false);
                    await load.WorkForAsync(TimeSpan.FromMilliseconds(random.Next(500, 1_500)), cancellationToken).ConfigureAwait(false);
                    lag = Stopwatch.GetElapsedTime(since);
                }

                lostAt = Stopwatch.GetTimestamp();
                await primary.KillAsync().ConfigureAwait(false);

                // What an operator, or the tool in his place, does next.
                var resumes = load.NextAppliedAsync(cancellationToken);
                await standby.PromoteAsync().ConfigureAwait(false);
                promotedAt = Stopwatch.GetTimestamp();
                do
                {
                    // An answer that was on its way when the primary was lost says nothing.
                    resumedAt = await resumes.ConfigureAwait(false);
                    resumes = resumedAt < promotedAt ? load.NextAppliedAsync(cancellationToken) : resumes;
                }
                while (resumedAt < promotedAt);

                await load.WorkForAsync(TimeSpan.FromSeconds(1), cancellationToken).ConfigureAwait(false);
                await load.StopAsync().ConfigureAwait(false);
            }

            await server.StopAsync().ConfigureAwait(false);
        }

        await FencedStore.UntilAloneAsync(standby, cancellationToken).ConfigureAwait(false);
        var store = new PostgreSqlOptions { ConnectionString = standby.ConnectionString };
        var lost = isSynchronous ? [] : await FindLostAsync(store, history, cancellationToken).ConfigureAwait(false);
        var remaining = new History();
        foreach (var sent in history.Events)
        {
            // What was lost counts as never answered: it is then allowed to be missing, and everything else is not.
            remaining.Add(lost.Contains((sent.Command.Id, sent.Command.Verb)) ? sent with { Result = default } : sent);
        }

        var audit = await FencedStore.AuditAsync(store, remaining, null, cancellationToken).ConfigureAwait(false);
        var oldestLost = history.Events.Where(sent => lost.Contains((sent.Command.Id, sent.Command.Verb))).Select(sent => sent.AnsweredAt).DefaultIfEmpty(lostAt).Min();
        var age = Stopwatch.GetElapsedTime(oldestLost, lostAt);
        var resumed = Stopwatch.GetElapsedTime(lostAt, resumedAt);
        var promoted = Stopwatch.GetElapsedTime(lostAt, promotedAt);
        return new(
            isSynchronous,
            history.Events.Count(Callers.IsAcknowledged),
            lag,
            [.. lost.Select(one => $"{one.Verb} {one.Id}").Order(StringComparer.Ordinal)],
            age,
            promoted,
            resumed,
            audit,
            audit.Passed && resumed - promoted < ResumeBound && (lost.Count == 0 || age < lag + Underway));
    }

    /// <summary>What was acknowledged as applied, and is not in the store.</summary>
    private static async Task<HashSet<(string Id, StockVerb Verb)>> FindLostAsync(PostgreSqlOptions store, History history, CancellationToken cancellationToken)
    {
        var engine = await PostgreSqlEngine.OpenAsync(store with { ReadOnly = true }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using var disposing = engine.ConfigureAwait(false);
        var known = new Dictionary<string, (StockVerb Verb, OperationState State)>(StringComparer.Ordinal);
        await foreach (var view in engine.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
        {
            known.Add(view.Id, (view.Verb, view.State));
        }

        return
        [
            .. from sent in history.Events
               where Callers.IsAcknowledged(sent)
               let operation = known.GetValueOrDefault(sent.Command.Id)
               let isThere = sent.Command.Verb switch
               {
                   StockVerb.Cancel => operation.State == OperationState.Cancelled,
                   StockVerb.Confirm => operation.State == OperationState.Confirmed,
                   var verb => operation.Verb == verb,
               }
               where !isThere
               select (sent.Command.Id, sent.Command.Verb),
        ];
    }

    private sealed record Failover(
        bool IsSynchronous, int Acknowledged, TimeSpan Lag, IReadOnlyList<string> Lost, TimeSpan OldestLost, TimeSpan Promoted, TimeSpan Resumed, AuditReport Audit, bool Passed);
}
