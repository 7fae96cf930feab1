namespace Holdfast.Cli;

/// <summary>Sends a command until it has a verdict: Busy and InDoubt are retried with the same id, for a bounded time.</summary>
internal sealed class Patience(IStockEngine engine, TimeProvider time, TimeSpan limit)
{
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(2);
    private static readonly TimeSpan LongestPause = TimeSpan.FromMilliseconds(250);

    /// <summary>Executes one command. The answer is retryable only when the time ran out: the outcome is then unknown.</summary>
    public async Task<StockResult> ExecuteAsync(StockCommand command, CancellationToken cancellationToken = default)
    {
        var started = time.GetTimestamp();
        for (var pause = FirstPause; ; pause = pause * 2 < LongestPause ? pause * 2 : LongestPause)
        {
            var result = await engine.ExecuteAsync(command, cancellationToken).ConfigureAwait(false);
            if (!result.IsRetryable || time.GetElapsedTime(started) > limit)
            {
                return result;
            }

            await Task.Delay(pause, time, cancellationToken).ConfigureAwait(false);
        }
    }
}
