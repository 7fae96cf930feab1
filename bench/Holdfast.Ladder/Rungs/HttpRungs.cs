using Holdfast.Cli;
using Holdfast.Cli.Bench;
using Holdfast.Client;

namespace Holdfast.Ladder.Rungs;

/// <summary>The server against an endpoint that does nothing, and the client's batches against single requests.</summary>
internal static class HttpRungs
{
    private const long Plenty = 1_000_000_000_000;
    private const string Scheme = "batched";

    public static Rung Deductions(RungOptions options) => new()
    {
        Name = "http",
        Question = "single POST /v1/deductions against a POST to an endpoint that does nothing",
        SubjectName = "deductions",
        BaselineName = "empty POST",
        Bound = 0.4,
        Settings = Settings(options),
        Subject = cancellationToken => SingleAsync(options, cancellationToken),
        Baseline = cancellationToken => EmptyAsync("POST /empty", Body("order-0123456789-00-0", "sku"), options, cancellationToken),
    };

    public static Rung Reads(RungOptions options) => new()
    {
        Name = "http-read",
        Question = "GET /v1/stock/{sku} against a GET of an endpoint that does nothing",
        SubjectName = "stock reads",
        BaselineName = "empty GET",
        Bound = 0.6,
        Settings = Settings(options),
        Subject = cancellationToken => ReadAsync(options, cancellationToken),
        Baseline = cancellationToken => EmptyAsync("GET /empty", "", options, cancellationToken),
    };

    public static Rung ThroughClient(RungOptions options) => new()
    {
        Name = "http-client",
        Question = "deductions through Holdfast.Client, which coalesces calls, against single requests",
        SubjectName = "client",
        BaselineName = "single requests",
        Bound = 3,
        Settings = [.. Settings(options), $"client: Holdfast.Client with {ClientCallers} callers; single requests: {options.Load.Callers} connections"],
        Subject = cancellationToken => ClientAsync(options with { Load = options.Load with { Callers = ClientCallers } }, cancellationToken),
        Baseline = cancellationToken => SingleAsync(options, cancellationToken),
    };

    private const int ClientCallers = 1_024;

    private static string[] Settings(RungOptions options) =>
    [
        options.Describe(),
        $"server: its own process, scheme {Scheme} on a new SQLite file with synchronous=FULL, under {Path.GetTempPath()}; the empty endpoint: Kestrel in a process of its own, same settings of the runtime",
        "generator: one keep-alive connection a caller, HTTP/1.1 over bare sockets, on the same machine, the same for both sides",
    ];

    private static string Body(string id, string sku) => $"{{\"orderId\":\"{id}\",\"lines\":[{{\"sku\":\"{sku}\",\"quantity\":1}}]}}";

    private static async Task<Measured> EmptyAsync(string line, string body, RungOptions options, CancellationToken cancellationToken)
    {
        var server = await ServerProcess.StartEmptyAsync().ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var result = await LoadAsync(server, options.Load, _ => () => (line, body), cancellationToken).ConfigureAwait(false);
            return EngineMeasure.Describe(result, audit: null);
        }
    }

    private static Task<Measured> SingleAsync(RungOptions options, CancellationToken cancellationToken) => OnServerAsync(
        options,
        (server, workload) => LoadAsync(
            server,
            options.Load,
            number =>
            {
                var count = 0L;
                return () => ("POST /v1/deductions", Body(workload.OrderId(count++, number), workload.Skus[0]));
            },
            cancellationToken),
        countsOperations: true,
        cancellationToken);

    private static Task<Measured> ReadAsync(RungOptions options, CancellationToken cancellationToken) => OnServerAsync(
        options,
        (server, workload) => LoadAsync(server, options.Load, _ => () => ($"GET /v1/stock/{workload.Skus[0]}", ""), cancellationToken),
        countsOperations: false,
        cancellationToken);

    private static Task<Measured> ClientAsync(RungOptions options, CancellationToken cancellationToken) => OnServerAsync(
        options,
        async (server, workload) =>
        {
            var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                return await LoadGenerator.RunAsync(options.Load, EngineLoad.Callers(client, workload), TimeProvider.System, cancellationToken: cancellationToken).ConfigureAwait(false);
            }
        },
        countsOperations: true,
        cancellationToken);

    /// <summary>Measures on a new server, stops it, and audits its file.</summary>
    private static async Task<Measured> OnServerAsync(RungOptions options, Func<ServerProcess, Workload, Task<LoadResult>> measure, bool countsOperations, CancellationToken cancellationToken)
    {
        using var scratch = new Scratch();
        var path = scratch.File("stock.db");
        var workload = Workload.Of("hot", RunName.New(TimeProvider.System), seed: 1);
        LoadResult result;
        var server = await ServerProcess.StartAsync(Scheme, $"sqlite:{path}").ConfigureAwait(false);
        await using (server.ConfigureAwait(false))
        {
            var client = await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                await EngineLoad.OpenAsync(client, workload, Plenty, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            }

            result = await measure(server, workload).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            await server.StopAsync().ConfigureAwait(false);
        }

        var store = SqliteEngine.Open(new() { Path = path, ReadOnly = true });
        await using (store.ConfigureAwait(false))
        {
            var audit = countsOperations
                ? await LoadAudit.RunAsync(options.Terminal, store, workload, result, cancellationToken).ConfigureAwait(false)
                : await LoadAudit.LedgerAsync(options.Terminal, store, cancellationToken).ConfigureAwait(false);
            return EngineMeasure.Describe(result, audit);
        }
    }

    /// <summary>Puts requests on a server, one connection a caller.</summary>
    private static async Task<LoadResult> LoadAsync(ServerProcess server, Load load, Func<int, Func<(string Line, string Body)>> requests, CancellationToken cancellationToken)
    {
        var connections = Enumerable.Range(0, load.Callers).Select(_ => new HttpCaller(server.Address)).ToArray();
        try
        {
            return await LoadGenerator.RunAsync(
                load,
                number =>
                {
                    var next = requests(number);
                    return async () =>
                    {
                        var (line, body) = next();
                        return await connections[number].SendAsync(line, body).ConfigureAwait(false) switch
                        {
                            200 => LoadAnswer.Accepted,
                            429 or 503 => LoadAnswer.Unknown,
                            _ => LoadAnswer.Refused,
                        };
                    };
                },
                TimeProvider.System,
                cancellationToken: cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            foreach (var connection in connections)
            {
                connection.Dispose();
            }
        }
    }
}
