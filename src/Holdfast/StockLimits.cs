namespace Holdfast;

/// <summary>The bounds of the contract. Every engine keeps them, whatever stands behind it.</summary>
public static class StockLimits
{
    /// <summary>Most characters (UTF-16 code units) of a SKU or of an operation id.</summary>
    public const int MaxKeyLength = 64;

    /// <summary>Most characters (UTF-16 code units) of a note.</summary>
    public const int MaxNoteLength = 256;

    /// <summary>Most lines of one command, counted after lines of the same SKU were merged.</summary>
    public const int MaxLines = 4_096;

    /// <summary>Largest merged quantity of one line, in units.</summary>
    public const long MaxQuantity = 1_000_000_000_000;

    /// <summary>
    /// Largest sum of restocked units and positive adjustments of one SKU over its whole life: 2^53 − 1, the largest
    /// integer that a double holds exactly, so that every engine (Lua included) counts exactly and no refund can overflow.
    /// </summary>
    public const long MaxSupplied = 9_007_199_254_740_991;

    /// <summary>Shortest time to live of a reservation.</summary>
    public static readonly TimeSpan MinTimeToLive = TimeSpan.FromSeconds(1);

    /// <summary>Longest time to live of a reservation.</summary>
    public static readonly TimeSpan MaxTimeToLive = TimeSpan.FromDays(30);
}
