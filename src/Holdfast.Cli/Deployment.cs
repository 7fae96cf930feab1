using System.CommandLine;
using System.Globalization;
using Holdfast.Client;
using Holdfast.Hosting;
using Holdfast.Testing;

namespace Holdfast.Cli;

/// <summary>What the caller chose by <c>--scheme</c>, <c>--store</c>, <c>--precheck</c>, <c>--gate</c>, <c>--acknowledge</c> and <c>--api-key</c>.</summary>
internal sealed record DeploymentChoice(
    string? Scheme, string? Store, string? ApiKey, string? Gate = null, StockPreCheck PreCheck = StockPreCheck.None, GateAcknowledgement Acknowledge = GateAcknowledgement.Store)
{
    /// <summary>The queue of the scheme queued; the store itself when <see langword="null"/>.</summary>
    public QueueOptions? Queue { get; init; }
}

/// <summary>The options that say which engine a command talks to, and makers of options that several commands share.</summary>
internal sealed class DeploymentOptions
{
    /// <summary>Where a key is looked for when the option does not give one, so that it need not stand in a process list.</summary>
    public const string ApiKeyVariable = "HOLDFAST_API_KEY";

    public Option<string?> Scheme { get; } = new("--scheme")
    {
        Description = $"How the engine is composed: {string.Join(", ", SchemeCatalog.Schemes.Select(s => s.Name))}. Default {SchemeCatalog.DefaultScheme}. A server has its own; leave it out then.",
        HelpName = "S",
    };

    public Option<string?> Store { get; } = new("--store")
    {
        Description = $"Where the stock is: {string.Join(", ", SchemeCatalog.Stores.Select(s => s.Form))}, or a server such as http://127.0.0.1:5080 (several with commas between). Several stores with '{SchemeCatalog.StoreSeparator}' between are the shards of the scheme sharded.",
        HelpName = "STORE",
    };

    public Option<string?> Gate { get; } = new("--gate")
    {
        Description = "The Redis server of the scheme cached, and of --precheck redis. Default localhost:6379.",
        HelpName = "HOST:PORT",
    };

    public Option<StockPreCheck> PreCheck { get; } = new("--precheck")
    {
        Description = "What refuses commands that are certainly short before the scheme is asked: none, or redis for the schemes database, database-version and batched on SQL. Default none.",
        HelpName = "P",
    };

    public Option<GateAcknowledgement> Acknowledge { get; } = new("--acknowledge")
    {
        Description = "Who tells the buyer that it is done, in the scheme cached: Store (default) or Gate.",
        HelpName = "WHO",
    };

    public Option<string?> ApiKey { get; } = new("--api-key")
    {
        Description = $"The API key for a server; the environment variable {ApiKeyVariable} does as well.",
        HelpName = "KEY",
    };

    public DeploymentChoice Read(ParseResult parsed) =>
        new(parsed.GetValue(Scheme), parsed.GetValue(Store), parsed.GetValue(ApiKey) ?? Environment.GetEnvironmentVariable(ApiKeyVariable),
            ReadGiven(parsed, Gate), ReadGiven(parsed, PreCheck), ReadGiven(parsed, Acknowledge));

    /// <summary>Commands that only read have no gate, and no options for it.</summary>
    private static T? ReadGiven<T>(ParseResult parsed, Option<T> option) => parsed.GetResult(option) is null ? default : parsed.GetValue(option);

    /// <summary><c>--json</c>.</summary>
    public static Option<bool> Json() => new("--json") { Description = "Writes exactly one JSON object to stdout, and everything else to stderr." };

    /// <summary>A whole number within bounds.</summary>
    public static Option<int> Number(string name, string description, int defaultValue, int least, int most)
    {
        var option = new Option<int>(name) { Description = description, HelpName = "N", DefaultValueFactory = _ => defaultValue };
        option.CustomParser = result =>
        {
            if (!int.TryParse(result.Tokens[0].Value, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value < least || value > most)
            {
                result.AddError($"{name} '{result.Tokens[0].Value}' must be a whole number from {least} to {most}.");
            }

            return value;
        };
        return option;
    }
}

/// <summary>An engine that a command talks to, and where it lives. Disposing it closes it, and removes a scratch store.</summary>
internal sealed class Deployment : IAsyncDisposable
{
    private const string SqlitePrefix = "sqlite:";

    /// <summary>Stores on a server, which any number of readers can open.</summary>
    private static readonly string[] s_serverPrefixes = ["postgres:", "redis:"];

    private const string PostgreSqlPrefix = "postgres:";

    private readonly string? _scratch;

    private Deployment(IStockEngine engine, string scheme, string store, string durability, string? scratch = null)
    {
        Engine = engine;
        Scheme = scheme;
        Store = store;
        Durability = durability;
        _scratch = scratch;
    }

    public IStockEngine Engine { get; }

    /// <summary>The scheme's name.</summary>
    public string Scheme { get; }

    /// <summary>Where the stock is kept, for people.</summary>
    public string Store { get; }

    /// <summary>What an acknowledgement survives.</summary>
    public string Durability { get; }

    /// <summary>Scheme and store for people.</summary>
    public string Description => $"{Store}, scheme {Scheme}";

    /// <summary>Opens what was chosen. Without a store, one that keeps files gets a scratch folder that is removed afterwards.</summary>
    /// <exception cref="UsageException">The choice makes no sense.</exception>
    public static async Task<Deployment> OpenAsync(DeploymentChoice choice, CancellationToken cancellationToken)
    {
        if (IsServer(choice.Store))
        {
            if (choice.PreCheck != StockPreCheck.None)
            {
                throw new UsageException($"--precheck: the server {choice.Store} has its own settings; leave --precheck out");
            }

            return await ConnectAsync(choice, cancellationToken).ConfigureAwait(false);
        }

        if (SchemeCatalog.Problem(choice.Scheme, choice.Store) is { } problem)
        {
            var option = problem.StartsWith("Store", StringComparison.Ordinal) ? "--store" : "--scheme";
            throw new UsageException($"{option}: {problem}{(option == "--store" ? " A server is written http://HOST:PORT." : "")}");
        }

        var scheme = SchemeCatalog.Schemes.Single(s => s.Name == (choice.Scheme ?? SchemeCatalog.DefaultFor(choice.Store)));
        var scratch = choice.Store is null && scheme.Stores[0].Name == "sqlite" ? Directory.CreateTempSubdirectory("holdfast-").FullName : null;
        try
        {
            var store = scratch is null ? choice.Store : SqlitePrefix + Path.Combine(scratch, "stock.db");
            var options = new HoldfastOptions { PreCheck = choice.PreCheck };
            if (SchemeCatalog.PreCheckProblem(scheme.Name, store, choice.PreCheck) is { } unfitting)
            {
                throw new UsageException($"--precheck: {unfitting}");
            }

            if (choice is { PreCheck: not StockPreCheck.None, Acknowledge: GateAcknowledgement.Gate })
            {
                throw new UsageException("--acknowledge: a pre-check only refuses; leave it out, or take the scheme cached");
            }

            options.Gate.Redis = choice.Gate ?? options.Gate.Redis;
            options.Gate.Acknowledge = choice.Acknowledge;

            options.Queue = choice.Queue ?? options.Queue;

            // Whoever waits here for a verdict does not send what is still to come.
            options.Queue.Limits.TargetPatience = TimeSpan.Zero;
            try
            {
                options.Gate.Validate();
            }
            catch (ArgumentException e)
            {
                throw new UsageException($"--gate: {e.Message}");
            }

            var opened = await SchemeCatalog.OpenAsync(scheme.Name, store, options, cancellationToken: cancellationToken).ConfigureAwait(false);
            opened.Queue?.Start();
            IStockEngine engine = opened.Queue is { } queue ? new AwaitedVerdicts(queue) : opened.Engine;
            return new(engine, opened.Scheme, scratch is null ? opened.Location : $"a scratch SQLite file ({opened.Location}, deleted afterwards)", opened.Durability, scratch);
        }
        catch
        {
            DeleteScratch(scratch);
            throw;
        }
    }

    /// <summary>Opens a store that exists only to read it: a stock file also while a server is writing it.</summary>
    /// <exception cref="UsageException">There is no such store.</exception>
    public static async Task<Deployment> OpenToReadAsync(DeploymentChoice choice, CancellationToken cancellationToken)
    {
        if (choice.Store is null)
        {
            throw new UsageException("--store is missing: say which store, for example sqlite:shop.db or http://127.0.0.1:5080");
        }

        var isSharded = choice.Store.Contains(SchemeCatalog.StoreSeparator, StringComparison.Ordinal);
        if ((isSharded || Array.Exists(s_serverPrefixes, prefix => choice.Store.StartsWith(prefix, StringComparison.Ordinal))) && SchemeCatalog.Problem(choice.Scheme, choice.Store) is null)
        {
            var opened = await SchemeCatalog.OpenAsync(choice.Scheme, choice.Store, readOnly: true, cancellationToken: cancellationToken).ConfigureAwait(false);
            return new(opened.Engine, "read-only", opened.Location, opened.Durability);
        }

        if (isSharded || !choice.Store.StartsWith(SqlitePrefix, StringComparison.Ordinal))
        {
            return await OpenAsync(choice, cancellationToken).ConfigureAwait(false);
        }

        var path = choice.Store[SqlitePrefix.Length..];
        if (!File.Exists(path))
        {
            throw new UsageException($"--store {choice.Store}: there is no file '{Path.GetFullPath(path)}'");
        }

        var engine = SqliteEngine.Open(new() { Path = path, ReadOnly = true });
        return new(engine, "read-only", Path.GetFullPath(path), engine.Durability);
    }

    /// <summary>Opens a PostgreSQL database itself, without layers: for what is done to the store and not through it.</summary>
    /// <exception cref="UsageException">The choice is no such store.</exception>
    public static Task<PostgreSqlEngine> OpenPostgreSqlAsync(DeploymentChoice choice, CancellationToken cancellationToken)
    {
        if (choice.Store?.StartsWith(PostgreSqlPrefix, StringComparison.Ordinal) != true)
        {
            throw new UsageException("--store: give the database itself, postgres:CONNECTION STRING. Other stores keep their whole ledger.");
        }

        return SchemeCatalog.Problem(scheme: null, choice.Store) is { } problem
            ? throw new UsageException($"--store: {problem}")
            : PostgreSqlEngine.OpenAsync(new() { ConnectionString = choice.Store[PostgreSqlPrefix.Length..] }, cancellationToken: cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await Engine.DisposeAsync().ConfigureAwait(false);
        }
        finally
        {
            DeleteScratch(_scratch);
        }
    }

    private static bool IsServer(string? store) =>
        store is not null && (store.StartsWith("http://", StringComparison.OrdinalIgnoreCase) || store.StartsWith("https://", StringComparison.OrdinalIgnoreCase));

    private static async Task<Deployment> ConnectAsync(DeploymentChoice choice, CancellationToken cancellationToken)
    {
        var options = new HoldfastClientOptions { ApiKey = choice.ApiKey };
        foreach (var address in choice.Store!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            options.Addresses.Add(Uri.TryCreate(address, UriKind.Absolute, out var uri) ? uri : throw new UsageException($"--store: '{address}' is no address of a server; it is written http://HOST:PORT"));
        }

        HoldfastClient client;
        try
        {
            client = new(options);
        }
        catch (ArgumentException e)
        {
            throw new UsageException($"--store {choice.Store}: {e.Message}");
        }

        try
        {
            var server = await client.GetServerInfoAsync(cancellationToken).ConfigureAwait(false);
            return choice.Scheme is null || choice.Scheme == server.Scheme
                ? new(client, server.Scheme, choice.Store, server.Durability)
                : throw new UsageException($"--scheme {choice.Scheme}: the server {choice.Store} runs the scheme {server.Scheme}, which is its own choice; leave --scheme out");
        }
        catch
        {
            await client.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static void DeleteScratch(string? folder)
    {
        if (folder is not null)
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
