using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using Holdfast.Wire;

namespace Holdfast.Client;

/// <summary>
/// A server as an engine: commands in one attempt, as the layer around it coalesced them; reads tried until the deadline.
/// Thread-safe.
/// </summary>
internal sealed class HttpStockEngine(HttpTransport transport, HoldfastClientOptions options, Backoff backoff) : IStockEngine
{
    /// <summary>Bytes of a request's query. Servers and proxies commonly bound the request line to 8,192 bytes.</summary>
    private const int MaxQueryLength = 6_000;

    private const int MaxSkusPerRead = 1_000;

    /// <summary>The most that a server takes: 30 days.</summary>
    private const decimal MaxStalenessSeconds = 2_592_000;

    private StockTraits _traits;

    private delegate T BodyReader<out T>(ReadOnlySpan<byte> utf8);

    /// <summary>What the server guarantees; nothing until it was asked.</summary>
    public StockTraits Traits => _traits;

    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
        transport.ExecuteAsync(commands, cancellationToken);

    public async ValueTask<ServerInfo> GetServerInfoAsync(CancellationToken cancellationToken)
    {
        var info = await ReadAsync("v1/info", ServerInfo.Read, cancellationToken).ConfigureAwait(false);
        _traits = info.Traits;
        return info;
    }

    public async ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions readOptions = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        cancellationToken.ThrowIfCancellationRequested();
        var levels = new StockLevel[skus.Count];
        var places = new List<int>();
        var query = new StringBuilder();
        for (var i = 0; i < levels.Length; i++)
        {
            // A name that breaks the rules was never stocked, and a server would refuse the whole request for it.
            levels[i] = new() { Sku = skus[i] };
            if (StockKey.Problem(skus[i]) is null)
            {
                query.Append(query.Length == 0 ? $"v1/stock?{MaxStaleness(readOptions.MaxStaleness)}sku=" : "&sku=").Append(Uri.EscapeDataString(skus[i]));
                places.Add(i);
            }

            if (places.Count > 0 && (i == levels.Length - 1 || query.Length > MaxQueryLength || places.Count == MaxSkusPerRead))
            {
                var (page, _) = await ReadAsync(query.ToString(), static body => StockViewJson.ReadPage(body, StockViewJson.ReadLevel), cancellationToken).ConfigureAwait(false);
                if (page.Count != places.Count)
                {
                    throw new InvalidOperationException($"A server answered with {page.Count} stock levels where {places.Count} were asked for. Bring client and server to the same version.");
                }

                for (var k = 0; k < page.Count; k++)
                {
                    levels[places[k]] = page[k];
                }

                query.Clear();
                places.Clear();
            }
        }

        return levels;
    }

    public async ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        cancellationToken.ThrowIfCancellationRequested();
        if (StockKey.Problem(id) is not null)
        {
            return null;
        }

        // As a query, not as a path: a path would lose the ids "." and "..".
        var (found, _) = await ReadAsync("v1/operations?id=" + Uri.EscapeDataString(id), static body => StockViewJson.ReadPage(body, StockViewJson.ReadOperation), cancellationToken).ConfigureAwait(false);
        return found.Count == 0 ? null : found[0];
    }

    public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) =>
        ReadPagesAsync("v1/stock?prefix=" + Uri.EscapeDataString(prefix ?? ""), after, null, StockViewJson.ReadLevel, cancellationToken);

    public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        if (query.UndecidedOnly)
        {
            throw new NotSupportedException("What is undecided on a shard is asked of its store, not of a server.");
        }

        var path = new StringBuilder("v1/operations?");
        if (query.State is { } state)
        {
            path.Append("state=").Append(StockViewJson.StateName(state)).Append('&');
        }

        if (query.DueOnly)
        {
            path.Append("due=true&");
        }

        if (query.CreatedBefore is { } before)
        {
            path.Append("createdBefore=").Append(Uri.EscapeDataString(before.ToString("O", CultureInfo.InvariantCulture))).Append('&');
        }

        if (query.Target is { } target)
        {
            if (StockKey.Problem(target) is not null)
            {
                return AsyncEnumerable.Empty<OperationView>();
            }

            path.Append("target=").Append(Uri.EscapeDataString(target)).Append('&');
        }

        return ReadPagesAsync(path.ToString().TrimEnd('&'), query.After, query.Limit, StockViewJson.ReadOperation, cancellationToken);
    }

    public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        if (query.Sku is { } sku && StockKey.Problem(sku) is not null)
        {
            return AsyncEnumerable.Empty<FlowEntry>();
        }

        var path = "v1/flow?" + MaxStaleness(query.MaxStaleness) + (query.Sku is null ? "" : "sku=" + Uri.EscapeDataString(query.Sku));
        return ReadPagesAsync(path.TrimEnd('&'), query.After, query.Limit, StockViewJson.ReadFlow, cancellationToken);
    }

    public ValueTask DisposeAsync() => transport.DisposeAsync();

    /// <summary>The parameter that lets a read be served by a standby, with what parts it from the next one; nothing where the truth is asked for.</summary>
    private static string MaxStaleness(TimeSpan time)
    {
        // A fresher answer than asked for is right too.
        var seconds = Math.Min((decimal)time.Ticks / TimeSpan.TicksPerSecond, MaxStalenessSeconds);
        return seconds > 0 ? string.Create(CultureInfo.InvariantCulture, $"maxStalenessSeconds={seconds}&") : "";
    }

    private async IAsyncEnumerable<T> ReadPagesAsync<T>(string path, string? after, int? limit, StockViewJson.ItemReader<T> readItem, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var separator = path[^1] == '?' ? "" : "&";
        var left = limit ?? int.MaxValue;
        while (left > 0)
        {
            var cursor = after is null ? "" : "&after=" + Uri.EscapeDataString(after);
            var (items, next) = await ReadAsync(
                $"{path}{separator}limit={Math.Min(left, options.PageSize)}{cursor}",
                body => StockViewJson.ReadPage(body, readItem),
                cancellationToken).ConfigureAwait(false);
            foreach (var item in items)
            {
                yield return item;
            }

            left -= items.Count;
            if (next is null)
            {
                break;
            }

            if (next == after)
            {
                throw new InvalidOperationException($"A server answered the listing {path} with a page that leads to itself. Bring client and server to the same version.");
            }

            after = next;
        }
    }

    /// <summary>Reads until a server answers or the deadline has passed.</summary>
    /// <exception cref="HttpRequestException">No server answered in time.</exception>
    private async ValueTask<T> ReadAsync<T>(string pathAndQuery, BodyReader<T> read, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        var start = options.TimeProvider.GetTimestamp();
        for (var tries = 1; ; tries++)
        {
            var answer = await transport.ReadAsync(pathAndQuery, cancellationToken).ConfigureAwait(false);
            if (answer.Server is { } server)
            {
                return answer.Status == HttpStatusCode.OK ? Parse(read, answer.Body, server.Address)
                    : throw Refused(server.Address, answer);
            }

            var pause = transport.PauseAfter(tries, backoff);
            if (options.TimeProvider.GetElapsedTime(start) + pause > options.Deadline)
            {
                throw new HttpRequestException($"No server answered a read within {options.Deadline} ({tries} tries): {answer.Problem!.Detail}. Check that a server runs at {transport.Servers.Names}.");
            }

            await Task.Delay(pause, options.TimeProvider, cancellationToken).ConfigureAwait(false);
        }
    }

    private static T Parse<T>(BodyReader<T> read, byte[] body, Uri server)
    {
        try
        {
            return read(body);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException or KeyNotFoundException)
        {
            throw new InvalidOperationException($"{server} answered a read with what this client can't read ({e.Message}). Check that the address is a Holdfast server's and that client and server have the same version.", e);
        }
    }

    private static Exception Refused(Uri server, in HttpTransport.ReadAnswer answer)
    {
        var said = answer.Problem!.Describe(answer.Status);
        return answer.Status == HttpStatusCode.BadRequest
            ? new ArgumentException($"{server} finds the read invalid ({said}).", answer.Problem.Field ?? "query")
            : new InvalidOperationException(HttpTransport.ExplainRefusal(server, answer.Status, said));
    }
}
