using System.Globalization;
using System.Text;
using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Queueing;
using Holdfast.Server.Http;
using Holdfast.Server.Security;
using Holdfast.Wire;

namespace Holdfast.Server.Endpoints;

/// <summary>
/// The endpoints of a queue: orders that are accepted at once, their verdicts (asked for, waited for, or as an event), the
/// state of the queue and its dead letters. In a scheme without a queue they say so.
/// </summary>
internal sealed class QueueEndpoints(OpenedSchemeAccessor opened, ReadEndpoints reads, IStockEngine engine, TimeBounds bounds, TimeProvider clock, IHostApplicationLifetime lifetime)
{
    private const int MaxWaitSeconds = 60;
    private const int MaxPeek = 1_000;

    /// <summary>How much of a dead letter's body is shown.</summary>
    private const int MaxShownBytes = 16 * 1024;

    /// <summary>Proxies close what is silent for long.</summary>
    private static readonly TimeSpan s_keepAlive = TimeSpan.FromSeconds(15);

    /// <summary>An event stream ends after this; the receiver comes again by itself.</summary>
    private static readonly TimeSpan s_longestStream = TimeSpan.FromMinutes(10);

    private static readonly StockJson.CommandForm s_order = new(StockVerb.Deduct, "orderId");

    private CommandQueue? Queue => opened.Scheme.Queue;

    /// <summary>An order: a deduction.</summary>
    public Task OrderAsync(HttpContext context) => WithQueueAsync(context, queue => EnqueueAsync(context, queue, s_order, roles: null));

    /// <summary>Any command, in the form of batches.</summary>
    public Task CommandAsync(HttpContext context, Roles roles) => WithQueueAsync(context, queue => EnqueueAsync(context, queue, StockJson.CommandForm.Default, roles));

    /// <summary>One operation, with the verdict on it; waits for it where asked to.</summary>
    public Task OperationAsync(HttpContext context)
    {
        if (Queue is not { } queue)
        {
            return reads.OperationAsync(context);
        }

        return AnswerAsync(context, async () =>
        {
            var query = new Query(context.Request, "wait");
            var id = Checked("id", PathSegment.Read(context, "id", 2));
            using var gone = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping);
            Verdict? verdict = null;
            try
            {
                verdict = await queue.WaitForVerdictAsync(id, Seconds(query, "wait", MaxWaitSeconds), gone.Token);
            }
            catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
            {
                // The server stops: whoever waits is told what is known now.
            }

            var operation = await engine.GetOperationAsync(id, context.RequestAborted);
            if (verdict is null && operation is null)
            {
                context.Response.Headers.RetryAfter = "1";
                await SendPendingAsync(context, id);
                return;
            }

            var buffer = JsonBuffer.Rent();
            if (operation is null)
            {
                verdict!.Write(buffer.Writer);
            }
            else
            {
                buffer.Writer.WriteStartObject();
                StockViewJson.WriteOperationFields(buffer.Writer, operation);
                buffer.Writer.WritePropertyName("verdict"u8);
                StockJson.WriteResult(buffer.Writer, (verdict ?? Verdict.Of(operation)).Result);
                buffer.Writer.WriteEndObject();
            }

            await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
        });
    }

    /// <summary>The verdict as a server-sent event.</summary>
    public Task EventsAsync(HttpContext context) => WithQueueAsync(context, async queue =>
    {
        _ = new Query(context.Request);
        var id = Checked("id", PathSegment.Read(context, "id", 2));
        using var gone = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping);
        context.Response.ContentType = "text/event-stream";
        context.Response.Headers.CacheControl = "no-store";
        var body = context.Response.BodyWriter;
        var began = clock.GetTimestamp();
        try
        {
            await body.WriteAsync("retry: 1000\n\n"u8.ToArray(), gone.Token);
            while (clock.GetElapsedTime(began) < s_longestStream)
            {
                var asked = clock.GetTimestamp();
                if (await queue.WaitForVerdictAsync(id, s_keepAlive, gone.Token) is { } verdict)
                {
                    using var data = new MemoryStream();
                    using (var json = new Utf8JsonWriter(data, JsonBuffer.WriterOptions))
                    {
                        verdict.Write(json);
                    }

                    await body.WriteAsync((byte[])[.. "event: verdict\ndata: "u8, .. data.ToArray(), .. "\n\n"u8], gone.Token);
                    return;
                }

                if (clock.GetElapsedTime(asked) < s_keepAlive / 2)
                {
                    // Too many wait already, so this one did not: it comes again, at the pace that it was told.
                    return;
                }

                await body.WriteAsync(": waiting\n\n"u8.ToArray(), gone.Token);
            }
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            // The server stops; the receiver comes again.
        }
    });

    /// <summary>What is in the queue.</summary>
    public Task StateAsync(HttpContext context) => WithQueueAsync(context, async queue =>
    {
        _ = new Query(context.Request);
        var state = await queue.MeasureAsync(context.RequestAborted);
        var announcements = await queue.Verdicts.CountAnnouncementsAsync(context.RequestAborted);
        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("location"u8, queue.Transport.Location);
        json.WriteNumber("queues"u8, queue.Transport.Queues);
        json.WriteNumber("waiting"u8, state.Depth.Waiting);
        json.WriteNumber("deferred"u8, state.Depth.Deferred);
        json.WriteNumber("inFlight"u8, state.InFlight);
        json.WriteNumber("oldestSeconds"u8, Math.Round(state.OldestAge.TotalSeconds, 3));
        json.WriteBoolean("consuming"u8, state.IsConsuming);
        json.WriteNumber("retries"u8, state.Retries);
        json.WriteNumber("dead"u8, state.Depth.Dead);
        json.WriteNumber("deadHere"u8, state.DeadLetters);
        json.WriteStartObject("webhook"u8);
        json.WriteNumber("waiting"u8, announcements.Waiting);
        json.WriteNumber("givenUp"u8, announcements.GivenUp);
        json.WriteEndObject();
        json.WriteEndObject();
        context.Response.Headers.CacheControl = "no-store";
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    /// <summary>Dead letters, the oldest first.</summary>
    public Task PeekAsync(HttpContext context) => WithQueueAsync(context, async queue =>
    {
        var letters = await queue.Transport.PeekDeadAsync(new Query(context.Request, "limit").Limit() is var limit && limit < MaxPeek ? limit : MaxPeek, context.RequestAborted);
        var buffer = JsonBuffer.Rent();
        buffer.Writer.WriteStartObject();
        buffer.Writer.WriteStartArray("items"u8);
        foreach (var letter in letters)
        {
            Write(buffer.Writer, letter);
        }

        buffer.Writer.WriteEndArray();
        buffer.Writer.WriteEndObject();
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    /// <summary>Sends a dead letter again, under a new id.</summary>
    public Task RequeueAsync(HttpContext context) => WithQueueAsync(context, async queue =>
    {
        var id = new Query(context.Request, "id").Key("id") ?? throw new InvalidCommandException("id", "is missing; the old id is closed, so say under which new one the command is sent");
        await RequestBody.ReadNothingAsync(context.Request, context.RequestAborted);
        var letter = PathSegment.Read(context, "letter", 3);
        var result = await queue.RequeueDeadAsync(letter, id, context.RequestAborted);
        await (result.Status == StockStatus.UnknownTarget ? NoLetterAsync(context, letter) : AnswerAsync(context, result, id));
    });

    /// <summary>Removes a dead letter.</summary>
    public Task DropAsync(HttpContext context) => WithQueueAsync(context, async queue =>
    {
        _ = new Query(context.Request);
        var letter = PathSegment.Read(context, "letter", 3);
        if (!await queue.Transport.DropDeadAsync(letter, context.RequestAborted))
        {
            await NoLetterAsync(context, letter);
            return;
        }

        var buffer = JsonBuffer.Rent();
        buffer.Writer.WriteStartObject();
        buffer.Writer.WriteBoolean("dropped"u8, true);
        buffer.Writer.WriteEndObject();
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    private async Task EnqueueAsync(HttpContext context, CommandQueue queue, StockJson.CommandForm form, Roles? roles)
    {
        if (!RequestBody.IsOfType(context.Request, "application/json"))
        {
            await Problem.InvalidAsync(context, "Content-Type", "Content-Type must be application/json (curl -H 'Content-Type: application/json' or curl --json)", StatusCodes.Status415UnsupportedMediaType);
            return;
        }

        if (await RequestBody.RefusedAsPackedAsync(context))
        {
            return;
        }

        var bound = bounds.Rent();
        try
        {
            var query = new Query(context.Request, "deadlineSeconds", "requestId");
            TimeSpan? deadline = query.Has("deadlineSeconds") ? Seconds(query, "deadlineSeconds", 2_592_000) : null;
            if (deadline < TimeSpan.FromSeconds(1))
            {
                throw new InvalidCommandException("deadlineSeconds", "must be at least 1");
            }

            var request = query.Key("requestId");
            var command = await RequestBody.ReadCommandAsync(context.Request, form, bound.Token);
            if (roles is { } held && (held & ApiKeys.RoleOf(command.Verb)) == Roles.None)
            {
                await Problem.OtherAsync(context, StatusCodes.Status403Forbidden, "Forbidden", "The API key has not the role that this needs", $"This needs a key with the role {ApiKeys.RoleOf(command.Verb).ToString().ToLowerInvariant()}.");
                return;
            }

            // What has no id of its own gets one to ask by.
            request ??= command.IsTransition ? $"request-{Guid.NewGuid():N}" : null;
            StockResult result;
            try
            {
                result = await queue.EnqueueAsync(command, request, deadline, bound.Token);
            }
            catch (OperationCanceledException) when (bound.IsCancellationRequested)
            {
                result = StockResult.Of(StockStatus.InDoubt, $"The queue did not answer within {bounds.Limit}. Send the same command again with the same id.");
            }

            await AnswerAsync(context, result, request ?? command.Id);
        }
        catch (OperationCanceledException) when (bound.IsCancellationRequested && !context.Response.HasStarted)
        {
            await Problem.InvalidAsync(context, "body", $"body did not arrive within {bounds.Limit}", StatusCodes.Status408RequestTimeout);
        }
        finally
        {
            bounds.Return(bound);
        }
    }

    /// <summary>202 with where to ask; 429 when the queue is full; 503 when it can't be reached.</summary>
    private static async Task AnswerAsync(HttpContext context, StockResult result, string askBy)
    {
        if (result.Status == StockStatus.Pending)
        {
            context.Response.Headers.Location = $"/v1/operations/{Uri.EscapeDataString(askBy)}";
            await SendPendingAsync(context, askBy);
            return;
        }

        if (result.Status == StockStatus.Busy && result.Detail != CommandQueue.FullDetail)
        {
            context.Response.Headers.RetryAfter = "1";
            await Problem.OtherAsync(context, StatusCodes.Status503ServiceUnavailable, "QueueUnavailable", "The queue takes nothing now; nothing was accepted", $"{result.Detail}. Send the same command again with the same id.", retry: true);
            return;
        }

        await Problem.RefusalAsync(context, result);
    }

    private static ValueTask SendPendingAsync(HttpContext context, string id)
    {
        var buffer = JsonBuffer.Rent();
        buffer.Writer.WriteStartObject();
        buffer.Writer.WriteString("id"u8, id);
        StockJson.WriteResultFields(buffer.Writer, new() { Status = StockStatus.Pending, AcknowledgedBy = Acknowledgement.Queue });
        buffer.Writer.WriteEndObject();
        return buffer.SendAsync(context.Response, StatusCodes.Status202Accepted, "application/json");
    }

    private static void Write(Utf8JsonWriter json, DeadLetter letter)
    {
        json.WriteStartObject();
        json.WriteString("letter"u8, letter.Letter);
        json.WriteNumber("queue"u8, letter.Queue);
        json.WriteString("at"u8, letter.At);
        json.WriteString("reason"u8, letter.Reason);
        json.WriteNumber("bytes"u8, letter.Body.Length);

        // Whatever bytes they are, as text: what is none is shown as the sign for it.
        json.WriteString("body"u8, Encoding.UTF8.GetString(letter.Body.Span[..Math.Min(letter.Body.Length, MaxShownBytes)]));
        json.WriteEndObject();
    }

    private static Task NoLetterAsync(HttpContext context, string letter) =>
        Problem.OtherAsync(context, StatusCodes.Status404NotFound, "UnknownLetter", "No such dead letter", $"There is no dead letter '{letter}'; GET /v1/queue/dead lists them.").AsTask();

    private static TimeSpan Seconds(Query query, string name, int most)
    {
        var text = query.Text(name);
        return text is null ? TimeSpan.Zero
            : decimal.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var seconds) && seconds <= most ? TimeSpan.FromTicks((long)(seconds * TimeSpan.TicksPerSecond))
            : throw new InvalidCommandException(name, $"must be a number of seconds from 0 to {most}");
    }

    private static string Checked(string field, string? key) =>
        StockKey.Problem(key) is { } problem ? throw new InvalidCommandException(field, problem) : key!;

    private Task WithQueueAsync(HttpContext context, Func<CommandQueue, Task> answer) => Queue is { } queue
        ? AnswerAsync(context, () => answer(queue))
        : Problem.OtherAsync(context, StatusCodes.Status404NotFound, "NoQueue", "There is no queue here", "This server runs a scheme without a queue; start it with the scheme 'queued'.").AsTask();

    /// <summary>Turns invalid input, and a queue or store that does not answer, into their problems.</summary>
    private static async Task AnswerAsync(HttpContext context, Func<Task> answer)
    {
        try
        {
            await answer();
        }
        catch (InvalidCommandException e) when (!context.Response.HasStarted)
        {
            await Problem.InvalidAsync(context, e.Field, e.Message);
        }
        catch (IOException e) when (e is not BadHttpRequestException and not Microsoft.AspNetCore.Connections.ConnectionResetException && !context.Response.HasStarted)
        {
            context.RequestServices.GetRequiredService<ILogger<QueueEndpoints>>().LogError(e, "{Method} {Path}: queue or store did not answer.", context.Request.Method, context.Request.Path);
            context.Response.Headers.RetryAfter = "1";
            var (name, title) = e is CommandTransportException ? ("QueueUnavailable", "The queue could not be reached") : ("StoreUnavailable", "The store could not be read");
            await Problem.OtherAsync(context, StatusCodes.Status503ServiceUnavailable, name, title, "The reason is in the server's log. Ask again.", retry: true);
        }
    }
}
