namespace Holdfast.Sqlite;

/// <summary>
/// The tables of queue and verdicts, with a version of their own: they are made when a queue is opened first, so that a
/// store without one has none. Times are milliseconds since 1970-01-01 UTC.
/// </summary>
internal static class QueueSchema
{
    private const long Version = 1;

    /// <summary>Makes what is missing, inside a transaction.</summary>
    public static void Make(Database database)
    {
        database.Run("CREATE TABLE IF NOT EXISTS queue_version(version INTEGER NOT NULL) STRICT");
        var version = database.Number("SELECT version FROM queue_version");
        if (version > Version)
        {
            throw new SqliteStoreException($"The queue in the stock file '{database.Path}' has version {version}; this build knows {Version}: use the newer build that wrote it.");
        }

        if (version < 1)
        {
            // not_before: 0, or when what was put aside is due. due_at: when a verdict is to be announced next, if it is.
            database.Run(
                $"""
                CREATE TABLE queue_message(
                    queue      INTEGER NOT NULL,
                    not_before INTEGER NOT NULL,
                    seq        INTEGER NOT NULL,
                    at         INTEGER NOT NULL,
                    body       BLOB    NOT NULL,
                    PRIMARY KEY (queue, not_before, seq)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE queue_dead(
                    letter INTEGER PRIMARY KEY AUTOINCREMENT,
                    queue  INTEGER NOT NULL,
                    at     INTEGER NOT NULL,
                    reason TEXT    NOT NULL,
                    body   BLOB    NOT NULL
                ) STRICT;
                CREATE TABLE verdict(
                    id        TEXT PRIMARY KEY,
                    verb      INTEGER NOT NULL,
                    operation TEXT    NOT NULL,
                    result    TEXT    NOT NULL,
                    at        INTEGER NOT NULL,
                    due_at    INTEGER,
                    attempts  INTEGER NOT NULL DEFAULT 0,
                    given_up  INTEGER NOT NULL DEFAULT 0
                ) STRICT, WITHOUT ROWID;
                CREATE INDEX verdict_at  ON verdict(at);
                CREATE INDEX verdict_due ON verdict(due_at) WHERE due_at IS NOT NULL;
                CREATE INDEX verdict_given_up ON verdict(given_up) WHERE given_up = 1;
                INSERT INTO queue_version VALUES ({Version});
                """);
        }
    }
}
