namespace Holdfast.Cli.Bench;

/// <summary>A workload put on an engine: one deduction a request.</summary>
internal static class EngineLoad
{
    /// <summary>Stocks what the workload sells.</summary>
    /// <exception cref="InvalidOperationException">The store did not take it.</exception>
    public static async Task OpenAsync(IStockEngine engine, Workload workload, long units, TimeProvider time)
    {
        var patience = new Patience(engine, time, TimeSpan.FromSeconds(30));
        foreach (var restock in workload.Openings(units))
        {
            var result = await patience.ExecuteAsync(restock).ConfigureAwait(false);
            if (!result.IsApplied)
            {
                throw new InvalidOperationException($"The store could not be stocked: {restock} was answered {result}.");
            }
        }
    }

    /// <summary>Makes the request functions of <see cref="LoadGenerator"/>.</summary>
    public static Func<int, Func<ValueTask<LoadAnswer>>> Callers(IStockEngine engine, Workload workload) => number =>
    {
        var next = workload.Caller(number);
        return () =>
        {
            var pending = engine.ExecuteAsync([next()]);
            return pending.IsCompletedSuccessfully ? new(AnswerOf(pending.GetAwaiter().GetResult()[0])) : Await(pending);
        };

        static async ValueTask<LoadAnswer> Await(ValueTask<IReadOnlyList<StockResult>> pending) =>
            AnswerOf((await pending.ConfigureAwait(false))[0]);
    };

    /// <summary>How a load counts a result.</summary>
    public static LoadAnswer AnswerOf(StockResult result) => result switch
    {
        { IsApplied: true } => LoadAnswer.Accepted,
        { IsRetryable: true } or { Status: StockStatus.Pending } => LoadAnswer.Unknown,
        _ => LoadAnswer.Refused,
    };
}
