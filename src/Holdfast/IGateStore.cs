namespace Holdfast;

/// <summary>
/// What a store keeps for gates that acknowledge by themselves: the number of the gate's epoch, by which late writes are
/// fenced off; the processes of the gate, each with a lease; and the incidents. Thread-safe.
/// </summary>
/// <remarks>A store that can't be reached throws, as its reads do; <see cref="ExecuteFromGateAsync"/> answers Busy or InDoubt, as its commands do.</remarks>
public interface IGateStore
{
    /// <summary>Says that a process of a gate is there, for as long as its lease.</summary>
    /// <param name="gate">The gate's name.</param>
    /// <param name="node">The process.</param>
    /// <param name="carried">The latest epoch for which it has handed over what it had acknowledged.</param>
    /// <param name="lease">For how long it counts as alive from now on.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <returns>The gate's epoch; 0 before the first.</returns>
    ValueTask<long> KeepGateAsync(string gate, string node, long carried, TimeSpan lease, CancellationToken cancellationToken = default);

    /// <summary>Ends the gate's epoch and begins the next: waits for <see cref="ExecuteFromGateAsync"/> under way, and none of an older epoch commits afterwards.</summary>
    /// <returns>The new epoch: higher than each before it, and not below the milliseconds since 1970.</returns>
    ValueTask<long> AdvanceGateAsync(string gate, CancellationToken cancellationToken = default);

    /// <summary>The processes that were heard and have not left.</summary>
    ValueTask<IReadOnlyList<GateMember>> GetGateMembersAsync(string gate, CancellationToken cancellationToken = default);

    /// <summary>Forgets a process.</summary>
    ValueTask LeaveGateAsync(string gate, string node, CancellationToken cancellationToken = default);

    /// <summary>
    /// Takes the turn to execute: waits for <see cref="ExecuteFromGateAsync"/> under way, and none of another turn commits afterwards. What was
    /// refused is not remembered, so two that execute the same command could come to a refusal and an effect.
    /// </summary>
    /// <returns>The turn, from 1 on in each epoch; 0 when the epoch is over.</returns>
    ValueTask<long> TakeGateTurnAsync(string gate, long epoch, CancellationToken cancellationToken = default);

    /// <summary>Executes commands as <see cref="IStockEngine.ExecuteAsync"/> does, in transactions that hold the gate's epoch and turn.</summary>
    /// <param name="gate">The gate.</param>
    /// <param name="epoch">The epoch.</param>
    /// <param name="turn">The turn; 0 before the first of an epoch was taken.</param>
    /// <param name="commands">The commands.</param>
    /// <param name="cancellationToken">Stops the waiting.</param>
    /// <returns>One result a command, or <see langword="null"/> when the epoch or the turn is over: then the rest was not applied.</returns>
    ValueTask<IReadOnlyList<StockResult>?> ExecuteFromGateAsync(string gate, long epoch, long turn, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default);

    /// <summary>Records incidents; one that is recorded already is left as it is.</summary>
    ValueTask AddIncidentsAsync(IReadOnlyList<GateIncident> incidents, CancellationToken cancellationToken = default);

    /// <summary>The incidents of a gate, the oldest first.</summary>
    IAsyncEnumerable<GateIncident> ReadIncidentsAsync(string gate, CancellationToken cancellationToken = default);
}

/// <summary>A process of a gate, as the store knows it.</summary>
/// <param name="Node">Its name.</param>
/// <param name="Carried">The latest epoch for which it has handed over what it had acknowledged.</param>
/// <param name="IsAlive">Whether its lease runs.</param>
public sealed record GateMember(string Node, long Carried, bool IsAlive);

/// <summary>A command that a gate had acknowledged and the store refused.</summary>
public sealed record GateIncident
{
    /// <summary>The gate.</summary>
    public required string Gate { get; init; }

    /// <summary>The gate's epoch when the store refused it.</summary>
    public required long Epoch { get; init; }

    /// <summary>Its place in the gate's stream: one place is recorded once.</summary>
    public required string Entry { get; init; }

    /// <summary>The command.</summary>
    public required StockCommand Command { get; init; }

    /// <summary>What the store answered; InDoubt where it failed at this command alone.</summary>
    public required StockStatus Outcome { get; init; }

    /// <summary>When.</summary>
    public required DateTimeOffset At { get; init; }
}
