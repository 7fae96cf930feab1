using Holdfast.Wire;

namespace Holdfast.Queueing;

/// <summary>
/// Sends what callers give to one queue of a transport: a loop takes whatever waits, sends it as one batch, answers the
/// callers and repeats, so that a batch grows by itself while the one before it is confirmed. One batch at a time, so the
/// queue keeps the callers' order. Thread-safe.
/// </summary>
internal sealed class QueueIntake(ICommandTransport transport, int queue, CommandQueueOptions options, TimeProvider clock) : IThreadPoolWorkItem
{
    private readonly Lock _lock = new();
    private readonly Queue<(byte[] Body, IntakeRequest Request, int Index)> _waiting = new();
    private bool _isRunning;

    /// <summary>Takes messages for the queue.</summary>
    public void Add(IntakeRequest request, IEnumerable<(int Index, byte[] Body)> messages)
    {
        lock (_lock)
        {
            foreach (var (index, body) in messages)
            {
                _waiting.Enqueue((body, request, index));
            }

            if (_isRunning)
            {
                return;
            }

            _isRunning = true;
        }

        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    void IThreadPoolWorkItem.Execute() => _ = RunAsync();

    private async Task RunAsync()
    {
        while (true)
        {
            var batch = new List<(byte[] Body, IntakeRequest Request, int Index)>();
            lock (_lock)
            {
                while (batch.Count < options.MaxSendCommands && _waiting.TryDequeue(out var next))
                {
                    batch.Add(next);
                }

                if (batch.Count == 0)
                {
                    _isRunning = false;
                    return;
                }
            }

            var results = await SendAsync(batch.ConvertAll(each => new QueueMessage(queue, each.Body))).ConfigureAwait(false);
            for (var i = 0; i < batch.Count; i++)
            {
                HoldfastMeter.IntakeCommands.Add(1, new KeyValuePair<string, object?>("outcome", StockJson.StatusName(results[i].Status)));
                batch[i].Request.Take(batch[i].Index, results[i]);
            }
        }
    }

    private async ValueTask<IReadOnlyList<StockResult>> SendAsync(List<QueueMessage> messages)
    {
        using var limit = new CancellationTokenSource(options.SendTimeout, clock);
        try
        {
            var statuses = await transport.SendAsync(messages, limit.Token).AsTask().WaitAsync(options.SendTimeout + TimeSpan.FromSeconds(1), clock).ConfigureAwait(false);
            return [.. statuses.Select(ResultOf)];
        }
        catch (Exception e)
        {
            // A transport says by statuses what it knows. This one did not, so nothing is known: the caller is told so.
            var why = e is TimeoutException or OperationCanceledException ? $"{transport.Location} did not confirm within {options.SendTimeout}" : $"{transport.Location} failed: {e.Message}";
            return [.. Enumerable.Repeat(StockResult.Of(StockStatus.InDoubt, $"{why}; it may have been accepted: send it again with the same id"), messages.Count)];
        }
    }

    private StockResult ResultOf(SendStatus status) => status switch
    {
        SendStatus.Accepted => s_pending,
        SendStatus.Full => StockResult.Of(StockStatus.Busy, CommandQueue.FullDetail),
        SendStatus.Unreachable => StockResult.Of(StockStatus.Busy, $"{transport.Location} can't be reached; send it again later"),
        _ => StockResult.Of(StockStatus.InDoubt, $"{transport.Location} did not confirm; it may have been accepted: send it again with the same id"),
    };

    private static readonly StockResult s_pending = new() { Status = StockStatus.Pending, AcknowledgedBy = Acknowledgement.Queue };
}

/// <summary>One caller's commands, in as many queues as they belong to.</summary>
/// <param name="count">How many they are.</param>
/// <param name="isAnswered">Called once every command is answered, whether or not the caller still waits.</param>
internal sealed class IntakeRequest(int count, Action<int> isAnswered)
{
    private readonly StockResult[] _results = new StockResult[count];
    private readonly TaskCompletionSource<IReadOnlyList<StockResult>> _answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _left = count;

    public Task<IReadOnlyList<StockResult>> Answer => _answer.Task;

    public void Take(int index, in StockResult result)
    {
        _results[index] = result;
        if (Interlocked.Decrement(ref _left) == 0)
        {
            isAnswered(_results.Length);
            _answer.TrySetResult(_results);
        }
    }
}
