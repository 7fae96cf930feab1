using System.Net.Sockets;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>What to do about a failure of a transaction, or of a read.</summary>
internal enum Remedy
{
    /// <summary>Nothing was applied; the same commands may simply be tried again, now.</summary>
    TryAgain = 1,

    /// <summary>Nothing was applied; later it may go better.</summary>
    Busy = 2,

    /// <summary>The connection was lost with a COMMIT on its way.</summary>
    InDoubt = 3,

    /// <summary>Nothing was applied, and a retry can't help.</summary>
    Fail = 4,
}

/// <summary>How far a transaction had come.</summary>
internal enum Stage
{
    /// <summary>Waiting for a connection.</summary>
    Connecting = 1,

    /// <summary>Anything before the COMMIT was sent.</summary>
    Working = 2,

    /// <summary>The COMMIT was sent, or may have been.</summary>
    Committing = 3,
}

/// <summary>Sorts the driver's and the server's failures, and puts them into words. Never names a password.</summary>
internal static class Failure
{
    private const string IdleInTransactionTimeout = "25P03";

    /// <summary>Whether it comes from the driver or below: everything else is a bug and is thrown on.</summary>
    public static bool IsOfStore(Exception e) => e is NpgsqlException or TimeoutException or SocketException or PostgreSqlStoreException
        || (e is IOException or InvalidOperationException && e.Source == "Npgsql")
        || IsClosed(e);

    /// <summary>Whether the connection is gone, or may be. Where there was none to be had, those that others have are sound.</summary>
    /// <remarks>After a batch that failed halfway the driver may take a statement for prepared that is not: such a connection is given up.</remarks>
    public static bool IsLoss(Exception e) => e is PostgresException said
        ? said is { SqlState: PostgresErrorCodes.InvalidSqlStatementName } or ({ InvariantSeverity: not "ERROR" } and { SqlState: not PostgresErrorCodes.TooManyConnections })
        : e is not PostgreSqlStoreException && !IsExhausted(e);

    public static Remedy RemedyFor(Exception e, Stage stage)
    {
        if (e is PostgreSqlStoreException known)
        {
            return known.MayPass ? Remedy.Busy : Remedy.Fail;
        }

        if (e is PostgresException { InvariantSeverity: "ERROR" } said || (e is PostgresException p && stage != Stage.Committing && (said = p) is not null))
        {
            // An ERROR ends the transaction without committing it, whatever else was sent with it.
            return said.SqlState switch
            {
                // Another node was faster with the same id or SKU; the time it took was archived meanwhile; a deadlock; a
                // serialization failure.
                PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.NotNullViolation or PostgresErrorCodes.DeadlockDetected or PostgresErrorCodes.SerializationFailure => Remedy.TryAgain,

                // The server ended the connection, not our transaction's fault: the next connection may work at once.
                PostgresErrorCodes.AdminShutdown or PostgresErrorCodes.CrashShutdown or IdleInTransactionTimeout when stage == Stage.Working => Remedy.TryAgain,

                // A plan made before a migration; a prepared statement that only the driver knows of.
                "0A000" or PostgresErrorCodes.InvalidSqlStatementName => Remedy.TryAgain,
                _ => said.SqlState[..2] switch
                {
                    "08" or "53" or "55" or "57" or "58" or "28" or "3D" => Remedy.Busy,
                    "25" => Remedy.Busy, // Read-only: a standby, or a primary that is being moved.
                    "40" => Remedy.TryAgain,
                    _ => Remedy.Fail,
                },
            };
        }

        return stage switch
        {
            Stage.Committing => e is PostgresException { SqlState: IdleInTransactionTimeout } ? Remedy.TryAgain : Remedy.InDoubt,
            Stage.Working when !IsTimeout(e) => Remedy.TryAgain,
            _ => Remedy.Busy,
        };
    }

    /// <summary>What went wrong, for people: names the server and says what to do.</summary>
    public static string Describe(Exception e, string server) => e switch
    {
        PostgreSqlStoreException => e.Message,
        PostgresException { SqlState: PostgresErrorCodes.TooManyConnections } => $"{server} has no connection left for us; close others, raise its max_connections, or lower Maximum Pool Size, and try again.",
        PostgresException { SqlState: PostgresErrorCodes.LockNotAvailable } => $"{server}: another transaction holds the rows for too long (pg_stat_activity shows it); try again later.",
        PostgresException { SqlState: PostgresErrorCodes.QueryCanceled } p => $"{server} stopped a statement ({p.MessageText}); try again later.",
        PostgresException { SqlState: PostgresErrorCodes.DiskFull } => $"{server} has no room left on its disk: make room, then try again.",
        PostgresException { SqlState: PostgresErrorCodes.ReadOnlySqlTransaction } => $"{server} accepts no writes: it is a standby, or set to read-only. Point the store at the primary.",
        PostgresException { SqlState: PostgresErrorCodes.CannotConnectNow } p => $"{server} is not ready ({p.MessageText}); try again later.",
        PostgresException { SqlState: PostgresErrorCodes.CheckViolation } p => $"{server}: a guard of the schema refused what the rules had allowed ({p.MessageText}), so rows were changed by other hands: run the audit.",
        PostgresException { SqlState: PostgresErrorCodes.UndefinedTable or PostgresErrorCodes.InvalidSchemaName } p => $"{server}: a table of the store is gone ({p.MessageText}): restore it, or open the store anew.",
        PostgresException { SqlState: PostgresErrorCodes.InvalidPassword or PostgresErrorCodes.InvalidAuthorizationSpecification } p => $"{server} does not let this user in ({p.MessageText}): check user name and password.",
        PostgresException { SqlState: PostgresErrorCodes.InvalidCatalogName } p => $"{server}: {p.MessageText}; make the database, or check its name.",
        PostgresException { SqlState: PostgresErrorCodes.InsufficientPrivilege } p => $"{server}: {p.MessageText}; give this user the right to make and use the store's schema.",
        PostgresException p => $"{server} said: {p.MessageText} (SQLSTATE {p.SqlState}).",
        _ when IsClosed(e) => "The store is shutting down; try again when it is back.",
        _ when IsExhausted(e) => $"All connections of the pool to {server} are in use; raise Maximum Pool Size, or try again later.",
        _ when IsTimeout(e) => $"{server} did not answer in time; try again later.",
        _ => $"{server} can't be reached, or the connection was lost ({Innermost(e).Message.TrimEnd('.')}); try again when it is back.",
    };

    /// <summary>Whether the driver was asked after it had been disposed: by a call that was under way when the store shut down.</summary>
    private static bool IsClosed(Exception e) => e is ObjectDisposedException { ObjectName: var name } && name.StartsWith("Npgsql", StringComparison.Ordinal);

    private static bool IsExhausted(Exception e) => e is NpgsqlException && e.Message.Contains("pool has been exhausted", StringComparison.Ordinal);

    private static bool IsTimeout(Exception e) => e is TimeoutException || (e is NpgsqlException && e.InnerException is TimeoutException);

    private static Exception Innermost(Exception e) => e.InnerException is null ? e : Innermost(e.InnerException);
}
