namespace Holdfast.Client;

/// <summary>How a <see cref="HoldfastClient"/> reaches its servers. Checked by <see cref="Validate"/> when the client is made; not to be changed afterwards.</summary>
public sealed class HoldfastClientOptions
{
    /// <summary>
    /// The servers, for example <c>http://127.0.0.1:5080</c>; at least one. Several must serve the same store, since an
    /// id is unique within one store only: a command that one server has applied and lost the answer of is repeated on the next.
    /// </summary>
    public IList<Uri> Addresses { get; } = [];

    /// <summary>The API key to send; <see langword="null"/> sends none.</summary>
    public string? ApiKey { get; set; }

    /// <summary>
    /// How long one call tries: a command that is Busy or in doubt is sent again, with the same id, and a read moves on
    /// to the next server, until this has passed. The last HTTP request may outlast it by <see cref="AttemptTimeout"/>. Default 10 s.
    /// </summary>
    public TimeSpan Deadline { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one HTTP request may take, its answer included; past it the commands that it carried are in doubt. Default 4 s.</summary>
    public TimeSpan AttemptTimeout { get; set; } = TimeSpan.FromSeconds(4);

    /// <summary>How long connecting may take; past it the next server is tried. Default 2 s.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>The pause before the first try again; doubled each time up to <see cref="MaxRetryDelay"/>, and up to half of it taken off at random. Default 20 ms.</summary>
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromMilliseconds(20);

    /// <summary>The longest pause between two tries, unless a server asks for a longer one by Retry-After. Default 1 s.</summary>
    public TimeSpan MaxRetryDelay { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>How long a server that failed is passed over while another one works. Default 2 s.</summary>
    public TimeSpan RestAfterFailure { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>How long disposal waits for the calls that were accepted; what is left then is answered Busy or InDoubt. Default 10 s.</summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Most commands in one HTTP request, 1 to 4,096. Default 1,024.</summary>
    public int MaxBatchCommands { get; set; } = 1_024;

    /// <summary>HTTP requests with commands under way at once, 1 to 64; never two that share an id. Default 2.</summary>
    public int MaxConcurrentBatches { get; set; } = 2;

    /// <summary>Most commands that wait at once; past it callers are answered Busy. Default 65,536.</summary>
    public int MaxQueuedCommands { get; set; } = 65_536;

    /// <summary>Entries asked for in one page of a listing, 1 to 1,000. Default 1,000.</summary>
    public int PageSize { get; set; } = 1_000;

    /// <summary>The clock of every wait and time-out; the system's by default.</summary>
    public TimeProvider TimeProvider { get; set; } = TimeProvider.System;

    /// <summary>
    /// The source of the random part of pauses; give a seeded one to repeat a run. Used under a lock, so it need not be
    /// thread-safe. By default one whose seed differs from process to process, so that clients don't come back all at once.
    /// </summary>
    public Random? Jitter { get; set; }

    /// <summary>
    /// Makes the handler that sends the requests, for a proxy, certificates or a message handler of one's own; the client
    /// disposes it. A <see cref="SocketsHttpHandler"/> by default.
    /// </summary>
    public Func<HttpMessageHandler>? CreateHandler { get; set; }

    /// <summary>Checks every value.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it.</exception>
    public void Validate()
    {
        Check(nameof(Addresses), Addresses.Count > 0, "is empty; name at least one server, for example http://127.0.0.1:5080");
        foreach (var address in Addresses)
        {
            Check(nameof(Addresses), address is { IsAbsoluteUri: true, Query: "", Fragment: "" } && address.Scheme is "http" or "https", $"holds '{address}'; an address is absolute, http or https, without a query");
        }

        Check(nameof(Addresses), Addresses.Distinct().Count() == Addresses.Count, "names a server twice");
        Check(nameof(ApiKey), ApiKey is null || (ApiKey.Length > 0 && ApiKey.All(c => c is > ' ' and <= '~')), "must be visible ASCII characters without spaces, or null");
        Check(nameof(Deadline), IsWait(Deadline), "must be from 1 millisecond to 1 hour");
        Check(nameof(AttemptTimeout), IsWait(AttemptTimeout), "must be from 1 millisecond to 1 hour");
        Check(nameof(ConnectTimeout), IsWait(ConnectTimeout), "must be from 1 millisecond to 1 hour");
        Check(nameof(RetryDelay), IsWait(RetryDelay), "must be from 1 millisecond to 1 hour");
        Check(nameof(MaxRetryDelay), IsWait(MaxRetryDelay) && MaxRetryDelay >= RetryDelay, $"must be from {nameof(RetryDelay)} to 1 hour");
        Check(nameof(RestAfterFailure), IsWait(RestAfterFailure), "must be from 1 millisecond to 1 hour");
        Check(nameof(DrainTimeout), IsWait(DrainTimeout), "must be from 1 millisecond to 1 hour");
        Check(nameof(MaxBatchCommands), MaxBatchCommands is >= 1 and <= 4_096, "must be from 1 to 4096");
        Check(nameof(MaxConcurrentBatches), MaxConcurrentBatches is >= 1 and <= 64, "must be from 1 to 64");
        Check(nameof(MaxQueuedCommands), MaxQueuedCommands is >= 1 and <= 16_777_216, "must be from 1 to 16777216");
        Check(nameof(PageSize), PageSize is >= 1 and <= 1_000, "must be from 1 to 1000");
        Check(nameof(TimeProvider), TimeProvider is not null, "is missing");

        static bool IsWait(TimeSpan value) => value >= TimeSpan.FromMilliseconds(1) && value <= TimeSpan.FromHours(1);

        static void Check(string name, bool isValid, string rule)
        {
            if (!isValid)
            {
                throw new ArgumentException($"{nameof(HoldfastClientOptions)}.{name} {rule}.", name);
            }
        }
    }
}
