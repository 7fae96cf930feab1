using System.Buffers;
using System.Collections.Concurrent;
using System.IO.Pipelines;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Holdfast.Server.Http;

/// <summary>A reusable JSON writer with its buffer. Answers are written whole, so that their length is known and one system call sends them.</summary>
internal sealed class JsonBuffer
{
    private const int MaxPooled = 256;
    private const int MaxPooledBytes = 64 * 1024;

    private static readonly ConcurrentQueue<JsonBuffer> s_pool = new();

    private readonly ArrayBufferWriter<byte> _bytes = new(1024);

    private JsonBuffer() => Writer = new(_bytes, WriterOptions);

    /// <summary>The text is JSON and never part of a web page: only what JSON itself needs is escaped.</summary>
    public static JsonWriterOptions WriterOptions => new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    public Utf8JsonWriter Writer { get; }

    public static JsonBuffer Rent() => s_pool.TryDequeue(out var buffer) ? buffer : new();

    /// <summary>Sends what was written as the whole answer, and takes the buffer back.</summary>
    public ValueTask SendAsync(HttpResponse response, int status, string contentType)
    {
        Writer.Flush();
        response.StatusCode = status;
        response.ContentType = contentType;
        response.ContentLength = _bytes.WrittenCount;
        var sent = response.BodyWriter.WriteAsync(_bytes.WrittenMemory, CancellationToken.None);
        if (sent.IsCompletedSuccessfully)
        {
            sent.GetAwaiter().GetResult();
            Return();
            return ValueTask.CompletedTask;
        }

        return AwaitAsync(sent);
    }

    /// <summary>Bytes written and not sent yet.</summary>
    public long Length => _bytes.WrittenCount + Writer.BytesPending;

    /// <summary>Ends a line of NDJSON; the next value begins a new document.</summary>
    public void EndLine()
    {
        Writer.Flush();
        _bytes.Write("\n"u8);
        Writer.Reset(_bytes);
    }

    /// <summary>Sends what was written so far and begins anew with an empty buffer.</summary>
    public async ValueTask SendPartAsync(PipeWriter writer, CancellationToken cancellationToken)
    {
        Writer.Flush();
        await writer.WriteAsync(_bytes.WrittenMemory, cancellationToken);
        _bytes.ResetWrittenCount();
        Writer.Reset(_bytes);
    }

    private async ValueTask AwaitAsync(ValueTask<FlushResult> sent)
    {
        await sent;
        Return();
    }

    /// <summary>Takes the buffer back. Not called when a write failed: a buffer that may still be read is left to the collector.</summary>
    public void Return()
    {
        if (_bytes.Capacity <= MaxPooledBytes && s_pool.Count < MaxPooled)
        {
            _bytes.ResetWrittenCount();
            Writer.Reset(_bytes);
            s_pool.Enqueue(this);
        }
    }
}
