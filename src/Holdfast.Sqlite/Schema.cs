namespace Holdfast.Sqlite;

/// <summary>
/// The file's schema. Migration n brings a file from version n − 1 to n, in one transaction with its new
/// <c>user_version</c>; a migration that was released is never edited.
/// </summary>
internal static class Schema
{
    /// <summary>Marks a file as a Holdfast store ("Hold" in ASCII), so that nobody's other database gets our tables.</summary>
    public const long ApplicationId = 0x486F_6C64;

    public static IReadOnlyList<string> Migrations { get; } =
    [
        // 1. The first schema.
        //
        // A deduction pays for five places: its stock row, its operation and the index on the id, its flow entry and
        // the index on (stock, version). The partial indexes hold only what is rare: reservations, ended operations and
        // refunds. Flow entries name stock and operation by number, which keeps the largest table small; no foreign
        // keys are declared, because a look-up a row would prove what the audit proves for all of them.
        //
        // Numbers of verbs, states and kinds are those of StockVerb, OperationState and FlowKind. Times are
        // milliseconds since 1970-01-01 UTC.
        """
        CREATE TABLE stock(
            id        INTEGER PRIMARY KEY,
            sku       TEXT    NOT NULL UNIQUE,
            available INTEGER NOT NULL CHECK (available >= 0),
            reserved  INTEGER NOT NULL CHECK (reserved >= 0),
            restocked INTEGER NOT NULL,
            adjusted  INTEGER NOT NULL,
            supplied  INTEGER NOT NULL,
            version   INTEGER NOT NULL
        ) STRICT;

        -- lines: JSON, one [SKU, quantity, left after it] a line. refunded: JSON, one number a line.
        -- end_left: JSON, what was left of each line's SKU when it ended.
        CREATE TABLE operation(
            seq        INTEGER PRIMARY KEY,
            id         TEXT    NOT NULL UNIQUE,
            verb       INTEGER NOT NULL,
            state      INTEGER NOT NULL,
            target     TEXT,
            lines      TEXT,
            note       TEXT,
            created_at INTEGER NOT NULL,
            expires_at INTEGER,
            ended_at   INTEGER,
            end_left   TEXT,
            refunded   TEXT
        ) STRICT;
        CREATE INDEX operation_live      ON operation(expires_at) WHERE state = 2;
        CREATE INDEX operation_by_state  ON operation(state)      WHERE state <> 1;
        CREATE INDEX operation_by_target ON operation(target)     WHERE target IS NOT NULL;

        -- The ledger: never altered.
        CREATE TABLE flow(
            position         INTEGER PRIMARY KEY,
            stock            INTEGER NOT NULL,
            version          INTEGER NOT NULL,
            operation        INTEGER NOT NULL,
            kind             INTEGER NOT NULL,
            available_change INTEGER NOT NULL,
            reserved_change  INTEGER NOT NULL,
            available        INTEGER NOT NULL,
            reserved         INTEGER NOT NULL,
            at               INTEGER NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX flow_by_stock ON flow(stock, version);
        CREATE TRIGGER flow_keeps_entries BEFORE DELETE ON flow BEGIN SELECT RAISE(ABORT, 'the ledger is never altered'); END;
        CREATE TRIGGER flow_keeps_values  BEFORE UPDATE ON flow BEGIN SELECT RAISE(ABORT, 'the ledger is never altered'); END;

        -- Units in the hands of reservations that nobody ended, the next to expire first.
        CREATE TABLE hold(
            stock      INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            operation  INTEGER NOT NULL,
            quantity   INTEGER NOT NULL,
            PRIMARY KEY (stock, expires_at, operation)
        ) STRICT, WITHOUT ROWID;

        -- One row. highest_time: the store's time never falls below it. writer: who opened the file for writing last.
        CREATE TABLE store(
            one          INTEGER PRIMARY KEY CHECK (one = 1),
            highest_time INTEGER NOT NULL,
            writer       TEXT
        ) STRICT;
        INSERT INTO store(one, highest_time) VALUES (1, 0);
        """,

        // 2. Parts of commands over several shards: held are units of available that such parts have prepared to take; cart
        // names the whole that an operation is a part of; pending, what is prepared about an operation (ShardedCart and
        // PendingBranch in text). An operation in state 7 is prepared itself, and has no ledger entry.
        """
        ALTER TABLE stock ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0);
        ALTER TABLE operation ADD COLUMN cart TEXT;
        ALTER TABLE operation ADD COLUMN pending TEXT;
        CREATE INDEX operation_pending ON operation(pending) WHERE pending IS NOT NULL;
        """,
    ];

    /// <summary>Says what keeps a file from being used as a store of this build, before anything in it is changed.</summary>
    /// <returns>The version of its schema; 0 for an empty file.</returns>
    public static int Examine(Database database, IReadOnlyList<string> migrations)
    {
        var version = database.Number("PRAGMA user_version");
        var isOurs = database.Number("PRAGMA application_id") == ApplicationId;
        if (!isOurs && (version != 0 || database.Number("SELECT count(*) FROM sqlite_schema") > 0))
        {
            throw new SqliteStoreException($"'{database.Path}' is an SQLite database of something else, not a Holdfast store: give another path.");
        }

        if (version > migrations.Count)
        {
            throw new SqliteStoreException(
                $"The stock file '{database.Path}' has schema version {version}; this build knows versions up to {migrations.Count}: use the newer build that wrote it.");
        }

        return (int)version;
    }

    /// <summary>Brings the file to the newest version.</summary>
    public static void Migrate(Database database, IReadOnlyList<string> migrations)
    {
        while (true)
        {
            database.Run("BEGIN IMMEDIATE");
            try
            {
                // Looked at again inside the transaction.
                var version = Examine(database, migrations);
                if (version == migrations.Count)
                {
                    database.Run("ROLLBACK");
                    return;
                }

                database.Run(migrations[version]);
                database.Run($"PRAGMA application_id = {ApplicationId}");
                database.Run($"PRAGMA user_version = {version + 1}");
                database.Run("COMMIT");
            }
            catch
            {
                if (database.InTransaction)
                {
                    database.Run("ROLLBACK");
                }

                throw;
            }
        }
    }
}
