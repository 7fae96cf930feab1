using System.Globalization;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// The tables of queue and verdicts, with a version of their own: they are made when a queue is opened first, so that a
/// store without one has none. Times are milliseconds since 1970-01-01 UTC.
/// </summary>
internal static class QueueSchema
{
    private const int Version = 1;

    /// <summary>Makes what is missing. Any number of processes may do so at once.</summary>
    public static async Task MakeAsync(NpgsqlConnection connection, string schema, string server, CancellationToken cancellationToken)
    {
        var s = Schema.Quote(schema);

        // Looked at first: nearly always all is there, and making an index that exists would still wait for those who write.
        if (await VersionAsync(connection, s, cancellationToken).ConfigureAwait(false) == Version)
        {
            return;
        }

        var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = transaction.ConfigureAwait(false);

        // not_before: 0, or when what was put aside is due. due_at: when a verdict is to be announced next, if it is.
        // Rows come and go, so the tables are vacuumed by count and not by share.
        await Schema.RunAsync(
            connection,
            string.Create(
                CultureInfo.InvariantCulture,
                $"""
                SELECT pg_advisory_xact_lock({Schema.LockKey("holdfast queue " + schema)});
                CREATE TABLE IF NOT EXISTS {s}.queue_version(one integer PRIMARY KEY CHECK (one = 1), version integer NOT NULL);
                INSERT INTO {s}.queue_version VALUES (1, {Version}) ON CONFLICT DO NOTHING;
                CREATE TABLE IF NOT EXISTS {s}.queue_partition(queue smallint PRIMARY KEY);
                CREATE TABLE IF NOT EXISTS {s}.queue_message(
                    not_before bigint   NOT NULL,
                    seq        bigint   GENERATED ALWAYS AS IDENTITY,
                    at         bigint   NOT NULL,
                    queue      smallint NOT NULL,
                    body       bytea    NOT NULL,
                    PRIMARY KEY (queue, not_before, seq)
                ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
                CREATE TABLE IF NOT EXISTS {s}.queue_dead(
                    letter bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                    at     bigint   NOT NULL,
                    queue  smallint NOT NULL,
                    reason text     NOT NULL,
                    body   bytea    NOT NULL
                );
                CREATE TABLE IF NOT EXISTS {s}.verdict(
                    at        bigint   NOT NULL,
                    due_at    bigint,
                    attempts  integer  NOT NULL DEFAULT 0,
                    verb      smallint NOT NULL,
                    given_up  boolean  NOT NULL DEFAULT false,
                    id        text     COLLATE "C" PRIMARY KEY,
                    operation text     COLLATE "C" NOT NULL,
                    result    text     COLLATE "C" NOT NULL
                );
                CREATE INDEX IF NOT EXISTS verdict_at       ON {s}.verdict(at);
                CREATE INDEX IF NOT EXISTS verdict_due      ON {s}.verdict(due_at) WHERE due_at IS NOT NULL;
                CREATE INDEX IF NOT EXISTS verdict_given_up ON {s}.verdict(id) WHERE given_up;
                """),
            cancellationToken).ConfigureAwait(false);
        if (await VersionAsync(connection, s, cancellationToken).ConfigureAwait(false) is > Version and var version)
        {
            throw new PostgreSqlStoreException($"The queue in the schema '{schema}' of {server} has version {version}; this build knows {Version}: use the newer build that wrote it.");
        }

        await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The version of the tables; <see langword="null"/> where there are none.</summary>
    private static async Task<int?> VersionAsync(NpgsqlConnection connection, string quoted, CancellationToken cancellationToken)
    {
        var exists = new NpgsqlCommand("SELECT to_regclass($1) IS NOT NULL", connection) { Parameters = { new() { Value = $"{quoted}.queue_version" } } };
        await using var disposing = exists.ConfigureAwait(false);
        if (await exists.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is not true)
        {
            return null;
        }

        var read = new NpgsqlCommand($"SELECT version FROM {quoted}.queue_version", connection);
        await using var disposingToo = read.ConfigureAwait(false);
        return await read.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as int?;
    }
}
