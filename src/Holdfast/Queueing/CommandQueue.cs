using System.Diagnostics.Metrics;
using Holdfast.Queueing;
using Holdfast.Wire;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>What is in a <see cref="CommandQueue"/>, and what it has done since it was made.</summary>
/// <param name="Depth">What the transport holds.</param>
/// <param name="InFlight">Commands that the consumers of this process have in their hands.</param>
/// <param name="OldestAge">For how long the oldest command has been waiting, as far as is known; zero when nothing waits.</param>
/// <param name="IsConsuming">Whether this process has consumers.</param>
/// <param name="Retries">Commands that were put aside to be tried again.</param>
/// <param name="DeadLetters">Messages that this process gave up.</param>
public sealed record CommandQueueState(QueueDepth Depth, int InFlight, TimeSpan OldestAge, bool IsConsuming, long Retries, long DeadLetters);

/// <summary>
/// Accepts commands at once and decides them later: the answer is Pending as soon as a durable queue has the command, and
/// consumers execute what is there in batches. The verdict, a refusal included, is final and asked for by the command's
/// id, or by a request id. Thread-safe.
/// </summary>
/// <remarks>
/// <para>The commands that speak of one order stay in their order; between orders none is promised. A caller whose second order
/// hangs on its first waits for the first one's verdict.</para>
/// <para>A refused id is closed in the store by a tombstone that tells the refusal, and only then is the refusal given: the same
/// id is refused from then on, whoever sends it and on whatever way.</para>
/// <para>A deadline never cancels: a command that comes too late is abandoned, which changes nothing about one that was applied.</para>
/// <para>A full queue answers Busy. What can't be read, and what makes the engine fail again and again, goes to the dead letters.</para>
/// </remarks>
public sealed class CommandQueue : DelegatingStockEngine
{
    /// <summary>The detail of a Busy that means: the queue is full. (Any other Busy: it can't be reached, or this process is overloaded or stops.)</summary>
    public const string FullDetail = "the queue is full; send it again later";

    private static readonly TimeSpan s_tidyInterval = TimeSpan.FromMinutes(1);

    private readonly CommandQueueOptions _options;
    private readonly IVerdictStore _verdicts;
    private readonly IStockEngine _decider;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly QueueIntake[] _intakes;
    private readonly VerdictBoard _board;
    private readonly Meter _meter = new(HoldfastMeter.Name);
    private readonly Lock _lock = new();
    private CancellationTokenSource? _stop;
    private Task _consumers = Task.CompletedTask;
    private CommandQueueState? _latest;
    private int _waiting;
    private int _closing;
    private long _retries, _deadLetters;
    private int _inFlight;

    /// <summary>Puts a queue in front of an engine. Consumers begin with <see cref="Start"/>.</summary>
    /// <param name="inner">Answers reads.</param>
    /// <param name="transport">The queue; disposed with this.</param>
    /// <param name="verdicts">Keeps verdicts, in the store that the engine decides on.</param>
    /// <param name="options">Bounds; the defaults when <see langword="null"/>. Not to be changed afterwards.</param>
    /// <param name="decider">What consumers execute on; <paramref name="inner"/> when <see langword="null"/>. They batch by themselves: where the inner engine batches callers, give the engine below it, on the same store.</param>
    /// <param name="clock">The clock of deadlines and pauses; the system's by default.</param>
    /// <param name="logger">Told of dead letters and of troubles; nobody by default.</param>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public CommandQueue(
        IStockEngine inner, ICommandTransport transport, IVerdictStore verdicts, CommandQueueOptions? options = null,
        IStockEngine? decider = null, TimeProvider? clock = null, ILogger? logger = null)
        : base(inner)
    {
        ArgumentNullException.ThrowIfNull(transport);
        ArgumentNullException.ThrowIfNull(verdicts);
        _options = options ?? new();
        _options.Validate();
        Transport = transport;
        _verdicts = verdicts;
        _decider = decider ?? inner;
        _clock = clock ?? TimeProvider.System;
        _logger = logger ?? NullLogger.Instance;
        _intakes = [.. Enumerable.Range(0, transport.Queues).Select(queue => new QueueIntake(transport, queue, _options, _clock))];
        _board = new(verdicts, _options, _clock, _logger);
        Gauge("holdfast.intake.waiting", "{command}", "Commands that wait in the queue.", static state => state.Depth.Waiting);
        Gauge("holdfast.intake.deferred", "{command}", "Commands that are put aside to be tried again.", static state => state.Depth.Deferred);
        Gauge("holdfast.intake.dead", "{message}", "Dead letters that are kept.", static state => state.Depth.Dead);
        Gauge("holdfast.intake.in_flight", "{command}", "Commands in the hands of this process's consumers.", static state => state.InFlight);
        Gauge("holdfast.intake.oldest", "s", "For how long the oldest command has been waiting.", static state => state.OldestAge.TotalSeconds);
    }

    /// <summary>The queue.</summary>
    public ICommandTransport Transport { get; }

    /// <summary>
    /// What the inner engine promises, but for the verdict: it comes later, so a read after the answer need not see it, and
    /// the ledger's order is that of the consumers.
    /// </summary>
    public override StockTraits Traits => Inner.Traits
        & ~(StockTraits.ImmediateVerdict | StockTraits.ReadYourWrites | StockTraits.RealTimeLedger)
        & ~(Transport.IsDurable ? StockTraits.None : StockTraits.DurableAck);

    /// <summary>What tests stop or break a consumer at: called with the name of each step that it has come to.</summary>
    internal Func<ConsumerStep, ValueTask>? Failpoint { get; set; }

    internal CommandQueueOptions Options => _options;

    /// <summary>Where verdicts are kept.</summary>
    public IVerdictStore Verdicts => _verdicts;

    internal IStockEngine Decider => _decider;

    internal TimeProvider Clock => _clock;

    internal ILogger Logger => _logger;

    internal VerdictBoard Board => _board;

    /// <summary>Queues commands: Pending when accepted, Busy when the queue is full or can't be reached, InDoubt when it did not confirm.</summary>
    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        var now = _clock.GetUtcNow();
        var queued = new QueuedCommand[commands.Count];
        for (var i = 0; i < queued.Length; i++)
        {
            queued[i] = new() { Command = commands[i], AcceptedAt = now, Deadline = now + _options.Deadline };
        }

        return OfferAsync(queued, cancellationToken);
    }

    /// <summary>Queues commands with deadlines and request ids of their own. Those of one queue keep their order.</summary>
    /// <param name="commands">The commands.</param>
    /// <param name="cancellationToken">Stops the waiting, not the commands.</param>
    /// <returns>One result a command, in order.</returns>
    public ValueTask<IReadOnlyList<StockResult>> EnqueueAsync(IReadOnlyList<QueuedCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        return OfferAsync([.. commands], cancellationToken);
    }

    /// <summary>Queues one command.</summary>
    /// <param name="command">The command.</param>
    /// <param name="requestId">What its verdict is to be asked for by; needed for Confirm, Cancel and Abandon if it is to be asked for at all. Unique like an operation id.</param>
    /// <param name="timeToDecide">From now to its deadline, 1 second to 30 days; the options' when <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the waiting, not the command.</param>
    /// <exception cref="ArgumentException">The request id is no valid id, or the time is out of its range.</exception>
    public async ValueTask<StockResult> EnqueueAsync(StockCommand command, string? requestId = null, TimeSpan? timeToDecide = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(command);
        if (requestId is not null && StockKey.Problem(requestId) is { } problem)
        {
            throw new InvalidCommandException("requestId", problem);
        }

        if (timeToDecide is { } time && (time < TimeSpan.FromSeconds(1) || time > TimeSpan.FromDays(30)))
        {
            throw new InvalidCommandException("timeToDecide", $"is {time:c}; it must be from 1 second to 30 days");
        }

        var now = _clock.GetUtcNow();
        QueuedCommand queued = new() { Command = command, AcceptedAt = now, Deadline = now + (timeToDecide ?? _options.Deadline), RequestId = requestId };
        return (await OfferAsync([queued], cancellationToken).ConfigureAwait(false))[0];
    }

    /// <summary>Waits for the verdict on a command.</summary>
    /// <param name="id">The request id where it had one, otherwise the operation id.</param>
    /// <param name="patience">How long to wait; zero only looks.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <returns>The verdict; <see langword="null"/> when there is none yet, or nothing with that id was ever accepted: a queue can't tell.</returns>
    /// <exception cref="IOException">The store could not be read, and the call was not to wait.</exception>
    public ValueTask<Verdict?> WaitForVerdictAsync(string id, TimeSpan patience, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        return _board.WaitAsync(id, patience, cancellationToken);
    }

    /// <summary>Starts the consumers of this process: one a queue. Does nothing when they run.</summary>
    public void Start()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_closing == 1, this);
            if (_stop is not null)
            {
                return;
            }

            _stop = new();
            var stopping = _stop.Token;
            _consumers = Task.WhenAll([.. Enumerable.Range(0, Transport.Queues).Select(queue => new QueueConsumer(this, queue).RunAsync(stopping)), TidyAsync(stopping)]);
        }
    }

    /// <summary>Stops the consumers: they take nothing more, finish what they have, and give the rest back. Commands are accepted as before.</summary>
    public async Task StopAsync()
    {
        CancellationTokenSource? stop;
        lock (_lock)
        {
            stop = _stop;
        }

        if (stop is null)
        {
            return;
        }

        await stop.CancelAsync().ConfigureAwait(false);
        try
        {
            await _consumers.WaitAsync(_options.ShutdownTimeout, _clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // What they hold is not acknowledged, so it comes again.
            _logger.LogError("The consumers of {Location} did not finish within {Timeout}; what they hold comes again elsewhere.", Transport.Location, _options.ShutdownTimeout);
        }

        for (var queue = 0; queue < Transport.Queues; queue++)
        {
            await Transport.ReleaseAsync(queue).ConfigureAwait(false);
        }

        lock (_lock)
        {
            _stop?.Dispose();
            _stop = null;
        }
    }

    /// <summary>Counts what is there.</summary>
    /// <exception cref="CommandTransportException">The queue can't be reached.</exception>
    public async ValueTask<CommandQueueState> MeasureAsync(CancellationToken cancellationToken = default)
    {
        var depth = await Transport.MeasureAsync(cancellationToken).ConfigureAwait(false);
        var age = depth is { Waiting: > 0, OldestAcceptedAt: { } oldest } ? _clock.GetUtcNow() - oldest : TimeSpan.Zero;
        bool isConsuming;
        lock (_lock)
        {
            isConsuming = _stop is not null;
        }

        var state = new CommandQueueState(depth, Volatile.Read(ref _inFlight), age > TimeSpan.Zero ? age : TimeSpan.Zero, isConsuming, Interlocked.Read(ref _retries), Interlocked.Read(ref _deadLetters));
        Volatile.Write(ref _latest, state);
        return state;
    }

    /// <summary>
    /// Sends a dead letter again under a new id: the old one is closed. For a command without an id of its own the new id is
    /// its request id.
    /// </summary>
    /// <param name="letter">The letter, see <see cref="ICommandTransport.PeekDeadAsync"/>.</param>
    /// <param name="newId">The id.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <returns>Pending; Busy or InDoubt, and the letter stays; UnknownTarget when there is no such letter.</returns>
    /// <exception cref="InvalidCommandException">The letter is no command, so that it can only be dropped; or the id is not valid, or used already.</exception>
    /// <exception cref="IOException">The queue, or the store that is asked whether the id is used, can't be reached.</exception>
    public async ValueTask<StockResult> RequeueDeadAsync(string letter, string newId, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(letter);
        if (StockKey.Problem(newId) is { } problem)
        {
            throw new InvalidCommandException("id", problem);
        }

        var dead = (await Transport.PeekDeadAsync(int.MaxValue, cancellationToken).ConfigureAwait(false)).FirstOrDefault(each => each.Letter == letter);
        if (dead is null)
        {
            return StockResult.Of(StockStatus.UnknownTarget);
        }

        var old = QueuedCommandJson.Read(dead.Body.Span);
        if (old.VerdictId == newId || (await _verdicts.FindAsync([newId], cancellationToken).ConfigureAwait(false))[0] is not null)
        {
            // It would be answered with what that id stands for, and the letter be gone.
            throw new InvalidCommandException("id", $"'{newId}' is used already; the command needs one of its own");
        }

        var now = _clock.GetUtcNow();
        var again = old with
        {
            Command = WithId(old.Command, newId),
            RequestId = old.Command.IsTransition ? newId : null,
            AcceptedAt = now,
            Deadline = now + _options.Deadline,
            Tries = 0,
        };

        // Back into the queue that it came from, which has a consumer. Whoever sends letters again may have been opened with
        // another number of queues than those who decide, and one of its own might be read by nobody.
        var message = new QueueMessage(dead.Queue < Transport.Queues ? dead.Queue : again.QueueOf(Transport.Queues), QueuedCommandJson.Write(again));
        return await Transport.RequeueDeadAsync(letter, message, cancellationToken).ConfigureAwait(false) switch
        {
            SendStatus.None => StockResult.Of(StockStatus.UnknownTarget),
            SendStatus.Accepted => new() { Status = StockStatus.Pending, AcknowledgedBy = Acknowledgement.Queue },
            SendStatus.Full => StockResult.Of(StockStatus.Busy, FullDetail),
            SendStatus.Unreachable => StockResult.Of(StockStatus.Busy, $"{Transport.Location} can't be reached"),
            _ => StockResult.Of(StockStatus.InDoubt, $"{Transport.Location} did not confirm"),
        };
    }

    /// <summary>Stops the consumers, closes the queue, and disposes the inner engine. What was accepted stays in the queue.</summary>
    public override async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _closing, 1) == 1)
        {
            return;
        }

        await StopAsync().ConfigureAwait(false);
        _meter.Dispose();
        await Transport.DisposeAsync().ConfigureAwait(false);
        await base.DisposeAsync().ConfigureAwait(false);
    }

    internal void CountInFlight(int change) => Interlocked.Add(ref _inFlight, change);

    internal void CountSettled(int retries, int deadLetters)
    {
        Interlocked.Add(ref _retries, retries);
        Interlocked.Add(ref _deadLetters, deadLetters);
        HoldfastMeter.IntakeRetries.Add(retries);
        HoldfastMeter.IntakeDeadLetters.Add(deadLetters);
    }

    private static StockCommand WithId(StockCommand command, string id) => command.Verb switch
    {
        StockVerb.Deduct => StockCommand.Deduct(id, command.Lines.AsSpan(), command.Note),
        StockVerb.Reserve => StockCommand.Reserve(id, command.Lines.AsSpan(), command.TimeToLive, command.Note),
        StockVerb.Refund => StockCommand.Refund(id, command.Target!, command.Lines.AsSpan(), command.Note),
        StockVerb.Restock => StockCommand.Restock(id, command.Lines.AsSpan(), command.Note),
        StockVerb.Adjust => StockCommand.Adjust(id, command.Lines.AsSpan(), command.Note),
        _ => command,
    };

    private async ValueTask<IReadOnlyList<StockResult>> OfferAsync(QueuedCommand[] queued, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (queued.Length == 0)
        {
            return [];
        }

        if (Volatile.Read(ref _closing) == 1)
        {
            return Busy(queued.Length, "shutting down");
        }

        // A call that is larger than the bound by itself is still taken when nothing else waits.
        var waiting = Interlocked.Add(ref _waiting, queued.Length);
        if (waiting > _options.MaxWaitingCommands && waiting > queued.Length)
        {
            Answered(queued.Length);
            return Busy(queued.Length, $"{waiting - queued.Length} commands wait to be accepted already, and at most {_options.MaxWaitingCommands} may");
        }

        var request = new IntakeRequest(queued.Length, Answered);
        if (queued.Length == 1)
        {
            _intakes[queued[0].QueueOf(_intakes.Length)].Add(request, [(0, QueuedCommandJson.Write(queued[0]))]);
        }
        else
        {
            foreach (var queue in queued.Select((each, i) => (Index: i, Body: QueuedCommandJson.Write(each), Queue: each.QueueOf(_intakes.Length))).GroupBy(each => each.Queue))
            {
                _intakes[queue.Key].Add(request, queue.Select(each => (each.Index, each.Body)));
            }
        }

        return await request.Answer.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A caller that gave up still counts until its commands are answered: they wait all the same.</summary>
    private void Answered(int count) => Interlocked.Add(ref _waiting, -count);

    private static StockResult[] Busy(int count, string why)
    {
        var results = new StockResult[count];
        Array.Fill(results, StockResult.Of(StockStatus.Busy, why));
        return results;
    }

    private void Gauge(string name, string unit, string description, Func<CommandQueueState, double> value) =>
        _meter.CreateObservableGauge<double>(name, () => Volatile.Read(ref _latest) is { } latest ? [new(value(latest))] : [], unit, description);

    /// <summary>Measures for the gauges, and removes verdicts that are old enough, in bounded steps.</summary>
    private async Task TidyAsync(CancellationToken stoppingToken)
    {
        const int mostAtOnce = 1_000;
        var measure = TimeSpan.FromSeconds(5);
        var purgedAt = _clock.GetTimestamp();
        while (true)
        {
            try
            {
                await Task.Delay(measure, _clock, stoppingToken).ConfigureAwait(false);
                await MeasureAsync(stoppingToken).ConfigureAwait(false);
                if (_clock.GetElapsedTime(purgedAt) >= s_tidyInterval)
                {
                    purgedAt = _clock.GetTimestamp();
                    while (await _verdicts.PurgeAsync(_clock.GetUtcNow() - _options.KeepVerdicts, mostAtOnce, stoppingToken).ConfigureAwait(false) == mostAtOnce)
                    {
                        // The next step.
                    }
                }
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                _logger.LogWarning(e, "{Location} could not be measured, or old verdicts not be removed; the next round tries again.", Transport.Location);
            }
        }
    }
}
