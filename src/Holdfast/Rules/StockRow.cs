namespace Holdfast.Rules;

/// <summary>
/// The stock row of one SKU in one partition, as the rules see and change it. A store derives from it to keep what else
/// it needs beside the row. Not thread-safe: it belongs to one decision at a time.
/// </summary>
public class StockRow
{
    /// <summary>A row for a SKU that is not stocked yet.</summary>
    public StockRow(string sku) => Sku = sku;

    /// <summary>The SKU.</summary>
    public string Sku { get; }

    /// <summary>Units that can be sold now, holds that are due but not released yet not counted.</summary>
    public long Available { get; set; }

    /// <summary>Units held by reservations that are live, or due and not released yet.</summary>
    public long Reserved { get; set; }

    /// <summary>Units of <see cref="Available"/> that commands over several shards have prepared to take and not decided: not for anybody else.</summary>
    public long Held { get; set; }

    /// <summary>All units ever restocked.</summary>
    public long Restocked { get; set; }

    /// <summary>The sum of all adjustments.</summary>
    public long Adjusted { get; set; }

    /// <summary>Restocked units plus positive adjustments, prepared ones included, which <see cref="StockLimits.MaxSupplied"/> bounds.</summary>
    public long Supplied { get; set; }

    /// <summary>The number of the row's latest flow entry.</summary>
    public long Version { get; set; }

    /// <summary>The row as a read shows it.</summary>
    /// <param name="dueUnits">Units of reservations whose time has passed and which are not released yet: they count as available.</param>
    public StockLevel ToLevel(long dueUnits = 0) => new()
    {
        Sku = Sku,
        Available = Available + dueUnits,
        Reserved = Reserved - dueUnits,
        Restocked = Restocked,
        Adjusted = Adjusted,
        Version = Version,
    };
}
