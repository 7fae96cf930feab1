using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>What an audit looked at and what it found.</summary>
public sealed record AuditReport
{
    /// <summary>Whether nothing was found.</summary>
    public bool Passed => DifferenceCount == 0;

    /// <summary>SKUs that were replayed.</summary>
    public long Skus { get; init; }

    /// <summary>Ledger entries that were replayed.</summary>
    public long Entries { get; init; }

    /// <summary>Operations that were compared with their ledger entries.</summary>
    public long Operations { get; init; }

    /// <summary>Commands of a recorded history that were compared with the ledger; 0 when there was no history.</summary>
    public long Commands { get; init; }

    /// <summary>How many differences there are.</summary>
    public long DifferenceCount { get; init; }

    /// <summary>The first differences, in the order found; at most <see cref="MaxDifferences"/> of them.</summary>
    public ImmutableArray<string> Differences { get; init; } = [];

    /// <summary>The first difference, or <see langword="null"/>.</summary>
    public string? FirstDifference => Differences.IsDefaultOrEmpty ? null : Differences[0];

    /// <summary>How many differences a report names; it counts them all.</summary>
    public const int MaxDifferences = 20;

    /// <summary>Both reports in one.</summary>
    public AuditReport And(AuditReport other)
    {
        ArgumentNullException.ThrowIfNull(other);
        return new()
        {
            Skus = Math.Max(Skus, other.Skus),
            Entries = Math.Max(Entries, other.Entries),
            Operations = Math.Max(Operations, other.Operations),
            Commands = Math.Max(Commands, other.Commands),
            DifferenceCount = DifferenceCount + other.DifferenceCount,
            Differences = [.. Differences.Concat(other.Differences).Take(MaxDifferences)],
        };
    }

    /// <summary>One line for people.</summary>
    public override string ToString()
    {
        var size = string.Create(CultureInfo.InvariantCulture, $"{Skus} SKUs, {Entries} ledger entries, {Operations} operations");
        return Passed ? $"audit passed: {size}" : $"audit failed: {DifferenceCount} differences over {size}; the first: {FirstDifference}";
    }
}

/// <summary>How far an audit is.</summary>
/// <param name="Phase">What it is doing, for people.</param>
/// <param name="Count">How many items of this phase it has seen.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct AuditProgress(string Phase, long Count);

/// <summary>Collects differences: counts all, names the first. Not thread-safe.</summary>
internal sealed class DifferenceList
{
    private readonly List<string> _first = [];

    public long Count { get; private set; }

    public ImmutableArray<string> First => [.. _first];

    public void Add(string difference)
    {
        Count++;
        if (_first.Count < AuditReport.MaxDifferences)
        {
            _first.Add(difference);
        }
    }
}
