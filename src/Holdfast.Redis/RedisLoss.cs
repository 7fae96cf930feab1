namespace Holdfast;

/// <summary>What Redis has lost although it had been acknowledged: after a crash within the window of its settings, a restart from an old file, or a failover to a replica that lagged.</summary>
public sealed record RedisLoss
{
    /// <summary>When this engine noticed it, by the clock of its process.</summary>
    public required DateTimeOffset NoticedAt { get; init; }

    /// <summary>Ids of operations that this engine had seen acknowledged and that are gone, or are back in an earlier state; the oldest first. Only the latest <see cref="RedisOptions.RememberedOperations"/> are remembered.</summary>
    public required IReadOnlyList<string> Operations { get; init; }

    /// <summary>Where the journal ended, as this engine had seen it.</summary>
    public required long JournalEndBefore { get; init; }

    /// <summary>Where the journal ends now. Below <see cref="JournalEndBefore"/>, unless others have written since.</summary>
    public required long JournalEndAfter { get; init; }
}
