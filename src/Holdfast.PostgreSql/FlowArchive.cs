using System.Globalization;
using Holdfast.Wire;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// One archive: old entries into a file, then in one transaction their openings in and the entries out.
/// </summary>
/// <remarks>
/// <para>Nothing comes late. All entries up to a final position are read (<see cref="Bookmarks"/>); the transaction then
/// locks the ledger, at which every writer that had begun to insert has ended, and looks whether an entry before the
/// instant lies behind that position. Who inserts later sees the archive in its statement and takes no time before it.</para>
/// <para>The ledger is locked for as long as that look and the dropping take, not for the deleting: that comes first. The
/// lock is asked for with half a second's patience at a time, since everybody else waits behind it.</para>
/// </remarks>
internal sealed class FlowArchive(
    NpgsqlConnection connection,
    string schema,
    Statements sql,
    Func<CancellationToken, Task<long>> finalPosition,
    TimeProvider clock,
    TimeSpan lockPatience,
    string server,
    FlowArchiveOptions options,
    long before)
{
    private const int PageRows = 16_384;
    private const int OpeningsAtOnce = 4_096;
    private const int ProgressStep = 10_000;

    /// <summary>How often everything is read again because a transaction that had begun before the instant ended late.</summary>
    private const int Tries = 3;

    /// <summary>Each time of so many the lock is waited for until an autovacuum steps aside.</summary>
    private const int VacuumEvery = 3;

    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(2);

    private readonly string _schema = Schema.Quote(schema);
    private readonly string _temporary = options.Path + ".partial";

    public async Task<FlowArchiveResult> RunAsync(CancellationToken cancellationToken)
    {
        var key = Schema.LockKey("holdfast archive " + schema);
        if (!(bool)(await ScalarAsync($"SELECT pg_try_advisory_lock({key})", cancellationToken).ConfigureAwait(false))!)
        {
            throw new PostgreSqlStoreException($"{server}: another archive of this ledger is under way; try again when it has ended.", mayPass: true);
        }

        try
        {
            return await RunLockedAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // The server would release it too, but only when it notices that the connection was closed: after the next archive began.
            try
            {
                await ScalarAsync($"SELECT pg_advisory_unlock({key})", CancellationToken.None).ConfigureAwait(false);
            }
            catch (Exception e) when (Failure.IsOfStore(e))
            {
                // The connection is lost or no longer takes statements: it ends now, and its lock with it.
            }
        }
    }

    private async Task<FlowArchiveResult> RunLockedAsync(CancellationToken cancellationToken)
    {
        var exists = File.Exists(options.Path);
        if (!options.DryRun)
        {
            if (exists && await FindDoneAsync(options.Path, cancellationToken).ConfigureAwait(false) is { } done)
            {
                return done;
            }

            if (!exists && File.Exists(_temporary) && await FindDoneAsync(_temporary, cancellationToken).ConfigureAwait(false) is { } unnamed)
            {
                // It had its name before the database heard of it, but a power failure took the name back.
                File.Move(_temporary, options.Path);
                return unnamed;
            }
        }

        for (var attempt = 1; ; attempt++)
        {
            var end = await finalPosition(cancellationToken).ConfigureAwait(false);
            var (balances, hash) = await ReadAsync(end, options.DryRun || exists ? null : _temporary, cancellationToken).ConfigureAwait(false);
            if (options.DryRun || balances.Entries == 0)
            {
                if (!options.DryRun && !exists)
                {
                    File.Delete(_temporary);
                }

                return Result(balances, hash: null, wasDone: balances.Entries == 0);
            }

            if (!exists)
            {
                await DoneAsync(FlowArchiveStep.Written).ConfigureAwait(false);
                File.Move(_temporary, options.Path);
                exists = true;
            }
            else if (await FlowArchiveFile.HashAsync(options.Path, cancellationToken).ConfigureAwait(false) != hash)
            {
                throw new IOException($"'{options.Path}' exists, and is not what this archive would write: give another name, or remove it if nothing needs it.");
            }

            await DoneAsync(FlowArchiveStep.Named).ConfigureAwait(false);
            if (await TryCommitAsync(balances, hash, end, cancellationToken).ConfigureAwait(false))
            {
                await DoneAsync(FlowArchiveStep.Committed).ConfigureAwait(false);
                return Result(balances, hash, wasDone: false);
            }

            if (attempt == Tries)
            {
                throw new PostgreSqlStoreException($"{server}: transactions from before that instant are still being committed; try again later, or archive up to an earlier instant.", mayPass: true);
            }

            // The file is one entry or more short, and nobody has heard of it.
            File.Delete(options.Path);
            exists = false;
        }
    }

    private static FlowArchiveResult Result(ClosingBalances balances, string? hash, bool wasDone) => new()
    {
        WasDone = wasDone,
        Entries = balances.Entries,
        Skus = balances.ChangedSkus,
        First = balances.Entries == 0 ? null : balances.FirstAt,
        Last = balances.Entries == 0 ? null : balances.LastAt,
        Sha256 = hash,
    };

    private ValueTask DoneAsync(FlowArchiveStep step) => options.AtStep?.Invoke(step) ?? ValueTask.CompletedTask;

    /// <summary>Whether a file is an archive that the store knows: then an earlier run was stopped after its commit.</summary>
    private async Task<FlowArchiveResult?> FindDoneAsync(string path, CancellationToken cancellationToken)
    {
        string hash;
        try
        {
            hash = await FlowArchiveFile.HashAsync(path, cancellationToken).ConfigureAwait(false);
        }
        catch (InvalidDataException) when (path == _temporary)
        {
            // What a killed run left: it is written anew.
            return null;
        }

        var command = new NpgsqlCommand($"SELECT entries, skus FROM {_schema}.flow_archive WHERE sha256 = $1 AND before >= $2", connection) { Parameters = { new() { Value = hash }, new() { Value = before } } };
        await using var disposing = command.ConfigureAwait(false);
        var row = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingToo = row.ConfigureAwait(false);
        return await row.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new() { WasDone = true, Entries = row.GetInt64(0), Skus = row.GetInt64(1), Sha256 = hash }
            : null;
    }

    /// <summary>Reads the openings of earlier archives and the old entries, adds them up, and writes them.</summary>
    private async Task<(ClosingBalances Balances, string Hash)> ReadAsync(long end, string? path, CancellationToken cancellationToken)
    {
        var balances = new ClosingBalances();
        var writer = new FlowArchiveWriter(path);
        await using var disposing = writer.ConfigureAwait(false);
        var after = 0L;
        for (var openings = true; ;)
        {
            var page = await ReadPageAsync(openings, after, end, cancellationToken).ConfigureAwait(false);
            foreach (var (position, entry) in page)
            {
                balances.Add(entry, position);
                await writer.WriteAsync(entry, cancellationToken).ConfigureAwait(false);
                if (balances.Entries % ProgressStep == 0 && balances.Entries > 0)
                {
                    options.Progress?.Report(balances.Entries);
                }
            }

            if (page.Count == PageRows)
            {
                after = page[^1].Position;
            }
            else if (openings)
            {
                (openings, after) = (false, 0);
            }
            else
            {
                return (balances, await writer.FinishAsync(cancellationToken).ConfigureAwait(false));
            }
        }
    }

    private async Task<List<(long Position, FlowEntry Entry)>> ReadPageAsync(bool openings, long after, long end, CancellationToken cancellationToken)
    {
        var page = new List<(long Position, FlowEntry Entry)>();
        var batch = new NpgsqlBatch(connection);
        await using var disposing = batch.ConfigureAwait(false);
        var command = batch.Add(openings ? sql.Openings : sql.OldFlow).With(after).With(end).With((long)PageRows);
        if (!openings)
        {
            command.With(before);
        }

        var rows = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingToo = rows.ConfigureAwait(false);
        while (await rows.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            page.Add((rows.GetInt64(0), PostgreSqlEngine.ReadFlowEntry(rows, rows.GetInt64(0))));
        }

        return page;
    }

    /// <summary>The one transaction.</summary>
    /// <returns>Whether it committed; otherwise an entry came late, and nothing was changed.</returns>
    private async Task<bool> TryCommitAsync(ClosingBalances balances, string hash, long end, CancellationToken cancellationToken)
    {
        var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = transaction.ConfigureAwait(false);
        await RecordAsync(balances, hash, cancellationToken).ConfigureAwait(false);
        var (whole, removed) = await DeleteAsync(end, cancellationToken).ConfigureAwait(false);
        if (removed != balances.Entries)
        {
            return false;
        }

        await DoneAsync(FlowArchiveStep.Recorded).ConfigureAwait(false);
        await LockAsync(cancellationToken).ConfigureAwait(false);
        if ((bool)(await ScalarAsync($"SELECT EXISTS (SELECT FROM {_schema}.flow f WHERE f.position > {end} AND f.at < {before})", cancellationToken).ConfigureAwait(false))!)
        {
            return false;
        }

        await DoneAsync(FlowArchiveStep.Locked).ConfigureAwait(false);
        foreach (var month in whole)
        {
            await Schema.RunAsync(connection, $"DROP TABLE {_schema}.{month}", cancellationToken).ConfigureAwait(false);
        }

        await DoneAsync(FlowArchiveStep.Dropped).ConfigureAwait(false);
        await transaction.CommitAsync(CancellationToken.None).ConfigureAwait(false);
        return true;
    }

    private async Task RecordAsync(ClosingBalances balances, string hash, CancellationToken cancellationToken)
    {
        foreach (var some in balances.Changed().Chunk(OpeningsAtOnce))
        {
            var batch = new NpgsqlBatch(connection);
            await using var disposing = batch.ConfigureAwait(false);
            batch.Add(
                $"""
                INSERT INTO {_schema}.flow_opening AS o(sku, position, version, available, reserved, restocked, adjusted, supplied, operation, holds, before)
                SELECT u.*, $11 FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::text[]) u
                ON CONFLICT (sku) DO UPDATE SET position = excluded.position, version = excluded.version, available = excluded.available, reserved = excluded.reserved,
                    restocked = excluded.restocked, adjusted = excluded.adjusted, supplied = excluded.supplied, operation = excluded.operation, holds = excluded.holds, before = excluded.before
                """)
                .With(Array.ConvertAll(some, static balance => balance.Sku))
                .With(Array.ConvertAll(some, static balance => balance.Position))
                .With(Array.ConvertAll(some, static balance => balance.Version))
                .With(Array.ConvertAll(some, static balance => balance.Available))
                .With(Array.ConvertAll(some, static balance => balance.Reserved))
                .With(Array.ConvertAll(some, static balance => balance.Restocked))
                .With(Array.ConvertAll(some, static balance => balance.Adjusted))
                .With(Array.ConvertAll(some, static balance => balance.Supplied))
                .With(Array.ConvertAll(some, static balance => balance.OperationId))
                .With(Array.ConvertAll(some, static balance => StoredText.Holds(balance.Holds.OrderBy(hold => hold.Key, StockKey.ByteOrder).Select(hold => new FlowHold(hold.Key, hold.Value)))))
                .With(before);
            await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        var archive = new NpgsqlBatch(connection);
        await using var disposingToo = archive.ConfigureAwait(false);
        archive.Add($"INSERT INTO {_schema}.flow_archive(number, before, entries, skus, sha256, file) SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4, $5 FROM {_schema}.flow_archive")
            .With(before).With(balances.Entries).With((long)balances.ChangedSkus).With(hash).With(Path.GetFullPath(options.Path));
        await archive.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Deletes old rows one by one where their partition has younger ones too, or may get them.</summary>
    /// <returns>The partitions that may be dropped as a whole, and how many rows are deleted or go with them.</returns>
    private async Task<(List<string> Whole, long Rows)> DeleteAsync(long end, CancellationToken cancellationToken)
    {
        var partitions = new List<(string Name, bool IsWhole)>();
        var list = new NpgsqlCommand($"SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{_schema}.flow'::regclass ORDER BY 1", connection);
        await using (list.ConfigureAwait(false))
        {
            var names = await list.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = names.ConfigureAwait(false);
            while (await names.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                var name = names.GetString(0);
                var isMonth = DateTime.TryParseExact(name, "'flow_'yyyy'_'MM", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var month);
                if (!isMonth || Months.Begin(month) < before)
                {
                    partitions.Add((name, isMonth && Months.Begin(month.AddMonths(1)) <= before));
                }
            }
        }

        await Schema.RunAsync(connection, $"SET LOCAL holdfast.archived_before = '{before}'", cancellationToken).ConfigureAwait(false);
        var rows = 0L;
        foreach (var (name, isWhole) in partitions)
        {
            rows += (long)(await ScalarAsync(
                isWhole
                    ? $"SELECT count(*) FROM {_schema}.{name}"
                    : $"WITH gone AS (DELETE FROM {_schema}.{name} f WHERE f.at < {before} AND f.position <= {end} RETURNING 1) SELECT count(*) FROM gone",
                cancellationToken).ConfigureAwait(false))!;
        }

        return (partitions.FindAll(partition => partition.IsWhole).ConvertAll(partition => partition.Name), rows);
    }

    private async Task LockAsync(CancellationToken cancellationToken)
    {
        var began = clock.GetTimestamp();
        var pause = TimeSpan.FromMilliseconds(50);
        for (var attempt = 1; ; attempt++, pause = pause < s_longestPause ? pause * 2 : pause)
        {
            // An autovacuum steps aside only for somebody who has waited for it as long as deadlock_timeout.
            var patience = attempt % VacuumEvery == 0 ? "extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000 + 500" : "500";
            await Schema.RunAsync(connection, $"SAVEPOINT unlocked; SELECT set_config('lock_timeout', ({patience})::integer::text, true)", cancellationToken).ConfigureAwait(false);
            try
            {
                await Schema.RunAsync(connection, $"LOCK TABLE {_schema}.flow IN ACCESS EXCLUSIVE MODE", cancellationToken).ConfigureAwait(false);
                return;
            }
            catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.LockNotAvailable or PostgresErrorCodes.DeadlockDetected)
            {
                await Schema.RunAsync(connection, "ROLLBACK TO SAVEPOINT unlocked", cancellationToken).ConfigureAwait(false);
                if (clock.GetElapsedTime(began) > lockPatience)
                {
                    throw new PostgreSqlStoreException($"{server}: some transaction has used the ledger for longer than {lockPatience.TotalSeconds:0} s and does not end (see pg_stat_activity): end it, or try again later.", mayPass: true, e.SqlState, e);
                }

                await Task.Delay(pause, clock, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task<object?> ScalarAsync(string text, CancellationToken cancellationToken)
    {
        var command = new NpgsqlCommand(text, connection);
        await using var disposing = command.ConfigureAwait(false);
        return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false);
    }
}
