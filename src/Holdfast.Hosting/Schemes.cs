namespace Holdfast.Hosting;

/// <summary>
/// The table of contents: every named scheme, what it is for, and how it is composed of a store and layers. To add a
/// store or a scheme is to add an entry here. Thread-safe.
/// </summary>
public static class SchemeCatalog
{
    /// <summary>Stands between the stores of a text that names several, for the scheme <c>sharded</c>.</summary>
    public const string StoreSeparator = " | ";

    /// <summary>The scheme that is taken when none is named.</summary>
    public const string DefaultScheme = "batched";

    /// <summary>What can stand behind a scheme, each with the form of its store text.</summary>
    public static IReadOnlyList<StoreKind> Stores { get; } =
    [
        StoreKinds.Memory,
        StoreKinds.Sqlite,
        StoreKinds.PostgreSql,
        StoreKinds.Redis,
    ];

    /// <summary>The schemes, the simplest first. Layers are written outermost first.</summary>
    public static IReadOnlyList<Scheme> Schemes { get; } =
    [
        new("memory",
            "the whole contract in one process's memory: for tests and rehearsals; gone when the process ends",
            stores: [StoreKinds.Memory],
            layers: (engine, _) => engine.UseTelemetry()),

        new("database",
            "one transaction a command: the plain choice, and the baseline of every comparison",
            stores: [StoreKinds.Sqlite, StoreKinds.PostgreSql],
            layers: (engine, _) => engine.UseTelemetry(),
            transactions: StoreTransactions.Command),

        new("database-version",
            "one transaction a command, guarded by a version column and retries: kept to show how it does on a hot row",
            stores: [StoreKinds.PostgreSql],
            layers: (engine, _) => engine.UseTelemetry(),
            transactions: StoreTransactions.Version),

        new("batched",
            "group commit: what waits while one transaction commits goes into the next one together; the default",
            stores: [StoreKinds.Sqlite, StoreKinds.PostgreSql, StoreKinds.Memory],
            layers: (engine, options) => engine.UseTelemetry().UseGroupCommit(options.GroupCommit)),

        new("replica",
            "batched, with a streaming standby that tells the crowd what is sold out; the store names both hosts",
            stores: [StoreKinds.PostgreSql],
            layers: (engine, options) => engine.UseTelemetry().UseStandbyPreCheck().UseGroupCommit(options.GroupCommit)),

        new("cached",
            "batched, with Redis in front that tells the crowd what is sold out; Redis decides no order and can be lost at any time",
            stores: [StoreKinds.PostgreSql, StoreKinds.Sqlite],
            layers: (engine, options) => engine.UseGroupCommit(options.GroupCommit),
            hasGate: true),

        new("redis",
            "all of it in Redis, in Lua: the fastest over a network, and as durable as that Redis is set to be",
            stores: [StoreKinds.Redis],
            layers: (engine, options) => engine.UseTelemetry().UseGroupCommit(SeveralAtOnce(options.GroupCommit))),

        new("sharded",
            "several stores as one, each batched, with carts that cross them; the stores are named in an order that never changes, with ' | ' between",
            stores: [StoreKinds.PostgreSql, StoreKinds.Sqlite, StoreKinds.Redis, StoreKinds.Memory],
            layers: (engine, options) => engine.UseGroupCommit(options.GroupCommit),
            isSharded: true),
    ];

    /// <summary>The scheme that is taken for a store when none is named: <see cref="DefaultScheme"/>, or the first that runs on a store which that one does not run on.</summary>
    /// <param name="store">The text of a store, such as <c>sqlite:PATH</c>.</param>
    public static string DefaultFor(string? store)
    {
        if (store?.Contains(StoreSeparator, StringComparison.Ordinal) == true)
        {
            return Schemes.First(s => s.IsSharded).Name;
        }

        var kind = string.IsNullOrWhiteSpace(store) ? null : Stores.FirstOrDefault(k => k.Name == KindOf(store));
        return kind is null || Schemes.Any(s => s.Name == DefaultScheme && s.Stores.Contains(kind)) ? DefaultScheme : Schemes.First(s => s.Stores.Contains(kind)).Name;
    }

    /// <summary>Says what is wrong with a scheme and a store text, or <see langword="null"/> when they fit together.</summary>
    /// <param name="scheme">The name of a scheme; <see langword="null"/> for <see cref="DefaultFor"/> the store.</param>
    /// <param name="store">The text of a store, such as <c>sqlite:PATH</c>; <see langword="null"/> for the scheme's own default.</param>
    public static string? Problem(string? scheme, string? store) => TryResolve(scheme, store, out _, out _);

    /// <summary>Opens a scheme over a store: the way in for programs without dependency injection.</summary>
    /// <param name="scheme">The name of a scheme; <see langword="null"/> for <see cref="DefaultFor"/> the store.</param>
    /// <param name="store">The text of a store, such as <c>sqlite:PATH</c>; <see langword="null"/> for the scheme's own default.</param>
    /// <param name="options">Bounds of the layers; the defaults when <see langword="null"/>. Its scheme and store are not looked at.</param>
    /// <param name="services">Where stores and layers find a clock and loggers; none by default.</param>
    /// <param name="readOnly">Opens for readers only, beside a process that writes: for audits. Layers are left out, since they concern writes.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">The scheme or the store is not known, or they don't fit together; the message names what would.</exception>
    public static async ValueTask<OpenedScheme> OpenAsync(
        string? scheme, string? store = null, HoldfastOptions? options = null, IServiceProvider? services = null, bool readOnly = false, CancellationToken cancellationToken = default)
    {
        if (TryResolve(scheme, store, out var found, out var places) is { } problem)
        {
            throw new ArgumentException(problem, nameof(scheme));
        }

        services ??= NoServices.Instance;
        options ??= new();
        var stores = new List<OpenedStore>();
        try
        {
            foreach (var (kind, place) in places)
            {
                var request = new StoreRequest(place, found!.Transactions, readOnly, services, found.IsSharded ? stores.Count : null);
                stores.Add(await kind.OpenAsync(request, cancellationToken).ConfigureAwait(false));
            }

            return found!.IsSharded
                ? await OpenShardsAsync(found, places, stores, options, services, readOnly, cancellationToken).ConfigureAwait(false)
                : await OpenOneAsync(found, places[0].Kind, stores[0], options, services, readOnly, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            foreach (var opened in stores)
            {
                await opened.Engine.DisposeAsync().ConfigureAwait(false);
            }

            throw;
        }
    }

    private static async ValueTask<OpenedScheme> OpenOneAsync(
        Scheme scheme, StoreKind kind, OpenedStore opened, HoldfastOptions options, IServiceProvider services, bool readOnly, CancellationToken cancellationToken)
    {
        var engine = readOnly ? opened.Engine : await scheme.ComposeAsync(opened.Engine, options, services, cancellationToken).ConfigureAwait(false);
        var location = scheme.HasGate && !readOnly ? $"{opened.Location}, behind a gate in {RedisGate.ServerOf(options.Gate)}" : opened.Location;
        return new(engine, scheme.Name, kind.Name, location, opened.Durability);
    }

    private static async ValueTask<OpenedScheme> OpenShardsAsync(
        Scheme scheme, List<(StoreKind Kind, string Place)> places, List<OpenedStore> stores, HoldfastOptions options, IServiceProvider services, bool readOnly, CancellationToken cancellationToken)
    {
        for (var shard = 0; shard < stores.Count; shard++)
        {
            await ShardMark.CheckAsync(stores[shard].Engine, stores[shard].Location, shard, stores.Count, !readOnly, cancellationToken).ConfigureAwait(false);
        }

        return new(
            scheme.ComposeShards([.. stores.Select(store => store.Engine)], options, services, readOnly),
            scheme.Name,
            string.Join(", ", places.Select(place => place.Kind.Name).Distinct()),
            string.Join(StoreSeparator, stores.Select(store => store.Location)),
            string.Join("; ", stores.Select(store => store.Durability).Distinct()));
    }

    private static string? TryResolve(string? schemeName, string? store, out Scheme? scheme, out List<(StoreKind Kind, string Place)> places)
    {
        places = [];
        var name = string.IsNullOrWhiteSpace(schemeName) ? DefaultFor(store) : schemeName;
        scheme = Schemes.FirstOrDefault(s => s.Name == name);
        if (scheme is null)
        {
            return $"Scheme '{name}' is not known; the schemes are {string.Join(", ", Schemes.Select(s => s.Name))}.";
        }

        if (string.IsNullOrWhiteSpace(store))
        {
            places.Add((scheme.Stores[0], scheme.Stores[0].DefaultLocation));
            return scheme.IsSharded ? $"Store: scheme '{name}' needs its stores named, with '{StoreSeparator}' between." : null;
        }

        string[] texts = scheme.IsSharded ? store.Split(StoreSeparator, StringSplitOptions.TrimEntries) : [store];
        foreach (var text in texts)
        {
            if (ResolveStore(scheme, text, places) is { } problem)
            {
                return problem;
            }
        }

        return texts.Length == texts.Distinct(StringComparer.Ordinal).Count() || places.TrueForAll(place => place.Kind != StoreKinds.Sqlite)
            ? null
            : $"Store: a stock file is named twice among the {texts.Length} stores.";
    }

    private static string? ResolveStore(Scheme scheme, string store, List<(StoreKind Kind, string Place)> places)
    {
        var kindName = KindOf(store);
        var kind = Stores.FirstOrDefault(k => k.Name == kindName);
        if (kind is null)
        {
            return $"Store '{Shown(store)}' is not known; the stores are {string.Join(", ", Stores.Select(k => k.Form))}.";
        }

        var location = kindName.Length == store.Length ? "" : store[(kindName.Length + 1)..];
        if (!scheme.Stores.Contains(kind))
        {
            return $"Scheme '{scheme.Name}' does not run on the store '{kindName}'; it runs on {string.Join(", ", scheme.Stores.Select(k => k.Form))}.";
        }

        places.Add((kind, location));
        return kind.LocationProblem(location) is { } problem ? $"Store '{Shown(store)}' {problem}; it is written {kind.Form}." : null;
    }

    /// <summary>For a store over a network without transactions: while one call is answered, the next ones are on their way. More than the default, unless more was asked for.</summary>
    private static GroupCommitOptions SeveralAtOnce(GroupCommitOptions asked) => new()
    {
        MaxQueuedCommands = asked.MaxQueuedCommands,
        MaxBatchCommands = asked.MaxBatchCommands,
        MaxConcurrentBatches = Math.Max(asked.MaxConcurrentBatches, 8),
        QueueTimeout = asked.QueueTimeout,
        CallTimeout = asked.CallTimeout,
        RetryTimeout = asked.RetryTimeout,
        RetryDelay = asked.RetryDelay,
        ShutdownTimeout = asked.ShutdownTimeout,
    };

    /// <summary>The part of a store text before its colon.</summary>
    private static string KindOf(string store) => store.IndexOf(':', StringComparison.Ordinal) is >= 0 and var colon ? store[..colon] : store;

    /// <summary>A store text as messages may show it: what stands in a connection string may be a password.</summary>
    private static string Shown(string store)
    {
        var colon = store.IndexOf(':', StringComparison.Ordinal);
        return store.Contains('=', StringComparison.Ordinal) ? $"{store[..(colon + 1)]}…" : store;
    }

    private sealed class NoServices : IServiceProvider
    {
        public static readonly NoServices Instance = new();

        public object? GetService(Type serviceType) => null;
    }
}
