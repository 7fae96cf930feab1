namespace Holdfast.Hosting;

/// <summary>What to run and within which bounds; the configuration section <c>Holdfast</c>. Checked when the host starts.</summary>
public class HoldfastOptions
{
    /// <summary>The configuration section that these options come from by default.</summary>
    public const string SectionName = "Holdfast";

    /// <summary>The scheme, one of <see cref="SchemeCatalog.Schemes"/>. Default <see cref="SchemeCatalog.DefaultScheme"/>.</summary>
    public string Scheme { get; set; } = SchemeCatalog.DefaultScheme;

    /// <summary>The store, for example <c>sqlite:PATH</c>; the scheme's own default when <see langword="null"/>.</summary>
    public string? Store { get; set; }

    /// <summary>The stores of the scheme <c>sharded</c>, in an order that never changes; instead of <see cref="Store"/>, which may name them too, with <c> | </c> between.</summary>
    public IList<ShardOptions> Shards { get; } = [];

    /// <summary>Bounds of the sharding layer of the scheme <c>sharded</c>.</summary>
    public ShardingOptions Sharding { get; set; } = new();

    /// <summary>Bounds of the group commit layer, where the scheme has one.</summary>
    public GroupCommitOptions GroupCommit { get; set; } = new();

    /// <summary>The gate of the scheme <c>cached</c>.</summary>
    public RedisGateOptions Gate { get; set; } = new();

    /// <summary>How reservations whose time has passed are released.</summary>
    public SweeperOptions Sweeper { get; set; } = new();

    /// <summary>How the copies of a gate are compared with the store, where the scheme has a gate.</summary>
    public ReconciliationOptions Reconciliation { get; set; } = new();

    /// <summary>How long a health probe waits for the store, 10 milliseconds to 1 minute. Default 2 s.</summary>
    public TimeSpan HealthTimeout { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>The store text, whichever way the stores were given.</summary>
    internal string? AllStores => Shards.Count == 0 ? Store : string.Join(SchemeCatalog.StoreSeparator, Shards.Select(shard => shard.Store));

    /// <summary>Every problem of these options, each naming its field; empty when they are good.</summary>
    public virtual IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (Shards.Count > 0 && Store is not null)
        {
            problems.Add($"{SectionName}:Store is given as well as {SectionName}:Shards; give one of them.");
        }

        if (SchemeCatalog.Problem(Scheme, AllStores) is { } scheme)
        {
            problems.Add($"{SectionName}:{(scheme.StartsWith("Store", StringComparison.Ordinal) ? "Store" : "Scheme")}: {scheme}");
        }

        try
        {
            GroupCommit.Validate();
            Gate.Validate();
            Sharding.Validate();
        }
        catch (ArgumentException e)
        {
            problems.Add($"{SectionName}:{e.Message}");
        }

        Sweeper.AddProblems(problems);
        Reconciliation.AddProblems(problems);
        if (HealthTimeout < TimeSpan.FromMilliseconds(10) || HealthTimeout > TimeSpan.FromMinutes(1))
        {
            problems.Add($"{SectionName}:HealthTimeout is {HealthTimeout}; it must be from 10 milliseconds to 1 minute.");
        }

        return problems;
    }
}

/// <summary>How reservations whose time has passed are released.</summary>
public sealed class SweeperOptions
{
    /// <summary>Whether this process sweeps. Several may, and none must: due units count as available either way. Default true.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>The pause between two rounds, 10 milliseconds to 1 hour. Default 1 s.</summary>
    public TimeSpan Interval { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>Most reservations that are listed and released in one call, 1 to 10,000. Default 500.</summary>
    public int PageSize { get; set; } = 500;

    /// <summary>How long one call of the engine may take, 10 milliseconds to 10 minutes. Default 30 s.</summary>
    public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(30);

    internal void AddProblems(List<string> problems)
    {
        if (Interval < TimeSpan.FromMilliseconds(10) || Interval > TimeSpan.FromHours(1))
        {
            problems.Add($"{HoldfastOptions.SectionName}:Sweeper:Interval is {Interval}; it must be from 10 milliseconds to 1 hour.");
        }

        if (PageSize is < 1 or > 10_000)
        {
            problems.Add($"{HoldfastOptions.SectionName}:Sweeper:PageSize is {PageSize}; it must be from 1 to 10000.");
        }

        if (Timeout < TimeSpan.FromMilliseconds(10) || Timeout > TimeSpan.FromMinutes(10))
        {
            problems.Add($"{HoldfastOptions.SectionName}:Sweeper:Timeout is {Timeout}; it must be from 10 milliseconds to 10 minutes.");
        }
    }
}
