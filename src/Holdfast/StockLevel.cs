using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>
/// The stock of one SKU at one instant, in units. Always <c>Available + Reserved + Sold = Restocked + Adjusted</c>.
/// Units of a reservation whose time has passed count as available, whether or not it was swept.
/// </summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct StockLevel
{
    /// <summary>The SKU.</summary>
    public required string Sku { get; init; }

    /// <summary>Units that can be sold now.</summary>
    public long Available { get; init; }

    /// <summary>Units held by live reservations.</summary>
    public long Reserved { get; init; }

    /// <summary>All units ever restocked.</summary>
    public long Restocked { get; init; }

    /// <summary>The sum of all adjustments, positive and negative.</summary>
    public long Adjusted { get; init; }

    /// <summary>The number of the latest flow entry of this SKU; 0 means that it was never stocked. With several partitions, their sum.</summary>
    public long Version { get; init; }

    /// <summary>Units deducted, or reserved and confirmed, and not returned.</summary>
    public long Sold => Restocked + Adjusted - Available - Reserved;

    /// <summary>Whether the SKU was ever stocked.</summary>
    public bool IsKnown => Version > 0;
}

/// <summary>How a read may be served.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct ReadOptions
{
    /// <summary>How old the answer may be. Zero, the default, reads the owner of the truth; more allows a replica or a cache.</summary>
    public TimeSpan MaxStaleness { get; init; }
}
