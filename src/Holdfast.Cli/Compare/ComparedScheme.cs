using Holdfast.Hosting;

namespace Holdfast.Cli.Compare;

/// <summary>A row of the comparison: a scheme on a store, with what else makes it what it is.</summary>
/// <param name="Name">What the row is called, and chosen by.</param>
/// <param name="Meaning">What it is, in one line.</param>
/// <param name="Needs">The servers that it needs.</param>
/// <param name="ChooseAsync">Says how to open it on an empty store.</param>
internal sealed record ComparedScheme(string Name, string Meaning, ServerKinds Needs, Func<CompareServers, string, Task<DeploymentChoice>> ChooseAsync)
{
    /// <summary>In so many databases of one server the sharded row lies.</summary>
    private const int Shards = 4;

    /// <summary>Every row there is, the simplest first. To have a new scheme compared, add it here.</summary>
    public static IReadOnlyList<ComparedScheme> All { get; } =
    [
        new("memory", "the contract in this process's memory; nothing survives it: the ceiling", ServerKinds.None, (_, _) => Choice("memory", "memory")),
        new("database-sqlite", "a transaction a command, in a SQLite file", ServerKinds.None, (_, folder) => Choice("database", $"sqlite:{Path.Combine(folder, "stock.db")}")),
        new("batched-sqlite", "group commit into a SQLite file", ServerKinds.None, (_, folder) => Choice("batched", $"sqlite:{Path.Combine(folder, "stock.db")}")),
        new("database", "a conditional update in a transaction a command, in PostgreSQL", ServerKinds.PostgreSql, async (servers, _) => new("database", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null)),
        new("database-version", "a transaction a command, guarded by a version column", ServerKinds.PostgreSql, async (servers, _) => new("database-version", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null)),
        new("batched", "group commit into PostgreSQL", ServerKinds.PostgreSql, async (servers, _) => new("batched", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null)),
        new("replica", "batched, with a standby that tells what is sold out", ServerKinds.PostgreSql | ServerKinds.Standby, async (servers, _) => new("replica", await servers.PostgreSqlStoreAsync(withStandby: true).ConfigureAwait(false), ApiKey: null)),
        new("precheck", "a transaction a command, with Redis that tells what is sold out", ServerKinds.PostgreSql | ServerKinds.Redis, async (servers, _) =>
            new("database", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null, await servers.RedisAsync().ConfigureAwait(false), StockPreCheck.Redis)),
        new("cached", "batched behind a Redis gate, acknowledged by the database", ServerKinds.PostgreSql | ServerKinds.Redis, async (servers, _) =>
            new("cached", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null, await servers.RedisAsync().ConfigureAwait(false))),
        new("cached-gate", "the same, acknowledged by the gate", ServerKinds.PostgreSql | ServerKinds.Redis, async (servers, _) =>
            new("cached", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null, await servers.RedisAsync().ConfigureAwait(false), Acknowledge: GateAcknowledgement.Gate)),
        new("redis", "all of it in Redis, in Lua", ServerKinds.Redis, async (servers, _) => new("redis", $"redis:{await servers.RedisAsync().ConfigureAwait(false)}", ApiKey: null)),
        new("sharded", "batched over four databases of one PostgreSQL server", ServerKinds.PostgreSql, async (servers, _) =>
        {
            var stores = new string[Shards];
            for (var shard = 0; shard < stores.Length; shard++)
            {
                stores[shard] = await servers.PostgreSqlStoreAsync().ConfigureAwait(false);
            }

            return new("sharded", string.Join(SchemeCatalog.StoreSeparator, stores), ApiKey: null);
        }),
        new("queued", "a RabbitMQ queue before PostgreSQL; measured from the order to its verdict", ServerKinds.PostgreSql | ServerKinds.RabbitMq, async (servers, _) =>
            new("queued", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null) { Queue = await servers.RabbitMqAsync(RunName.New(TimeProvider.System)).ConfigureAwait(false) }),
        new("queued-store", "PostgreSQL as its own queue; measured from the order to its verdict", ServerKinds.PostgreSql, async (servers, _) => new("queued", await servers.PostgreSqlStoreAsync().ConfigureAwait(false), ApiKey: null)),
    ];

    private static Task<DeploymentChoice> Choice(string scheme, string store) => Task.FromResult(new DeploymentChoice(scheme, store, ApiKey: null));
}
