using System.Diagnostics;
using System.Text;
using Holdfast.Cli;
using Holdfast.Cli.Bench;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Holdfast.Ladder.Rungs;

/// <summary>SQLite, every commit flushed to disk: group commit against a transaction a command, and against rows without logic.</summary>
internal static class SqliteRungs
{
    private const string StoreFile = "stock.db";

    public static Rung Batched(RungOptions options) => new()
    {
        Name = "sqlite",
        Question = "group commit against one transaction a command, both SQLite with synchronous=FULL, one hot SKU",
        SubjectName = "batched",
        BaselineName = "database",
        Bound = 15,
        Settings = [options.Describe(), Place()],
        Subject = cancellationToken => BatchedAsync(options, cancellationToken),
        Baseline = cancellationToken => EngineAsync(SqliteTransactionScope.Command, new(), options, cancellationToken),
    };

    public static Rung Rows(RungOptions options) => new()
    {
        Name = "sqlite-rows",
        Question = "group commit against a bare loop that writes the same rows, 1,000 orders a transaction, without any logic or caller",
        SubjectName = "batched",
        BaselineName = "bare rows",
        Bound = 0.5,
        Settings = [options.Describe(), Place(), "bare rows: SQLite's own calls, prepared statements, same file layout and settings; per order one operation row and one flow row, per transaction one update of the stock row, as the engine writes them, with the ids that as many callers in turn would send"],
        Subject = cancellationToken => BatchedAsync(options, cancellationToken),
        Baseline = cancellationToken => BareRowsAsync(options, cancellationToken),
    };

    private static string Place() => $"files: under {Path.GetTempPath()} (another disk: set TMPDIR)";

    private static Task<Measured> BatchedAsync(RungOptions options, CancellationToken cancellationToken) =>
        EngineAsync(SqliteTransactionScope.Call, new GroupCommitOptions(), options, cancellationToken);

    private static async Task<Measured> EngineAsync(SqliteTransactionScope scope, GroupCommitOptions grouping, RungOptions options, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var store = SqliteEngine.Open(new() { Path = scratch.File(StoreFile), TransactionPer = scope });
        var durability = store.Durability;
        var builder = new StockEngineBuilder(store);
        var engine = (scope == SqliteTransactionScope.Call ? builder.UseGroupCommit(grouping) : builder).Build();
        await using (engine.ConfigureAwait(false))
        {
            var measured = await EngineMeasure.RunAsync(engine, "hot", options, cancellationToken).ConfigureAwait(false);
            return measured with { Detail = $"{measured.Detail}; {durability}" };
        }
    }

    private static async Task<Measured> BareRowsAsync(RungOptions options, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var path = scratch.File(StoreFile);
        var run = RunName.New(TimeProvider.System);
        var workload = Workload.Of("hot", run, seed: 1);
        const long opening = 1_000_000_000_000;
        var empty = SqliteEngine.Open(new() { Path = path });
        await using (empty.ConfigureAwait(false))
        {
            // The engine makes the file, so that the rows go into the very same tables and indexes.
            await EngineLoad.OpenAsync(empty, workload, opening, TimeProvider.System, cancellationToken).ConfigureAwait(false);
        }

        var processorTime = Environment.CpuUsage.TotalTime;
        var (rows, elapsed) = new BareRows(path, workload, options.Load.Callers, opening).Run(options.Load.WarmUp, options.Load.Duration, cancellationToken);
        var each = (Environment.CpuUsage.TotalTime - processorTime).TotalMicroseconds / (rows * (1 + (options.Load.WarmUp / elapsed)));
        var filled = SqliteEngine.Open(new() { Path = path, ReadOnly = true });
        await using (filled.ConfigureAwait(false))
        {
            var audit = await LoadAudit.LedgerAsync(options.Terminal, filled, cancellationToken).ConfigureAwait(false);
            return new(rows / elapsed.TotalSeconds, $"{rows:#,##0} in {elapsed.TotalSeconds:0.0} s, one thread, 1,000 a transaction, about {each:0.00} µs of processor each", audit);
        }
    }

    /// <summary>The loop without logic. Nothing is read back and nothing is decided: numbers are counted up.</summary>
    private sealed class BareRows(string path, Workload workload, int callers, long opening)
    {
        private const int PerTransaction = 1_000;

        private readonly string _sku = workload.Skus[0];

        private long _count;

        public (long Rows, TimeSpan Elapsed) Run(TimeSpan warmUp, TimeSpan duration, CancellationToken cancellationToken)
        {
            using var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
            connection.Open();
            var database = connection.Handle!;

            // The engine's settings: see Holdfast.Sqlite's Writer and Tuning.
            foreach (var pragma in (string[])["journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4096", "cache_size = -65536", "journal_size_limit = 67108864"])
            {
                Check(raw.sqlite3_exec(database, $"PRAGMA {pragma}"));
            }

            using var begin = Prepare(database, "BEGIN IMMEDIATE");
            using var stock = Prepare(database, "UPDATE stock SET available = ?2, reserved = ?3, restocked = ?4, adjusted = ?5, supplied = ?6, version = ?7 WHERE id = ?1");
            using var operation = Prepare(database, "INSERT INTO operation(seq, id, verb, state, target, lines, note, created_at, expires_at, ended_at, end_left, refunded) VALUES (?1, ?2, 1, 1, NULL, ?3, NULL, ?4, NULL, NULL, NULL, NULL)");
            using var flow = Prepare(database, "INSERT INTO flow(position, stock, version, operation, kind, available_change, reserved_change, available, reserved, at) VALUES (?1, 1, ?2, ?3, 1, -1, 0, ?4, 0, ?5)");
            using var time = Prepare(database, "UPDATE store SET highest_time = ?1");
            using var commit = Prepare(database, "COMMIT");

            var started = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(started) < warmUp)
            {
                Transaction();
            }

            var before = _count;
            started = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(started) < duration)
            {
                cancellationToken.ThrowIfCancellationRequested();
                Transaction();
            }

            return (_count - before, Stopwatch.GetElapsedTime(started));

            void Transaction()
            {
                var now = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
                Step(begin);
                for (var i = 0; i < PerTransaction; i++)
                {
                    // The opening was operation 1, flow entry 1 and version 1.
                    var number = ++_count + 1;
                    var left = opening - _count;
                    Bind(operation, 1, number);
                    Bind(operation, 2, workload.OrderId((_count - 1) / callers, (int)((_count - 1) % callers)));
                    Bind(operation, 3, $"[[\"{_sku}\",1,{left}]]");
                    Bind(operation, 4, now);
                    Step(operation);
                    Bind(flow, 1, number);
                    Bind(flow, 2, number);
                    Bind(flow, 3, number);
                    Bind(flow, 4, left);
                    Bind(flow, 5, now);
                    Step(flow);
                }

                Bind(stock, 1, 1);
                Bind(stock, 2, opening - _count);
                Bind(stock, 3, 0);
                Bind(stock, 4, opening);
                Bind(stock, 5, 0);
                Bind(stock, 6, opening);
                Bind(stock, 7, _count + 1);
                Step(stock);
                Bind(time, 1, now);
                Step(time);
                Step(commit);
            }
        }

        private static sqlite3_stmt Prepare(sqlite3 database, string sql)
        {
            Check(raw.sqlite3_prepare_v3(database, sql, raw.SQLITE_PREPARE_PERSISTENT, out var statement));
            return statement;
        }

        private static void Bind(sqlite3_stmt statement, int parameter, long value) => Check(raw.sqlite3_bind_int64(statement, parameter, value));

        private static void Bind(sqlite3_stmt statement, int parameter, string value)
        {
            Span<byte> buffer = stackalloc byte[256];
            Check(raw.sqlite3_bind_text(statement, parameter, buffer[..Encoding.UTF8.GetBytes(value, buffer)]));
        }

        private static void Step(sqlite3_stmt statement)
        {
            var code = raw.sqlite3_step(statement);
            if (code is not (raw.SQLITE_DONE or raw.SQLITE_ROW))
            {
                throw new InvalidOperationException($"SQLite answered {code}.");
            }

            _ = raw.sqlite3_reset(statement);
        }

        private static void Check(int code)
        {
            if (code != raw.SQLITE_OK)
            {
                throw new InvalidOperationException($"SQLite answered {code}.");
            }
        }
    }
}
