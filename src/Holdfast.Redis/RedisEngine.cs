using Holdfast.Redis;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using StackExchange.Redis;

namespace Holdfast;

/// <summary>
/// The whole contract in Redis and nothing else: state and rules in Lua, many commands a call. Keeps no state of its
/// own: any number of engines, in any number of processes, on one name are one store. Thread-safe.
/// </summary>
/// <remarks>
/// As durable as the server is set: an acknowledged command survives the server's end with <c>appendfsync always</c>,
/// and may be lost within a window otherwise (<see cref="Durability"/> says which; <see cref="Traits"/> has
/// <see cref="StockTraits.DurableAck"/> only in the first case). What this engine had seen acknowledged and finds lost is
/// reported (<see cref="Losses"/>). A trouble that may pass is answered Busy, or InDoubt when the call was sent and not
/// answered; a read then throws <see cref="RedisStoreException"/>. Redis's clock decides expiry. On a cluster the whole
/// store lies in one hash slot, that of its name.
/// </remarks>
public sealed partial class RedisEngine : IStockEngine
{
    private readonly RedisOptions _options;
    private readonly RedisConnection _connection;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly RedisKey[] _meta;

    /// <summary>What a node of a cluster must have together before a script runs there: while a slot moves, what is not there yet looks like nothing.</summary>
    private readonly RedisKey[] _keys;
    private readonly StockReads<StockLevel> _stockReads;
    private string _identity = "";

    /// <summary>The highest store time that this engine has seen.</summary>
    private long _highest;

    private RedisEngine(RedisOptions options, RedisConnection connection, TimeProvider clock, ILogger logger)
    {
        _options = options;
        _connection = connection;
        _clock = clock;
        _logger = logger;
        _meta = [$"{{{options.Name}}}:meta"];
        _keys = [_meta[0], .. ((string[])["stock", "skus", "op", "due"]).Select(key => (RedisKey)$"{{{options.Name}}}:{key}")];
        _remembered = new(options.RememberedOperations);
        _stockReads = new(ReadStockAsync, options.CallTimeout * 2, clock);
    }

    /// <inheritdoc/>
    public StockTraits Traits { get; private set; } = StockTraits.Exact;

    /// <summary>What an acknowledgement survives, in words for logs and benchmark reports.</summary>
    public string Durability { get; private set; } = "";

    /// <summary>Where the data lies, for people: hosts, ports and the store's name, no password.</summary>
    public string Server => $"{_connection.Server}, store {_options.Name}";

    /// <summary>Connects, looks at how the server is set, and makes the store where it is missing.</summary>
    /// <param name="options">How to reach and treat the server; checked here.</param>
    /// <param name="clock">The clock of time-outs; the system's by default. (The store's time is Redis's.)</param>
    /// <param name="logger">Where it says what it opened, what went wrong and what was lost; nowhere by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="RedisStoreException">The server can't be used; the message says why and what to do.</exception>
    public static async Task<RedisEngine> OpenAsync(RedisOptions options, TimeProvider? clock = null, ILogger<RedisEngine>? logger = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        var time = clock ?? TimeProvider.System;
        var log = (ILogger?)logger ?? NullLogger.Instance;
        var connection = await RedisConnection.OpenAsync(options.Configuration, options.CallTimeout, options.MaxInFlight, time, log, cancellationToken).ConfigureAwait(false);
        var engine = new RedisEngine(options, connection, time, log);
        try
        {
            await engine.CheckServerAsync(cancellationToken).ConfigureAwait(false);
            await engine.OpenStoreAsync(cancellationToken).ConfigureAwait(false);
            log.LogInformation("{Server} is open: {Durability}{ReadOnly}.", engine.Server, engine.Durability, options.ReadOnly ? ", read-only" : "");
            return engine;
        }
        catch
        {
            await engine.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The store was opened read-only.</exception>
    /// <exception cref="RedisStoreException">A retry can't help: a key of the store is of the wrong type or damaged; the message names it, and nothing of the call's part that met it was applied.</exception>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"{Server} was opened read-only: it answers reads only.");
        }

        cancellationToken.ThrowIfCancellationRequested();
        var all = commands as StockCommand[] ?? [.. commands];
        var results = new StockResult[all.Length];
        for (var start = 0; start < all.Length;)
        {
            var end = EndOfCall(all, start);
            try
            {
                start += await CallAsync(all.AsMemory(start..end), results.AsMemory(start..end), cancellationToken).ConfigureAwait(false);
            }
            catch (RedisStoreException e) when (e.Failure != CallFailure.Broken)
            {
                // What troubled this call would trouble the next: the rest is not attempted.
                var wasSent = e.Failure == CallFailure.InDoubt;
                Array.Fill(results, StockResult.Of(wasSent ? StockStatus.InDoubt : StockStatus.Busy, e.Message), start, end - start);
                Array.Fill(results, StockResult.Of(StockStatus.Busy, e.Message), end, results.Length - end);
                break;
            }
        }

        return results;
    }

    /// <summary>Answers what comes from now on Busy, and closes the connection.</summary>
    public ValueTask DisposeAsync() => _connection.DisposeAsync();

    /// <summary>Where the call that begins with a command ends: a script holds up everybody else, so it is kept short.</summary>
    private static int EndOfCall(StockCommand[] commands, int start)
    {
        var end = start;
        for (var lines = 0; end < commands.Length && end - start < Tuning.CommandsPerCall; end++)
        {
            lines += commands[end].Lines.Length;
            if (lines > Tuning.LinesPerCall && end > start)
            {
                break;
            }
        }

        return end;
    }

    /// <summary>Sends one call.</summary>
    /// <returns>How many of the commands were decided: the others come in the next call.</returns>
    private async Task<int> CallAsync(ReadOnlyMemory<StockCommand> commands, Memory<StockResult> results, CancellationToken cancellationToken)
    {
        var packed = PackWriter.Write(commands.Span);
        var answer = await RunAsync(RedisScripts.Execute, cancellationToken, packed).ConfigureAwait(false);
        return Read(answer, commands.Span, results.Span);
    }

    private int Read(byte[] answer, ReadOnlySpan<StockCommand> commands, Span<StockResult> results)
    {
        var reader = new ReplyReader(answer);
        See(ref reader);
        var decided = reader.Short();
        for (var i = 0; i < decided; i++)
        {
            results[i] = reader.Result(commands[i]);
        }

        _remembered.Add(commands[..decided], results[..decided]);
        return decided;
    }

    /// <summary>Runs a script of the store with the arguments that each of them has, and others.</summary>
    /// <exception cref="RedisStoreException">It failed; nothing was changed unless the failure is in doubt.</exception>
    private async Task<byte[]> RunAsync(RedisScript script, CancellationToken cancellationToken, params RedisValue[] arguments)
    {
        for (var attempt = 1; ; attempt++)
        {
            if (_connection.Reconnects != Interlocked.Read(ref _verifiedReconnects))
            {
                await VerifyAsync(cancellationToken).ConfigureAwait(false);
            }

            ThrowIfStopped();
            var time = _options.TestClock is { } clock ? clock.GetUtcNow().ToUnixTimeMilliseconds() : 0;
            RedisValue[] all =
            [
                _identity, JournalCursor.Text(Interlocked.Read(ref _journalEnd)), JournalCursor.Text(Math.Max(time, Interlocked.Read(ref _highest))), _options.TestClock is null ? "0" : "1", .. arguments,
            ];
            try
            {
                return (byte[])await _connection.RunAsync(script, _keys, all, cancellationToken).ConfigureAwait(false)!;
            }
            catch (RedisStoreException e) when (IsSaid(e, "LOST") && attempt < Tuning.Attempts)
            {
                await VerifyAsync(cancellationToken, noticed: true).ConfigureAwait(false);
            }
            catch (RedisStoreException e) when (IsSaid(e, "GONE"))
            {
                throw Gone(e);
            }
        }
    }

    /// <summary>Reads what each answer begins with: the store's time, and where the journal ends.</summary>
    /// <returns>The store's time.</returns>
    private long See(ref ReplyReader reader)
    {
        var now = reader.Number(6);
        Raise(ref _highest, now);
        Raise(ref _journalEnd, reader.Number(6));
        if (Volatile.Read(ref _isGone))
        {
            Volatile.Write(ref _isGone, false);
            _logger.LogInformation("{Server}: the store is back.", Server);
        }

        return now;
    }

    private static void Raise(ref long place, long value)
    {
        for (var seen = Interlocked.Read(ref place); value > seen;)
        {
            var before = Interlocked.CompareExchange(ref place, value, seen);
            if (before == seen)
            {
                return;
            }

            seen = before;
        }
    }

    private static bool IsSaid(RedisStoreException e, string word) => e.InnerException is RedisServerException said && said.Message.Contains(word + " ", StringComparison.Ordinal);

    private async Task OpenStoreAsync(CancellationToken cancellationToken)
    {
        var identity = _options.ReadOnly ? "" : Guid.NewGuid().ToString("N");
        RedisResult answer;
        try
        {
            answer = await _connection.RunAsync(RedisScripts.Open, _meta, [identity, RedisScripts.Format], cancellationToken).ConfigureAwait(false);
        }
        catch (RedisStoreException e) when (e.Failure == CallFailure.Refused)
        {
            throw new RedisStoreException($"{e.Message.TrimEnd('.')}; no store can be made at {Server} now.", mayPass: true, e);
        }

        if ((string[])answer! is not [var found, var isNew])
        {
            throw new RedisStoreException($"{Server}: there is no store of this name.");
        }

        _identity = found;
        if (isNew == "1")
        {
            _logger.LogInformation("{Server}: an empty store was made.", Server);
        }
    }

    private async Task CheckServerAsync(CancellationToken cancellationToken)
    {
        var info = await _connection.InfoAsync(_meta[0], "server", cancellationToken).ConfigureAwait(false);
        if (info.TryGetValue("redis_version", out var text) && Version.TryParse(text, out var version) && version < Tuning.OldestServer)
        {
            throw new RedisStoreException($"{_connection.Server} is Redis {text}; at least {Tuning.OldestServer} is needed.");
        }

        var replication = await _connection.InfoAsync(_meta[0], "replication", cancellationToken).ConfigureAwait(false);
        if (replication.GetValueOrDefault("role") == "slave" && !_options.ReadOnly)
        {
            throw new RedisStoreException($"{_connection.Server} is a replica, which accepts no writes: name its master.", mayPass: true);
        }

        var memory = await _connection.InfoAsync(_meta[0], "memory", cancellationToken).ConfigureAwait(false);
        if (memory.GetValueOrDefault("maxmemory_policy") is { } policy && policy != "noeviction")
        {
            throw new RedisStoreException($"{_connection.Server} has maxmemory-policy {policy}: it may throw stock away when memory is short. Set maxmemory-policy noeviction and try again.");
        }

        await ReadDurabilityAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task ReadDurabilityAsync(CancellationToken cancellationToken)
    {
        var persistence = await _connection.InfoAsync(_meta[0], "persistence", cancellationToken).ConfigureAwait(false);
        if (persistence.GetValueOrDefault("aof_enabled") != "1")
        {
            var save = await _connection.ConfigAsync(_meta[0], "save", cancellationToken).ConfigureAwait(false);
            Durability = string.IsNullOrEmpty(save)
                ? "none: Redis writes no append-only file (appendonly no) and no snapshots; everything is gone when it ends"
                : $"Redis writes no append-only file (appendonly no), only snapshots (save {save}): what came after the last one is lost when it ends";
            return;
        }

        var fsync = await _connection.ConfigAsync(_meta[0], "appendfsync", cancellationToken).ConfigureAwait(false);
        var isOffWhileRewriting = await _connection.ConfigAsync(_meta[0], "no-appendfsync-on-rewrite", cancellationToken).ConfigureAwait(false) == "yes";
        if (fsync == "always" && !isOffWhileRewriting)
        {
            Traits = StockTraits.All;
        }

        Durability = fsync switch
        {
            "always" when isOffWhileRewriting => "Redis flushes every answer to disk (appendfsync always), but not while it rewrites its file (no-appendfsync-on-rewrite yes): a power loss then may take some seconds",
            "always" => "Redis flushes to disk before it answers (appendfsync always): survives a crash and a power loss of this server",
            "everysec" => "Redis flushes once a second (appendfsync everysec): a crash or a power loss may take the last two seconds",
            "no" => "Redis leaves flushing to the system (appendfsync no): a power loss may take the last half minute",
            _ => "Redis writes an append-only file; how often it flushes, this server does not tell",
        };
    }
}
