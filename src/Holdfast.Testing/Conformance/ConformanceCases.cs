using System.Globalization;
using System.Runtime.CompilerServices;

namespace Holdfast.Testing;

/// <summary>The whole contract as cases: every verb, every outcome, the order of precedence, batches, reads, time, and many callers at once.</summary>
public static partial class ConformanceCases
{
    /// <summary>All cases; their names are distinct.</summary>
    public static IReadOnlyList<ConformanceCase> All { get; } =
    [
        .. TakingCases(), .. IdentityCases(), .. EndingCases(), .. TombstoneCases(), .. RefundCases(), .. SupplyCases(), .. ExpiryCases(),
        .. PrecedenceCases(), .. BatchCases(), .. ReadCases(), .. KeyCases(), .. ConcurrencyCases(),
    ];

    /// <summary>
    /// Runs cases one after the other, each with names of its own; the answers come as the cases end.
    /// </summary>
    /// <param name="engine">The engine under test; its store may be shared and need not be empty.</param>
    /// <param name="run">What tells this run's names from those of other runs on the same store: at most 12 characters.</param>
    /// <param name="clock">The clock that the engine follows, or <see langword="null"/> when it is a real one.</param>
    /// <param name="cases">Which cases; <see cref="All"/> by default.</param>
    /// <param name="cancellationToken">Ends the run early.</param>
    public static async IAsyncEnumerable<ConformanceOutcome> RunAsync(
        IStockEngine engine,
        string run,
        ManualTimeProvider? clock = null,
        IEnumerable<ConformanceCase>? cases = null,
        [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(run);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(run.Length, 12, nameof(run));
        var number = 0;
        foreach (var each in cases ?? All)
        {
            var prefix = string.Create(CultureInfo.InvariantCulture, $"{run}-{++number}-");
            yield return await each.RunAsync(new(engine, prefix, clock, cancellationToken)).ConfigureAwait(false);
        }
    }
}
