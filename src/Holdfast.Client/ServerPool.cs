namespace Holdfast.Client;

/// <summary>
/// Which server to talk to. Sticks with the one that answered last; one that failed rests and is passed over while
/// another is fit, and is a candidate again afterwards. A server that asked for a pause (Retry-After) is left alone until
/// it is over. Thread-safe.
/// </summary>
internal sealed class ServerPool
{
    /// <summary>A longer pause than this is not believed: a slip in a proxy's configuration must not stop a shop for a day.</summary>
    private static readonly TimeSpan s_longestPause = TimeSpan.FromMinutes(1);

    private readonly Lock _lock = new();
    private readonly Server[] _servers;
    private readonly TimeSpan _rest;
    private readonly TimeProvider _clock;
    private readonly long _start;
    private int _current;

    public ServerPool(IEnumerable<Uri> addresses, TimeSpan rest, TimeProvider clock)
    {
        _servers = [.. addresses.Select((address, index) => new Server(index, address))];
        _rest = rest;
        _clock = clock;
        _start = clock.GetTimestamp();
    }

    /// <summary>The servers' addresses, for messages.</summary>
    public string Names => string.Join(", ", _servers.Select(server => server.Address));

    private TimeSpan Now => _clock.GetElapsedTime(_start);

    /// <summary>The server to try now.</summary>
    /// <param name="fitOnly">Only one that does not rest after a failure; otherwise the one whose rest ends first will do.</param>
    /// <returns><see langword="null"/> when there is none, or when all have asked for a pause.</returns>
    public Server? Pick(bool fitOnly = false)
    {
        lock (_lock)
        {
            var now = Now;
            Server? resting = null;
            for (var i = 0; i < _servers.Length; i++)
            {
                var server = _servers[(_current + i) % _servers.Length];
                if (server.PausedUntil > now)
                {
                    continue;
                }

                if (server.RestsUntil <= now)
                {
                    return server;
                }

                if (resting is null || server.RestsUntil < resting.RestsUntil)
                {
                    resting = server;
                }
            }

            return fitOnly ? null : resting;
        }
    }

    /// <summary>How long until a server may be asked again; zero when one may be asked now.</summary>
    public TimeSpan Pause
    {
        get
        {
            lock (_lock)
            {
                var pause = _servers.Min(server => server.PausedUntil) - Now;
                return pause > TimeSpan.Zero ? pause : TimeSpan.Zero;
            }
        }
    }

    /// <summary>The server answered: stay with it.</summary>
    public void Answered(Server server)
    {
        lock (_lock)
        {
            _current = server.Index;
            server.RestsUntil = TimeSpan.Zero;
        }
    }

    /// <summary>The server could not be reached, or did not answer as a server does.</summary>
    public void Failed(Server server)
    {
        lock (_lock)
        {
            server.RestsUntil = Now + _rest;
        }
    }

    /// <summary>The server asked to be left alone for a while.</summary>
    public void AskedForPause(Server server, TimeSpan pause)
    {
        lock (_lock)
        {
            server.PausedUntil = Now + (pause < s_longestPause ? pause : s_longestPause);
        }
    }

    /// <summary>One server and how it does; changed under the pool's lock only.</summary>
    internal sealed class Server
    {
        // Names in a path are escaped already; the type's own idea of a canonical form (dots, bidirectional marks) would change some.
        private static readonly UriCreationOptions s_asWritten = new() { DangerousDisablePathAndQueryCanonicalization = true };

        public Server(int index, Uri address)
        {
            Index = index;

            // A path in the address stays the root of every request, with or without a slash at its end.
            var text = address.AbsoluteUri;
            Address = text.EndsWith('/') ? address : new(text + "/");
            BatchUri = UriOf("v1/batch");
        }

        public int Index { get; }

        public Uri Address { get; }

        public Uri BatchUri { get; }

        public Uri UriOf(string pathAndQuery) => new(Address.AbsoluteUri + pathAndQuery, s_asWritten);

        public TimeSpan RestsUntil { get; set; }

        public TimeSpan PausedUntil { get; set; }
    }
}
