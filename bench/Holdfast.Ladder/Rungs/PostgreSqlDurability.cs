using System.Globalization;
using Holdfast.Cli;
using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>
/// Killing a server proves nothing about a loss of power, so the flushes are counted: what <c>pg_stat_wal</c> says about the log's
/// flushes against the transactions that wrote. The same with <c>synchronous_commit</c> off shows that the count can tell the difference.
/// </summary>
internal static class PostgreSqlDurability
{
    public static async Task<bool> RunAsync(int orders, Output output, CancellationToken cancellationToken)
    {
        // Nothing else may write or flush while it is counted.
        var database = await BenchDatabase.StartAsync("autovacuum=off").ConfigureAwait(false);
        await using (database.ConfigureAwait(false))
        {
            output.Heading(
                "postgres-durability: flushes of the log against transactions that wrote",
                database.Description,
                $"counted by the server: wal_sync of pg_stat_wal, and the transaction numbers given out; about {orders} orders a part",
                "bound: with one caller a flush a commit; with n callers and a transaction each, one flush may serve up to n commits; without synchronous_commit (the counter-check) fewer than half a flush a commit");
            output.Line($"{"scheme",-10}{"callers",8}{"synchronous_commit",20}{"operations",12}{"commits",10}{"flushes",10}{"commits a flush",17}   audit");
            var parts = new List<object>();
            var passed = true;
            foreach (var (scheme, callers, synchronous) in ((string, int, bool)[])[("database", 1, true), ("database", 16, true), ("batched", 1, true), ("batched", 256, true), ("database", 1, false)])
            {
                var part = await PartAsync(database, scheme, callers, synchronous, orders, cancellationToken).ConfigureAwait(false);
                var sharing = scheme == "database" ? callers : 1;
                var isGood = part.Audit == "pass" && (synchronous ? part.Flushes * sharing >= part.Commits : part.Flushes * 2 < part.Commits);
                passed &= isGood;
                output.Line($"{scheme,-10}{callers,8}{(synchronous ? "on" : "off"),20}{part.Operations,12}{part.Commits,10}{part.Flushes,10}{(double)part.Commits / Math.Max(1, part.Flushes),17:0.00}   {part.Audit}{(isGood ? "" : "   NOT as set")}");
                parts.Add(new { scheme, callers, synchronousCommit = synchronous, part.Operations, part.Commits, part.Flushes, part.Audit, passed = isGood });
            }

            output.Line();
            output.Line(passed ? "consistent with the settings" : "NOT consistent with the settings");
            await output.FinishAsync(new { run = "postgres-durability", server = database.Description, orders, parts, passed }).ConfigureAwait(false);
            return passed;
        }
    }

    private static async Task<Part> PartAsync(BenchDatabase database, string scheme, int callers, bool synchronous, int orders, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(scheme == "database" ? PostgreSqlTransactions.Command : PostgreSqlTransactions.Call, connectionSettings: synchronous ? "" : ";Options=-c synchronous_commit=off").ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            var engine = store.Engine;
            var run = RunName.New(TimeProvider.System);
            await engine.RestockAsync($"{run}-opening", [new(run, orders)], cancellationToken: cancellationToken).ConfigureAwait(false);
            var before = await CountAsync(database, cancellationToken).ConfigureAwait(false);
            long applied = 0;
            await Parallel.ForEachAsync(
                Enumerable.Range(0, orders),
                new ParallelOptions { MaxDegreeOfParallelism = callers, CancellationToken = cancellationToken },
                async (i, token) =>
                {
                    var result = await engine.DeductAsync($"{run}-{i}", [new(run, 1)], cancellationToken: token).ConfigureAwait(false);
                    Interlocked.Add(ref applied, result.IsApplied ? 1 : 0);
                }).ConfigureAwait(false);
            var after = await CountAsync(database, cancellationToken).ConfigureAwait(false);
            var audit = await LoadAudit.LedgerAsync(new Terminal(TextWriter.Null, TextWriter.Null, isInteractive: false), engine, cancellationToken).ConfigureAwait(false);
            if (audit == "pass" && applied != orders)
            {
                audit = string.Create(CultureInfo.InvariantCulture, $"fail: {applied} of {orders} orders were applied");
            }

            return new(applied, after.Transactions - before.Transactions, after.Flushes - before.Flushes, audit);
        }
    }

    /// <summary>
    /// The server's counts. Sessions report theirs at most once a second and when they end, so it waits until the count stands still
    /// for longer than that.
    /// </summary>
    private static async Task<(long Transactions, long Flushes)> CountAsync(BenchDatabase database, CancellationToken cancellationToken)
    {
        var transactions = (long)(await database.RunSqlAsync("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").ConfigureAwait(false))!;
        await database.RunSqlAsync("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'holdfast' AND state = 'idle'").ConfigureAwait(false);
        long flushes = -1;
        for (var quiet = 0; quiet < 5;)
        {
            var now = (long)(await database.RunSqlAsync("SELECT wal_sync FROM pg_stat_wal").ConfigureAwait(false))!;
            quiet = now == flushes ? quiet + 1 : 0;
            flushes = now;
            await Task.Delay(TimeSpan.FromMilliseconds(300), cancellationToken).ConfigureAwait(false);
        }

        return (transactions, flushes);
    }

    private sealed record Part(long Operations, long Commits, long Flushes, string Audit);
}
