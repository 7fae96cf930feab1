namespace Holdfast.Client;

/// <summary>
/// A Holdfast server (or several that serve one store) as an <see cref="IStockEngine"/>. Concurrent calls are coalesced
/// into NDJSON batches by <see cref="GroupCommit"/>; what is Busy or in doubt is sent again with the same ids until
/// <see cref="HoldfastClientOptions.Deadline"/>, on another server when one is down. Thread-safe; make one and share it.
/// </summary>
/// <remarks>
/// <para>An answer Replayed may stand for a command that the caller sent once: its first answer was lost on the way.</para>
/// <para>Where an attempt was in doubt and a later one is Busy, the answer is InDoubt, since the first may have applied.
/// Where a later one is refused, the refusal is the answer: so it stood then. Should the network still hold the first
/// attempt, it can arrive later; a caller for whom the refusal must be final closes the id with Abandon.</para>
/// <para>Reads and writes go to the same server, the one that answered last; after a failure to the next one that is fit.
/// A server that failed is a candidate again after <see cref="HoldfastClientOptions.RestAfterFailure"/>, but nothing
/// moves back to it as long as the present one answers. Reads of more SKUs than fit into one request (some hundreds) are
/// several reads, not one instant.</para>
/// <para>A wrong key or role, or a server of another version that finds a valid command invalid, is an
/// <see cref="InvalidOperationException"/>; a read that no server answers in time is an <see cref="HttpRequestException"/>.</para>
/// </remarks>
public sealed class HoldfastClient : IStockEngine
{
    private readonly HoldfastClientOptions _options;
    private readonly TimeProvider _clock;
    private readonly Backoff _backoff;
    private readonly HttpTransport _transport;
    private readonly HttpStockEngine _engine;
    private readonly GroupCommit _group;
    private readonly CancellationTokenSource _closing = new();
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _lock = new();
    private int _calls;
    private Task? _disposal;

    /// <summary>
    /// Makes a client without talking to a server yet: its <see cref="Traits"/> are None until
    /// <see cref="GetServerInfoAsync"/>. <see cref="ConnectAsync(HoldfastClientOptions, CancellationToken)"/> does both.
    /// </summary>
    /// <param name="options">Where the servers are, and the bounds.</param>
    /// <exception cref="ArgumentException">An option is out of its range; the message names it.</exception>
    public HoldfastClient(HoldfastClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        _options = options;
        _clock = options.TimeProvider;
        _backoff = new(options);
        _transport = new(options);
        _engine = new(_transport, options, _backoff);
        _group = new(
            _engine,
            new()
            {
                MaxQueuedCommands = options.MaxQueuedCommands,
                MaxBatchCommands = options.MaxBatchCommands,
                MaxConcurrentBatches = options.MaxConcurrentBatches,
                QueueTimeout = options.AttemptTimeout,

                // Every HTTP request has its own bound; a batch may need several of them.
                CallTimeout = TimeSpan.FromHours(1),

                // This client tries again by itself, so that it can honour what the servers ask for.
                RetryTimeout = TimeSpan.Zero,
                ShutdownTimeout = TimeSpan.FromSeconds(1),
            },
            options.TimeProvider);
    }

    /// <summary>What the server's engine guarantees, as it said in <see cref="ConnectAsync(HoldfastClientOptions, CancellationToken)"/> or <see cref="GetServerInfoAsync"/>; None before.</summary>
    public StockTraits Traits => _engine.Traits;

    /// <summary>Makes a client and asks a server what it guarantees.</summary>
    /// <param name="options">Where the servers are, and the bounds.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <exception cref="ArgumentException">An option is out of its range; the message names it.</exception>
    /// <exception cref="HttpRequestException">No server answered until the deadline.</exception>
    /// <exception cref="InvalidOperationException">The server refuses the API key, or is no Holdfast server.</exception>
    public static async ValueTask<HoldfastClient> ConnectAsync(HoldfastClientOptions options, CancellationToken cancellationToken = default)
    {
        var client = new HoldfastClient(options);
        try
        {
            await client.GetServerInfoAsync(cancellationToken).ConfigureAwait(false);
            return client;
        }
        catch
        {
            await client.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Makes a client with the default bounds and asks a server what it guarantees.</summary>
    /// <param name="address">The server, for example <c>http://127.0.0.1:5080</c>.</param>
    /// <param name="apiKey">The API key to send, if any.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    public static ValueTask<HoldfastClient> ConnectAsync(Uri address, string? apiKey = null, CancellationToken cancellationToken = default) =>
        ConnectAsync(new() { Addresses = { address }, ApiKey = apiKey }, cancellationToken);

    /// <summary>Asks the present server what it is and guarantees, and takes its <see cref="Traits"/> over.</summary>
    public ValueTask<ServerInfo> GetServerInfoAsync(CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.GetServerInfoAsync(cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        cancellationToken.ThrowIfCancellationRequested();
        return ExecuteWithRetriesAsync(commands, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.GetStockAsync(skus, options, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.GetOperationAsync(id, cancellationToken);
    }

    /// <inheritdoc/>
    public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.ListStockAsync(prefix, after, cancellationToken);
    }

    /// <inheritdoc/>
    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.ListOperationsAsync(query, cancellationToken);
    }

    /// <inheritdoc/>
    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
    {
        ThrowIfClosed();
        return _engine.ReadFlowAsync(query, cancellationToken);
    }

    /// <summary>Takes no more commands (they are answered Busy), waits up to <see cref="HoldfastClientOptions.DrainTimeout"/> for those accepted, and closes the connections.</summary>
    public ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            // A second call waits for the first: a container may hold the client under two of its types.
            return new(_disposal ??= CloseAsync());
        }
    }

    private async Task CloseAsync()
    {
        if (_calls == 0)
        {
            _drained.TrySetResult();
        }

        try
        {
            await _drained.Task.WaitAsync(_options.DrainTimeout, _clock).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // The bound is the contract: what is left is answered as Busy or in doubt now.
            _transport.Stop();
        }

        await _closing.CancelAsync().ConfigureAwait(false);
        await _group.DisposeAsync().ConfigureAwait(false);
    }

    private async ValueTask<IReadOnlyList<StockResult>> ExecuteWithRetriesAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_disposal is not null)
            {
                var closed = new StockResult[commands.Count];
                Array.Fill(closed, StockResult.Of(StockStatus.Busy, "not sent: this client is closed"));
                return closed;
            }

            _calls++;
        }

        try
        {
            var start = _clock.GetTimestamp();
            var answers = await _group.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
            return IsSettled(answers) ? answers : await RetryAsync(commands, answers, start, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            lock (_lock)
            {
                if (--_calls == 0 && _disposal is not null)
                {
                    _drained.TrySetResult();
                }
            }
        }
    }

    private async ValueTask<IReadOnlyList<StockResult>> RetryAsync(IReadOnlyList<StockCommand> commands, IReadOnlyList<StockResult> answers, long start, CancellationToken cancellationToken)
    {
        StockResult[] results = [.. answers];
        var wasInDoubt = new bool[results.Length];
        for (var tries = 1; ; tries++)
        {
            var first = -1;
            for (var i = results.Length - 1; i >= 0; i--)
            {
                wasInDoubt[i] |= results[i].Status == StockStatus.InDoubt;
                first = results[i].IsRetryable ? i : first;
            }

            if (first < 0)
            {
                break;
            }

            var pause = _transport.PauseAfter(tries, _backoff);
            if (_clock.GetElapsedTime(start) + pause > _options.Deadline || !await WaitAsync(pause, cancellationToken).ConfigureAwait(false))
            {
                break;
            }

            // What was refused after the first that must be sent again is decided anew behind it, as the order of the batch demands.
            int[] places = [.. Enumerable.Range(first, results.Length - first).Where(i => results[i].IsRetryable || IsRefusal(results[i]))];
            answers = await _group.ExecuteAsync(Array.ConvertAll(places, i => commands[i]), cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < places.Length; i++)
            {
                results[places[i]] = answers[i];
            }
        }

        for (var i = 0; i < results.Length; i++)
        {
            if (Verdict.IsMisconfigured(results[i]))
            {
                throw new InvalidOperationException($"{commands[i]}: {results[i].Detail}");
            }

            var result = Verdict.Unwrap(results[i]);
            results[i] = wasInDoubt[i] && result.Status == StockStatus.Busy
                ? StockResult.Of(StockStatus.InDoubt, $"an attempt was not answered and may have applied, and the last one was Busy ({result.Detail}); ask for the operation, or close the id with Abandon")
                : result;
        }

        return results;
    }

    /// <summary>Waits, unless the client is being closed.</summary>
    private async ValueTask<bool> WaitAsync(TimeSpan pause, CancellationToken cancellationToken)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _closing.Token);
        try
        {
            await Task.Delay(pause, _clock, either.Token).ConfigureAwait(false);
            return true;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return false;
        }
    }

    private static bool IsSettled(IReadOnlyList<StockResult> answers)
    {
        for (var i = 0; i < answers.Count; i++)
        {
            if (answers[i].Status is StockStatus.None or StockStatus.Busy or StockStatus.InDoubt)
            {
                return false;
            }
        }

        return true;
    }

    private static bool IsRefusal(in StockResult result) =>
        result.Status is StockStatus.UnknownTarget or StockStatus.InvalidTargetState or StockStatus.UnknownSku
            or StockStatus.ExceedsLimit or StockStatus.ExceedsDeducted or StockStatus.Insufficient;

    private void ThrowIfClosed()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposal is not null, this);
        }
    }
}
