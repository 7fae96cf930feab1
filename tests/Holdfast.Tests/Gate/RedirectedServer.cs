using System.Net;
using System.Net.Sockets;

namespace Holdfast.Tests.Gate;

/// <summary>Stands between one process and its server: cuts it off, or leads it to another server, as a partition or a failover does.</summary>
internal sealed class RedirectedServer : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _lock = new();
    private readonly List<(TcpClient Client, TcpClient Server)> _connections = [];
    private readonly List<Task> _running = [];
    private int? _port;

    public RedirectedServer(int port)
    {
        _port = port;
        _listener.Start();
        _running.Add(AcceptAsync());
    }

    /// <summary>How a client connects.</summary>
    public string Configuration => $"127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

    /// <summary>Ends all connections; new ones lead to the port, or nowhere.</summary>
    public void Lead(int? port)
    {
        lock (_lock)
        {
            _port = port;
            Cut();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Stop();
        Task[] running;
        lock (_lock)
        {
            Cut();
            running = [.. _running];
        }

        await Task.WhenAll(running);
        _stop.Dispose();
    }

    private void Cut()
    {
        foreach (var (client, server) in _connections)
        {
            client.Dispose();
            server.Dispose();
        }

        _connections.Clear();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            TcpClient client;
            try
            {
                client = await _listener.AcceptTcpClientAsync(_stop.Token);
            }
            catch (Exception e) when (e is OperationCanceledException or SocketException)
            {
                return;
            }

            lock (_lock)
            {
                if (_port is not { } port || _stop.IsCancellationRequested)
                {
                    client.Dispose();
                    continue;
                }

                var server = new TcpClient(AddressFamily.InterNetwork);
                _connections.Add((client, server));
                _running.Add(ForwardAsync(client, server, port));
            }
        }
    }

    private async Task ForwardAsync(TcpClient client, TcpClient server, int port)
    {
        using (client)
        using (server)
        {
            try
            {
                client.NoDelay = server.NoDelay = true;
                await server.ConnectAsync(IPAddress.Loopback, port, _stop.Token);
                await Task.WhenAny(
                    client.GetStream().CopyToAsync(server.GetStream(), _stop.Token),
                    server.GetStream().CopyToAsync(client.GetStream(), _stop.Token));
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException or OperationCanceledException)
            {
                // Cut, or the server is gone: so is the client, then.
            }
        }
    }
}
