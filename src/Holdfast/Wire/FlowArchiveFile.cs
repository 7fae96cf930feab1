using System.IO.Compression;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text.Json;

namespace Holdfast.Wire;

/// <summary>
/// A part of the ledger in a file: gzip, one entry a line as <see cref="StockViewJson.WriteFlow"/> writes it, without
/// cursors, in the order of the whole ledger. Any tool that reads gzip and JSON lines reads it. Thread-safe.
/// </summary>
public static class FlowArchiveFile
{
    /// <summary>Reads a file, entry by entry.</summary>
    /// <exception cref="InvalidDataException">The file is damaged or cut off, or a line is no ledger entry; the message says which.</exception>
    public static async IAsyncEnumerable<FlowEntry> ReadAsync(string path, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(path);
        using var reader = new StreamReader(Open(path));
        for (var line = 1L; await ReadLineAsync(reader, path, cancellationToken).ConfigureAwait(false) is { } text; line++)
        {
            yield return Parse(text, path, line);
        }
    }

    /// <summary>The SHA-256 of a file's lines before compression, in lower-case hex: the same for the same entries.</summary>
    /// <exception cref="InvalidDataException">The file is damaged or cut off.</exception>
    public static async Task<string> HashAsync(string path, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(path);
        var stream = Open(path);
        await using var disposing = stream.ConfigureAwait(false);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(stream, cancellationToken).ConfigureAwait(false));
    }

    private static GZipStream Open(string path) => new(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read), CompressionMode.Decompress);

    private static async Task<string?> ReadLineAsync(StreamReader reader, string path, CancellationToken cancellationToken)
    {
        try
        {
            return await reader.ReadLineAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (InvalidDataException e)
        {
            throw new InvalidDataException($"'{path}' is damaged, cut off, or no gzip file: {e.Message}", e);
        }
    }

    private static FlowEntry Parse(string text, string path, long line)
    {
        try
        {
            var json = new Utf8JsonReader(System.Text.Encoding.UTF8.GetBytes(text));
            json.Read();
            return StockViewJson.ReadFlow(ref json);
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"'{path}', line {line}: {e.Message}", e);
        }
    }
}

/// <summary>Writes such a file, or only finds out what its hash would be. Not thread-safe.</summary>
public sealed class FlowArchiveWriter : IAsyncDisposable
{
    private static readonly byte[] s_lineEnd = "\n"u8.ToArray();

    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly System.Buffers.ArrayBufferWriter<byte> _line = new();
    private readonly Utf8JsonWriter _json;
    private readonly FileStream? _file;
    private readonly GZipStream? _zip;

    /// <summary>Begins a file, over an older one of that name; with <see langword="null"/> nothing is written.</summary>
    public FlowArchiveWriter(string? path)
    {
        _json = new(_line);
        if (path is not null)
        {
            _file = new(path, FileMode.Create, FileAccess.Write, FileShare.Read);
            _zip = new(_file, CompressionLevel.Optimal, leaveOpen: true);
        }
    }

    /// <summary>How many entries were written.</summary>
    public long Entries { get; private set; }

    /// <summary>Writes an entry; its cursor is left out.</summary>
    public async ValueTask WriteAsync(FlowEntry entry, CancellationToken cancellationToken = default)
    {
        _line.ResetWrittenCount();
        _json.Reset();
        StockViewJson.WriteFlow(_json, entry with { Cursor = null });
        await _json.FlushAsync(cancellationToken).ConfigureAwait(false);
        _hash.AppendData(_line.WrittenSpan);
        _hash.AppendData(s_lineEnd);
        if (_zip is not null)
        {
            await _zip.WriteAsync(_line.WrittenMemory, cancellationToken).ConfigureAwait(false);
            await _zip.WriteAsync(s_lineEnd, cancellationToken).ConfigureAwait(false);
        }

        Entries++;
    }

    /// <summary>Ends the file: when this has returned it is on the disk.</summary>
    /// <returns>What <see cref="FlowArchiveFile.HashAsync"/> says of it.</returns>
    public async Task<string> FinishAsync(CancellationToken cancellationToken = default)
    {
        if (_zip is not null)
        {
            await _zip.DisposeAsync().ConfigureAwait(false);
            await _file!.FlushAsync(cancellationToken).ConfigureAwait(false);
            _file.Flush(flushToDisk: true);
        }

        return Convert.ToHexStringLower(_hash.GetHashAndReset());
    }

    /// <summary>Closes the file, finished or not.</summary>
    public async ValueTask DisposeAsync()
    {
        await _json.DisposeAsync().ConfigureAwait(false);
        if (_zip is not null)
        {
            await _zip.DisposeAsync().ConfigureAwait(false);
            await _file!.DisposeAsync().ConfigureAwait(false);
        }

        _hash.Dispose();
    }
}
