using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>PostgreSQL, every commit flushed to disk: group commit against a transaction a command, and against rows without logic.</summary>
internal static class PostgreSqlRungs
{
    private const int ZipfBaselineCallers = 64;
    private static readonly TimeSpan s_warmUp = TimeSpan.FromSeconds(10);

    public static Rung Batched(RungOptions options, BenchDatabase database) => new()
    {
        Name = "postgres",
        Question = "group commit against one transaction a command, both on one PostgreSQL, one hot SKU",
        SubjectName = "batched",
        BaselineName = "database",
        Bound = 15,
        Settings = [options.Describe(), database.Description],
        Subject = cancellationToken => EngineAsync(database, PostgreSqlTransactions.Call, "hot", options, cancellationToken),
        Baseline = cancellationToken => EngineAsync(database, PostgreSqlTransactions.Command, "hot", options, cancellationToken),
        Prepare = cancellationToken => WarmUpAsync(database, "hot", options, cancellationToken),
    };

    public static Rung Zipf(RungOptions options, BenchDatabase database) => new()
    {
        Name = "postgres-zipf",
        Question = "carts of 1 to 5 lines over 10,000 SKUs, zipf 0.99: group commit against one transaction a command",
        SubjectName = "batched",
        BaselineName = "database",
        Bound = 15,
        Settings = [options.Describe(), $"database: {ZipfBaselineCallers} callers", database.Description],
        Subject = cancellationToken => EngineAsync(database, PostgreSqlTransactions.Call, "carts", options, cancellationToken),
        Baseline = cancellationToken => EngineAsync(
            database, PostgreSqlTransactions.Command, "carts", options with { Load = options.Load with { Callers = ZipfBaselineCallers } }, cancellationToken),
        Prepare = cancellationToken => WarmUpAsync(database, "carts", options, cancellationToken),
    };

    public static Rung Rows(RungOptions options, BenchDatabase database)
    {
        var batchSize = 0;
        return new()
        {
            Name = "postgres-rows",
            Question = "group commit against a bare loop of the same inserts without any logic or caller, same batch size, same connections, one hot SKU",
            SubjectName = "batched",
            BaselineName = "bare rows",
            Bound = 0.5,
            Settings =
            [
                options.Describe(),
                database.Description,
                "bare rows: the engine's own statements, prepared, from arrays, one connection; per order one operation row and one flow row, per transaction one update of the stock row, BEGIN to COMMIT in one round trip; as many orders a transaction as the engine had on average in a run before the first pair",
            ],
            Subject = cancellationToken => EngineAsync(database, PostgreSqlTransactions.Call, "hot", options, cancellationToken),
            Baseline = async cancellationToken =>
            {
                var rows = new PostgreSqlBareRows(database, options, batchSize);
                return await rows.MeasureAsync(cancellationToken).ConfigureAwait(false);
            },
            Prepare = async cancellationToken => batchSize = (int)Math.Round(await WarmUpAsync(database, "hot", options, cancellationToken).ConfigureAwait(false)),
        };
    }

    /// <summary>A workload on one scheme, audited.</summary>
    public static async Task<Measured> EngineAsync(BenchDatabase database, PostgreSqlTransactions transactions, string workload, RungOptions options, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(transactions).ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            var measured = await EngineMeasure.RunAsync(store.Engine, workload, options, cancellationToken).ConfigureAwait(false);
            return transactions == PostgreSqlTransactions.Call ? measured with { Detail = $"{measured.Detail}, {store.PerCall:0} commands a transaction" } : measured;
        }
    }

    /// <summary>
    /// One run that does not count: until the runtime has compiled everything the way it will stay, it needs much of a small machine for
    /// that, and the first pair would show it.
    /// </summary>
    /// <returns>How many commands a transaction had on average.</returns>
    public static async Task<double> WarmUpAsync(BenchDatabase database, string workload, RungOptions options, CancellationToken cancellationToken)
    {
        var store = await database.OpenAsync(PostgreSqlTransactions.Call).ConfigureAwait(false);
        await using (store.ConfigureAwait(false))
        {
            await EngineMeasure.LoadAsync(store.Engine, workload, options with { Load = options.Load with { Duration = s_warmUp } }, cancellationToken).ConfigureAwait(false);
            return store.PerCall;
        }
    }
}
