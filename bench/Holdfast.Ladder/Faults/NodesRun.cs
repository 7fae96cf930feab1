using Holdfast.Cli;
using Holdfast.Client;
using Holdfast.Testing;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Faults;

/// <summary>
/// Several server processes on one database are one system: everybody's cart holds the one hot SKU and some others, in
/// any order, until it is sold out; now and then one order goes to two servers at the same instant.
/// </summary>
internal static class NodesRun
{
    private const string Scheme = "batched";
    private const int Servers = 3;
    private const int Others = 20;
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    public static async Task<bool> RunAsync(int units, int callers, int seed, Output output, CancellationToken cancellationToken)
    {
        output.Heading(
            $"nodes: {Servers} server processes on one PostgreSQL, {units:#,##0} units of one hot SKU",
            $"servers: scheme {Scheme}; {callers} callers, each cart the hot SKU and 1 to 4 of {Others} others; every tenth order goes to two servers at once; seed {seed}",
            $"bounds: exactly {units:#,##0} of the hot SKU sold; every caller gets a verdict; audits pass");
        var postgres = await PostgreSqlServer.StartAsync().ConfigureAwait(false);
        await using var disposing = postgres.ConfigureAwait(false);
        var servers = await Task.WhenAll(Enumerable.Range(0, Servers).Select(_ => ServerProcess.StartAsync(Scheme, $"postgres:{postgres.ConnectionString}"))).ConfigureAwait(false);
        var history = new History();
        var clients = new List<HoldfastClient>();
        var undecided = 0;
        try
        {
            foreach (var server in servers)
            {
                clients.Add(await HoldfastClient.ConnectAsync(server.Address, cancellationToken: cancellationToken).ConfigureAwait(false));
            }

            var engines = clients.ConvertAll(history.Record);
            var run = RunName.New(TimeProvider.System);
            var hot = $"{run}-hot";
            StockLine[] opening = [new(hot, units), .. Enumerable.Range(0, Others).Select(i => new StockLine($"{run}-{i}", 1_000_000))];
            await engines[0].RestockAsync($"{run}-opening", opening, cancellationToken: cancellationToken).ConfigureAwait(false);
            await Task.WhenAll(Enumerable.Range(0, callers).Select(async caller =>
            {
                await Task.Yield();
                var random = new Random(unchecked((seed * 1_000_003) + caller));
                var (own, other) = (engines[caller % Servers], engines[(caller + 1) % Servers]);
                var isSoldOut = false;
                for (var i = 0; !isSoldOut; i++)
                {
                    StockLine[] cart = [new(hot, 1), .. Enumerable.Range(0, random.Next(1, 5)).Select(_ => new StockLine($"{run}-{random.Next(Others)}", 1))];
                    random.Shuffle(cart);
                    var command = StockCommand.Deduct($"{run}-{caller:x}-{i:x}", cart);
                    IStockEngine[] through = random.Next(10) == 0 ? [own, other] : [own];
                    var results = await Task.WhenAll(through.Select(engine => new Patience(engine, TimeProvider.System, Patience).ExecuteAsync(command, cancellationToken))).ConfigureAwait(false);
                    Interlocked.Add(ref undecided, results.Count(result => !result.IsApplied && result.Status != StockStatus.Insufficient));
                    isSoldOut = Array.TrueForAll(results, result => !result.IsApplied);
                }
            })).ConfigureAwait(false);
        }
        finally
        {
            foreach (var client in clients)
            {
                await client.DisposeAsync().ConfigureAwait(false);
            }

            foreach (var server in servers)
            {
                await server.StopAsync().ConfigureAwait(false);
                await server.DisposeAsync().ConfigureAwait(false);
            }
        }

        await FencedStore.UntilAloneAsync(postgres, cancellationToken).ConfigureAwait(false);
        var deadlocks = (long)(await postgres.RunSqlAsync("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").ConfigureAwait(false))!;
        var audit = await FencedStore.AuditAsync(new() { ConnectionString = postgres.ConnectionString }, history, null, cancellationToken).ConfigureAwait(false);
        var sold = history.Events.Where(sent => sent.Command.Verb == StockVerb.Deduct && sent.Result.IsApplied).Select(sent => sent.Command.Id).Distinct(StringComparer.Ordinal).Count();
        var passed = sold == units && undecided == 0 && audit.Passed;
        output.Line($"sold     {sold:#,##0} of {units:#,##0} in {history.Count:#,##0} commands, {undecided} without a verdict; deadlocks that PostgreSQL saw and the store retried: {deadlocks}");
        output.Line($"ledger   {audit}");
        await output.FinishAsync(new { run = "nodes", units, callers, seed, sold, undecided, deadlocks, commands = history.Count, audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}", passed }).ConfigureAwait(false);
        return passed;
    }
}
