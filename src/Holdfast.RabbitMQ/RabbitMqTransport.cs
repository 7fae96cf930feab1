using System.Globalization;
using Holdfast.Queueing;
using Holdfast.RabbitMQ;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace Holdfast;

/// <summary>
/// Queues in RabbitMQ (3.10 or newer): quorum queues, so that accepted means on the disks of a majority; persistent,
/// mandatory and confirmed publishes; bounded by refusing, never by dropping; one consumer a queue at a time, so that an
/// order's verbs stay in order. Any number of processes. A lost connection is made anew; what was not settled comes again. Thread-safe.
/// </summary>
public sealed partial class RabbitMqTransport : ICommandTransport
{
    private const string ReasonHeader = "holdfast-reason";
    private const string QueueHeader = "holdfast-queue";

    private readonly RabbitMqOptions _options;
    private readonly ConnectionFactory _factory;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Publisher[] _publishers;
    private readonly Publisher _settling;
    private readonly One[] _queues;
    private readonly SemaphoreSlim _connecting = new(1, 1);
    private readonly string _later, _dead;
    private IConnection? _publishing, _consuming;
    private volatile bool _isDeclared;
    private int _isClosed;

    private RabbitMqTransport(RabbitMqOptions options, TimeProvider clock, ILogger logger)
    {
        var uri = options.Parse();
        _options = options;
        _clock = clock;
        _logger = logger;
        _later = options.Name + ".later";
        _dead = options.Name + ".dead";
        Location = $"RabbitMQ at {uri.Host}:{(uri.IsDefaultPort ? 5672 : uri.Port)}, queues {options.Name}.*";
        _factory = new()
        {
            Uri = uri,
            ClientProvidedName = "holdfast",

            // A connection that recovers behind our back would settle deliveries of one that is gone.
            AutomaticRecoveryEnabled = false,
            TopologyRecoveryEnabled = false,
            RequestedConnectionTimeout = options.ConnectTimeout,
            SocketReadTimeout = options.ConnectTimeout,
            SocketWriteTimeout = options.ConnectTimeout,
            ContinuationTimeout = options.ConnectTimeout,
            HandshakeContinuationTimeout = options.ConnectTimeout,
            RequestedHeartbeat = TimeSpan.FromSeconds(10),
        };
        _publishers = [.. Enumerable.Range(0, options.Queues).Select(_ => new Publisher(this, options.ConfirmTimeout, clock))];
        _settling = new(this, options.ConfirmTimeout, clock);
        _queues = [.. Enumerable.Range(0, options.Queues).Select(_ => new One())];
    }

    /// <inheritdoc/>
    public int Queues => _queues.Length;

    /// <inheritdoc/>
    public string Location { get; }

    /// <summary>True: quorum queues write to disk before they confirm.</summary>
    public bool IsDurable => true;

    /// <summary>Connects and makes the queues where they are missing.</summary>
    /// <param name="options">How to reach and treat the broker; checked here.</param>
    /// <param name="clock">The clock of waits; the system's by default. (What is put aside goes by the broker's.)</param>
    /// <param name="logger">Told of lost connections; nobody by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="CommandTransportException">The broker can't be used; the message says why and what to do.</exception>
    public static async Task<RabbitMqTransport> OpenAsync(RabbitMqOptions options, TimeProvider? clock = null, ILogger<RabbitMqTransport>? logger = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        var transport = new RabbitMqTransport(options, clock ?? TimeProvider.System, (ILogger?)logger ?? NullLogger.Instance);
        try
        {
            var channel = await transport.ChannelAsync(isPublishing: true, cancellationToken).ConfigureAwait(false);
            await channel.DisposeAsync().ConfigureAwait(false);
            return transport;
        }
        catch (Exception e)
        {
            await transport.DisposeAsync().ConfigureAwait(false);
            throw IsOfBroker(e) && !cancellationToken.IsCancellationRequested ? transport.Failed(e) : e;
        }
    }

    /// <inheritdoc/>
    public async ValueTask<IReadOnlyList<SendStatus>> SendAsync(IReadOnlyList<QueueMessage> messages, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var statuses = new SendStatus[messages.Count];
        for (var start = 0; start < statuses.Length;)
        {
            // Those to one queue over its own channel, in order.
            var queue = messages[start].Queue;
            var end = start + 1;
            while (end < statuses.Length && messages[end].Queue == queue)
            {
                end++;
            }

            var key = Key(queue);
            var part = new Outgoing[end - start];
            for (var i = 0; i < part.Length; i++)
            {
                part[i] = new(_options.Name, key, messages[start + i].Body);
            }

            var confirmations = await _publishers[queue].PublishAsync(part, cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < part.Length; i++)
            {
                statuses[start + i] = StatusOf(confirmations[i]);
            }

            start = end;
        }

        return statuses;
    }

    /// <inheritdoc/>
    public async ValueTask<IReadOnlyList<QueueDelivery>> ReceiveAsync(int queue, int most, CancellationToken cancellationToken = default)
    {
        var one = _queues[queue];
        try
        {
            if (one.Reader is not { Channel.IsOpen: true })
            {
                await ReleaseAsync(queue).ConfigureAwait(false);
                one.Reader = await OpenReaderAsync(one, queue, cancellationToken).ConfigureAwait(false);
            }

            var arrived = one.Reader.Arrived.Reader;
            if (!await arrived.WaitToReadAsync(cancellationToken).ConfigureAwait(false))
            {
                throw new CommandTransportException($"{Location}: the connection was lost.");
            }

            var deliveries = new List<QueueDelivery>();
            while (deliveries.Count < most && arrived.TryRead(out var delivery))
            {
                deliveries.Add(delivery);
            }

            return deliveries;
        }
        catch (Exception e) when (IsOfBroker(e) && !cancellationToken.IsCancellationRequested)
        {
            throw Failed(e);
        }
    }

    /// <inheritdoc/>
    public async ValueTask SettleAsync(int queue, IReadOnlyList<QueueSettlement> settlements, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(settlements);
        if (settlements.Count == 0)
        {
            return;
        }

        var one = _queues[queue];
        if (one.Reader is not { } reader)
        {
            throw new CommandTransportException($"{Location}: the connection that held the batch is gone.");
        }

        try
        {
            var staying = await MoveAsync(queue, [.. settlements.Where(static settlement => settlement.Kind != SettlementKind.Done)], cancellationToken).ConfigureAwait(false);
            if (staying.Length == 0)
            {
                // Deliveries are settled in the order in which they came, and all of them: one answer covers them.
                await reader.Channel.BasicAckAsync((ulong)settlements.Max(static settlement => settlement.Delivery.Tag), multiple: true, cancellationToken).ConfigureAwait(false);
                return;
            }

            // The others don't wait for them.
            await AcknowledgeAsync(reader, settlements, staying, cancellationToken).ConfigureAwait(false);
            for (var failures = 0; staying.Length > 0; failures++)
            {
                // Tried in place for as long as the channel is open. Giving them back would hand out again all that waits
                // behind them, again and again, until it counted as poison.
                _logger.LogWarning("{Location} did not take {Count} messages that were to be put aside or given up; is {Dead} or {Later} full? Queue {Queue} waits for it.", Location, staying.Length, _dead, _later, queue);
                await Task.Delay(TimeSpan.FromMilliseconds(100 << Math.Min(failures, 5)), _clock, cancellationToken).ConfigureAwait(false);
                if (!reader.Channel.IsOpen)
                {
                    throw new CommandTransportException($"{Location} did not take what was to be put aside or given up, and the channel that held it is closed: it comes again.");
                }

                var tried = staying;
                staying = await MoveAsync(queue, tried, cancellationToken).ConfigureAwait(false);
                await AcknowledgeAsync(reader, tried, staying, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (IsOfBroker(e) && !cancellationToken.IsCancellationRequested)
        {
            throw Failed(e);
        }
    }

    private static async ValueTask AcknowledgeAsync(Reader reader, IEnumerable<QueueSettlement> settlements, QueueSettlement[] staying, CancellationToken cancellationToken)
    {
        var tags = staying.Select(static settlement => settlement.Delivery.Tag).ToHashSet();
        foreach (var settlement in settlements.Where(settlement => !tags.Contains(settlement.Delivery.Tag)))
        {
            await reader.Channel.BasicAckAsync((ulong)settlement.Delivery.Tag, multiple: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Publishes what is put aside or given up. Where the dead letters are full, what should become one is put aside: it stands in nobody's way there, and comes again.</summary>
    /// <returns>What was not taken, and stays. A copy that did arrive does no harm beside it.</returns>
    private async ValueTask<QueueSettlement[]> MoveAsync(int queue, QueueSettlement[] moving, CancellationToken cancellationToken)
    {
        var confirmations = await _settling.PublishAsync(Array.ConvertAll(moving, settlement => Moved(queue, settlement)), cancellationToken).ConfigureAwait(false);
        var isTaken = Array.ConvertAll(confirmations, static confirmation => confirmation == Confirmation.Confirmed);
        var refused = Enumerable.Range(0, moving.Length).Where(i => moving[i].Kind == SettlementKind.Dead && confirmations[i] == Confirmation.Rejected).ToArray();
        var aside = await _settling.PublishAsync(Array.ConvertAll(refused, i => new Outgoing(_later, Key(queue), moving[i].Delivery.Body)), cancellationToken).ConfigureAwait(false);
        for (var i = 0; i < refused.Length; i++)
        {
            isTaken[refused[i]] = aside[i] == Confirmation.Confirmed;
        }

        return [.. moving.Where((_, i) => !isTaken[i])];
    }

    /// <inheritdoc/>
    public async ValueTask ReleaseAsync(int queue)
    {
        if (Interlocked.Exchange(ref _queues[queue].Reader, null) is { } reader)
        {
            await CloseAsync(reader.Channel).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public async ValueTask<QueueDepth> MeasureAsync(CancellationToken cancellationToken = default)
    {
        try
        {
            var channel = await ChannelAsync(isPublishing: false, cancellationToken).ConfigureAwait(false);
            await using var disposing = channel.ConfigureAwait(false);
            long waiting = 0;
            DateTimeOffset? oldest = null;
            var now = _clock.GetUtcNow();
            for (var queue = 0; queue < _queues.Length; queue++)
            {
                var count = (await channel.QueueDeclarePassiveAsync(QueueName(queue), cancellationToken).ConfigureAwait(false)).MessageCount;
                waiting += count;
                if (count == 0)
                {
                    _queues[queue].EmptyAt = now;
                }
                else if (_queues[queue].OldestAtMost is var bound && (oldest is null || bound < oldest))
                {
                    // The broker shows no message without handing it out. What waits came after what was handed out last,
                    // and after the queue was last seen empty.
                    oldest = bound;
                }
            }

            return new()
            {
                Waiting = waiting,
                OldestAcceptedAt = oldest == DateTimeOffset.MinValue ? null : oldest,
                Deferred = (await channel.QueueDeclarePassiveAsync(_later, cancellationToken).ConfigureAwait(false)).MessageCount,
                Dead = (await channel.QueueDeclarePassiveAsync(_dead, cancellationToken).ConfigureAwait(false)).MessageCount,
            };
        }
        catch (Exception e) when (IsOfBroker(e) && !cancellationToken.IsCancellationRequested)
        {
            throw Failed(e);
        }
    }

    /// <summary>Closes the connections. What was handed out and not settled goes back.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isClosed, 1) == 1)
        {
            return;
        }

        for (var queue = 0; queue < _queues.Length; queue++)
        {
            await ReleaseAsync(queue).ConfigureAwait(false);
            await _publishers[queue].DisposeAsync().ConfigureAwait(false);
        }

        await _settling.DisposeAsync().ConfigureAwait(false);
        foreach (var connection in (IConnection?[])[_publishing, _consuming])
        {
            if (connection is not null)
            {
                await CloseAsync(connection).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Whether a failure comes from the broker, the driver or the network: everything else is a bug and is thrown on.</summary>
    internal static bool IsOfBroker(Exception e) =>
        e is RabbitMQClientException or IOException or TimeoutException or System.Net.Sockets.SocketException or ObjectDisposedException or OperationCanceledException;

    /// <summary>A queue is missing: whoever opens a channel next makes them anew.</summary>
    internal void ForgetQueues() => _isDeclared = false;

    internal void Note(Exception e) => _logger.LogWarning(e, "{Location}: {Message}", Location, e.Message);

    private Outgoing Moved(int queue, QueueSettlement settlement)
    {
        if (settlement.Kind == SettlementKind.Later)
        {
            return new(_later, Key(queue), settlement.Body);
        }

        BasicProperties properties = new()
        {
            DeliveryMode = DeliveryModes.Persistent,
            MessageId = Guid.NewGuid().ToString("N"),
            Timestamp = new(_clock.GetUtcNow().ToUnixTimeSeconds()),
            Headers = new Dictionary<string, object?>(StringComparer.Ordinal)
            {
                [ReasonHeader] = settlement.Reason ?? "",
                [QueueHeader] = queue,
            },
        };
        return new("", _dead, settlement.Delivery.Body, properties);
    }

    /// <summary>How often a message was handed out: quorum queues count the times it came back.</summary>
    private static int DeliveriesOf(IReadOnlyBasicProperties properties) =>
        properties.Headers?.TryGetValue("x-delivery-count", out var count) == true
            ? (int)Math.Min(int.MaxValue, Convert.ToInt64(count, CultureInfo.InvariantCulture) + 1)
            : 1;

    private static SendStatus StatusOf(Confirmation confirmation) => confirmation switch
    {
        Confirmation.Confirmed => SendStatus.Accepted,
        Confirmation.Rejected => SendStatus.Full,
        Confirmation.NotSent => SendStatus.Unreachable,
        _ => SendStatus.InDoubt,
    };

    private static string Key(int queue) => queue.ToString(CultureInfo.InvariantCulture);

    private string QueueName(int queue) => string.Create(CultureInfo.InvariantCulture, $"{_options.Name}.{queue}");

    private CommandTransportException Failed(Exception e)
    {
        var reply = (e as OperationInterruptedException)?.ShutdownReason;
        if (reply?.ReplyCode == 404)
        {
            ForgetQueues();
        }

        // The same code is also that of a consumer which took longer to acknowledge than the broker allows.
        return e as CommandTransportException ?? new(
            reply is { ReplyCode: 406, ReplyText: var text } && text.Contains("inequivalent", StringComparison.Ordinal)
                ? $"{Location}: the queues were made with other settings (number, bounds or delay): use the same ones, another name, or delete the queues when they are empty. The broker says: {e.Message}"
                : $"{Location} can't be reached, or the connection was lost ({e.Message.TrimEnd('.')}); try again when it is back.",
            e);
    }

    private sealed class One
    {
        public Reader? Reader;

        /// <summary>When the message was accepted that was handed out last, in seconds since 1970; 0 before the first.</summary>
        public long LastAcceptedAt;

        public DateTimeOffset EmptyAt { get; set; } = DateTimeOffset.MinValue;

        public DateTimeOffset OldestAtMost
        {
            get
            {
                var last = DateTimeOffset.FromUnixTimeSeconds(Interlocked.Read(ref LastAcceptedAt));
                return last > EmptyAt ? last : EmptyAt;
            }
        }
    }
}
