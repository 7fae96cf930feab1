namespace Holdfast.Hosting;

/// <summary>A kind of store: what keeps the truth, and how a text names one.</summary>
public abstract class StoreKind
{
    private protected StoreKind(string name, string form, string description, string defaultLocation)
    {
        Name = name;
        Form = form;
        Description = description;
        DefaultLocation = defaultLocation;
    }

    /// <summary>The word before the colon of a store text.</summary>
    public string Name { get; }

    /// <summary>How a store text of this kind is written, for example <c>sqlite:PATH</c>.</summary>
    public string Form { get; }

    /// <summary>What it is, in one line.</summary>
    public string Description { get; }

    /// <summary>What stands after the colon when nothing is said.</summary>
    public string DefaultLocation { get; }

    /// <summary>What is wrong with the part after the colon, or <see langword="null"/>.</summary>
    internal abstract string? LocationProblem(string location);

    /// <summary>Opens the store, making it where it does not exist.</summary>
    internal abstract ValueTask<OpenedStore> OpenAsync(StoreRequest request, CancellationToken cancellationToken);
}

/// <summary>What one transaction of a store holds.</summary>
internal enum StoreTransactions
{
    /// <summary>All commands of a call.</summary>
    Call = 0,

    /// <summary>One command.</summary>
    Command = 1,

    /// <summary>One command, with rows guarded by their version and not by locks.</summary>
    Version = 2,
}

/// <summary>What a store is asked to be.</summary>
/// <param name="Location">The part after the colon of the store text.</param>
/// <param name="Transactions">What one transaction holds.</param>
/// <param name="ReadOnly">Whether it is opened for readers only, beside a process that writes.</param>
/// <param name="Services">Where it finds a clock and a logger.</param>
/// <param name="Shard">Which of several stores it is; they may share a database or a server, and have a place of their own there.</param>
internal sealed record StoreRequest(string Location, StoreTransactions Transactions, bool ReadOnly, IServiceProvider Services, int? Shard = null);

/// <summary>A store that is open.</summary>
/// <param name="Engine">The store.</param>
/// <param name="Location">Where the data lies, for people: a full path, or a server without its password.</param>
/// <param name="Durability">What an acknowledged command survives, in one line.</param>
internal sealed record OpenedStore(IStockEngine Engine, string Location, string Durability);
