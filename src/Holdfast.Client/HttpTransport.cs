using System.Buffers;
using System.IO.Pipelines;
using System.Net;
using System.Text.Json;
using Holdfast.Wire;

namespace Holdfast.Client;

/// <summary>
/// One attempt over HTTP: commands as NDJSON to <c>/v1/batch</c>, and one GET for a read. No retries with time between
/// them; only what was certainly not sent goes on to the next server at once. Every request is bounded in time. Thread-safe.
/// </summary>
internal sealed class HttpTransport : IAsyncDisposable
{
    private const int MaxAnswerLine = 4 * 1024 * 1024;
    private const int MaxReadBody = 64 * 1024 * 1024;

    private readonly HttpMessageInvoker _http;
    private readonly HoldfastClientOptions _options;
    private readonly TimeProvider _clock;
    private readonly CancellationTokenSource _stopping = new();

    public HttpTransport(HoldfastClientOptions options)
    {
        _options = options;
        _clock = options.TimeProvider;
        Servers = new(options.Addresses, options.RestAfterFailure, options.TimeProvider);
        _http = new(options.CreateHandler?.Invoke() ?? CreateHandler(options), disposeHandler: true);
    }

    /// <summary>The servers and how they do.</summary>
    public ServerPool Servers { get; }

    /// <summary>How long to wait before the next try: as long as the servers asked for, or by the back-off.</summary>
    public TimeSpan PauseAfter(int tries, Backoff backoff)
    {
        var (own, asked) = (backoff.After(tries), Servers.Pause);
        return own > asked ? own : asked;
    }

    /// <summary>Ends what is under way; commands that were sent are answered as in doubt.</summary>
    public void Stop() => _stopping.Cancel();

    /// <summary>Sends commands, in order, in as many requests as their size asks for.</summary>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        var results = new StockResult[commands.Count];
        for (var done = 0; done < results.Length;)
        {
            var (count, isAnswered) = await ExecutePartAsync(commands, done, results, cancellationToken).ConfigureAwait(false);
            done += count;
            if (!isAnswered && done < results.Length)
            {
                // What comes after a part without answers waits for it, so that the order stays.
                results.AsSpan(done).Fill(StockResult.Of(StockStatus.Busy, "not sent, because an earlier part of the batch was not answered; retry with the same id"));
                break;
            }
        }

        return results;
    }

    /// <summary>One GET, on one server; on the next ones where a server is not reached or is unwell.</summary>
    public async ValueTask<ReadAnswer> ReadAsync(string pathAndQuery, CancellationToken cancellationToken)
    {
        string? trouble = null;
        for (var server = Servers.Pick(); server is not null; server = Servers.Pick(fitOnly: true))
        {
            using var limit = new CancellationTokenSource(_options.AttemptTimeout, _clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, limit.Token, _stopping.Token);
            try
            {
                using var request = new HttpRequestMessage(HttpMethod.Get, server.UriOf(pathAndQuery));
                Authorize(request);
                using var response = await _http.SendAsync(request, either.Token).ConfigureAwait(false);
                if (response.StatusCode == HttpStatusCode.OK)
                {
                    await response.Content.LoadIntoBufferAsync(MaxReadBody, either.Token).ConfigureAwait(false);
                    var body = await response.Content.ReadAsByteArrayAsync(either.Token).ConfigureAwait(false);
                    Servers.Answered(server);
                    return new(server, response.StatusCode, body, null);
                }

                var problem = await Problem.ReadAsync(response, either.Token).ConfigureAwait(false);
                if ((int)response.StatusCode is not (>= 500 or 429 or 408))
                {
                    Servers.Answered(server);
                    return new(server, response.StatusCode, [], problem);
                }

                trouble = $"{server.Address} answered {problem.Describe(response.StatusCode)}";
                NoteTrouble(server, response);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested && !_stopping.IsCancellationRequested)
            {
                trouble = TookTooLong(server, limit.IsCancellationRequested);
                Servers.Failed(server);
            }
            catch (Exception e) when (e is HttpRequestException or IOException)
            {
                trouble = $"{server.Address}: {Explain(e)}";
                Servers.Failed(server);
            }
        }

        return new(null, HttpStatusCode.ServiceUnavailable, [], new(null, null, trouble ?? $"{Servers.Names} asked to be left alone for another {Servers.Pause.TotalSeconds:0.0} s", null));
    }

    /// <inheritdoc cref="Stop"/>
    public ValueTask DisposeAsync()
    {
        Stop();
        _http.Dispose();
        return ValueTask.CompletedTask;
    }

    private static SocketsHttpHandler CreateHandler(HoldfastClientOptions options) => new()
    {
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = options.ConnectTimeout,

        // New connections now and then, so that a changed DNS record is noticed.
        PooledConnectionLifetime = TimeSpan.FromMinutes(5),
    };

    /// <summary>Sends as many commands as one request carries, on the first server that can be reached.</summary>
    /// <returns>How many commands were sent, and whether the server answered them all.</returns>
    private async ValueTask<(int Count, bool IsAnswered)> ExecutePartAsync(IReadOnlyList<StockCommand> commands, int start, StockResult[] results, CancellationToken cancellationToken)
    {
        using var content = BatchContent.Of(commands, start);
        var part = results.AsMemory(start, content.Count);
        string? trouble = null;
        for (var server = Servers.Pick(); server is not null; server = Servers.Pick(fitOnly: true))
        {
            trouble = await SendAsync(server, content, part, cancellationToken).ConfigureAwait(false);
            if (trouble is null)
            {
                return (content.Count, true);
            }

            if (content.WasHandedOver)
            {
                break;
            }
        }

        if (!content.WasHandedOver)
        {
            part.Span.Fill(StockResult.Of(StockStatus.Busy, trouble is null
                ? $"{Servers.Names} asked to be left alone for another {Servers.Pause.TotalSeconds:0.0} s; retry later with the same id"
                : $"not sent: {trouble}; check that the server runs and retry with the same id"));
        }

        return (content.Count, false);
    }

    /// <summary>Sends one request and fills the results, where any of it was sent.</summary>
    /// <returns><see langword="null"/> when every command was answered; otherwise what went wrong.</returns>
    private async ValueTask<string?> SendAsync(ServerPool.Server server, BatchContent content, Memory<StockResult> results, CancellationToken cancellationToken)
    {
        var answered = 0;
        string trouble;
        using var limit = new CancellationTokenSource(_options.AttemptTimeout, _clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, limit.Token, _stopping.Token);
        try
        {
            // The message is not disposed, since that would dispose the content, which may yet go to another server.
            var request = new HttpRequestMessage(HttpMethod.Post, server.BatchUri) { Content = content };
            Authorize(request);
            using var response = await _http.SendAsync(request, either.Token).ConfigureAwait(false);
            if (response.StatusCode != HttpStatusCode.OK)
            {
                return await TakeRefusalAsync(server, response, results, either.Token).ConfigureAwait(false);
            }

            var body = await response.Content.ReadAsStreamAsync(either.Token).ConfigureAwait(false);
            var lines = PipeReader.Create(body, new(bufferSize: 32 * 1024));
            try
            {
                var isCompleted = false;
                while (!isCompleted)
                {
                    var read = await lines.ReadAsync(either.Token).ConfigureAwait(false);
                    isCompleted = read.IsCompleted;
                    var rest = read.Buffer;
                    while (rest.PositionOf((byte)'\n') is { } end)
                    {
                        if (answered == results.Length)
                        {
                            throw new JsonException("the answer has more lines than the request");
                        }

                        results.Span[answered] = ReadResult(rest.Slice(0, end), server);
                        answered++;
                        rest = rest.Slice(rest.GetPosition(1, end));
                    }

                    if (rest.Length > MaxAnswerLine)
                    {
                        throw new JsonException($"a line of the answer is longer than {MaxAnswerLine} bytes");
                    }

                    // A line without its end may lack more than that: at the end of the body it does not count.
                    lines.AdvanceTo(rest.Start, rest.End);
                }
            }
            finally
            {
                await lines.CompleteAsync().ConfigureAwait(false);
            }

            if (answered == results.Length)
            {
                Servers.Answered(server);
                return null;
            }

            trouble = $"the answer of {server.Address} ended after {answered} of {results.Length} lines";
        }
        catch (OperationCanceledException)
        {
            trouble = _stopping.IsCancellationRequested ? $"the client was closed before {server.Address} answered" : TookTooLong(server, limit.IsCancellationRequested);
        }
        catch (Exception e) when (e is HttpRequestException or IOException or JsonException or InvalidOperationException or FormatException)
        {
            trouble = $"{server.Address}: {Explain(e)}";
        }

        Servers.Failed(server);
        if (content.WasHandedOver)
        {
            results.Span[answered..].Fill(InDoubt(trouble));
        }

        return trouble;
    }

    private static StockResult ReadResult(ReadOnlySequence<byte> line, ServerPool.Server server)
    {
        var utf8 = line.IsSingleSegment ? line.FirstSpan : line.ToArray();
        var result = StockJson.ReadResult(utf8);
        return result.Status == StockStatus.InDoubt ? ReadUnusual(utf8, result, server) : result;
    }

    /// <summary>Tells an outcome in doubt from a line that the server finds invalid, and from an outcome of a newer version that forbids trying again.</summary>
    private static StockResult ReadUnusual(ReadOnlySpan<byte> utf8, in StockResult result, ServerPool.Server server)
    {
        string? outcome = null, field = null, detail = null;
        var retry = true;
        var reader = new Utf8JsonReader(utf8);
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var name = reader.GetString();
            reader.Read();
            switch (name)
            {
                case "outcome":
                    outcome = reader.GetString();
                    break;
                case "retry":
                    retry = reader.GetBoolean();
                    break;
                case "field":
                    field = reader.GetString();
                    break;
                case "detail":
                    detail = reader.GetString();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        if (outcome == "Invalid")
        {
            return Verdict.Misconfigured(
                $"{server.Address} did not apply a command because it finds it invalid ({field}: {detail}), although this client finds it valid: their versions differ. Bring both to the same version.");
        }

        if (outcome == "Forbidden")
        {
            return Verdict.Misconfigured(ExplainRefusal(server.Address, HttpStatusCode.Forbidden, detail ?? "Forbidden"));
        }

        return retry ? result : Verdict.FinallyInDoubt(result.Detail);
    }

    /// <summary>A request that was refused as a whole.</summary>
    private async ValueTask<string?> TakeRefusalAsync(ServerPool.Server server, HttpResponseMessage response, Memory<StockResult> results, CancellationToken cancellationToken)
    {
        var problem = await Problem.ReadAsync(response, cancellationToken).ConfigureAwait(false);
        var said = problem.Describe(response.StatusCode);
        var status = (int)response.StatusCode;
        if (status is >= 300 and < 500 and not 429 and not 408)
        {
            results.Span.Fill(Verdict.Misconfigured(ExplainRefusal(server.Address, response.StatusCode, said)));
            return null;
        }

        NoteTrouble(server, response);
        if (status == 429 || problem.Outcome == nameof(StockStatus.Busy))
        {
            results.Span.Fill(StockResult.Of(StockStatus.Busy, $"{server.Address} answered {said}; retry later with the same id"));
        }
        else
        {
            results.Span.Fill(InDoubt($"{server.Address} answered {said}"));
        }

        return said;
    }

    /// <summary>Why a server will not serve this client, and what to do about it.</summary>
    public static string ExplainRefusal(Uri server, HttpStatusCode status, string said) => status switch
    {
        HttpStatusCode.Unauthorized => $"{server} wants an API key ({said}). Set {nameof(HoldfastClientOptions)}.{nameof(HoldfastClientOptions.ApiKey)} to a key that the server knows.",
        HttpStatusCode.Forbidden => $"The API key is known to {server} but lacks the role for this ({said}). Reads need the role read; deduct, reserve, confirm, cancel, abandon and refund need sell; restock and adjust need stock.",
        _ => $"{server} refused the request as a whole ({said}). Check that the address is a Holdfast server's and that client and server have the same version.",
    };

    private void NoteTrouble(ServerPool.Server server, HttpResponseMessage response)
    {
        var pause = response.Headers.RetryAfter switch
        {
            { Delta: { } delta } => delta,
            { Date: { } date } => date - _clock.GetUtcNow(),
            _ => TimeSpan.Zero,
        };
        if (pause > TimeSpan.Zero)
        {
            Servers.AskedForPause(server, pause);
        }
        else
        {
            Servers.Failed(server);
        }
    }

    private string TookTooLong(ServerPool.Server server, bool isAnswer) => isAnswer
        ? $"{server.Address} did not answer within {_options.AttemptTimeout}"
        : $"{server.Address} could not be connected to within {_options.ConnectTimeout}";

    private void Authorize(HttpRequestMessage request)
    {
        if (_options.ApiKey is { } key)
        {
            request.Headers.TryAddWithoutValidation("X-Api-Key", key);
        }
    }

    private static StockResult InDoubt(string trouble) =>
        StockResult.Of(StockStatus.InDoubt, $"{trouble}; it may have applied: retry with the same id, ask for the operation, or close the id with Abandon");

    private static string Explain(Exception e) => e.InnerException is { } inner && inner.Message != e.Message ? $"{e.Message} ({inner.Message})" : e.Message;

    /// <summary>The answer to a read; without a server, nobody answered and the problem says why.</summary>
    internal readonly record struct ReadAnswer(ServerPool.Server? Server, HttpStatusCode Status, byte[] Body, Problem? Problem);
}
