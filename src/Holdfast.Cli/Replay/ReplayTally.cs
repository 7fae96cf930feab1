namespace Holdfast.Cli.Replay;

/// <summary>What came of a replay, in counts and units. Changed under its own lock by many at once; read when they are done.</summary>
internal sealed class ReplayTally
{
    private const int FailuresKept = 10;

    private readonly Lock _lock = new();
    private readonly List<string> _failures = [];
    private readonly Dictionary<string, Invoice> _appliedOrders = new(StringComparer.Ordinal);

    public int Invoices { get; private set; }

    public int OrdersApplied => _appliedOrders.Count;

    public int OrdersRefused { get; private set; }

    public int AdjustmentsApplied { get; private set; }

    public int AdjustmentsRefused { get; private set; }

    public int Refunds { get; private set; }

    /// <summary>Operations that an earlier replay had applied to the same store.</summary>
    public int Replayed { get; private set; }

    public long UnitsDeducted { get; private set; }

    public long UnitsRefunded { get; private set; }

    public long UnitsUnmatched { get; private set; }

    public long UnitsWrittenOff { get; private set; }

    public long UnitsOpened { get; private set; }

    /// <summary>Commands without a verdict: the store stayed busy or out of reach until patience ended.</summary>
    public int Unknown { get; private set; }

    /// <summary>Commands with a verdict that a replay into a fitting store never gets, such as KeyConflict.</summary>
    public int Failed { get; private set; }

    /// <summary>The first of those, in words.</summary>
    public IReadOnlyList<string> Failures => _failures;

    /// <summary>The orders that were applied, by their ids.</summary>
    public IReadOnlyDictionary<string, Invoice> AppliedOrders => _appliedOrders;

    public void CountInvoice()
    {
        lock (_lock)
        {
            Invoices++;
        }
    }

    public void CountUnmatched(long units)
    {
        lock (_lock)
        {
            UnitsUnmatched += units;
        }
    }

    public void CountOpening(StockCommand restock, StockResult result)
    {
        lock (_lock)
        {
            if (Judge(restock, result, mayBeRefused: false))
            {
                UnitsOpened += Units(restock);
            }
        }
    }

    /// <summary>Counts an order; whether it was applied.</summary>
    public bool CountOrder(Invoice order, StockResult result)
    {
        lock (_lock)
        {
            if (Judge(order.Command!, result, mayBeRefused: true))
            {
                _appliedOrders.Add(order.Number, order);
                UnitsDeducted += Units(order.Command!);
                return true;
            }

            OrdersRefused += result.Status == StockStatus.Insufficient ? 1 : 0;
            return false;
        }
    }

    public void CountWriteOff(Invoice writeOff, StockResult result)
    {
        lock (_lock)
        {
            if (Judge(writeOff.Command!, result, mayBeRefused: true))
            {
                AdjustmentsApplied++;
                UnitsWrittenOff -= Units(writeOff.Command!);
            }
            else if (result.Status == StockStatus.Insufficient)
            {
                AdjustmentsRefused++;
            }
        }
    }

    public void CountRefund(StockCommand refund, StockResult result)
    {
        lock (_lock)
        {
            if (Judge(refund, result, mayBeRefused: false))
            {
                Refunds++;
                UnitsRefunded += Units(refund);
            }
        }
    }

    private static long Units(StockCommand command) => command.Lines.Sum(line => line.Quantity);

    private bool Judge(StockCommand command, StockResult result, bool mayBeRefused)
    {
        if (result.IsApplied)
        {
            Replayed += result.Status == StockStatus.Replayed ? 1 : 0;
            return true;
        }

        if (mayBeRefused && result.Status == StockStatus.Insufficient)
        {
            return false;
        }

        if (result.IsRetryable)
        {
            Unknown++;
        }
        else
        {
            Failed++;
        }

        if (_failures.Count < FailuresKept)
        {
            _failures.Add($"{command}: {result}");
        }

        return false;
    }
}
