namespace Holdfast;

/// <summary>One caller's commands, and what is known of them so far.</summary>
internal sealed class GroupCommitRequest(StockCommand[] commands, long enqueuedAt, TaskCreationOptions promiseOptions)
    : TaskCompletionSource<IReadOnlyList<StockResult>>(promiseOptions)
{
    private StockResult[]? _results;
    private int[]? _places;
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

    public bool IsInDoubt { get; private set; }

    public void CancelWith(CancellationToken cancellationToken) =>
        _cancellation = cancellationToken.UnsafeRegister(static (request, token) => ((GroupCommitRequest)request!).TrySetCanceled(token), this);

    /// <summary>Takes the results of <see cref="Commands"/>, which stand in a batch's results from a place on.</summary>
    public void Take(IReadOnlyList<StockResult> results, int at)
    {
        Attempts++;
        IsInDoubt = false;
        _results ??= new StockResult[Commands.Length];
        for (var i = 0; i < Commands.Length; i++)
        {
            var result = results[at + i];
            ref var known = ref _results[_places is null ? i : _places[i]];

            // Busy says that this attempt did not apply; the one in doubt before it still may have.
            known = known.Status == StockStatus.InDoubt && result.Status == StockStatus.Busy
                ? StockResult.Of(StockStatus.InDoubt, result.Detail)
                : result;
            IsInDoubt |= known.Status == StockStatus.InDoubt;
        }
    }

    /// <summary>
    /// Keeps only the commands whose outcome is in doubt, and what was refused behind the first of them: a refusal changed
    /// nothing, and is decided anew behind the command that came before it, as the order of the caller's batch demands.
    /// </summary>
    public void NarrowToDoubt()
    {
        var places = new List<int>();
        var doubtful = new List<StockCommand>();
        for (var i = 0; i < Commands.Length; i++)
        {
            var place = _places is null ? i : _places[i];
            var status = _results![place].Status;
            if (status == StockStatus.InDoubt || (doubtful.Count > 0 && status is >= StockStatus.UnknownTarget and <= StockStatus.Insufficient))
            {
                places.Add(place);
                doubtful.Add(Commands[i]);
            }
        }

        _places = [.. places];
        Commands = [.. doubtful];
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
        TrySetResult(_results ?? Busy(Commands.Length, detail));
    }

    public void Fail(Exception exception)
    {
        _cancellation.Dispose();
        TrySetException(exception);
    }

    public static StockResult[] Busy(int count, string detail)
    {
        var results = new StockResult[count];
        Array.Fill(results, StockResult.Of(StockStatus.Busy, detail));
        return results;
    }
}
