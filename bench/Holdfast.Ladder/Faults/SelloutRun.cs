using Holdfast.Cli;
using Holdfast.Client;
using Holdfast.Testing;

namespace Holdfast.Ladder.Faults;

/// <summary>A flash sale: everybody asks at once for one unit of the same SKU, and asks again when told Busy or InDoubt.</summary>
internal static class SelloutRun
{
    private const int Clients = 4;
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    public static async Task<bool> RunAsync(int buyers, int units, int rounds, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            $"sellout: {buyers:#,##0} buyers, {units:#,##0} units, one SKU, all at once, each retrying on Busy and InDoubt with the same id",
            $"bounds: exactly {Math.Min(buyers, units):#,##0} sold; nobody refused while a unit was left (every refusal checked against the ledger); audits pass");
        output.Line($"{"engine",-34}{"round",6}{"sold",8}{"refused",9}{"open",6}   audit");
        var passed = true;
        var results = new List<object>();
        foreach (var (name, open) in Engines())
        {
            for (var round = 1; round <= rounds; round++)
            {
                using var scratch = new Scratch();
                var sale = await open(scratch.File("stock.db"), cancellationToken).ConfigureAwait(false);
                await using (sale.ConfigureAwait(false))
                {
                    var (sold, refused, undecided, audit) = await SellAsync(sale.Engines, buyers, units, cancellationToken).ConfigureAwait(false);
                    var isGood = sold == Math.Min(buyers, units) && refused == buyers - sold && audit.Passed;
                    passed &= isGood;
                    output.Line($"{name,-34}{round,6}{sold,8}{refused,9}{undecided,6}   {audit}{(isGood ? "" : "   NOT as it must be")}");
                    results.Add(new { engine = name, round, sold, refused, undecided, audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}", passed = isGood });
                }
            }
        }

        output.Line();
        output.Line(passed ? "every round sold exactly what there was" : "NOT every round sold exactly what there was");
        await output.FinishAsync(new { run = "sellout", buyers, units, rounds, results, passed }).ConfigureAwait(false);
        return passed;
    }

    private static async Task<(int Sold, int Refused, int Undecided, AuditReport Audit)> SellAsync(IReadOnlyList<IStockEngine> engines, int buyers, int units, CancellationToken cancellationToken)
    {
        var run = RunName.New(TimeProvider.System);
        var sku = $"{run}-lot";
        var history = new History();
        var recorded = engines.Select(history.Record).ToArray();
        await recorded[0].RestockAsync($"{run}-opening", [new(sku, units)], cancellationToken: cancellationToken).ConfigureAwait(false);
        var results = await Task.WhenAll(Enumerable.Range(0, buyers).Select(async buyer =>
        {
            await Task.Yield();
            var patience = new Patience(recorded[buyer % recorded.Length], TimeProvider.System, Patience);
            return await patience.ExecuteAsync(StockCommand.Deduct($"{run}-{buyer}", [new(sku, 1)]), cancellationToken).ConfigureAwait(false);
        })).ConfigureAwait(false);
        var ledger = await LedgerAudit.RunAsync(engines[0], cancellationToken: cancellationToken).ConfigureAwait(false);
        var audit = ledger.And(await HistoryAudit.RunAsync(engines[0], history, cancellationToken: cancellationToken).ConfigureAwait(false));
        return (results.Count(result => result.IsApplied), results.Count(result => result.Status == StockStatus.Insufficient), results.Count(result => result.IsRetryable), audit);
    }

    private static IEnumerable<(string Name, Func<string, CancellationToken, Task<Sale>> Open)> Engines()
    {
        yield return ("library, memory", (_, _) => Task.FromResult(new Sale(new MemoryEngine())));
        yield return ("library, memory, group commit", (_, _) => Task.FromResult(new Sale(new StockEngineBuilder(new MemoryEngine()).UseGroupCommit().Build())));
        yield return ("library, database (SQLite)", (path, _) => Task.FromResult(new Sale(SqliteEngine.Open(new() { Path = path, TransactionPer = SqliteTransactionScope.Command }))));
        yield return ("library, batched (SQLite)", (path, _) => Task.FromResult(new Sale(new StockEngineBuilder(SqliteEngine.Open(new() { Path = path })).UseGroupCommit().Build())));
        yield return ("HTTP, database (SQLite)", (path, token) => OverHttpAsync("database", path, token));
        yield return ("HTTP, batched (SQLite)", (path, token) => OverHttpAsync("batched", path, token));
    }

    private static async Task<Sale> OverHttpAsync(string scheme, string path, CancellationToken cancellationToken)
    {
        var server = await ServerProcess.StartAsync(scheme, $"sqlite:{path}").ConfigureAwait(false);
        var clients = new List<IStockEngine>();
        while (clients.Count < Clients)
        {
            clients.Add(await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false));
        }

        return new([.. clients], server);
    }

    /// <summary>The engines that buyers use (several clients of one server, or one engine), and what to end afterwards.</summary>
    private sealed class Sale(IReadOnlyList<IStockEngine> engines, ServerProcess? server) : IAsyncDisposable
    {
        public Sale(IStockEngine engine)
            : this([engine], server: null)
        {
        }

        public IReadOnlyList<IStockEngine> Engines => engines;

        public async ValueTask DisposeAsync()
        {
            foreach (var engine in engines)
            {
                await engine.DisposeAsync().ConfigureAwait(false);
            }

            if (server is not null)
            {
                await server.StopAsync().ConfigureAwait(false);
                await server.DisposeAsync().ConfigureAwait(false);
            }
        }
    }
}
