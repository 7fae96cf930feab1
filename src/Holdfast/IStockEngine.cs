namespace Holdfast;

/// <summary>What an engine guarantees even in bad health. Conformance cases choose their assertions by these.</summary>
[Flags]
public enum StockTraits
{
    /// <summary>No guarantee beyond the outcomes' meaning.</summary>
    None = 0,

    /// <summary>A cart is never seen half applied.</summary>
    AtomicCart = 1,

    /// <summary>An acknowledged command survives the loss of any one process, and of power where the store is set to.</summary>
    DurableAck = 2,

    /// <summary>A refusal is legal only if, at some instant between its sending and its answer, the units were short.</summary>
    ExactRefusal = 4,

    /// <summary>Per SKU, an operation answered before another was sent has the lower version.</summary>
    RealTimeLedger = 8,

    /// <summary>A read after an answer sees its effects.</summary>
    ReadYourWrites = 16,

    /// <summary>The answer is the verdict, never <see cref="StockStatus.Pending"/>.</summary>
    ImmediateVerdict = 32,

    /// <summary>The reuse of an id with another cart is always detected.</summary>
    GlobalIds = 64,

    /// <summary>Everything but durability: what a correct engine in one process's memory offers.</summary>
    Exact = AtomicCart | ExactRefusal | RealTimeLedger | ReadYourWrites | ImmediateVerdict | GlobalIds,

    /// <summary>Every guarantee.</summary>
    All = Exact | DurableAck,
}

/// <summary>
/// The one interface of Holdfast: stores, layers, the HTTP client and the command line all speak it. Thread-safe:
/// any number of callers at once. Outcomes are values; exceptions are for programming errors, and
/// <see cref="OperationCanceledException"/> for a caller that stopped waiting (the outcome is then unknown until asked
/// for; a command is never half applied).
/// </summary>
public interface IStockEngine : IAsyncDisposable
{
    /// <summary>What this engine guarantees.</summary>
    StockTraits Traits { get; }

    /// <summary>
    /// Executes commands that are independent of each other: each succeeds or fails alone, decided in the order given,
    /// each seeing the effects of those before it. Two commands with one id: the second is the replay of the first.
    /// </summary>
    /// <param name="commands">Any number; the engine may split them but keeps their order. Not to be changed until the call has ended.</param>
    /// <param name="cancellationToken">Stops the waiting, never half a command.</param>
    /// <returns>One result a command, in the same order; allocated by the engine and never written again.</returns>
    ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default);

    /// <summary>Reads the stock of SKUs.</summary>
    /// <returns>One level a SKU, in the order asked; a SKU that was never stocked has <see cref="StockLevel.IsKnown"/> false.</returns>
    ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default);

    /// <summary>Reads an operation. <see langword="null"/> is not a verdict: the command may still arrive. Only Cancel or Abandon closes an id.</summary>
    ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default);

    /// <summary>Lists known SKUs in <see cref="StockKey.ByteOrder"/>.</summary>
    /// <param name="prefix">Only SKUs that begin with it; all when <see langword="null"/>.</param>
    /// <param name="after">Only SKUs that come after it, for going on with a listing; from the first when <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default);

    /// <summary>Lists operations: for recovery, the sweeper and the audit.</summary>
    IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default);

    /// <summary>Reads the ledger of one SKU or of the whole store, up to its present end: for audit, export and events.</summary>
    IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default);
}
