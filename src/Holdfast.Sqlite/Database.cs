using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Holdfast.Sqlite;

/// <summary>
/// One connection. The driver opens it; statements go to SQLite's own calls, since a row written through ADO.NET's
/// parameter and reader objects costs more than the row itself. Not thread-safe.
/// </summary>
internal sealed class Database : IDisposable
{
    private readonly SqliteConnection _connection;
    private readonly List<Statement> _statements = [];
    private readonly bool _isBorrowed;

    private Database(SqliteConnection connection, string path, bool isBorrowed = false)
    {
        _isBorrowed = isBorrowed;
        _connection = connection;
        Path = path;
    }

    public string Path { get; }

    public sqlite3 Handle => _connection.Handle!;

    /// <summary>Whether a transaction is open. SQLite itself rolls back after some errors.</summary>
    public bool InTransaction => raw.sqlite3_get_autocommit(Handle) == 0;

    public static Database Open(string path, SqliteOpenMode mode, TimeSpan busyTimeout)
    {
        // Not pooled: a pooled connection would outlive the engine, and with it the file's locks.
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Mode = mode, Pooling = false }.ToString());
        try
        {
            connection.Open();
            var database = new Database(connection, path);
            database.Check(raw.sqlite3_extended_result_codes(database.Handle, 1));
            database.SetBusyTimeout(busyTimeout);
            return database;
        }
        catch (SqliteException e)
        {
            connection.Dispose();
            throw SqliteStoreException.From(path, e.SqliteExtendedErrorCode, e.Message);
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <summary>How long SQLite waits for another connection's lock on the file.</summary>
    public void SetBusyTimeout(TimeSpan timeout) => Check(raw.sqlite3_busy_timeout(Handle, (int)timeout.TotalMilliseconds));

    /// <summary>Works on a connection of the application's own; disposing leaves it open.</summary>
    public static Database Over(SqliteConnection connection, string path) => new(connection, path, isBorrowed: true);

    /// <summary>Runs statements that answer nothing.</summary>
    public void Run(string sql) => Check(raw.sqlite3_exec(Handle, sql));

    /// <summary>The first column of the first row; 0 when there is none or it is NULL.</summary>
    public long Number(string sql)
    {
        using var statement = new Statement(this, sql);
        return statement.Step() ? statement.Int(0) : 0;
    }

    /// <summary>The first column of the first row; empty when there is none or it is NULL.</summary>
    public string Text(string sql)
    {
        using var statement = new Statement(this, sql);
        return statement.Step() ? statement.TextOrNull(0) ?? "" : "";
    }

    /// <summary>Prepares a statement that lives as long as the connection.</summary>
    public Statement Prepare(string sql)
    {
        var statement = new Statement(this, sql);
        _statements.Add(statement);
        return statement;
    }

    public void Check(int resultCode)
    {
        if (resultCode != raw.SQLITE_OK)
        {
            throw Failure(resultCode);
        }
    }

    public SqliteStoreException Failure(int resultCode) =>
        SqliteStoreException.From(Path, resultCode, raw.sqlite3_errmsg(Handle).utf8_to_string());

    public void Dispose()
    {
        foreach (var statement in _statements)
        {
            statement.Dispose();
        }

        if (!_isBorrowed)
        {
            _connection.Dispose();
        }
    }
}

/// <summary>
/// A prepared statement: bind every parameter, step, read, reset. Parameters count from 1, columns from 0. SQLite keeps
/// what is bound over a reset, so a number (or NULL) that is bound already is not bound again: most values of a row are
/// those of the row before it.
/// </summary>
internal sealed class Statement : IDisposable
{
    private const int StackBytes = 256;

    private readonly Database _database;
    private readonly sqlite3_stmt _handle;
    private readonly Bound[] _bound;

    public Statement(Database database, string sql)
    {
        _database = database;
        database.Check(raw.sqlite3_prepare_v3(database.Handle, sql, raw.SQLITE_PREPARE_PERSISTENT, out _handle));
        _bound = new Bound[raw.sqlite3_bind_parameter_count(_handle) + 1];
    }

    private enum Kind : byte
    {
        Text,
        Number,
        Null,
    }

    public Statement Bind(int parameter, long value)
    {
        ref var bound = ref _bound[parameter];
        if (bound.Kind != Kind.Number || bound.Value != value)
        {
            _database.Check(raw.sqlite3_bind_int64(_handle, parameter, value));
            bound = new(Kind.Number, value);
        }

        return this;
    }

    public Statement Bind(int parameter, long? value) => value is { } number ? Bind(parameter, number) : BindNull(parameter);

    public Statement BindNull(int parameter)
    {
        ref var bound = ref _bound[parameter];
        if (bound.Kind != Kind.Null)
        {
            _database.Check(raw.sqlite3_bind_null(_handle, parameter));
            bound = new(Kind.Null, 0);
        }

        return this;
    }

    /// <summary>Binds a text that the contract lets pass: well-formed UTF-16.</summary>
    public Statement Bind(int parameter, string? text)
    {
        if (text is null)
        {
            return BindNull(parameter);
        }

        var most = text.Length * 3;
        var rented = most > StackBytes ? ArrayPool<byte>.Shared.Rent(most) : null;
        var buffer = rented ?? stackalloc byte[StackBytes];
        var length = Encoding.UTF8.GetBytes(text, buffer);
        BindUtf8(parameter, buffer[..length]);
        if (rented is not null)
        {
            ArrayPool<byte>.Shared.Return(rented);
        }

        return this;
    }

    /// <summary>Binds a text that is UTF-8 already; empty is NULL.</summary>
    public Statement BindUtf8(int parameter, ReadOnlySpan<byte> text)
    {
        if (text.IsEmpty)
        {
            return BindNull(parameter);
        }

        _database.Check(raw.sqlite3_bind_text(_handle, parameter, text));
        _bound[parameter] = new(Kind.Text, 0);
        return this;
    }

    /// <summary>Binds bytes, which may be none.</summary>
    public Statement BindBlob(int parameter, ReadOnlySpan<byte> bytes)
    {
        _database.Check(bytes.IsEmpty ? raw.sqlite3_bind_zeroblob(_handle, parameter, 0) : raw.sqlite3_bind_blob(_handle, parameter, bytes));
        _bound[parameter] = new(Kind.Text, 0);
        return this;
    }

    /// <summary>Goes to the next row; false at the end. An error resets the statement.</summary>
    public bool Step()
    {
        var resultCode = raw.sqlite3_step(_handle);
        switch (resultCode)
        {
            case raw.SQLITE_ROW:
                return true;
            case raw.SQLITE_DONE:
                return false;
            default:
                var failure = _database.Failure(resultCode);
                Reset();
                throw failure;
        }
    }

    /// <summary>Runs a statement that answers nothing.</summary>
    public void Run()
    {
        Step();
        Reset();
    }

    /// <summary>Ends the reading: outside a transaction this lets the snapshot go.</summary>
    public void Reset() => _ = raw.sqlite3_reset(_handle); // Repeats the error of the last step, which was thrown there.

    public long Int(int column) => raw.sqlite3_column_int64(_handle, column);

    public bool IsNull(int column) => raw.sqlite3_column_type(_handle, column) == raw.SQLITE_NULL;

    public string Text(int column) => Encoding.UTF8.GetString(Utf8(column));

    public string? TextOrNull(int column) => IsNull(column) ? null : Text(column);

    /// <summary>A text's bytes, valid until the next step or reset.</summary>
    public ReadOnlySpan<byte> Utf8(int column) => raw.sqlite3_column_blob(_handle, column);

    public void Dispose() => _handle.Dispose();

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Bound(Kind Kind, long Value);
}
