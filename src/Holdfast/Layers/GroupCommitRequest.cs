namespace Holdfast;

/// <summary>One caller's commands, and what is known of them so far.</summary>
internal sealed class GroupCommitRequest(StockCommand[] commands, long enqueuedAt, TaskCreationOptions promiseOptions)
    : TaskCompletionSource<IReadOnlyList<StockResult>>(promiseOptions)
{
    private StockResult[]? _results;
    private int[]? _places;
    private int _held;
    private CancellationTokenRegistration _cancellation;

    /// <summary>The commands still to be executed.</summary>
    public StockCommand[] Commands { get; private set; } = commands;

    public long EnqueuedAt { get; } = enqueuedAt;

    public int Attempts { get; private set; }

    public HashSet<string>? Claimed { get; set; }

    public ITimer? Delay { get; set; }

    public Task<IReadOnlyList<StockResult>> Answer => Task;

    public bool IsUnattempted => Attempts == 0;

    public bool IsAnswered => Task.IsCompleted;

    /// <summary>Whether it failed before, so that it shares no batch with others.</summary>
    public bool IsSuspect => Attempts > 1;

    /// <summary>Whether something is in doubt, or held behind what is.</summary>
    public bool IsUndecided { get; private set; }

    /// <summary>Whether a call with some of its commands goes on although nobody waits for it any more.</summary>
    public bool IsOverdue { get; set; }

    /// <summary>Whether its commands are not tried again, so that nothing need be held behind one in doubt.</summary>
    public bool IsLastRound { get; private set; }

    public void CancelWith(CancellationToken cancellationToken) =>
        _cancellation = cancellationToken.UnsafeRegister(static (request, token) => ((GroupCommitRequest)request!).TrySetCanceled(token), this);

    /// <summary>
    /// Whether the rest of its commands must wait, since one before them is in doubt: it will be tried again, and they are
    /// decided behind it, as the order of the caller's batch demands. Where it was in doubt, Busy has not settled it.
    /// </summary>
    public bool Holds(IReadOnlyList<StockResult> before) => !IsLastRound
        && (_held > 0 || before.Any(result => result.Status == StockStatus.InDoubt || (result.Status == StockStatus.Busy && !IsUnattempted)));

    /// <summary>Leaves commands for the next round, each with everything behind it.</summary>
    /// <param name="commands">The commands.</param>
    /// <param name="status">How they stand until then: InDoubt after a call that failed with them, Busy if they were never sent.</param>
    public StockResult[] Hold(ArraySegment<StockCommand> commands, StockStatus status)
    {
        _held += commands.Count;
        return Filled(commands.Count, status, "a command before it in the same batch is in doubt");
    }

    /// <summary>Takes the results of <see cref="Commands"/>, which stand in a batch's results from a place on.</summary>
    public void Take(IReadOnlyList<StockResult> results, int at)
    {
        Attempts++;
        IsUndecided = _held > 0;
        _results ??= new StockResult[Commands.Length];
        for (var i = 0; i < Commands.Length; i++)
        {
            var result = results[at + i];
            ref var known = ref _results[PlaceOf(i)];

            // Busy says that this attempt did not apply; the one in doubt before it still may have.
            known = known.Status == StockStatus.InDoubt && result.Status == StockStatus.Busy
                ? StockResult.Of(StockStatus.InDoubt, result.Detail)
                : result;
            IsUndecided |= known.Status == StockStatus.InDoubt;
        }
    }

    /// <summary>
    /// Keeps only the commands whose outcome is in doubt, what is held behind them, and what was refused behind the first of
    /// them: a refusal changed nothing, and is decided anew behind the command that came before it.
    /// </summary>
    public void NarrowToDoubt()
    {
        var isBehindDoubt = false;
        Narrow(i =>
        {
            var status = _results![PlaceOf(i)].Status;
            var stays = status == StockStatus.InDoubt || i >= Commands.Length - _held || (isBehindDoubt && status is >= StockStatus.UnknownTarget and <= StockStatus.Insufficient);
            isBehindDoubt |= stays;
            return stays;
        });
    }

    /// <summary>Keeps only the commands that are held, for a last round; <see langword="false"/> when there are none.</summary>
    public bool NarrowToHeld()
    {
        var first = Commands.Length - _held;
        Narrow(i => i >= first);
        IsLastRound = true;
        return Commands.Length > 0;
    }

    public void Finish()
    {
        _cancellation.Dispose();
        TrySetResult(_results!);
    }

    /// <summary>Ends what waited in vain: Busy if it was never attempted, as it stands (in doubt) otherwise.</summary>
    public void FinishUnattempted(string detail)
    {
        _cancellation.Dispose();
        TrySetResult(_results ?? Filled(Commands.Length, StockStatus.Busy, detail));
    }

    public void Fail(Exception exception)
    {
        _cancellation.Dispose();
        TrySetException(exception);
    }

    public static StockResult[] Filled(int count, StockStatus status, string detail)
    {
        var results = new StockResult[count];
        Array.Fill(results, StockResult.Of(status, detail));
        return results;
    }

    /// <summary>Where the result of a command stands in the caller's list.</summary>
    private int PlaceOf(int command) => _places is null ? command : _places[command];

    private void Narrow(Predicate<int> stays)
    {
        var left = Enumerable.Range(0, Commands.Length).Where(i => stays(i)).ToArray();
        var places = Array.ConvertAll(left, PlaceOf);
        Commands = Array.ConvertAll(left, i => Commands[i]);
        _places = places;
        _held = 0;
    }
}
