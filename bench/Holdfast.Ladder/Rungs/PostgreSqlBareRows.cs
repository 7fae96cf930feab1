using System.Diagnostics;
using System.Globalization;
using Holdfast.Cli;
using Holdfast.Cli.Bench;
using Holdfast.PostgreSql;
using Npgsql;

namespace Holdfast.Ladder.Rungs;

/// <summary>
/// The rows that the engine writes, written by a loop that reads nothing back and decides nothing: numbers are counted up. The
/// statements are the engine's own, so the two never drift apart; the audit proves that the rows are those that it would have left.
/// </summary>
internal sealed class PostgreSqlBareRows(BenchDatabase database, RungOptions options, int perTransaction)
{
    private const long Opening = 1_000_000_000_000;

    private readonly Workload _workload = Workload.Of("hot", RunName.New(TimeProvider.System), seed: 1);

    private long _count;

    public async Task<Measured> MeasureAsync(CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            await EngineLoad.OpenAsync(store.Engine, _workload, Opening, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            var used = Environment.CpuUsage.TotalTime;
            var (rows, elapsed) = await RunAsync(store.Options, cancellationToken).ConfigureAwait(false);
            var each = (Environment.CpuUsage.TotalTime - used).TotalMicroseconds / _count;
            var audit = await LoadAudit.LedgerAsync(options.Terminal, store.Engine, cancellationToken).ConfigureAwait(false);
            return new(rows / elapsed.TotalSeconds, $"{rows:#,##0} in {elapsed.TotalSeconds:0.0} s, one connection, {perTransaction} a transaction, {each:0.00} µs of processor each in this process", audit);
        }
    }

    private async Task<(long Rows, TimeSpan Elapsed)> RunAsync(PostgreSqlOptions store, CancellationToken cancellationToken)
    {
        var (source, owner) = PostgreSqlEngine.SourceOf(store.Parse(), store);
        await using (owner.ConfigureAwait(false))
        {
            var connection = await source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
            await using (connection.ConfigureAwait(false))
            {
                var sql = new Statements(store.Schema);
                for (var started = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(started) < options.Load.WarmUp;)
                {
                    await TransactAsync(connection, sql, cancellationToken).ConfigureAwait(false);
                }

                var before = _count;
                var began = Stopwatch.GetTimestamp();
                while (Stopwatch.GetElapsedTime(began) < options.Load.Duration)
                {
                    await TransactAsync(connection, sql, cancellationToken).ConfigureAwait(false);
                }

                return (_count - before, Stopwatch.GetElapsedTime(began));
            }
        }
    }

    private async Task TransactAsync(NpgsqlConnection connection, Statements sql, CancellationToken cancellationToken)
    {
        var sku = _workload.Skus[0];
        var callers = options.Load.Callers;
        var ids = new string[perTransaction];
        var lines = new string[perTransaction];
        var left = new long[perTransaction];
        var versions = new long[perTransaction];

        // A block of positions a transaction, as the engine takes them: the schema's first is 1, the opening took the next.
        var block = 3 + (_count / perTransaction);
        for (var i = 0; i < perTransaction; i++)
        {
            ids[i] = _workload.OrderId(_count / callers, (int)(_count % callers));
            _count++;
            left[i] = Opening - _count;
            versions[i] = _count + 1;
            lines[i] = string.Create(CultureInfo.InvariantCulture, $"[[\"{sku}\",1,{left[i]}]]");
        }

        var now = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
        var batch = new NpgsqlBatch(connection);
        await using var disposing = batch.ConfigureAwait(false);
        batch.Add(Statements.Begin);
        batch.Add(sql.TakeBlock);
        batch.Add(sql.UpdateRows).With([sku]).With([Opening - _count]).With([0L]).With([Opening]).With([0L]).With([Opening]).With([_count + 1]).With([0L]).With(now);
        batch.Add(sql.InsertPlainOperations).With(ids).With(Filled((short)StockVerb.Deduct)).With(lines).With(now);
        batch.Add(sql.InsertPlainFlow).With(block << Tuning.BlockBits).With(Filled(sku)).With(versions).With(ids).With(Filled(-1L)).With(left).With((short)FlowKind.Deduct).With(now);
        batch.Add(Statements.Commit);
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private T[] Filled<T>(T value)
    {
        var values = new T[perTransaction];
        Array.Fill(values, value);
        return values;
    }
}
