using System.Buffers;
using System.IO.Pipelines;
using Holdfast.Wire;

namespace Holdfast.Server.Http;

/// <summary>Reads the JSON body of a single command.</summary>
internal static class RequestBody
{
    /// <summary>Whether the body is declared as one of these media types, in UTF-8.</summary>
    public static bool IsOfType(HttpRequest request, params ReadOnlySpan<string> mediaTypes)
    {
        var declared = request.ContentType.AsSpan();
        var semicolon = declared.IndexOf(';');
        var parameters = semicolon < 0 ? default : declared[(semicolon + 1)..].Trim();
        if (parameters.StartsWith("charset", StringComparison.OrdinalIgnoreCase) && !parameters.Contains("utf-8", StringComparison.OrdinalIgnoreCase))
        {
            return false;
        }

        var mediaType = (semicolon < 0 ? declared : declared[..semicolon]).Trim();
        foreach (var taken in mediaTypes)
        {
            if (mediaType.Equals(taken, StringComparison.OrdinalIgnoreCase))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Answers a request whose body is packed, which no endpoint unpacks; <see langword="false"/> for any other.</summary>
    public static async ValueTask<bool> RefusedAsPackedAsync(HttpContext context)
    {
        string? encoding = context.Request.Headers.ContentEncoding;
        if (encoding is null || encoding.Equals("identity", StringComparison.OrdinalIgnoreCase))
        {
            return false;
        }

        await Problem.InvalidAsync(context, "Content-Encoding", "Content-Encoding is not understood here; send the body unpacked", StatusCodes.Status415UnsupportedMediaType);
        return true;
    }

    /// <summary>Reads one command.</summary>
    /// <exception cref="InvalidCommandException">The body breaks the contract; the exception names the field.</exception>
    public static async ValueTask<StockCommand> ReadCommandAsync(HttpRequest request, StockJson.CommandForm form, CancellationToken cancellationToken)
    {
        var reader = request.BodyReader;
        var body = await ReadToEndAsync(reader, cancellationToken);
        try
        {
            return body.IsEmpty ? throw new InvalidCommandException("body", "is missing; send a JSON object") : Parse(body, form);
        }
        finally
        {
            reader.AdvanceTo(body.End);
        }
    }

    /// <summary>For requests that need no body: takes none, or an object without fields.</summary>
    /// <exception cref="InvalidCommandException">The body is something else.</exception>
    public static async ValueTask ReadNothingAsync(HttpRequest request, CancellationToken cancellationToken)
    {
        if (request.ContentLength == 0)
        {
            return;
        }

        var reader = request.BodyReader;
        var body = await ReadToEndAsync(reader, cancellationToken);
        var isNothing = body.IsEmpty || (body.Length <= 16 && IsEmptyObject(body.ToArray()));
        reader.AdvanceTo(body.End);
        if (!isNothing)
        {
            throw new InvalidCommandException("body", "must be empty: the path says everything");
        }
    }

    private static bool IsEmptyObject(ReadOnlySpan<byte> body)
    {
        body = body.Trim(" \t\r\n"u8);
        return body.IsEmpty || (body[0] == '{' && body[^1] == '}' && body[1..^1].Trim(" \t\r\n"u8).IsEmpty && body.Length > 1);
    }

    private static async ValueTask<ReadOnlySequence<byte>> ReadToEndAsync(PipeReader reader, CancellationToken cancellationToken)
    {
        while (true)
        {
            // The size is bounded by the server's limit: past it the read throws.
            var read = await reader.ReadAsync(cancellationToken);
            if (read.IsCompleted)
            {
                return read.Buffer;
            }

            reader.AdvanceTo(read.Buffer.Start, read.Buffer.End);
        }
    }

    private static StockCommand Parse(ReadOnlySequence<byte> body, StockJson.CommandForm form)
    {
        if (body.IsSingleSegment)
        {
            return StockJson.ReadCommand(body.FirstSpan, form);
        }

        var length = (int)body.Length;
        var copy = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            body.CopyTo(copy);
            return StockJson.ReadCommand(copy.AsSpan(0, length), form);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(copy);
        }
    }
}
