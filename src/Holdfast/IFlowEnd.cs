namespace Holdfast;

/// <summary>A store that knows where its ledger ends without reading it: for those who follow the ledger from now on.</summary>
public interface IFlowEnd
{
    /// <summary>
    /// A cursor for <see cref="FlowQuery.After"/> of the whole store, at or before the ledger's present end and after
    /// everything that was acknowledged before the call; <see langword="null"/> while the ledger is empty.
    /// </summary>
    ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default);
}
