using System.Runtime.CompilerServices;

namespace Holdfast.Testing;

/// <summary>
/// An engine in one process as another process sees it: each call is a message there and a message back, each a step of
/// its own, which can be slow or lost; and either end can crash meanwhile.
/// </summary>
internal sealed class SimulatedConnection : IStockEngine
{
    private readonly SimulatedProcess _client;
    private readonly SimulatedProcess _server;
    private readonly Func<IStockEngine> _service;
    private readonly SimulatedFaults _faults;
    private readonly SimulationScheduler _scheduler;
    private readonly List<Action<string>> _open = [];

    /// <summary>Connects a client to what serves it.</summary>
    /// <param name="client">Where calls come from.</param>
    /// <param name="server">Where they are executed.</param>
    /// <param name="service">The engine there, as it is when a call arrives.</param>
    /// <param name="faults">What goes wrong.</param>
    public SimulatedConnection(SimulatedProcess client, SimulatedProcess server, Func<IStockEngine> service, SimulatedFaults faults)
    {
        _client = client;
        _server = server;
        _service = service;
        _faults = faults;
        _scheduler = client.Scheduler;
        server.OnCrash(() =>
        {
            foreach (var breakOff in _open.ToArray())
            {
                breakOff($"{_server} crashed");
            }
        });
        client.OnCrash(_open.Clear);
    }

    /// <summary>
    /// Whether a call that ended for its client, with whatever answer, can't arrive any more: what a store owes to those who
    /// send a command again. Callers of a node can't know that of their requests.
    /// </summary>
    public bool IsFenced { get; init; }

    /// <summary>Whether calls go on although their client no longer waits.</summary>
    public bool IgnoresTokens { get; init; }

    /// <summary>Told of the commands of each call, and whether it begins or ends for its client, be it that this gives up: for checks of what is under way.</summary>
    public Action<IReadOnlyList<StockCommand>, bool>? OnCall { get; init; }

    public StockTraits Traits => _service().Traits;

    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        StockCommand[] sent = [.. commands];
        OnCall?.Invoke(sent, true);
        var isOver = false;
        using var givenUp = cancellationToken.UnsafeRegister(_ => End(), null);
        try
        {
            return await CallAsync<IReadOnlyList<StockResult>>(
                sent,
                (engine, part) => engine.ExecuteAsync(part),
                (status, why) => [.. sent.Select(_ => StockResult.Of(status, why))],
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            End();
        }

        void End()
        {
            if (!isOver)
            {
                isOver = true;
                OnCall?.Invoke(sent, false);
            }
        }
    }

    public async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) =>
        await ReadAsync(engine => engine.GetStockAsync(skus, options), cancellationToken).ConfigureAwait(false);

    public async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) =>
        await ReadAsync(engine => engine.GetOperationAsync(id), cancellationToken).ConfigureAwait(false);

    public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        ListAsync(engine => engine.ListStockAsync(prefix, after), cancellationToken);

    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) =>
        ListAsync(engine => engine.ListOperationsAsync(query), cancellationToken);

    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) =>
        ListAsync(engine => engine.ReadFlowAsync(query), cancellationToken);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private async IAsyncEnumerable<T> ListAsync<T>(Func<IStockEngine, IAsyncEnumerable<T>> list, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var item in await ReadAsync(engine => CollectAsync(list(engine)), cancellationToken).ConfigureAwait(false))
        {
            yield return item;
        }
    }

    private static async ValueTask<List<T>> CollectAsync<T>(IAsyncEnumerable<T> items)
    {
        var all = new List<T>();
        await foreach (var item in items.ConfigureAwait(false))
        {
            all.Add(item);
        }

        return all;
    }

    private Task<T> ReadAsync<T>(Func<IStockEngine, ValueTask<T>> read, CancellationToken cancellationToken) =>
        CallAsync<T>([], (engine, _) => read(engine), answer: null, cancellationToken);

    /// <summary>One call.</summary>
    /// <param name="commands">What is asked; none for a read.</param>
    /// <param name="execute">What the server does.</param>
    /// <param name="answer">Makes an answer of a status, where the outcome is unknown or nothing was attempted; without it such a call throws.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    private Task<T> CallAsync<T>(
        StockCommand[] commands, Func<IStockEngine, IReadOnlyList<StockCommand>, ValueTask<T>> execute, Func<StockStatus, string, T>? answer, CancellationToken cancellationToken)
    {
        var promise = new TaskCompletionSource<T>();
        CancellationTokenRegistration registration = default;
        var isAnswered = false;
        var incarnation = _client.Incarnation;
        Action<string>? breakOff = null;
        breakOff = BreakOff;
        if (cancellationToken.IsCancellationRequested)
        {
            return Task.FromCanceled<T>(cancellationToken);
        }

        _open.Add(breakOff);
        registration = (IgnoresTokens ? CancellationToken.None : cancellationToken).UnsafeRegister(_ => Answer("gives up", TimeSpan.Zero, () => promise.TrySetCanceled(cancellationToken)), null);
        var fault = _faults.Next();
        _scheduler.Note(_client, fault == SimulatedFault.None ? "calls" : FaultText(fault), commands.Length == 0 ? _server : commands);
        switch (fault)
        {
            case SimulatedFault.Refused:
                if (answer is null)
                {
                    Lose(CallLoss.Exception, "refused on purpose");
                }
                else
                {
                    Answer("refused", _faults.NextDelay(), () => promise.TrySetResult(answer(StockStatus.Busy, "refused on purpose")));
                }

                break;
            case SimulatedFault.LostRequest:
                Lose(_faults.NextLoss(), "lost on the way, on purpose");
                break;
            case SimulatedFault.LateRequest:
                Deliver(_faults.NextLateness(), commands, isReplyLost: true);
                if (!IsFenced)
                {
                    Lose(_faults.NextLoss(), "the connection broke, on purpose");
                }

                break;
            case SimulatedFault.Halfway:
                Deliver(_faults.NextDelay(), commands[..((commands.Length + 1) / 2)], isReplyLost: true);
                break;
            default:
                Deliver(_faults.NextDelay(), commands, isReplyLost: fault == SimulatedFault.LostReply);
                break;
        }

        return promise.Task;

        void Deliver(TimeSpan delay, StockCommand[] part, bool isReplyLost)
        {
            if (_server.IsUp)
            {
                _scheduler.Post(_server, "receives", delay, () => _ = isAnswered && IsFenced ? Task.CompletedTask : ServeAsync(part, isReplyLost), part);
            }
            else
            {
                Refuse();
            }
        }

        void Refuse()
        {
            if (answer is null)
            {
                Lose(CallLoss.Exception, $"{_server} is down");
            }
            else
            {
                Answer("no connection", _faults.NextDelay(), () => promise.TrySetResult(answer(StockStatus.Busy, $"{_server} is down")));
            }
        }

        async Task ServeAsync(StockCommand[] part, bool isReplyLost)
        {
            Func<bool> keep;
            IReadOnlyList<StockResult>? told = null;
            try
            {
                var result = await execute(_service(), part).ConfigureAwait(false);
                told = result as IReadOnlyList<StockResult>;
                keep = () => promise.TrySetResult(result);
            }
            catch (Exception e)
            {
                keep = () => promise.TrySetException(e);
            }

            if (isReplyLost)
            {
                Lose(_faults.NextLoss(), "the reply was lost, on purpose");
            }
            else
            {
                Answer("answers", _faults.NextDelay(), keep, told);
            }
        }

        void BreakOff(string why) => Lose(CallLoss.InDoubt, why);

        void Lose(CallLoss how, string why)
        {
            switch (how)
            {
                case CallLoss.InDoubt when answer is not null:
                    Answer("in doubt", _faults.NextDelay(), () => promise.TrySetResult(answer(StockStatus.InDoubt, why)));
                    break;
                case CallLoss.Silence:
                    Answer("silence", _faults.Silence, () => promise.TrySetException(new FaultException(why)));
                    break;
                default:
                    Answer("broken", _faults.NextDelay(), () => promise.TrySetException(new FaultException(why)));
                    break;
            }
        }

        // Several may be on their way (silence, then the caller's patience ends): the first to arrive counts. A caller
        // that crashed meanwhile has forgotten what it asked.
        void Answer(string what, TimeSpan delay, Func<bool> keep, object? about = null)
        {
            if (_client.Incarnation == incarnation && !isAnswered)
            {
                _scheduler.Post(
                    _client,
                    what,
                    delay,
                    () =>
                    {
                        if (!isAnswered)
                        {
                            isAnswered = true;
                            _open.Remove(breakOff!);
                            registration.Dispose();
                            keep();
                        }
                    },
                    about);
            }
        }
    }

    private static string FaultText(SimulatedFault fault) => fault switch
    {
        SimulatedFault.Refused => "calls (refused)",
        SimulatedFault.LostRequest => "calls (request lost)",
        SimulatedFault.LostReply => "calls (reply lost)",
        SimulatedFault.LateRequest => "calls (request late)",
        _ => "calls (broken halfway)",
    };
}
