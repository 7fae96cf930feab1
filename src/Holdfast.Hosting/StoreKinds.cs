using Microsoft.Extensions.Logging;

namespace Holdfast.Hosting;

/// <summary>The stores that this build knows, one class each.</summary>
internal static class StoreKinds
{
    public static readonly StoreKind Memory = new MemoryStore();
    public static readonly StoreKind Sqlite = new SqliteStore();
    public static readonly StoreKind PostgreSql = new PostgreSqlStore();
    public static readonly StoreKind Redis = new RedisStore();

    private sealed class MemoryStore() : StoreKind("memory", "memory", "the memory of this process; gone when it ends", "")
    {
        internal override string? LocationProblem(string location) => location.Length == 0 ? null : "has text after 'memory'";

        internal override ValueTask<OpenedStore> OpenAsync(StoreRequest request, CancellationToken cancellationToken)
        {
            var engine = new MemoryEngine((TimeProvider?)request.Services.GetService(typeof(TimeProvider)));
            return new(new OpenedStore(engine, "the memory of this process", "none: everything is gone when the process ends"));
        }
    }

    private sealed class SqliteStore() : StoreKind("sqlite", "sqlite:PATH", "one file, written by one process; made where it is missing", "holdfast-data/holdfast.db")
    {
        internal override string? LocationProblem(string location) => string.IsNullOrWhiteSpace(location) ? "names no file" : null;

        internal override ValueTask<OpenedStore> OpenAsync(StoreRequest request, CancellationToken cancellationToken)
        {
            var options = new SqliteOptions
            {
                Path = request.Location,
                ReadOnly = request.ReadOnly,
                TransactionPer = request.Transactions == StoreTransactions.Call ? SqliteTransactionScope.Call : SqliteTransactionScope.Command,
            };
            var engine = SqliteEngine.Open(
                options,
                (TimeProvider?)request.Services.GetService(typeof(TimeProvider)),
                (ILogger<SqliteEngine>?)request.Services.GetService(typeof(ILogger<SqliteEngine>)));
            return new(new OpenedStore(engine, Path.GetFullPath(request.Location), engine.Durability));
        }
    }

    private sealed class PostgreSqlStore() : StoreKind("postgres", "postgres:CONNECTION STRING", "a PostgreSQL database, shared by any number of processes; Host=PRIMARY,STANDBY names a standby too", "Host=localhost")
    {
        internal override string? LocationProblem(string location)
        {
            try
            {
                new PostgreSqlOptions { ConnectionString = location }.Validate();
                return null;
            }
            catch (ArgumentException e)
            {
                return $"is not usable: {e.Message}";
            }
        }

        internal override async ValueTask<OpenedStore> OpenAsync(StoreRequest request, CancellationToken cancellationToken)
        {
            var options = new PostgreSqlOptions
            {
                ConnectionString = request.Location,
                Schema = request.Shard is { } shard ? $"holdfast_{shard}" : "holdfast",
                ReadOnly = request.ReadOnly,
                Transactions = request.Transactions switch
                {
                    StoreTransactions.Command => PostgreSqlTransactions.Command,
                    StoreTransactions.Version => PostgreSqlTransactions.Version,
                    _ => PostgreSqlTransactions.Call,
                },
            };
            var engine = await PostgreSqlEngine.OpenAsync(
                options,
                (TimeProvider?)request.Services.GetService(typeof(TimeProvider)),
                (ILogger<PostgreSqlEngine>?)request.Services.GetService(typeof(ILogger<PostgreSqlEngine>)),
                cancellationToken).ConfigureAwait(false);
            return new(engine, engine.Server, engine.Durability);
        }
    }
    private sealed class RedisStore() : StoreKind("redis", "redis:HOST:PORT[,OPTIONS]", "a Redis server or cluster, shared by any number of processes; several hosts and the driver's options (password=…) with commas between", "localhost:6379")
    {
        internal override string? LocationProblem(string location)
        {
            try
            {
                new RedisOptions { Configuration = location }.Validate();
                return null;
            }
            catch (ArgumentException e)
            {
                return $"is not usable: {e.Message}";
            }
        }

        internal override async ValueTask<OpenedStore> OpenAsync(StoreRequest request, CancellationToken cancellationToken)
        {
            var engine = await RedisEngine.OpenAsync(
                new() { Configuration = request.Location, Name = request.Shard is { } shard ? $"holdfast-{shard}" : "holdfast", ReadOnly = request.ReadOnly },
                (TimeProvider?)request.Services.GetService(typeof(TimeProvider)),
                (ILogger<RedisEngine>?)request.Services.GetService(typeof(ILogger<RedisEngine>)),
                cancellationToken).ConfigureAwait(false);
            return new(engine, engine.Server, engine.Durability);
        }
    }
}
