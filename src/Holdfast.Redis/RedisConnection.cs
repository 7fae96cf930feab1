using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>What is known of a call that failed.</summary>
internal enum CallFailure
{
    /// <summary>It never left this process: nothing was done.</summary>
    NotSent = 1,

    /// <summary>The server answered that it did nothing, and may do it later.</summary>
    Refused = 2,

    /// <summary>It was sent, or may have been, and no answer came: it may have been done, and may even be done yet.</summary>
    InDoubt = 3,

    /// <summary>The server answered that it did nothing, and a retry can't help.</summary>
    Broken = 4,
}

/// <summary>A Lua script and its digest.</summary>
internal sealed class RedisScript
{
    public RedisScript(string name, string text)
    {
        Name = name;
        Text = text;
#pragma warning disable CA5350 // The digest by which Redis names scripts, no protection of anything.
        Sha1 = SHA1.HashData(Encoding.UTF8.GetBytes(text));
#pragma warning restore CA5350
    }

    public string Name { get; }

    public string Text { get; }

    public byte[] Sha1 { get; }
}

/// <summary>
/// The only file that knows the driver. Every call is bounded in time and in number: the driver itself would wait for a
/// paused server for ever, and queue without limit. A failure is a <see cref="RedisStoreException"/> that says whether
/// the call can have had an effect. Reconnects by itself, and follows the slots of a cluster. Thread-safe.
/// </summary>
internal sealed class RedisConnection : IAsyncDisposable
{
    /// <summary>Reply beginnings that mean "later": a cluster that is being repaired, a server that loads, is full, or can't write to its disk.</summary>
    private static readonly string[] s_passing =
    [
        "OOM", "MISCONF", "LOADING", "BUSY", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "MOVED", "ASK", "UNKILLABLE", "ERR Script attempted to access a non local key", "Script attempted to access a non local key",
    ];

    private readonly ConnectionMultiplexer _multiplexer;
    private readonly IDatabase _database;
    private readonly TimeSpan _callTimeout;
    private readonly int _maxInFlight;
    private readonly TimeProvider _clock;
    private int _inFlight;
    private int _closing;

    private RedisConnection(ConnectionMultiplexer multiplexer, string server, (TimeSpan Timeout, int MaxInFlight) bounds, TimeProvider clock, ILogger logger)
    {
        _multiplexer = multiplexer;
        _database = multiplexer.GetDatabase();
        (_callTimeout, _maxInFlight) = bounds;
        _clock = clock;
        Server = server;
        multiplexer.ConnectionFailed += (_, e) =>
        {
            if (e.ConnectionType == ConnectionType.Interactive && Volatile.Read(ref _closing) == 0)
            {
                logger.LogWarning("The connection to Redis at {EndPoint} is lost ({FailureType}); connecting again.", Format(e.EndPoint), e.FailureType);

                // Another server may take its place, to which the connection has been there all along.
                Interlocked.Increment(ref _reconnects);
            }
        };
        multiplexer.ConnectionRestored += (_, e) =>
        {
            if (e.ConnectionType == ConnectionType.Interactive)
            {
                logger.LogInformation("Connected to Redis at {EndPoint} again.", Format(e.EndPoint));
                Interlocked.Increment(ref _reconnects);
            }
        };
        multiplexer.HashSlotMoved += (_, _) => Interlocked.Increment(ref _reconnects);
    }

    private long _reconnects;

    /// <summary>Where the server is, for people: host and port, no password.</summary>
    public string Server { get; }

    /// <summary>How often a connection was lost or came back, or a slot was found elsewhere: a change tells that the server may be another, or have lost something.</summary>
    public long Reconnects => Interlocked.Read(ref _reconnects);

    /// <summary>Calls that are under way.</summary>
    public int InFlight => Volatile.Read(ref _inFlight);

    /// <summary>What is wrong with a configuration, or <see langword="null"/>. Never quotes it: it may hold a password.</summary>
    public static string? Problem(string configuration) => TryParse(configuration, out _);

    /// <summary>Host and port of each server named by a configuration, for people.</summary>
    public static string NameOf(string configuration) =>
        TryParse(configuration, out var options) is null ? $"Redis at {string.Join(", ", options!.EndPoints.Select(Format))}" : "Redis";

    /// <summary>Connects.</summary>
    /// <param name="configuration">Host and port of one server or of some of a cluster's, with commas between, and the driver's options (<c>password=…</c>, <c>ssl=true</c>).</param>
    /// <param name="callTimeout">Longest wait for an answer.</param>
    /// <param name="maxInFlight">Most calls under way.</param>
    /// <param name="clock">The clock of the waits.</param>
    /// <param name="logger">Where lost and restored connections are said.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <exception cref="RedisStoreException">Nothing answers there.</exception>
    public static async Task<RedisConnection> OpenAsync(
        string configuration, TimeSpan callTimeout, int maxInFlight, TimeProvider clock, ILogger logger, CancellationToken cancellationToken)
    {
        if (TryParse(configuration, out var options) is { } problem)
        {
            throw new ArgumentException($"The Redis configuration {problem}.", nameof(configuration));
        }

        var server = NameOf(configuration);
        var milliseconds = (int)Math.Ceiling(callTimeout.TotalMilliseconds);
        options!.AbortOnConnectFail = false;
        options.AllowAdmin = true; // To read CONFIG and INFO; nothing here changes a setting.
        options.ClientName = "holdfast";
        options.ConnectTimeout = milliseconds;
        options.SyncTimeout = milliseconds;
        options.ReconnectRetryPolicy = new LinearRetry(250);
        options.KeepAlive = 5;
        try
        {
            var multiplexer = await ConnectionMultiplexer.ConnectAsync(options).WaitAsync(callTimeout + callTimeout, clock, cancellationToken).ConfigureAwait(false);

            // The order in which calls end is no matter to us, and keeping it would put all of them through one thread.
            multiplexer.PreserveAsyncOrder = false;
            var connection = new RedisConnection(multiplexer, server, (callTimeout, maxInFlight), clock, logger);
            try
            {
                await connection.CallAsync(["PING"], cancellationToken).ConfigureAwait(false);
                return connection;
            }
            catch
            {
                await connection.DisposeAsync().ConfigureAwait(false);
                throw;
            }
        }
        catch (Exception e) when (e is RedisException or TimeoutException)
        {
            throw new RedisStoreException($"{server} can't be reached ({e.Message.TrimEnd('.')}); start it, or check host, port and password.", CallFailure.NotSent, e);
        }
    }

    /// <summary>Runs a script by its digest, and by its text where the server does not have it (a new server, or SCRIPT FLUSH).</summary>
    /// <param name="script">The script.</param>
    /// <param name="keys">Its keys; the first one's slot decides the server of a cluster.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="cancellationToken">Stops the waiting; the script may run all the same.</param>
    /// <exception cref="RedisStoreException">It failed; see <see cref="RedisStoreException.Failure"/>.</exception>
    public async Task<RedisResult> RunAsync(RedisScript script, RedisKey[] keys, RedisValue[] arguments, CancellationToken cancellationToken)
    {
        try
        {
            return await SendAsync(() => _database.ScriptEvaluateAsync(script.Sha1, keys, arguments), cancellationToken).ConfigureAwait(false);
        }
        catch (RedisStoreException e) when (e.InnerException is RedisServerException { Message: { } text } && text.StartsWith("NOSCRIPT", StringComparison.Ordinal))
        {
            // EVAL goes to the server that owns the keys and leaves the script there, which SCRIPT LOAD would not do on a cluster.
            object[] all = [script.Text, keys.Length, .. keys.Cast<object>(), .. arguments.Cast<object>()];
            return await SendAsync(() => _database.ExecuteAsync("EVAL", all), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Runs one command, for example <c>["XADD", (RedisKey)stream, "*", "f", value]</c>; on a cluster the arguments of type <see cref="RedisKey"/> decide the server.</summary>
    /// <exception cref="RedisStoreException">It failed; see <see cref="RedisStoreException.Failure"/>.</exception>
    public Task<RedisResult> CallAsync(object[] command, CancellationToken cancellationToken) =>
        SendAsync(() => _database.ExecuteAsync((string)command[0], command[1..]), cancellationToken);

    /// <summary>Sections of INFO of the server that owns a key, as <c>name</c> → <c>value</c>.</summary>
    public async Task<IReadOnlyDictionary<string, string>> InfoAsync(RedisKey key, string section, CancellationToken cancellationToken)
    {
        var server = await OwnerAsync(key, cancellationToken).ConfigureAwait(false);
        var text = await SendAsync(() => server.InfoRawAsync(section), cancellationToken).ConfigureAwait(false);
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in text.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon && line[0] != '#')
            {
                values[line[..colon]] = line[(colon + 1)..];
            }
        }

        return values;
    }

    /// <summary>A setting of the server that owns a key, or <see langword="null"/> where it does not tell (managed services hide CONFIG).</summary>
    public async Task<string?> ConfigAsync(RedisKey key, string setting, CancellationToken cancellationToken)
    {
        var server = await OwnerAsync(key, cancellationToken).ConfigureAwait(false);
        try
        {
            var pairs = await SendAsync(() => server.ConfigGetAsync(setting), cancellationToken).ConfigureAwait(false);
            return pairs.Length == 0 ? null : pairs[0].Value;
        }
        catch (RedisStoreException e) when (e.InnerException is RedisServerException)
        {
            return null;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _closing, 1) == 0)
        {
            try
            {
                await _multiplexer.CloseAsync(allowCommandsToComplete: false).WaitAsync(_callTimeout, _clock).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                // A server that does not answer can't be taken leave of: what Dispose does next needs no answer.
            }

            _multiplexer.Dispose();
        }
    }

    private async Task<IServer> OwnerAsync(RedisKey key, CancellationToken cancellationToken) =>
        _multiplexer.GetServer(await SendAsync(() => _database.IdentifyEndpointAsync(key), cancellationToken).ConfigureAwait(false));

    private async Task<T> SendAsync<T>(Func<Task<T>> send, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (Volatile.Read(ref _closing) == 1)
        {
            throw new RedisStoreException($"The connection to {Server} is being closed; try again with another.", CallFailure.NotSent);
        }

        if (Interlocked.Increment(ref _inFlight) > _maxInFlight)
        {
            Interlocked.Decrement(ref _inFlight);
            throw new RedisStoreException(string.Create(CultureInfo.InvariantCulture, $"{_maxInFlight} calls to {Server} are under way already; try again later."), CallFailure.NotSent);
        }

        Task<T> call;
        try
        {
            call = send();
        }
        catch (Exception e)
        {
            Interlocked.Decrement(ref _inFlight);
            if (e is RedisException or ObjectDisposedException)
            {
                throw Sort(e);
            }

            throw;
        }

        // Counted until the driver lets go of it, also when nobody waits for it any more: its queue is what must not grow.
        _ = call.ContinueWith(
            static (ended, state) =>
            {
                _ = ended.Exception;
                Interlocked.Decrement(ref ((RedisConnection)state!)._inFlight);
            },
            this,
            CancellationToken.None,
            TaskContinuationOptions.ExecuteSynchronously,
            TaskScheduler.Default);
        try
        {
            return await call.WaitAsync(_callTimeout, _clock, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is RedisException or TimeoutException or ObjectDisposedException || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            throw Sort(e);
        }
    }

    /// <summary>What a failure says about the call's effect.</summary>
    private RedisStoreException Sort(Exception e) => e switch
    {
        RedisServerException said => new($"{Server} said: {said.Message}", IsPassing(said.Message) ? CallFailure.Refused : CallFailure.Broken, e),
        RedisConnectionException { FailureType: ConnectionFailureType.UnableToResolvePhysicalConnection or ConnectionFailureType.UnableToConnect } =>
            new($"{Server} can't be reached; try again when it is back.", CallFailure.NotSent, e),
        TimeoutException => new($"{Server} did not answer within {_callTimeout.TotalSeconds:0.###} s.", CallFailure.InDoubt, e),
        RedisCommandException => new($"{Server}: {e.Message}", CallFailure.Broken, e),
        _ => new($"The connection to {Server} was lost ({e.Message.TrimEnd('.')}).", CallFailure.InDoubt, e),
    };

    /// <summary>Errors inside a script name their cause in the middle of the text before Redis 7, and at its beginning since.</summary>
    private static bool IsPassing(string message)
    {
        foreach (var code in s_passing)
        {
            if (message.StartsWith(code, StringComparison.Ordinal) || message.Contains("-" + code, StringComparison.Ordinal))
            {
                return true;
            }
        }

        return message.StartsWith("NOSCRIPT", StringComparison.Ordinal);
    }

    private static string? TryParse(string configuration, out ConfigurationOptions? options)
    {
        options = null;
        if (string.IsNullOrWhiteSpace(configuration))
        {
            return "is empty; write HOST:PORT, for example localhost:6379";
        }

        try
        {
            options = ConfigurationOptions.Parse(configuration);
        }
        catch (Exception e) when (e is ArgumentException or FormatException)
        {
            return "can't be read; write HOST:PORT, several servers of a cluster with commas between, then options such as password=… and ssl=true";
        }

        return options.EndPoints.Count == 0 ? "names no server; write HOST:PORT, for example localhost:6379" : null;
    }

    private static string Format(EndPoint? endPoint) => endPoint switch
    {
        DnsEndPoint dns => string.Create(CultureInfo.InvariantCulture, $"{dns.Host}:{(dns.Port == 0 ? 6379 : dns.Port)}"),
        IPEndPoint ip => string.Create(CultureInfo.InvariantCulture, $"{ip.Address}:{(ip.Port == 0 ? 6379 : ip.Port)}"),
        _ => endPoint?.ToString() ?? "?",
    };
}
