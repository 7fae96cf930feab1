using System.Buffers;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Encodings.Web;
using System.Text.Json;
using Holdfast.Wire;

namespace Holdfast.Client;

/// <summary>
/// Commands as the body of one request, one JSON object a line. Tells whether any of it was handed to a connection: if
/// not, the server certainly did nothing.
/// </summary>
internal sealed class BatchContent : HttpContent
{
    /// <summary>
    /// A body of several commands stays below this. Kestrel reads a megabyte ahead of the application, so that it takes
    /// such a body whole even while the answers already flow; the client begins to read only after it has sent all, and
    /// a larger body could leave both sides waiting for each other. (One command alone is answered after its end.)
    /// </summary>
    private const int MaxSize = 768 * 1024;

    private static readonly MediaTypeHeaderValue s_mediaType = new("application/x-ndjson");
    private static readonly JsonWriterOptions s_writerOptions = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    // Not pooled: after an early answer or a time-out the connection may still be reading it.
    private readonly ReadOnlyMemory<byte> _body;

    private BatchContent(ReadOnlyMemory<byte> body, int count)
    {
        _body = body;
        Count = count;
        Headers.ContentType = s_mediaType;
    }

    /// <summary>How many commands it holds.</summary>
    public int Count { get; }

    /// <summary>Whether a connection began to send it.</summary>
    public bool WasHandedOver { get; private set; }

    /// <summary>Makes a body of as many commands as one request should carry, at least one.</summary>
    /// <param name="commands">The commands.</param>
    /// <param name="start">The first to take.</param>
    public static BatchContent Of(IReadOnlyList<StockCommand> commands, int start)
    {
        var buffer = new ArrayBufferWriter<byte>(Math.Min((commands.Count - start) * 128, MaxSize));
        using var writer = new Utf8JsonWriter(buffer, s_writerOptions);
        var count = 0;
        var size = 0;
        while (start + count < commands.Count)
        {
            StockJson.WriteCommand(writer, commands[start + count]);
            writer.Flush();
            writer.Reset();
            buffer.Write("\n"u8);
            if (count > 0 && buffer.WrittenCount > MaxSize)
            {
                break;
            }

            size = buffer.WrittenCount;
            count++;
        }

        return new(buffer.WrittenMemory[..size], count);
    }

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => SerializeToStreamAsync(stream, context, CancellationToken.None);

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
    {
        WasHandedOver = true;
        return stream.WriteAsync(_body, cancellationToken).AsTask();
    }

    protected override bool TryComputeLength(out long length)
    {
        length = _body.Length;
        return true;
    }
}
