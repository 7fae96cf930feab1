using System.Buffers;
using System.Text.Json;
using Holdfast.Server.Http;
using Holdfast.Server.Security;
using Holdfast.Wire;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core.Features;

namespace Holdfast.Server.Endpoints;

/// <summary>
/// <c>POST /v1/batch</c>: one command a line in, one answer a line out, in order, while the lines still arrive. What has
/// arrived, up to a bound, is executed as one call of the engine; while it commits, the next lines gather. Memory is
/// bounded by the largest line and the bound, however long the stream.
/// </summary>
/// <remarks>
/// Every line has exactly one answer, so the n-th answer belongs to the n-th line: a line that is too long, no command, or
/// not allowed is answered in its place and its neighbours go on.
/// </remarks>
internal sealed class BatchEndpoint(IStockEngine engine, HttpLimitOptions limits, IHostApplicationLifetime lifetime, ILogger<BatchEndpoint> logger)
{
    private const int FlushBytes = 64 * 1024;

    /// <summary>A stream that goes on for ever can't hold up a stop: past this its connection is closed.</summary>
    private static readonly TimeSpan s_drainTime = TimeSpan.FromSeconds(5);

    private readonly TimeBounds _idle = new(limits.BatchIdleTimeout);
    private readonly TimeBounds _work = new(limits.RequestTimeout);

    public async Task ExecuteAsync(HttpContext context, Roles roles)
    {
        if (!RequestBody.IsOfType(context.Request, "application/x-ndjson", "application/ndjson", "application/jsonl"))
        {
            await Problem.InvalidAsync(context, "Content-Type", "Content-Type must be application/x-ndjson: one JSON object a line", StatusCodes.Status415UnsupportedMediaType);
            return;
        }

        if (await RequestBody.RefusedAsPackedAsync(context))
        {
            return;
        }

        LiftBodyLimits(context);
        context.Response.ContentType = "application/x-ndjson";
        using var drained = new CancellationTokenSource();
        using var stopping = lifetime.ApplicationStopping.Register(static state => ((CancellationTokenSource)state!).CancelAfter(s_drainTime), drained);
        var lines = new LineReader(limits.MaxBodyBytes);
        var chunk = new Chunk(roles);
        var body = context.Request.BodyReader;
        while (!lines.IsAtEnd)
        {
            var idle = _idle.Rent();
            try
            {
                using var gone = drained.Token.UnsafeRegister(static state => ((CancellationTokenSource)state!).Cancel(), idle);
                var read = await body.ReadAsync(idle.Token);
                var rest = read.Buffer;
                while (chunk.Count < limits.BatchLines && lines.TryRead(ref rest, read.IsCompleted, out var line))
                {
                    chunk.Add(line);
                }

                // A full chunk leaves lines behind that need no further bytes; otherwise all that is here has been looked at.
                body.AdvanceTo(rest.Start, chunk.Count == limits.BatchLines ? rest.Start : rest.End);
            }
            catch (OperationCanceledException) when (idle.IsCancellationRequested)
            {
                // Everything that was read has been answered. A cut connection can't be mistaken for the end of the answers.
                logger.LogInformation("A batch was cut off: {Reason}.", drained.IsCancellationRequested ? "the server stops" : $"no line for {limits.BatchIdleTimeout}");
                context.Abort();
                return;
            }
            finally
            {
                _idle.Return(idle);
            }

            if (chunk.Count > 0)
            {
                await AnswerAsync(context, chunk);
                chunk.Clear();
            }
        }
    }

    private async ValueTask AnswerAsync(HttpContext context, Chunk chunk)
    {
        var results = await ExecuteAsync(chunk);
        var writer = context.Response.BodyWriter;
        var buffer = JsonBuffer.Rent();
        var next = 0;
        for (var i = 0; i < chunk.Count; i++)
        {
            if (chunk.Refusal(i) is { } refusal)
            {
                refusal.Write(buffer.Writer);
            }
            else
            {
                StockJson.WriteResult(buffer.Writer, results[next++]);
            }

            buffer.EndLine();
            if (buffer.Length > FlushBytes)
            {
                await buffer.SendPartAsync(writer, context.RequestAborted);
            }
        }

        await buffer.SendPartAsync(writer, context.RequestAborted);
        buffer.Return();
    }

    private async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(Chunk chunk)
    {
        var commands = chunk.Commands();
        if (commands.Length == 0)
        {
            return [];
        }

        if (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            return All(commands.Length, StockStatus.Busy, "The server is shutting down. Send the command again with the same id.");
        }

        var bound = _work.Rent();
        try
        {
            return await engine.ExecuteAsync(commands, bound.Token);
        }
        catch (OperationCanceledException) when (bound.IsCancellationRequested)
        {
            return All(commands.Length, StockStatus.InDoubt, $"The store did not answer within {limits.RequestTimeout}.");
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            logger.LogError(e, "A batch of {Count} commands failed.", commands.Length);
            return All(commands.Length, StockStatus.InDoubt, "The server failed; the failure is in its log.");
        }
        finally
        {
            _work.Return(bound);
        }
    }

    private static StockResult[] All(int count, StockStatus status, string detail)
    {
        var results = new StockResult[count];
        Array.Fill(results, StockResult.Of(status, detail));
        return results;
    }

    /// <summary>The stream as a whole has no size and no minimum rate; its lines and its pauses are bounded here instead.</summary>
    private static void LiftBodyLimits(HttpContext context)
    {
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } size)
        {
            size.MaxRequestBodySize = null;
        }

        if (context.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } rate)
        {
            rate.MinDataRate = null;
        }
    }

    /// <summary>Splits the stream at line feeds; a line over the bound is passed over and counted as one refused line.</summary>
    private sealed class LineReader(int maxBytes)
    {
        private long _searched;
        private bool _skipping;

        /// <summary>Whether every line has been read.</summary>
        public bool IsAtEnd { get; private set; }

        /// <summary>Takes the next line off the front of <paramref name="rest"/>; <see langword="null"/> stands for one over the bound.</summary>
        public bool TryRead(ref ReadOnlySequence<byte> rest, bool isCompleted, out ReadOnlySequence<byte>? line)
        {
            line = null;
            if (IsAtEnd)
            {
                return false;
            }

            if (rest.Slice(_searched).PositionOf((byte)'\n') is { } end)
            {
                var found = rest.Slice(0, end);
                rest = rest.Slice(rest.GetPosition(1, end));
                line = _skipping || found.Length > maxBytes ? null : found;
                _searched = 0;
                _skipping = false;
                return true;
            }

            if (isCompleted)
            {
                IsAtEnd = true;
                var isLine = _skipping || !rest.IsEmpty;
                line = _skipping || rest.Length > maxBytes ? null : rest;
                rest = rest.Slice(rest.End);
                return isLine;
            }

            if (_skipping || rest.Length > maxBytes)
            {
                _skipping = true;
                _searched = 0;
                rest = rest.Slice(rest.End);
            }
            else
            {
                _searched = rest.Length;
            }

            return false;
        }
    }

    /// <summary>The lines of one call of the engine: commands, and refusals in the places of those that are none.</summary>
    private sealed class Chunk(Roles roles)
    {
        private readonly List<LineRefusal?> _refusals = [];
        private List<StockCommand> _commands = [];

        public int Count => _refusals.Count;

        public LineRefusal? Refusal(int line) => _refusals[line];

        /// <summary>The commands in an array of their own: an engine that gave up waiting may still read it.</summary>
        public StockCommand[] Commands() => [.. _commands];

        public void Add(ReadOnlySequence<byte>? line)
        {
            try
            {
                var command = line is null ? throw new InvalidCommandException("body", "line is longer than this server takes") : Parse(line.Value);
                var needed = ApiKeys.RoleOf(command.Verb);
                if (!roles.HasFlag(needed))
                {
                    _refusals.Add(new("Forbidden", "verb", $"{StockJson.VerbName(command.Verb)} needs a key with the role {needed.ToString().ToLowerInvariant()}"));
                    return;
                }

                _commands.Add(command);
                _refusals.Add(null);
            }
            catch (InvalidCommandException e)
            {
                _refusals.Add(new("Invalid", e.Field, e.Message));
            }
        }

        public void Clear()
        {
            _refusals.Clear();
            _commands = new(_commands.Count);
        }

        private static StockCommand Parse(ReadOnlySequence<byte> line)
        {
            if (line.IsSingleSegment)
            {
                return StockJson.ReadCommand(line.FirstSpan);
            }

            var length = (int)line.Length;
            var copy = ArrayPool<byte>.Shared.Rent(length);
            try
            {
                line.CopyTo(copy);
                return StockJson.ReadCommand(copy.AsSpan(0, length));
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(copy);
            }
        }
    }

    private sealed record LineRefusal(string Outcome, string Field, string Detail)
    {
        public void Write(Utf8JsonWriter json)
        {
            json.WriteStartObject();
            json.WriteString("outcome"u8, Outcome);
            json.WriteBoolean("retry"u8, false);
            json.WriteString("field"u8, Field);
            json.WriteString("detail"u8, Detail);
            json.WriteEndObject();
        }
    }
}
