using System.Collections.Immutable;

namespace Holdfast;

/// <summary>How a copy in a gate differs from the store's row. Zero is no difference.</summary>
public enum GateDifferenceKind
{
    /// <summary>Not set.</summary>
    None = 0,

    /// <summary>The copy has the row's version and other numbers, or none that can be read.</summary>
    Altered = 1,

    /// <summary>The copy is older than the row although the ledger was followed past it.</summary>
    Missed = 2,

    /// <summary>The copy has a version that the store has not reached: it was damaged, or the store was set back.</summary>
    Ahead = 3,
}

/// <summary>One SKU whose copy differs from the store's row.</summary>
public sealed record GateDifference
{
    /// <summary>The SKU.</summary>
    public required string Sku { get; init; }

    /// <summary>How they differ.</summary>
    public required GateDifferenceKind Kind { get; init; }

    /// <summary>The store's row; of version 0 where the store does not know the SKU.</summary>
    public required StockLevel Stored { get; init; }

    /// <summary>The copy's version; <see langword="null"/> where it can't be read.</summary>
    public required long? Version { get; init; }

    /// <summary>The copy's available units; <see langword="null"/> where they can't be read.</summary>
    public required long? Available { get; init; }

    /// <summary>The copy's reserved units; <see langword="null"/> where they can't be read.</summary>
    public required long? Reserved { get; init; }

    /// <summary>When a comparison of this reconciler met it first.</summary>
    public required DateTimeOffset Since { get; init; }

    /// <summary>Whether it was repaired, and was looked at afterwards.</summary>
    public bool IsRepaired { get; init; }

    /// <summary>By how many units the copy is off: of available, and of reserved. What can't be read counts as 0.</summary>
    public long Units => Math.Abs((Available ?? 0) - Stored.Available) + Math.Abs((Reserved ?? 0) - Stored.Reserved);
}

/// <summary>What a comparison of a gate with its store came to.</summary>
public sealed record GateComparison
{
    /// <summary>When it was begun.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary>Whether an epoch stands on the server. Without one the gate refuses nothing, and there are no copies to compare.</summary>
    public required bool IsOpen { get; init; }

    /// <summary>SKUs of the store, and of copies that the store does not know.</summary>
    public required long Skus { get; init; }

    /// <summary>SKUs whose copy is the row, but for reservations that have come due since it was written.</summary>
    public required long Same { get; init; }

    /// <summary>SKUs whose copy is older than the row, which the ledger was not followed to yet. That is no difference: the gate does not rely on copies past <see cref="RedisGateOptions.MaxLag"/>.</summary>
    public required long Lagging { get; init; }

    /// <summary>SKUs without a copy. That is no difference: their commands go to the store.</summary>
    public required long Unloaded { get; init; }

    /// <summary>SKUs that differ, repaired ones too.</summary>
    public required long Differing { get; init; }

    /// <summary>SKUs that differ and were repaired.</summary>
    public required long Repaired { get; init; }

    /// <summary>Whether the repair began a new epoch, in which everything is loaded anew.</summary>
    public required bool HasBegunEpoch { get; init; }

    /// <summary>The sum of <see cref="GateDifference.Units"/> over all that differ.</summary>
    public required long Units { get; init; }

    /// <summary>For how long the oldest difference that is not repaired has been known; <see langword="null"/> without one.</summary>
    public required TimeSpan? OldestAge { get; init; }

    /// <summary>The differences, at most the first <see cref="RedisGateReconciler.MostListed"/>.</summary>
    public required ImmutableArray<GateDifference> Differences { get; init; }

    /// <summary>Where the gate acknowledges by itself: commands in its stream that the store does not have yet. That is no difference.</summary>
    public long Backlog { get; init; }

    /// <summary>How long the oldest of them has waited; <see langword="null"/> without one.</summary>
    public TimeSpan? BacklogAge { get; init; }

    /// <summary>Units that those commands want, by SKU: at most about 500 SKUs.</summary>
    public ImmutableArray<StockLine> Pending { get; init; } = [];

    /// <summary>Commands that the gate had acknowledged and the store refused, and that still are not in it: neither applied later nor closed by Cancel or Abandon.</summary>
    public long OpenIncidents { get; init; }

    /// <summary>Those, at most the first <see cref="RedisGateReconciler.MostListed"/>.</summary>
    public ImmutableArray<GateIncident> Incidents { get; init; } = [];

    /// <summary>Whether nothing differs, or all of it was repaired, and no incident is open.</summary>
    public bool IsClean => Differing == Repaired && OpenIncidents == 0;
}

/// <summary>How fast a comparison goes, and how patient it is.</summary>
public sealed class RedisGateReconcilerOptions
{
    /// <summary>SKUs that are read at once, 1 to 5,000. Default 500.</summary>
    public int PageSize { get; set; } = 500;

    /// <summary>Pause after each page, up to 1 minute. Default none.</summary>
    public TimeSpan PagePause { get; set; }

    /// <summary>How long a copy that is older than its row may take to catch up, 0 to 10 minutes. Default 5 s.</summary>
    public TimeSpan Patience { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>Checks every bound.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it.</exception>
    public void Validate()
    {
        Check(nameof(PageSize), PageSize is >= 1 and <= 5_000, $"is {PageSize}; it must be from 1 to 5000");
        Check(nameof(PagePause), PagePause >= TimeSpan.Zero && PagePause <= TimeSpan.FromMinutes(1), $"is {PagePause:c}; it must be from 0 to 1 minute");
        Check(nameof(Patience), Patience >= TimeSpan.Zero && Patience <= TimeSpan.FromMinutes(10), $"is {Patience:c}; it must be from 0 to 10 minutes");
    }

    private static void Check(string option, bool isValid, string problem)
    {
        if (!isValid)
        {
            throw new ArgumentException($"{option} {problem}.", option);
        }
    }
}
