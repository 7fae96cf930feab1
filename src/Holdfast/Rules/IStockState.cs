namespace Holdfast.Rules;

/// <summary>
/// The state that a decision sees and changes. A store implements it over its memory, or over the rows that it loaded
/// and locked for a batch, and writes what was changed when the batch is decided. Objects that it hands out are the
/// same for the whole batch, so that each command sees the effects of those before it.
/// </summary>
public interface IStockState
{
    /// <summary>The row of a SKU, or <see langword="null"/> when it was never stocked.</summary>
    StockRow? FindRow(string sku);

    /// <summary>Makes the row of a SKU that <see cref="FindRow"/> did not find.</summary>
    StockRow AddRow(string sku);

    /// <summary>The operation with this id, or <see langword="null"/>.</summary>
    Operation? FindOperation(string id);

    /// <summary>Remembers a new operation.</summary>
    void AddOperation(Operation operation);

    /// <summary>
    /// Notes that an operation that was there before has changed: its state, its end, what was refunded or is pending. Called after
    /// the change and after the flow entries that belong to it.
    /// </summary>
    void OperationChanged(Operation operation);

    /// <summary>
    /// Forgets an operation in the state <see cref="OperationState.Undecided"/>, which no ledger entry names. One with the
    /// same id may be added again at once.
    /// </summary>
    void RemoveOperation(Operation operation);

    /// <summary>Notes that a row that was there before has changed without a ledger entry: <see cref="StockRow.Held"/> or <see cref="StockRow.Supplied"/>.</summary>
    void RowChanged(StockRow row);

    /// <summary>Any reservation that holds units of this row and is due at <paramref name="now"/> (<see cref="Operation.IsDue"/>), or <see langword="null"/>.</summary>
    Operation? FindDue(StockRow row, long now);

    /// <summary>Writes a ledger entry; the row has changed accordingly.</summary>
    void AddFlow(StockRow row, in FlowEntry entry);
}
