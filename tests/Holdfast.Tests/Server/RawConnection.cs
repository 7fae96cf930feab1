using System.Net.Sockets;
using System.Text;

namespace Holdfast.Tests.Server;

/// <summary>One HTTP/1.1 connection, byte by byte: sends a chunked body and reads its answer at the same time, as batches may.</summary>
internal sealed class RawConnection : IDisposable
{
    private readonly TcpClient _tcp;
    private readonly NetworkStream _stream;
    private readonly byte[] _received = new byte[64 * 1024];
    private int _at;
    private int _length;

    private RawConnection(TcpClient tcp)
    {
        _tcp = tcp;
        _stream = tcp.GetStream();
    }

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    /// <summary>Connects and sends the head of a chunked POST.</summary>
    public static async Task<RawConnection> PostAsync(Uri server, string path, string contentType)
    {
        var tcp = new TcpClient();
        await tcp.ConnectAsync(server.Host, server.Port, Cancelled);
        var connection = new RawConnection(tcp);
        await connection._stream.WriteAsync(Encoding.ASCII.GetBytes($"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {contentType}\r\nTransfer-Encoding: chunked\r\n\r\n"), Cancelled);
        return connection;
    }

    /// <summary>Sends text as one chunk of the body; an empty one ends it.</summary>
    public async Task SendAsync(string text, CancellationToken cancellationToken = default)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        await _stream.WriteAsync(Encoding.ASCII.GetBytes($"{bytes.Length:x}\r\n"), cancellationToken);
        await _stream.WriteAsync((byte[])[.. bytes, .. "\r\n"u8], cancellationToken);
    }

    /// <summary>Reads the head of the answer, up to its empty line.</summary>
    public async Task<string> ReadHeadAsync()
    {
        var head = new StringBuilder();
        while (await ReadRawLineAsync() is { Length: > 0 } line)
        {
            head.Append(line).Append('\n');
        }

        return head.ToString();
    }

    /// <summary>Reads the next line of a chunked answer of NDJSON; <see langword="null"/> at its end or when the connection was cut.</summary>
    public async Task<string?> ReadLineAsync()
    {
        while (await ReadRawLineAsync() is { } line)
        {
            if (line.StartsWith('{'))
            {
                return line;
            }

            if (line == "0")
            {
                return null;
            }
        }

        return null;
    }

    public void Dispose() => _tcp.Dispose();

    private async Task<string?> ReadRawLineAsync()
    {
        var line = new List<byte>();
        while (true)
        {
            while (_at < _length)
            {
                var c = _received[_at++];
                if (c == '\n')
                {
                    return Encoding.UTF8.GetString([.. line]).TrimEnd('\r');
                }

                line.Add(c);
            }

            _at = 0;
            try
            {
                _length = await _stream.ReadAsync(_received, Cancelled);
            }
            catch (IOException)
            {
                _length = 0;
            }

            if (_length == 0)
            {
                return null;
            }
        }
    }
}
