namespace Holdfast.Cli.Bench;

/// <summary>A workload put on an engine: one deduction a request.</summary>
internal static class EngineLoad
{
    /// <summary>Stocks what the workload sells.</summary>
    /// <exception cref="InvalidOperationException">The store did not take it.</exception>
    public static async Task OpenAsync(IStockEngine engine, Workload workload, long units, TimeProvider time, CancellationToken cancellationToken = default)
    {
        var patience = new Patience(engine, time, TimeSpan.FromSeconds(30));
        foreach (var restock in workload.Openings(units))
        {
            cancellationToken.ThrowIfCancellationRequested();
            var result = await patience.ExecuteAsync(restock, cancellationToken).ConfigureAwait(false);
            if (!result.IsApplied)
            {
                throw new InvalidOperationException($"The store could not be stocked: {restock} was answered {result}.");
            }
        }
    }

    /// <summary>Makes the request functions of <see cref="LoadGenerator"/>.</summary>
    public static Func<int, Func<ValueTask<LoadAnswer>>> Callers(IStockEngine engine, Workload workload) => number =>
    {
        var next = workload.Orders(number);
        return () =>
        {
            var (order, isRepeat) = next();
            var pending = engine.ExecuteAsync([order]);
            return pending.IsCompletedSuccessfully ? new(AnswerOf(pending.GetAwaiter().GetResult()[0], isRepeat)) : Await(pending, isRepeat);
        };

        static async ValueTask<LoadAnswer> Await(ValueTask<IReadOnlyList<StockResult>> pending, bool isRepeat) =>
            AnswerOf((await pending.ConfigureAwait(false))[0], isRepeat);
    };

    /// <summary>The same for an order that may have been sent before; where it was not, being a replay says that the client had to ask twice.</summary>
    private static LoadAnswer AnswerOf(StockResult result, bool isRepeat) =>
        isRepeat && result.Status == StockStatus.Replayed ? LoadAnswer.Repeated : AnswerOf(result);

    /// <summary>How a load counts a result.</summary>
    public static LoadAnswer AnswerOf(StockResult result) => result switch
    {
        { IsApplied: true } => LoadAnswer.Accepted,
        { IsRetryable: true } or { Status: StockStatus.Pending } => LoadAnswer.Unknown,
        _ => LoadAnswer.Refused,
    };
}
