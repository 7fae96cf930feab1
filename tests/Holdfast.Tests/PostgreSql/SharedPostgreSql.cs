using System.Globalization;
using Holdfast.Tests.Conformance;
using Holdfast.Tests.PostgreSql;
using Npgsql;

[assembly: AssemblyFixture(typeof(SharedPostgreSql.Lifetime))]

namespace Holdfast.Tests.PostgreSql;

/// <summary>
/// One server for the whole test run, started by the first test that needs it; each store gets a schema of its own.
/// With HOLDFAST_TEST_POSTGRES (a connection string) a given server is used instead, and what that leaves out is skipped with the reason.
/// </summary>
public static class SharedPostgreSql
{
    /// <summary>
    /// What the disk has got in the end is tested elsewhere, by killing servers of their own, which flush; here a flush a
    /// commit would only take time. Commits still write their log before they are answered, so that a standby gets it at once.
    /// </summary>
    private static readonly string[] s_settings = ["fsync=off", "full_page_writes=off"];

    private static readonly Lock s_lock = new();
    private static Task<PostgreSqlServer>? s_server;
    private static Task<PostgreSqlServer>? s_standby;
    private static readonly Dictionary<int, Task<string>> s_databases = [];
    private static int s_schemas;

    /// <summary>A given server's connection string, or <see langword="null"/>.</summary>
    public static string? Given => Environment.GetEnvironmentVariable("HOLDFAST_TEST_POSTGRES") is { Length: > 0 } given ? given : null;

    public static async Task<string> ConnectionStringAsync()
    {
        if (Given is { } given)
        {
            return given;
        }

        Task<PostgreSqlServer> server;
        lock (s_lock)
        {
            server = s_server ??= PostgreSqlServer.StartAsync(s_settings);
        }

        return (await server).ConnectionString;
    }

    /// <summary>Starts a server of a test's own, which it may kill, pause and configure; skips the test where a server is given.</summary>
    public static Task<PostgreSqlServer> StartOwnAsync(params string[] settings)
    {
        SkipWhereGiven();
        return PostgreSqlServer.StartAsync(settings);
    }

    /// <summary>What needs more of a server than a schema is left out where one is given, and says so.</summary>
    public static void SkipWhereGiven()
    {
        if (Given is not null)
        {
            Assert.Skip("It needs PostgreSQL servers of its own, to kill, to configure or as a standby, which the one that HOLDFAST_TEST_POSTGRES gives is not asked for: unset it to run this too.");
        }
    }

    /// <summary>Options for an empty store; its schema is dropped with the start.</summary>
    /// <param name="start">What the store uses.</param>
    /// <param name="transactions">What one transaction holds.</param>
    /// <param name="shard">In a database of its own for each shard; in the server's own when <see langword="null"/>.</param>
    public static async Task<PostgreSqlOptions> NewStoreAsync(SchemeStart start, PostgreSqlTransactions transactions = PostgreSqlTransactions.Call, int? shard = null)
    {
        var options = new PostgreSqlOptions
        {
            ConnectionString = shard is { } number ? await DatabaseOfAsync(number) : await ConnectionStringAsync(),
            Schema = string.Create(CultureInfo.InvariantCulture, $"t_{Environment.ProcessId}_{Interlocked.Increment(ref s_schemas)}"),
            Transactions = transactions,
            TestClock = start.Clock,
        };
        start.Own(new DroppedSchema(options));
        return options;
    }

    /// <summary>Opens an empty store.</summary>
    public static async ValueTask<IStockEngine> OpenAsync(SchemeStart start, PostgreSqlTransactions transactions, int? shard = null)
    {
        return await PostgreSqlEngine.OpenAsync(await NewStoreAsync(start, transactions, shard));
    }

    /// <summary>The connection string of a shard's database, made when it is first asked for; on a given server all shards share its database, with a schema each.</summary>
    private static async Task<string> DatabaseOfAsync(int shard)
    {
        var server = await ConnectionStringAsync();
        if (Given is not null)
        {
            return server;
        }

        Task<string> database;
        lock (s_lock)
        {
            database = s_databases.TryGetValue(shard, out var known) ? known : s_databases[shard] = CreateAsync();
        }

        return await database;

        async Task<string> CreateAsync()
        {
            var name = string.Create(CultureInfo.InvariantCulture, $"shard_{shard}");
            await using var connection = new NpgsqlConnection(server + ";Pooling=false");
            await connection.OpenAsync();
            await using var command = new NpgsqlCommand($"CREATE DATABASE {name} TEMPLATE template0", connection);
            await command.ExecuteNonQueryAsync();
            return new NpgsqlConnectionStringBuilder(server) { Database = name }.ConnectionString;
        }
    }

    /// <summary>Opens an empty store behind a pre-check on a streaming standby.</summary>
    public static async ValueTask<IStockEngine> OpenReplicaAsync(SchemeStart start)
    {
        SkipWhereGiven();
        var primary = await PostgreSqlEngine.OpenAsync(await NewStoreAsync(start));
        Task<PostgreSqlServer> standby;
        lock (s_lock)
        {
            standby = s_standby ??= StartStandbyAsync();
        }

        return new StandbyPreCheck(
            new GroupCommit(primary),
            primary,
            new() { ConnectionString = (await standby).ConnectionString, HeartbeatInterval = TimeSpan.FromMilliseconds(20) });
    }

    /// <summary>Runs one statement in a store's database; <c>{s}</c> stands for its schema.</summary>
    public static async Task<object?> RunSqlAsync(PostgreSqlOptions store, string sql)
    {
        await using var connection = new NpgsqlConnection(store.ConnectionString + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql.Replace("{s}", store.Schema, StringComparison.Ordinal), connection);
        return await command.ExecuteScalarAsync();
    }

    /// <summary>Ends the server with the test run.</summary>
    public sealed class Lifetime : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            if (s_standby is not null)
            {
                await (await s_standby).DisposeAsync();
            }

            if (s_server is not null)
            {
                await (await s_server).DisposeAsync();
            }
        }
    }

    private static async Task<PostgreSqlServer> StartStandbyAsync() => await (await s_server!).StartStandbyAsync(s_settings);

    private sealed class DroppedSchema(PostgreSqlOptions store) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync() => await RunSqlAsync(store, "DROP SCHEMA IF EXISTS {s} CASCADE");
    }
}
