using System.Text.Json;
using Holdfast.PostgreSql;
using Npgsql;
using NpgsqlTypes;

namespace Holdfast;

/// <summary>
/// A copy of a ledger in a PostgreSQL database: the table <c>flow</c> of the schema <c>holdfast_copy</c>, one row an entry, for queries and as
/// what is left when a store in memory is gone. Several ledgers share it by name. Not thread-safe.
/// </summary>
public sealed class PostgreSqlFlowCopy : IFlowCopy
{
    // Asked first, since CREATE SCHEMA IF NOT EXISTS wants the right to make one even where it is there.
    private const string AreThere = "SELECT to_regclass('holdfast_copy.flow') IS NOT NULL AND to_regclass('holdfast_copy.ledger') IS NOT NULL";

    // The lock makes two that begin at once wait for each other: CREATE … IF NOT EXISTS by two transactions fails for one.
    private const string Tables = """
        SELECT pg_advisory_xact_lock(hashtext('holdfast_copy'));
        CREATE SCHEMA IF NOT EXISTS holdfast_copy;
        CREATE TABLE IF NOT EXISTS holdfast_copy.flow(
            ledger           text        NOT NULL,
            sku              text        NOT NULL,
            partition        integer     NOT NULL,
            version          bigint      NOT NULL,
            operation_id     text        NOT NULL,
            kind             text        NOT NULL,
            available_change bigint      NOT NULL,
            reserved_change  bigint      NOT NULL,
            available        bigint      NOT NULL,
            reserved         bigint      NOT NULL,
            at               timestamptz NOT NULL,
            opening          jsonb,
            PRIMARY KEY (ledger, sku, partition, version)
        );
        CREATE INDEX IF NOT EXISTS flow_by_operation ON holdfast_copy.flow(ledger, operation_id);
        CREATE TABLE IF NOT EXISTS holdfast_copy.ledger(ledger text PRIMARY KEY, cursor text, copied_at timestamptz NOT NULL DEFAULT now());
        """;

    private readonly NpgsqlDataSource _source;
    private readonly string _ledger;
    private readonly string _server;
    private string? _cursor;

    private PostgreSqlFlowCopy(NpgsqlDataSource source, string ledger, string server)
    {
        _source = source;
        _ledger = ledger;
        _server = server;
    }

    /// <inheritdoc/>
    public string Location => $"{_server}, table holdfast_copy.flow, ledger {_ledger}";

    /// <summary>Opens a copy, making its tables where they are missing.</summary>
    /// <param name="connectionString">An Npgsql connection string; the user may make a schema, or the tables are there and it may read and write them.</param>
    /// <param name="ledger">What to call the ledger, 1 to 64 characters: several can be copied into one database.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">The connection string or the name is not usable.</exception>
    /// <exception cref="PostgreSqlStoreException">The database can't be reached, or the tables not be made.</exception>
    public static async ValueTask<PostgreSqlFlowCopy> OpenAsync(string connectionString, string ledger, CancellationToken cancellationToken = default)
    {
        if (StockKey.Problem(ledger) is { } problem)
        {
            throw new ArgumentException($"The name of a ledger {problem}.", nameof(ledger));
        }

        var options = new PostgreSqlOptions { ConnectionString = connectionString };
        var builder = options.Parse();
        builder.Timeout = (int)options.ConnectTimeout.TotalSeconds;
        builder.CommandTimeout = 60;
        var copy = new PostgreSqlFlowCopy(NpgsqlDataSource.Create(builder), ledger, $"PostgreSQL at {builder.Host}:{builder.Port}, database {builder.Database ?? builder.Username}");
        try
        {
            await copy.RunAsync(
                async connection =>
                {
                    var question = new NpgsqlCommand(AreThere, connection);
                    await using var disposing = question.ConfigureAwait(false);
                    if (await question.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true)
                    {
                        return;
                    }

                    var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
                    await using var disposingToo = transaction.ConfigureAwait(false);
                    var command = new NpgsqlCommand(Tables, connection, transaction);
                    await using var disposingThree = command.ConfigureAwait(false);
                    await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
                    await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
                },
                cancellationToken).ConfigureAwait(false);
            return copy;
        }
        catch
        {
            await copy.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public async ValueTask<string?> GetCursorAsync(CancellationToken cancellationToken = default)
    {
        await RunAsync(
            async connection => _cursor = await ReadCursorAsync("SELECT cursor FROM holdfast_copy.ledger WHERE ledger = $1", connection, null, cancellationToken).ConfigureAwait(false),
            cancellationToken).ConfigureAwait(false);
        return _cursor;
    }

    /// <inheritdoc/>
    public async ValueTask AddAsync(IReadOnlyList<FlowEntry> entries, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(entries);
        ArgumentOutOfRangeException.ThrowIfZero(entries.Count, nameof(entries));
        var next = entries[^1].Cursor ?? throw new ArgumentException("The last entry has no cursor: pass entries as they were read.", nameof(entries));
        await RunAsync(
            async connection =>
            {
                var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
                await using var disposing = transaction.ConfigureAwait(false);

                // The row is the lock: a second export of this ledger waits here, and then finds that the cursor has moved.
                await RunAsync("INSERT INTO holdfast_copy.ledger(ledger) VALUES ($1) ON CONFLICT DO NOTHING", connection, transaction, cancellationToken).ConfigureAwait(false);
                var stands = await ReadCursorAsync("SELECT cursor FROM holdfast_copy.ledger WHERE ledger = $1 FOR UPDATE", connection, transaction, cancellationToken).ConfigureAwait(false);
                if (!string.Equals(stands, _cursor, StringComparison.Ordinal))
                {
                    throw new PostgreSqlStoreException($"{_server}: another export of the ledger '{_ledger}' is under way; let it end, or stop it, and begin again.");
                }

                await CopyAsync(connection, entries, cancellationToken).ConfigureAwait(false);
                await RunAsync("UPDATE holdfast_copy.ledger SET cursor = $2, copied_at = now() WHERE ledger = $1", connection, transaction, cancellationToken, next).ConfigureAwait(false);
                await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        _cursor = next;
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => _source.DisposeAsync();

    private async Task CopyAsync(NpgsqlConnection connection, IReadOnlyList<FlowEntry> entries, CancellationToken cancellationToken)
    {
        var writer = await connection.BeginBinaryImportAsync(
            "COPY holdfast_copy.flow(ledger, sku, partition, version, operation_id, kind, available_change, reserved_change, available, reserved, at, opening) FROM STDIN (FORMAT binary)",
            cancellationToken).ConfigureAwait(false);
        await using var disposing = writer.ConfigureAwait(false);
        foreach (var entry in entries)
        {
            await writer.StartRowAsync(cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(_ledger, NpgsqlDbType.Text, cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(entry.Sku, NpgsqlDbType.Text, cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(entry.Partition, NpgsqlDbType.Integer, cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(entry.Version, NpgsqlDbType.Bigint, cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(entry.OperationId, NpgsqlDbType.Text, cancellationToken).ConfigureAwait(false);
            await writer.WriteAsync(entry.Kind.ToString(), NpgsqlDbType.Text, cancellationToken).ConfigureAwait(false);
            foreach (var number in (ReadOnlySpan<long>)[entry.AvailableChange, entry.ReservedChange, entry.Available, entry.Reserved])
            {
                writer.Write(number, NpgsqlDbType.Bigint);
            }

            await writer.WriteAsync(entry.At.UtcDateTime, NpgsqlDbType.TimestampTz, cancellationToken).ConfigureAwait(false);
            if (entry.Opening is null)
            {
                await writer.WriteNullAsync(cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await writer.WriteAsync(JsonSerializer.Serialize(entry.Opening, JsonSerializerOptions.Web), NpgsqlDbType.Jsonb, cancellationToken).ConfigureAwait(false);
            }
        }

        await writer.CompleteAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task<string?> ReadCursorAsync(string sql, NpgsqlConnection connection, NpgsqlTransaction? transaction, CancellationToken cancellationToken)
    {
        var command = new NpgsqlCommand(sql, connection, transaction) { Parameters = { new() { Value = _ledger } } };
        await using var disposing = command.ConfigureAwait(false);
        return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as string;
    }

    private async Task RunAsync(string sql, NpgsqlConnection connection, NpgsqlTransaction transaction, CancellationToken cancellationToken, string? second = null)
    {
        var command = new NpgsqlCommand(sql, connection, transaction) { Parameters = { new() { Value = _ledger } } };
        await using var disposing = command.ConfigureAwait(false);
        if (second is not null)
        {
            command.Parameters.Add(new() { Value = second });
        }

        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task RunAsync(Func<NpgsqlConnection, Task> work, CancellationToken cancellationToken)
    {
        try
        {
            var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = connection.ConfigureAwait(false);
            await work(connection).ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.UniqueViolation)
        {
            throw new PostgreSqlStoreException($"{_server} has an entry of the ledger '{_ledger}' already ({e.Detail}): the copy is of another store; give it another --name.", sqlState: e.SqlState, innerException: e);
        }
        catch (Exception e) when (e is not PostgreSqlStoreException && Failure.IsOfStore(e))
        {
            throw new PostgreSqlStoreException(Failure.Describe(e, _server), Failure.RemedyFor(e, Stage.Working) != Remedy.Fail, (e as PostgresException)?.SqlState, e);
        }
    }
}
