using System.Globalization;
using Holdfast.Hosting;
using Holdfast.TestServers;

namespace Holdfast.Cli.Compare;

/// <summary>Which servers a scheme needs.</summary>
[Flags]
internal enum ServerKinds
{
    None = 0,
    PostgreSql = 1,

    /// <summary>A streaming standby of the PostgreSQL server.</summary>
    Standby = 2,
    Redis = 4,
    RabbitMq = 8,
}

/// <summary>
/// The servers of a comparison: those that were given, or its own, which it starts when first asked for and removes at
/// the end. On its own servers every measurement gets a store that nothing was in before.
/// </summary>
internal sealed class CompareServers(GivenServers given, Terminal terminal) : IAsyncDisposable
{
    private readonly List<string> _databases = [];
    private PostgreSqlServer? _postgres;
    private PostgreSqlServer? _standby;
    private RedisServer? _redis;
    private RabbitMqServer? _rabbitMq;
    private int _names;

    /// <summary>What there is to say of each server: version and settings of durability.</summary>
    public List<string> Descriptions { get; } = [];

    /// <summary>PostgreSQL, where it is this comparison's own.</summary>
    public PostgreSqlServer? OwnPostgreSql => _postgres;

    /// <summary>Whether a Redis server was started.</summary>
    public bool OwnsRedis => _redis is not null;

    /// <summary>Why a scheme can't be measured, or <see langword="null"/> when it can.</summary>
    public string? Missing(ServerKinds needed)
    {
        if (given.StartOwn)
        {
            return null;
        }

        List<string> missing = [];
        Check(ServerKinds.PostgreSql, given.PostgreSql, "--postgres");
        Check(ServerKinds.Redis, given.Redis, "--redis");
        Check(ServerKinds.RabbitMq, given.RabbitMq, "--rabbitmq");
        if (needed.HasFlag(ServerKinds.Standby) && given.PostgreSql?.Contains(',', StringComparison.Ordinal) != true)
        {
            missing.Add("--postgres with its standby (Host=PRIMARY,STANDBY)");
        }

        return missing.Count == 0 ? null : $"needs {string.Join(" and ", missing)}, or --start-servers";

        void Check(ServerKinds kind, string? address, string option)
        {
            if (needed.HasFlag(kind) && address is null)
            {
                missing.Add(option);
            }
        }
    }

    /// <summary>A PostgreSQL store: an empty database on an own server, or what was given.</summary>
    /// <param name="withStandby">Whether the store's text names a standby, too.</param>
    public async Task<string> PostgreSqlStoreAsync(bool withStandby = false)
    {
        if (!given.StartOwn)
        {
            return $"postgres:{given.PostgreSql}";
        }

        await StartPostgreSqlAsync().ConfigureAwait(false);
        if (withStandby && _standby is null)
        {
            terminal.Note("starting a standby");
            _standby = await _postgres!.StartStandbyAsync([.. PostgreSqlServer.MeasuredSettings]).ConfigureAwait(false);
        }

        var name = string.Create(CultureInfo.InvariantCulture, $"compare_{++_names}");
        await _postgres!.RunSqlAsync($"CREATE DATABASE {name}").ConfigureAwait(false);
        _databases.Add(name);
        var servers = withStandby ? PostgreSqlServer.ConnectionStringOf(_postgres, _standby!) : _postgres.ConnectionString;
        return $"postgres:{servers.Replace("Database=postgres", $"Database={name}", StringComparison.Ordinal)}";
    }

    /// <summary>A Redis server: an own one with nothing in it, or what was given.</summary>
    public async Task<string> RedisAsync()
    {
        if (!given.StartOwn)
        {
            return given.Redis!;
        }

        if (_redis is null)
        {
            terminal.Note("starting Redis");
            _redis = await RedisServer.StartAsync().ConfigureAwait(false);
            Descriptions.Add($"Redis {await VersionAsync(_redis).ConfigureAwait(false)}: appendonly=yes, appendfsync=everysec");
        }

        await _redis.CliAsync("FLUSHALL").ConfigureAwait(false);
        return _redis.Configuration;
    }

    /// <summary>A queue in RabbitMQ, of a name that no other has.</summary>
    public async Task<QueueOptions> RabbitMqAsync(string name)
    {
        if (given.StartOwn && _rabbitMq is null)
        {
            terminal.Note("starting RabbitMQ");
            _rabbitMq = await RabbitMqServer.StartAsync().ConfigureAwait(false);
            Descriptions.Add("RabbitMQ: quorum queues, publisher confirms, persistent messages");
        }

        return new() { Transport = _rabbitMq?.Uri ?? given.RabbitMq!, Name = name };
    }

    /// <summary>After a measurement: removes its databases, and writes down what they left to be written.</summary>
    public async Task ClearAsync()
    {
        if (_postgres is null)
        {
            return;
        }

        if (_standby is not null)
        {
            await _standby.DisposeAsync().ConfigureAwait(false);
            _standby = null;
        }

        foreach (var database in _databases)
        {
            await _postgres.RunSqlAsync($"DROP DATABASE {database} WITH (FORCE)").ConfigureAwait(false);
        }

        _databases.Clear();
        await _postgres.RunSqlAsync("CHECKPOINT").ConfigureAwait(false);
    }

    /// <summary>Starts the own PostgreSQL server, unless it runs.</summary>
    public async Task StartPostgreSqlAsync()
    {
        if (_postgres is null)
        {
            terminal.Note("starting PostgreSQL");
            _postgres = await PostgreSqlServer.StartAsync([.. PostgreSqlServer.MeasuredSettings]).ConfigureAwait(false);
            Descriptions.Add(await _postgres.DescribeAsync().ConfigureAwait(false));
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var server in (IAsyncDisposable?[])[_standby, _postgres, _redis, _rabbitMq])
        {
            if (server is not null)
            {
                await server.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private static async Task<string> VersionAsync(RedisServer server)
    {
        var info = await server.CliAsync("INFO", "server").ConfigureAwait(false);
        const string field = "redis_version:";
        var line = info.Split('\n', StringSplitOptions.TrimEntries).FirstOrDefault(line => line.StartsWith(field, StringComparison.Ordinal));
        return line?[field.Length..] ?? "";
    }
}

/// <summary>What the caller gave.</summary>
/// <param name="StartOwn">Whether the comparison starts servers of its own.</param>
/// <param name="PostgreSql">A connection string.</param>
/// <param name="Redis">HOST:PORT.</param>
/// <param name="RabbitMq">The address of a broker.</param>
internal sealed record GivenServers(bool StartOwn, string? PostgreSql, string? Redis, string? RabbitMq);
