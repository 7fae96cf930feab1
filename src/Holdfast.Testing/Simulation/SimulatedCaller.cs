namespace Holdfast.Testing;

/// <summary>
/// A caller of a simulated world: sends its commands in batches, each again until it is decided, gives up waiting now
/// and then, and closes what it gives up for good. Everything it sends and sees goes into the history.
/// </summary>
internal sealed class SimulatedCaller(SimulatedProcess process, IStockEngine engine, History history, Random random)
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    private readonly SimulationScheduler _scheduler = process.Scheduler;

    /// <summary>How often it stops waiting for an answer after a while, as a part of all calls.</summary>
    public double Impatience { get; init; }

    /// <summary>How often it gives up a command that is not decided, and abandons its id, as a part of all commands.</summary>
    public double GivesUp { get; init; }

    /// <summary>Each call as it was answered: for checks of a batch's order.</summary>
    public List<(IReadOnlyList<StockCommand> Commands, IReadOnlyList<StockResult> Results)> Calls { get; } = [];

    /// <summary>What it is waiting for, for a failure's report; nothing when it is done.</summary>
    public IReadOnlyList<StockCommand> Undecided { get; private set; } = [];

    public bool IsDone { get; private set; }

    /// <summary>What must never reach a caller.</summary>
    public Exception? Unexpected { get; private set; }

    public async Task RunAsync(IEnumerable<IReadOnlyList<StockCommand>> batches)
    {
        foreach (var batch in batches)
        {
            await SendAsync(batch).ConfigureAwait(false);
        }

        IsDone = true;
    }

    /// <summary>Sends commands until each is decided.</summary>
    public async Task SendAsync(IReadOnlyList<StockCommand> batch)
    {
        var tries = random.NextDouble() < GivesUp ? random.Next(1, 4) : int.MaxValue;
        Undecided = batch;
        for (var number = 1; Undecided.Count > 0; number++)
        {
            if (number > tries)
            {
                // A transition can't be closed: it has no id of its own.
                Undecided = [.. Undecided.Select(command => command.IsTransition ? command : StockCommand.Abandon(command.Id))];
                tries = int.MaxValue;
            }

            if (number > 1)
            {
                var pause = TimeSpan.FromMilliseconds(random.Next(1, 1 << Math.Min(number, 10)));
                await Task.Delay(pause < s_longestPause ? pause : s_longestPause, _scheduler.Clock).ConfigureAwait(false);
            }

            await TryAsync().ConfigureAwait(false);
        }
    }

    private async Task TryAsync()
    {
        var commands = Undecided;
        using var patience = random.NextDouble() < Impatience ? new CancellationTokenSource(TimeSpan.FromMilliseconds(random.Next(1, 400)), _scheduler.Clock) : null;
        var sentAt = _scheduler.NextInstant();
        IReadOnlyList<StockResult>? results = null;
        try
        {
            results = await engine.ExecuteAsync(commands, patience?.Token ?? CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // The outcome is unknown; the same id will tell.
            Unexpected ??= e is FaultException or OperationCanceledException ? null : e;
        }

        var answeredAt = _scheduler.NextInstant();
        for (var i = 0; i < commands.Count; i++)
        {
            var result = results is null ? default : results[i];
            history.Add(new() { Command = commands[i], SentAt = sentAt, AnsweredAt = answeredAt, Result = result });
            _scheduler.Mix((ulong)result.Status);
        }

        if (results is not null)
        {
            Calls.Add((commands, results));
            Unexpected ??= results.Any(result => result.Status == StockStatus.None) ? new ConformanceException("a result that nobody filled in") : null;
            Undecided = [.. commands.Where((_, i) => results[i].IsRetryable)];
        }
    }
}
