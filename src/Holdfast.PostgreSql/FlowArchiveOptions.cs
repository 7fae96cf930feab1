namespace Holdfast;

/// <summary>What of the ledger to archive, and where to.</summary>
public sealed record FlowArchiveOptions
{
    /// <summary>Entries before this instant are archived; not after the store's present time.</summary>
    public required DateTimeOffset Before { get; init; }

    /// <summary>The file to write: gzip, one entry a line, see <see cref="Wire.FlowArchiveFile"/>. It appears under this name only when it is complete and on the disk.</summary>
    public required string Path { get; init; }

    /// <summary>Only counts what would be archived: nothing is written anywhere.</summary>
    public bool DryRun { get; init; }

    /// <summary>Told now and then how many entries were read.</summary>
    public IProgress<long>? Progress { get; init; }

    /// <summary>Called when a step is done, for tests that stop there.</summary>
    internal Func<FlowArchiveStep, ValueTask>? AtStep { get; init; }
}

/// <summary>The steps of an archive, in order.</summary>
internal enum FlowArchiveStep
{
    /// <summary>The file is complete, under its temporary name.</summary>
    Written = 1,

    /// <summary>The file has its name.</summary>
    Named = 2,

    /// <summary>The openings are recorded and single rows deleted; nobody else sees it yet.</summary>
    Recorded = 3,

    /// <summary>The ledger is locked, and nothing came late.</summary>
    Locked = 4,

    /// <summary>Whole months are dropped; nobody else sees it yet.</summary>
    Dropped = 5,

    /// <summary>All of it is committed.</summary>
    Committed = 6,
}

/// <summary>What became of an archive.</summary>
public sealed record FlowArchiveResult
{
    /// <summary>Whether an earlier run had done it all, or there was nothing to archive: nothing was changed.</summary>
    public required bool WasDone { get; init; }

    /// <summary>Entries that are in the file, openings not counted; with a dry run, that would be.</summary>
    public required long Entries { get; init; }

    /// <summary>SKUs that these entries belong to.</summary>
    public required long Skus { get; init; }

    /// <summary>The time of the first of them; <see langword="null"/> when there are none.</summary>
    public DateTimeOffset? First { get; init; }

    /// <summary>The time of the last of them; <see langword="null"/> when there are none.</summary>
    public DateTimeOffset? Last { get; init; }

    /// <summary>The hash of the file's lines, see <see cref="Wire.FlowArchiveFile.HashAsync"/>; <see langword="null"/> when there is no file.</summary>
    public string? Sha256 { get; init; }
}
