using System.Buffers.Text;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Holdfast.Ladder;

/// <summary>
/// One connection that sends a request and reads the answer, over and over: HTTP/1.1 over a bare socket. The generator
/// shares the machine with the server, and a full client would cost more than the server that it measures.
/// </summary>
internal sealed class HttpCaller(Uri server) : IDisposable
{
    private readonly byte[] _answer = new byte[16 * 1024];
    private readonly byte[] _request = new byte[4 * 1024];
    private Socket? _socket;

    /// <summary>Sends a request of two parts, head and body, and reads the whole answer.</summary>
    /// <param name="line">Method and path, for example <c>POST /v1/deductions</c>.</param>
    /// <param name="body">The JSON body; empty for none.</param>
    /// <returns>The status code.</returns>
    public async ValueTask<int> SendAsync(string line, string body)
    {
        if (_socket is null)
        {
            _socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            await _socket.ConnectAsync(IPAddress.Parse(server.Host), server.Port).ConfigureAwait(false);
        }

        var length = Write(line, body);
        for (var sent = 0; sent < length;)
        {
            sent += await _socket.SendAsync(_request.AsMemory(sent, length - sent)).ConfigureAwait(false);
        }

        var received = 0;
        while (true)
        {
            var count = await _socket.ReceiveAsync(_answer.AsMemory(received)).ConfigureAwait(false);
            if (count == 0)
            {
                throw new IOException("The server closed the connection.");
            }

            received += count;
            if (TryReadStatus(_answer.AsSpan(0, received), out var status))
            {
                return status;
            }
        }
    }

    public void Dispose() => _socket?.Dispose();

    private int Write(string line, string body) => body.Length == 0
        ? Encoding.ASCII.GetBytes($"{line} HTTP/1.1\r\nHost: {server.Authority}\r\n\r\n", _request)
        : Encoding.ASCII.GetBytes($"{line} HTTP/1.1\r\nHost: {server.Authority}\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n{body}", _request);

    /// <summary>Whether the answer is complete, and its status.</summary>
    private static bool TryReadStatus(ReadOnlySpan<byte> answer, out int status)
    {
        status = 0;
        var end = answer.IndexOf("\r\n\r\n"u8);
        if (end < 0 || !Utf8Parser.TryParse(answer[9..], out status, out _))
        {
            return false;
        }

        var head = answer[..end];
        var body = answer[(end + 4)..];
        var length = head.IndexOf("Content-Length: "u8);
        if (length >= 0)
        {
            return Utf8Parser.TryParse(head[(length + 16)..], out int bytes, out _) && body.Length >= bytes;
        }

        return head.IndexOf("Transfer-Encoding: chunked"u8) >= 0 ? body.EndsWith("0\r\n\r\n"u8) : status is 204 or 304;
    }
}
