using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Holdfast.Tests.PostgreSql;

/// <summary>Where a connection is cut.</summary>
public enum Cut
{
    /// <summary>Nowhere.</summary>
    Nowhere = 0,

    /// <summary>When the client sends a text: it never reaches the server.</summary>
    Before = 1,

    /// <summary>When the server answers it: the client never learns of the answer.</summary>
    After = 2,
}

/// <summary>
/// Stands between the store and its server, and cuts a connection at a chosen statement. The statements must not be
/// prepared, so that their texts can be seen.
/// </summary>
public sealed class CuttingProxy : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly int _serverPort;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _running = [];
    private readonly Lock _lock = new();
    private Cut _cut;
    private byte[] _text = [];
    private int _cuts;

    public CuttingProxy(int serverPort)
    {
        _serverPort = serverPort;
        _listener.Start();
        Track(AcceptAsync());
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    /// <summary>How many connections were cut.</summary>
    public int Cuts => Volatile.Read(ref _cuts);

    /// <summary>Cuts the next connection whose client sends <paramref name="text"/>; that one only.</summary>
    public void CutNext(Cut cut, string text)
    {
        lock (_lock)
        {
            _cut = cut;
            _text = Encoding.UTF8.GetBytes(text);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Stop();
        Task[] running;
        lock (_lock)
        {
            running = [.. _running];
        }

        await Task.WhenAll(running);
        _stop.Dispose();
    }

    private void Track(Task task)
    {
        lock (_lock)
        {
            _running.Add(task);
        }
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptTcpClientAsync(_stop.Token);
                Track(ServeAsync(client));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Disposed.
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using var from = client;
        using var to = new TcpClient();
        using var end = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        try
        {
            await to.ConnectAsync(IPAddress.Loopback, _serverPort, end.Token);
            var (upstream, downstream) = (to.GetStream(), from.GetStream());
            var cutsAnswer = new StrongBox();
            await Task.WhenAny(UpAsync(downstream, upstream, cutsAnswer, end.Token), DownAsync(upstream, downstream, cutsAnswer, end.Token));
        }
        catch (Exception e) when (e is OperationCanceledException or IOException or SocketException)
        {
            // The server is gone, or the test is over.
        }

        await end.CancelAsync();
    }

    private async Task UpAsync(NetworkStream from, NetworkStream to, StrongBox cutsAnswer, CancellationToken cancellationToken)
    {
        var buffer = new byte[65_536];
        try
        {
            int length;
            while ((length = await from.ReadAsync(buffer, cancellationToken)) > 0)
            {
                switch (TakeCut(buffer.AsSpan(0, length)))
                {
                    case Cut.Before:
                        Interlocked.Increment(ref _cuts);
                        return;
                    case Cut.After:
                        cutsAnswer.Value = true;
                        break;
                }

                await to.WriteAsync(buffer.AsMemory(0, length), cancellationToken);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            // The other side is gone.
        }
    }

    private async Task DownAsync(NetworkStream from, NetworkStream to, StrongBox cutsAnswer, CancellationToken cancellationToken)
    {
        var buffer = new byte[65_536];
        try
        {
            int length;
            while ((length = await from.ReadAsync(buffer, cancellationToken)) > 0)
            {
                if (cutsAnswer.Value)
                {
                    Interlocked.Increment(ref _cuts);
                    return;
                }

                await to.WriteAsync(buffer.AsMemory(0, length), cancellationToken);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            // The other side is gone.
        }
    }

    private Cut TakeCut(ReadOnlySpan<byte> sent)
    {
        lock (_lock)
        {
            if (_cut == Cut.Nowhere || sent.IndexOf(_text) < 0)
            {
                return Cut.Nowhere;
            }

            var cut = _cut;
            _cut = Cut.Nowhere;
            return cut;
        }
    }

    private sealed class StrongBox
    {
        private volatile bool _value;

        public bool Value
        {
            get => _value;
            set => _value = value;
        }
    }
}
