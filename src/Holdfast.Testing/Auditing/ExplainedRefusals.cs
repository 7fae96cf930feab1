namespace Holdfast.Testing;

/// <summary>
/// Refusals that speak of what else was sent about an id: each needs something in the history that explains it. A wrong
/// KeyConflict, Cancelled or ExceedsDeducted turns away a buyer whom nothing stands against, and leaves no trace in a ledger.
/// </summary>
internal sealed class ExplainedRefusals(IReadOnlyCollection<HistoryEvent> history, Func<string, bool>? isForeign)
{
    private readonly ILookup<string, HistoryEvent> _ofId = history.Where(sent => !sent.Command.IsTransition).ToLookup(sent => sent.Command.Id, StringComparer.Ordinal);
    private readonly ILookup<string, HistoryEvent> _closing = history
        .Where(sent => sent.Command.Verb is StockVerb.Cancel or StockVerb.Abandon)
        .ToLookup(sent => sent.Command.Id, StringComparer.Ordinal);

    private readonly ILookup<string, HistoryEvent> _refunds = history
        .Where(sent => sent.Command.Verb == StockVerb.Refund)
        .ToLookup(sent => sent.Command.Target!, StringComparer.Ordinal);

    /// <summary>What nothing in the history explains.</summary>
    public IEnumerable<string> FindUnexplained()
    {
        foreach (var refusal in history)
        {
            var command = refusal.Command;
            if (command.IsTransition || isForeign?.Invoke(command.Id) == true || (command.Target is { } target && isForeign?.Invoke(target) == true))
            {
                continue;
            }

            var problem = refusal.Result.Status switch
            {
                StockStatus.KeyConflict when !_ofId[command.Id].Any(other => Precedes(other, refusal) && !HasSameContent(command, other.Command)) =>
                    "was refused because its id was used for something else, which nobody had sent",
                StockStatus.Cancelled when !_closing[command.Id].Any(other => Precedes(other, refusal)) =>
                    "was refused as cancelled, but nobody had cancelled or abandoned it",
                StockStatus.ExceedsDeducted when !MayExceed(refusal) =>
                    $"was refused although all refunds of {command.Target} that had been sent, this one included, return no more than it took",
                _ => null,
            };
            if (problem is not null)
            {
                yield return $"{command}: {problem}.";
            }
        }
    }

    private static bool Precedes(in HistoryEvent other, in HistoryEvent refusal) => other.SentAt < refusal.AnsweredAt;

    private static bool HasSameContent(StockCommand one, StockCommand other) =>
        one.HasContent(other.Verb, other.Target, other.Lines.AsSpan(), other.TimeToLiveMilliseconds);

    /// <summary>Whether the refunds sent so far could have passed what the order took, on one line of the refused one.</summary>
    private bool MayExceed(HistoryEvent refusal)
    {
        var command = refusal.Command;
        var orders = _ofId[command.Target!].Select(sent => sent.Command).ToArray();
        if (orders.Length == 0)
        {
            return true;
        }

        var sent = _refunds[command.Target!].Where(other => Precedes(other, refusal)).Select(other => other.Command).Append(command).ToLookup(other => other.Id, StringComparer.Ordinal);

        // Of several with one id, at most one was applied: nobody knows which.
        return command.Lines.Any(line =>
            sent.Sum(sameId => sameId.Max(refund => UnitsOf(refund, line.Sku))) > orders.Min(order => UnitsOf(order, line.Sku)));
    }

    private static long UnitsOf(StockCommand command, string sku) => command.Lines.Where(line => line.Sku == sku).Sum(line => line.Quantity);
}
