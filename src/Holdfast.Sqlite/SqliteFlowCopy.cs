using System.Text.Json;
using Microsoft.Data.Sqlite;

namespace Holdfast;

/// <summary>
/// A copy of a ledger in an SQLite file of its own: the table <c>flow</c>, one row an entry, for queries and as what is left when a
/// store in memory is gone. Several ledgers share a file by name. Not thread-safe.
/// </summary>
public sealed class SqliteFlowCopy : IFlowCopy
{
    // Marks the file as a copy ("Hfcp" in ASCII), so that neither a store nor somebody's own database gets these tables.
    private const long ApplicationId = 0x4866_6370;

    private const string Tables = """
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = FULL;
        CREATE TABLE IF NOT EXISTS flow(
            ledger           TEXT    NOT NULL,
            sku              TEXT    NOT NULL,
            partition        INTEGER NOT NULL,
            version          INTEGER NOT NULL,
            operation_id     TEXT    NOT NULL,
            kind             TEXT    NOT NULL,
            available_change INTEGER NOT NULL,
            reserved_change  INTEGER NOT NULL,
            available        INTEGER NOT NULL,
            reserved         INTEGER NOT NULL,
            at               TEXT    NOT NULL,
            opening          TEXT,
            PRIMARY KEY (ledger, sku, partition, version)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS flow_by_operation ON flow(ledger, operation_id);
        CREATE TABLE IF NOT EXISTS ledger(ledger TEXT PRIMARY KEY, cursor TEXT NOT NULL) STRICT;
        """;

    private readonly SqliteConnection _connection;
    private readonly string _path;
    private readonly string _ledger;
    private string? _cursor;

    private SqliteFlowCopy(SqliteConnection connection, string path, string ledger)
    {
        _connection = connection;
        _path = path;
        _ledger = ledger;
    }

    /// <inheritdoc/>
    public string Location => $"{Path.GetFullPath(_path)}, table flow, ledger {_ledger}";

    /// <summary>Opens a copy, making the file where it is missing.</summary>
    /// <param name="path">The file: a copy, an empty file or none yet.</param>
    /// <param name="ledger">What to call the ledger, 1 to 64 characters: several can be copied into one file.</param>
    /// <exception cref="ArgumentException">The name is not usable.</exception>
    /// <exception cref="SqliteStoreException">The file can't be opened, or is something else.</exception>
    public static SqliteFlowCopy Open(string path, string ledger)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        if (StockKey.Problem(ledger) is { } problem)
        {
            throw new ArgumentException($"The name of a ledger {problem}.", nameof(ledger));
        }

        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false, DefaultTimeout = 30 }.ToString());
        var copy = new SqliteFlowCopy(connection, path, ledger);
        try
        {
            copy.Run(() =>
            {
                connection.Open();
                var marked = (long)copy.Scalar("PRAGMA application_id")!;
                if (marked != ApplicationId && (marked != 0 || (long)copy.Scalar("SELECT count(*) FROM sqlite_schema")! > 0))
                {
                    throw new SqliteStoreException($"'{path}' is {(marked == Sqlite.Schema.ApplicationId ? "a Holdfast store" : "another program's database")}, not a copy of a ledger: give the copy a file of its own.");
                }

                copy.Scalar(FormattableString.Invariant($"PRAGMA application_id = {ApplicationId}"));
                copy.Scalar(Tables);
            });
            return copy;
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public ValueTask<string?> GetCursorAsync(CancellationToken cancellationToken = default)
    {
        Run(() => _cursor = ReadCursor());
        return new(_cursor);
    }

    /// <inheritdoc/>
    public ValueTask AddAsync(IReadOnlyList<FlowEntry> entries, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(entries);
        ArgumentOutOfRangeException.ThrowIfZero(entries.Count, nameof(entries));
        var next = entries[^1].Cursor ?? throw new ArgumentException("The last entry has no cursor: pass entries as they were read.", nameof(entries));
        Run(() =>
        {
            using var transaction = _connection.BeginTransaction(deferred: false);
            if (!string.Equals(ReadCursor(), _cursor, StringComparison.Ordinal))
            {
                throw new SqliteStoreException($"'{_path}': another export of the ledger '{_ledger}' is under way; let it end, or stop it, and begin again.");
            }

            Insert(entries, transaction);
            using var command = _connection.CreateCommand();
            command.CommandText = "INSERT INTO ledger(ledger, cursor) VALUES ($ledger, $cursor) ON CONFLICT (ledger) DO UPDATE SET cursor = excluded.cursor";
            command.Parameters.AddWithValue("$ledger", _ledger);
            command.Parameters.AddWithValue("$cursor", next);
            command.ExecuteNonQuery();
            transaction.Commit();
        });
        _cursor = next;
        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => _connection.DisposeAsync();

    private void Insert(IReadOnlyList<FlowEntry> entries, SqliteTransaction transaction)
    {
        using var command = _connection.CreateCommand();
        command.Transaction = transaction;
        command.CommandText = "INSERT INTO flow VALUES ($0, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        for (var i = 0; i <= 11; i++)
        {
            command.Parameters.AddWithValue(FormattableString.Invariant($"${i}"), "");
        }

        foreach (var entry in entries)
        {
            object[] values =
            [
                _ledger, entry.Sku, entry.Partition, entry.Version, entry.OperationId, entry.Kind.ToString(), entry.AvailableChange, entry.ReservedChange, entry.Available, entry.Reserved,
                entry.At.UtcDateTime.ToString("O", System.Globalization.CultureInfo.InvariantCulture),
                entry.Opening is null ? DBNull.Value : JsonSerializer.Serialize(entry.Opening, JsonSerializerOptions.Web),
            ];
            for (var i = 0; i < values.Length; i++)
            {
                command.Parameters[i].Value = values[i];
            }

            command.ExecuteNonQuery();
        }
    }

    private string? ReadCursor()
    {
        using var command = _connection.CreateCommand();
        command.CommandText = "SELECT cursor FROM ledger WHERE ledger = $ledger";
        command.Parameters.AddWithValue("$ledger", _ledger);
        return command.ExecuteScalar() as string;
    }

    private object? Scalar(string sql)
    {
        using var command = _connection.CreateCommand();
#pragma warning disable CA2100 // Texts of this file only.
        command.CommandText = sql;
#pragma warning restore CA2100
        return command.ExecuteScalar();
    }

    private void Run(Action work)
    {
        try
        {
            work();
        }
        catch (SqliteException e) when (e.SqliteErrorCode == SQLitePCL.raw.SQLITE_CONSTRAINT)
        {
            throw new SqliteStoreException($"'{_path}' has an entry of the ledger '{_ledger}' already: the copy is of another store; give it another --name.", e.SqliteExtendedErrorCode, e);
        }
        catch (SqliteException e)
        {
            throw SqliteStoreException.From(_path, e.SqliteExtendedErrorCode, e.Message);
        }
    }
}
