using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>Audits a PostgreSQL store once nobody can write to it any more.</summary>
internal static class FencedStore
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>Waits until the sessions of servers that are gone have ended: one that was killed may have left a COMMIT behind.</summary>
    public static async Task UntilAloneAsync(PostgreSqlServer server, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(Patience);
        while ((long)(await server.RunSqlAsync("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast'").ConfigureAwait(false))! > 0)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(20), TimeProvider.System, limit.Token).ConfigureAwait(false);
        }
    }

    /// <summary>The audit of the whole store, and of a history.</summary>
    public static async Task<AuditReport> AuditAsync(PostgreSqlOptions store, History history, HistoryAuditOptions? options, CancellationToken cancellationToken)
    {
        var engine = await PostgreSqlEngine.OpenAsync(store with { ReadOnly = true }, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using (engine.ConfigureAwait(false))
        {
            var ledger = await LedgerAudit.RunAsync(engine, cancellationToken: cancellationToken).ConfigureAwait(false);
            return ledger.And(await HistoryAudit.RunAsync(engine, history, options, cancellationToken).ConfigureAwait(false));
        }
    }
}
