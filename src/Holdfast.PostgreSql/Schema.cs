using System.Text;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// The store's schema in the database. Migration n brings it from version n − 1 to n, in one transaction with its new
/// number; a migration that was released is never edited. In each, <c>{s}</c> stands for the quoted schema.
/// </summary>
internal static class Schema
{
    public static IReadOnlyList<string> Migrations { get; } =
    [
        // 1. The first schema.
        //
        // Text keys compare by bytes (COLLATE "C"), as the contract's ByteOrder does, whatever the database's locale.
        //
        // stock: half of each page stays free and no index names a column that changes, so that an update stays in its
        // page (HOT) and the next one cleans up after it; a hot row needs no vacuum.
        //
        // flow: partitioned by time, so that retention can move old entries out as a whole. Its position is one block a
        // transaction, taken while the transaction holds its stock rows, so positions agree with every SKU's versions;
        // see Bookmarks about reading in that order. Entries name SKU and operation by text: numbers would be no
        // shorter, and would cost a look-up in each direction.
        //
        // The partial indexes hold only what is rare: reservations, ended operations and refunds. No foreign keys:
        // a look-up a row would prove what the audit proves for all of them.
        //
        // Numbers of verbs, states and kinds are those of StockVerb, OperationState and FlowKind. Times are
        // milliseconds since 1970-01-01 UTC.
        """
        CREATE TABLE {s}.stock(
            available  bigint NOT NULL CHECK (available >= 0),
            reserved   bigint NOT NULL CHECK (reserved >= 0),
            restocked  bigint NOT NULL,
            adjusted   bigint NOT NULL,
            supplied   bigint NOT NULL,
            version    bigint NOT NULL,
            changed_at bigint NOT NULL,
            sku        text   COLLATE "C" PRIMARY KEY
        ) WITH (fillfactor = 50);

        -- lines: JSON, one [SKU, quantity, left after it] a line. refunded: JSON, one number a line.
        -- end_left: JSON, what was left of each line's SKU when it ended.
        CREATE TABLE {s}.operation(
            created_at bigint   NOT NULL,
            expires_at bigint,
            ended_at   bigint,
            verb       smallint NOT NULL,
            state      smallint NOT NULL,
            id         text     COLLATE "C" PRIMARY KEY,
            target     text     COLLATE "C",
            lines      text     COLLATE "C",
            note       text     COLLATE "C",
            end_left   text     COLLATE "C",
            refunded   text     COLLATE "C"
        );
        CREATE INDEX operation_live      ON {s}.operation(expires_at, id) WHERE state = 2;
        CREATE INDEX operation_by_state  ON {s}.operation(state, id)      WHERE state <> 1;
        CREATE INDEX operation_by_target ON {s}.operation(target, id)     WHERE target IS NOT NULL;

        -- The ledger: never altered.
        CREATE TABLE {s}.flow(
            position         bigint   NOT NULL,
            version          bigint   NOT NULL,
            available_change bigint   NOT NULL,
            reserved_change  bigint   NOT NULL,
            available        bigint   NOT NULL,
            reserved         bigint   NOT NULL,
            at               bigint   NOT NULL,
            kind             smallint NOT NULL,
            sku              text     COLLATE "C" NOT NULL,
            operation        text     COLLATE "C" NOT NULL
        ) PARTITION BY RANGE (at);
        CREATE TABLE {s}.flow_1 PARTITION OF {s}.flow FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
        CREATE UNIQUE INDEX ON {s}.flow_1(sku, version);
        CREATE UNIQUE INDEX ON {s}.flow_1(position);
        CREATE FUNCTION {s}.keep_ledger() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'the ledger is never altered'; END $$;
        CREATE TRIGGER flow_keeps_values BEFORE UPDATE OR DELETE ON {s}.flow FOR EACH ROW EXECUTE FUNCTION {s}.keep_ledger();

        -- The number of the latest block of positions. Begins at 1 as taken: the next is always greater than what it shows.
        CREATE SEQUENCE {s}.flow_block;
        SELECT nextval('{s}.flow_block');

        -- Units in the hands of reservations that nobody ended.
        CREATE TABLE {s}.hold(
            expires_at bigint NOT NULL,
            quantity   bigint NOT NULL,
            sku        text   COLLATE "C" NOT NULL,
            operation  text   COLLATE "C" NOT NULL,
            PRIMARY KEY (sku, expires_at, operation)
        );

        -- One row a process that checks against a standby: the number of its latest heartbeat.
        CREATE TABLE {s}.heartbeat(
            number bigint NOT NULL,
            at     bigint NOT NULL,
            node   text   COLLATE "C" PRIMARY KEY
        ) WITH (fillfactor = 50);
        """,

        // 2. Months and archives of the ledger.
        //
        // Each month gets a partition, made ahead by whichever process comes first; what no month covers goes into the
        // rest, so that a sale never fails for want of one. What an older store had so far stays the rest: its months to
        // come get partitions of their own, see Partitions.
        //
        // opening: what the archived entries of a SKU came to, in the place of the last of them. holds: JSON, one
        // [operation, units] a reservation.
        """
        ALTER TABLE {s}.flow DETACH PARTITION {s}.flow_1;
        ALTER TABLE {s}.flow_1 RENAME TO flow_rest;
        CREATE INDEX flow_rest_at ON {s}.flow_rest(at);
        ALTER TABLE {s}.flow ATTACH PARTITION {s}.flow_rest DEFAULT;

        CREATE OR REPLACE FUNCTION {s}.keep_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Only an archive, which has written the row to a file and its sums to an opening, takes it away.
            IF TG_OP = 'DELETE' AND OLD.at < coalesce(nullif(current_setting('holdfast.archived_before', true), ''), '0')::bigint THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'the ledger is never altered';
        END $$;

        CREATE TABLE {s}.flow_archive(
            number    bigint PRIMARY KEY,
            before    bigint NOT NULL,
            archived  timestamptz NOT NULL DEFAULT now(),
            entries   bigint NOT NULL,
            skus      bigint NOT NULL,
            sha256    text   NOT NULL,
            file      text   NOT NULL
        );
        CREATE TABLE {s}.flow_opening(
            position  bigint NOT NULL,
            version   bigint NOT NULL,
            available bigint NOT NULL CHECK (available >= 0),
            reserved  bigint NOT NULL CHECK (reserved >= 0),
            restocked bigint NOT NULL,
            adjusted  bigint NOT NULL,
            supplied  bigint NOT NULL,
            before    bigint NOT NULL,
            sku       text   COLLATE "C" PRIMARY KEY,
            operation text   COLLATE "C" NOT NULL,
            holds     text   COLLATE "C" NOT NULL
        );
        CREATE UNIQUE INDEX flow_opening_position ON {s}.flow_opening(position);
        """,

        // 3. Parts of commands over several shards. held: units of available that such parts have prepared to take. cart
        // names the whole that an operation is a part of; pending, what is prepared about an operation (ShardedCart and
        // PendingBranch in text). An operation in state 7 is prepared itself, and has no ledger entry.
        """
        ALTER TABLE {s}.stock ADD COLUMN held bigint NOT NULL DEFAULT 0 CHECK (held >= 0);
        ALTER TABLE {s}.operation ADD COLUMN cart text COLLATE "C", ADD COLUMN pending text COLLATE "C";
        CREATE INDEX operation_pending ON {s}.operation(pending) WHERE pending IS NOT NULL;
        """,
    ];

    /// <summary>How long a migration may take, and the wait for another process's: on a large store it builds indexes.</summary>
    private static readonly TimeSpan s_migrationTimeout = TimeSpan.FromHours(1);

    /// <summary>Brings the schema to the newest version. Any number of processes may do so at once: the others wait for the first.</summary>
    public static async Task MigrateAsync(NpgsqlConnection connection, string schema, IReadOnlyList<string> migrations, string server, CancellationToken cancellationToken)
    {
        var quoted = Quote(schema);

        // Looked at without a lock first: nearly always there is nothing to do.
        var known = await VersionAsync(connection, quoted, cancellationToken).ConfigureAwait(false);
        if (known is { } there && Examine(there, migrations.Count, schema, server) == migrations.Count)
        {
            return;
        }

        var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = transaction.ConfigureAwait(false);

        // CREATE SCHEMA IF NOT EXISTS by two transactions at once fails for one of them, so the lock comes first.
        // The session's time-outs are made for sales. Only that of locks is back once it is our turn: everybody would wait behind us.
        await RunAsync(
            connection,
            $"SET LOCAL statement_timeout = '{s_migrationTimeout.TotalSeconds}s'; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({LockKey("holdfast migration " + schema)}); SET LOCAL lock_timeout TO DEFAULT",
            s_migrationTimeout,
            cancellationToken).ConfigureAwait(false);
        if (known is null)
        {
            // Another process may have made it while we waited. Asking whether it exists is no use: the server may answer
            // from what it remembers of our question before the wait.
            await RunAsync(
                connection,
                $"""
                CREATE SCHEMA IF NOT EXISTS {quoted};
                CREATE TABLE IF NOT EXISTS {quoted}.schema_version(one integer PRIMARY KEY CHECK (one = 1), version integer NOT NULL);
                INSERT INTO {quoted}.schema_version VALUES (1, 0) ON CONFLICT DO NOTHING
                """,
                cancellationToken).ConfigureAwait(false);
        }

        var version = Examine(await ReadVersionAsync(connection, quoted, cancellationToken).ConfigureAwait(false), migrations.Count, schema, server);
        for (; version < migrations.Count; version++)
        {
            await RunAsync(connection, migrations[version].Replace("{s}", quoted, StringComparison.Ordinal), s_migrationTimeout, cancellationToken).ConfigureAwait(false);
        }

        await RunAsync(connection, $"UPDATE {quoted}.schema_version SET version = {version}", cancellationToken).ConfigureAwait(false);
        await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Fails where the schema is missing or of another version, for engines that only read.</summary>
    public static async Task RequireAsync(NpgsqlConnection connection, string schema, int newest, string server, CancellationToken cancellationToken)
    {
        var version = await VersionAsync(connection, Quote(schema), cancellationToken).ConfigureAwait(false)
            ?? throw new PostgreSqlStoreException($"{server} has no Holdfast store in the schema '{schema}': open it for writing once, which makes it, or give another schema.");
        if (Examine(version, newest, schema, server) < newest)
        {
            throw new PostgreSqlStoreException($"The store in the schema '{schema}' of {server} has version {version}, older than this build's {newest}: open it for writing once, which brings it up to date.");
        }
    }

    public static string Quote(string schema) => $"\"{schema}\"";

    /// <summary>A number for an advisory lock, the same in every process (FNV-1a).</summary>
    public static long LockKey(string name)
    {
        var hash = 0xcbf29ce484222325UL;
        foreach (var b in Encoding.UTF8.GetBytes(name))
        {
            hash = unchecked((hash ^ b) * 0x100000001b3UL);
        }

        return unchecked((long)hash);
    }

    private static int Examine(int version, int newest, string schema, string server) => version <= newest
        ? version
        : throw new PostgreSqlStoreException($"The store in the schema '{schema}' of {server} has version {version}; this build knows versions up to {newest}: use the newer build that wrote it.");

    /// <summary>The schema's version; <see langword="null"/> where there is no store yet.</summary>
    private static async Task<int?> VersionAsync(NpgsqlConnection connection, string quoted, CancellationToken cancellationToken)
    {
        var exists = new NpgsqlCommand("SELECT to_regclass($1) IS NOT NULL", connection) { Parameters = { new() { Value = $"{quoted}.schema_version" } } };
        await using var disposing = exists.ConfigureAwait(false);
        return await exists.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true
            ? await ReadVersionAsync(connection, quoted, cancellationToken).ConfigureAwait(false)
            : null;
    }

    private static async Task<int> ReadVersionAsync(NpgsqlConnection connection, string quoted, CancellationToken cancellationToken)
    {
        var read = new NpgsqlCommand($"SELECT version FROM {quoted}.schema_version", connection);
        await using var disposing = read.ConfigureAwait(false);
        return await read.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as int? ?? 0;
    }

    public static Task RunAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken) => RunAsync(connection, sql, timeout: null, cancellationToken);

    private static async Task RunAsync(NpgsqlConnection connection, string sql, TimeSpan? timeout, CancellationToken cancellationToken)
    {
        var command = new NpgsqlCommand(sql, connection);
        await using var disposing = command.ConfigureAwait(false);
        command.CommandTimeout = timeout is { } time ? (int)time.TotalSeconds : command.CommandTimeout;
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }
}
