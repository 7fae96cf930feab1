using System.Globalization;
using Holdfast.TestServers;

namespace Holdfast.Ladder.Rungs;

/// <summary>
/// A PostgreSQL server of a benchmark's own, as durable as in production. Each measurement gets a schema of its own in it,
/// after a checkpoint, so that none pays for what another left to be written.
/// </summary>
internal sealed class BenchDatabase : IAsyncDisposable
{
    private readonly PostgreSqlServer _server;
    private int _schemas;

    private BenchDatabase(PostgreSqlServer server, string description)
    {
        _server = server;
        Description = description;
    }

    /// <summary>Version and durability settings, as the server says them.</summary>
    public string Description { get; }

    public string ConnectionString => _server.ConnectionString;

    public static async Task<BenchDatabase> StartAsync(params string[] settings)
    {
        var server = await PostgreSqlServer.StartAsync([.. PostgreSqlServer.MeasuredSettings, .. settings]).ConfigureAwait(false);
        return new(server, await server.DescribeAsync().ConfigureAwait(false));
    }

    /// <summary>The server itself.</summary>
    public PostgreSqlServer Server => _server;

    public Task<object?> RunSqlAsync(string sql) => _server.RunSqlAsync(sql);

    /// <summary>Makes an empty store; disposing removes it.</summary>
    /// <param name="transactions">How commands become transactions.</param>
    /// <param name="connectionSettings">What its sessions are set to otherwise than the server, as the end of a connection string.</param>
    public async Task<BenchStore> OpenAsync(PostgreSqlTransactions transactions, string connectionSettings = "")
    {
        await RunSqlAsync("CHECKPOINT").ConfigureAwait(false);
        var options = new PostgreSqlOptions
        {
            ConnectionString = ConnectionString + connectionSettings,
            Schema = string.Create(CultureInfo.InvariantCulture, $"bench_{Interlocked.Increment(ref _schemas)}"),
            Transactions = transactions,
        };
        return new(this, options, await PostgreSqlEngine.OpenAsync(options).ConfigureAwait(false));
    }

    public Task DropAsync(string schema) => RunSqlAsync($"DROP SCHEMA IF EXISTS {schema} CASCADE");

    public ValueTask DisposeAsync() => _server.DisposeAsync();
}

/// <summary>One store in a <see cref="BenchDatabase"/>, composed as the schemes of that name are.</summary>
internal sealed class BenchStore : IAsyncDisposable
{
    private readonly BenchDatabase _database;
    private readonly CountingEngine _counter;

    public BenchStore(BenchDatabase database, PostgreSqlOptions options, PostgreSqlEngine store)
    {
        _database = database;
        Options = options;
        _counter = new(store);
        var builder = new StockEngineBuilder(_counter);
        Engine = (options.Transactions == PostgreSqlTransactions.Call ? builder.UseGroupCommit() : builder).Build();
    }

    public PostgreSqlOptions Options { get; }

    /// <summary>With group commit over it where a call is a transaction.</summary>
    public IStockEngine Engine { get; }

    /// <summary>How many commands a call had on average.</summary>
    public double PerCall => _counter.PerCall;

    public async ValueTask DisposeAsync()
    {
        await Engine.DisposeAsync().ConfigureAwait(false);
        await _database.DropAsync(Options.Schema).ConfigureAwait(false);
    }

    private sealed class CountingEngine(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        private long _calls;
        private long _commands;

        public double PerCall => (double)Interlocked.Read(ref _commands) / Math.Max(1, Interlocked.Read(ref _calls));

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
        {
            Interlocked.Increment(ref _calls);
            Interlocked.Add(ref _commands, commands.Count);
            return Inner.ExecuteAsync(commands, cancellationToken);
        }
    }
}
