using System.Net;
using System.Net.Sockets;

namespace Holdfast.Tests.Client;

/// <summary>
/// A TCP proxy that now and then cuts a connection: before it passes a request on, after the server has answered and
/// before the client hears of it, or in the middle of the answer. Where it cuts follows from its seed and the traffic.
/// </summary>
internal sealed class CuttingProxy : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stopping = new();
    private readonly Lock _lock = new();
    private readonly Random _random;
    private readonly Uri _server;
    private readonly double _probability;
    private readonly Task _accepting;
    private int _cuts;

    public CuttingProxy(Uri server, int seed, double probability)
    {
        _server = server;
        _random = new(seed);
        _probability = probability;
        _listener.Start();
        Address = new($"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}");
        _accepting = AcceptAsync();
    }

    public Uri Address { get; }

    /// <summary>Whether it cuts at all; a test ends the faults before it counts.</summary>
    public bool IsCutting { get; set; } = true;

    public int Cuts => Volatile.Read(ref _cuts);

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        _listener.Stop();
        await _accepting;
        _stopping.Dispose();
    }

    private async Task AcceptAsync()
    {
        var connections = new List<Task>();
        try
        {
            while (true)
            {
                connections.Add(ServeAsync(await _listener.AcceptTcpClientAsync(_stopping.Token)));
            }
        }
        catch (OperationCanceledException)
        {
            await Task.WhenAll(connections);
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using var _ = client;
        using var server = new TcpClient();
        using var cut = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
        try
        {
            await server.ConnectAsync(IPAddress.Loopback, _server.Port, cut.Token);
            await Task.WhenAny(PumpAsync(client, server, false, cut), PumpAsync(server, client, true, cut));
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException)
        {
            // The server is down: the client sees its connection closed, which is what a proxy in front of it would show.
        }

        await cut.CancelAsync();
        client.Client.LingerState = new(true, 0);
    }

    private async Task PumpAsync(TcpClient from, TcpClient to, bool isAnswer, CancellationTokenSource cut)
    {
        var buffer = new byte[32 * 1024];
        try
        {
            while (await from.GetStream().ReadAsync(buffer, cut.Token) is > 0 and var count)
            {
                if (Draws(out var part))
                {
                    // Of an answer a part may still go through.
                    await to.GetStream().WriteAsync(buffer.AsMemory(0, isAnswer ? (int)(count * part) : 0), cut.Token);
                    Interlocked.Increment(ref _cuts);
                    break;
                }

                await to.GetStream().WriteAsync(buffer.AsMemory(0, count), cut.Token);
            }
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException)
        {
            // Either side went away: so does the other.
        }
    }

    private bool Draws(out double part)
    {
        lock (_lock)
        {
            part = _random.NextDouble();
            return IsCutting && _random.NextDouble() < _probability;
        }
    }
}
