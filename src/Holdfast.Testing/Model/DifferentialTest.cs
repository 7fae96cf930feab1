using System.Globalization;
using System.Text;

namespace Holdfast.Testing;

/// <summary>What a differential test sends.</summary>
public sealed record DifferentialOptions
{
    /// <summary>How many commands.</summary>
    public int Commands { get; init; } = 3_000;

    /// <summary>Most commands of one batch.</summary>
    public int MaxBatch { get; init; } = 24;

    /// <summary>
    /// Whether the engine is one store. Over several a clock that jumps back is not known to those that had no reason to
    /// look at it, and an id that is used for a cart on other stores is not noticed: then clocks don't jump, and carts with
    /// one id have a SKU in common.
    /// </summary>
    public bool IsOneStore { get; init; } = true;

    /// <summary>After how many batches everything that can be read is compared, besides the end.</summary>
    public int BatchesBetweenReads { get; init; } = 25;

    /// <summary>How long to look for fewer steps that show a failure: over a store that takes seconds a run, the fewest are not worth an hour's wait.</summary>
    public TimeSpan MostShrinking { get; init; } = TimeSpan.FromSeconds(30);
}

/// <summary>What a differential test has seen.</summary>
/// <param name="Seed">The seed.</param>
/// <param name="Commands">Commands answered alike by engine and model.</param>
/// <param name="Outcomes">How often each outcome was answered.</param>
public sealed record DifferentialReport(int Seed, int Commands, IReadOnlyDictionary<StockStatus, int> Outcomes);

/// <summary>
/// An engine and the <see cref="ReferenceModel"/> are sent the same random commands: all verbs, few SKUs and ids, so
/// that they collide, repetitions, conflicts, batches of random sizes, and time that passes to the very instant of an
/// expiry, or jumps back. Every answer, level, operation and ledger must agree.
/// </summary>
public static class DifferentialTest
{
    private const int MostRepetitions = 400;

    private const int ShownSteps = 40;

    /// <summary>Runs one seed.</summary>
    /// <param name="open">Opens an empty store that follows the given clock.</param>
    /// <param name="seed">Same seed, same commands.</param>
    /// <param name="options">What to send.</param>
    /// <param name="cancellationToken">Ends it early.</param>
    /// <exception cref="ConformanceException">Engine and model differ; the message has the seed and the fewest of its steps that were found to show it.</exception>
    public static async Task<DifferentialReport> RunAsync(Func<ManualTimeProvider, ValueTask<IStockEngine>> open, int seed, DifferentialOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(open);
        options ??= new();
        var steps = new CommandGenerator(seed, options).Steps();
        var outcomes = new SortedDictionary<StockStatus, int>();
        var failure = await PlayAsync(open, steps, options, outcomes, cancellationToken).ConfigureAwait(false);
        if (failure is null)
        {
            return new(seed, outcomes.Values.Sum(), outcomes);
        }

        var shrinking = new Shrinking([.. steps.Take(failure.Step + 1)], failure);
        using (var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken))
        {
            limit.CancelAfter(options.MostShrinking);
            try
            {
                await shrinking.RunAsync(open, options, limit.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                // The fewest so far will do.
            }
        }

        var (few, last) = (shrinking.Steps, shrinking.Failure);
        var text = new StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"Seed {seed}: after {failure.Step + 1} steps engine and model differ: {failure.Message}");
        text.AppendLine(CultureInfo.InvariantCulture, $"{few.Count} steps are enough to show it ({last.Message}); {(few.Count > ShownSteps ? $"the last {ShownSteps}" : "they")} are:");
        foreach (var step in few.Skip(Math.Max(0, few.Count - ShownSteps)))
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"  {step}");
        }

        throw new ConformanceException(text.ToString());
    }

    /// <summary>Plays steps on a new store and a new model.</summary>
    /// <returns>The first difference, or <see langword="null"/>.</returns>
    private static async Task<Failure?> PlayAsync(
        Func<ManualTimeProvider, ValueTask<IStockEngine>> open,
        List<Step> steps,
        DifferentialOptions options,
        SortedDictionary<StockStatus, int>? outcomes,
        CancellationToken cancellationToken)
    {
        var clock = new ManualTimeProvider();
        var engine = await open(clock).ConfigureAwait(false);
        await using (engine.ConfigureAwait(false))
        {
            var comparison = new ModelComparison(engine, new() { RemembersRefusals = !engine.Traits.HasFlag(StockTraits.ImmediateVerdict) }, clock, cancellationToken);
            for (var i = 0; i < steps.Count; i++)
            {
                // An engine may have looked at its clock while it was opened, or not: before the first command it must not jump back.
                var step = i == 0 && steps[i].Wait < TimeSpan.Zero ? steps[i] with { Wait = TimeSpan.Zero } : steps[i];
                var difference = await comparison.PlayAsync(step, outcomes).ConfigureAwait(false);
                if (difference is null && (i == steps.Count - 1 || i % options.BatchesBetweenReads == options.BatchesBetweenReads - 1))
                {
                    difference = await comparison.CompareReadsAsync().ConfigureAwait(false);
                }

                if (difference is null && i == steps.Count - 1)
                {
                    var audit = await LedgerAudit.RunAsync(engine, cancellationToken: cancellationToken).ConfigureAwait(false);
                    difference = audit.Passed ? null : audit.ToString();
                }

                if (difference is not null)
                {
                    return new(i, difference);
                }
            }

            return null;
        }
    }

    /// <summary>Finds fewer steps that still show a difference: first the shortest tail, then without each step by itself.</summary>
    private sealed class Shrinking(List<Step> steps, Failure failure)
    {
        /// <summary>The fewest steps so far.</summary>
        public List<Step> Steps { get; private set; } = steps;

        /// <summary>What they show.</summary>
        public Failure Failure { get; private set; } = failure;

        public async Task RunAsync(Func<ManualTimeProvider, ValueTask<IStockEngine>> open, DifferentialOptions options, CancellationToken cancellationToken)
        {
            var everyStep = options with { BatchesBetweenReads = 1 };
            for (var length = 1; length < Steps.Count; length *= 2)
            {
                if (await TryAsync(Steps.GetRange(Steps.Count - length, length)).ConfigureAwait(false))
                {
                    break;
                }
            }

            Steps = [.. Steps.SelectMany(step => step.Split())];
            var repetitions = 0;
            for (var (piece, isSmaller) = (Math.Max(1, Steps.Count / 2), true); piece >= 1 && (isSmaller || piece > 1); piece = Math.Max(1, piece / 2))
            {
                isSmaller = false;
                for (var at = Steps.Count - piece; at >= 0 && repetitions < MostRepetitions; at -= piece, repetitions++)
                {
                    List<Step> fewer = [.. Steps.Take(at), .. Steps.Skip(at + piece)];
                    if (fewer.Count > 0 && await TryAsync(fewer).ConfigureAwait(false))
                    {
                        isSmaller = true;
                        at = Math.Min(at, Steps.Count);
                    }
                }
            }

            async Task<bool> TryAsync(List<Step> fewer)
            {
                if (await PlayAsync(open, fewer, everyStep, null, cancellationToken).ConfigureAwait(false) is not { } still)
                {
                    return false;
                }

                (Steps, Failure) = (fewer.GetRange(0, still.Step + 1), still);
                return true;
            }
        }
    }

    private sealed record Failure(int Step, string Message);
}

/// <summary>One step of a differential test: time passes, or a batch is sent.</summary>
internal sealed record Step
{
    /// <summary>How far the clock moves before the batch; below zero it jumps back.</summary>
    public TimeSpan Wait { get; init; }

    /// <summary>Moves the clock to the next expiry instead, and this far from it.</summary>
    public TimeSpan? ToNextExpiry { get; init; }

    public IReadOnlyList<StockCommand> Commands { get; init; } = [];

    /// <summary>The same as steps of one command each.</summary>
    public IEnumerable<Step> Split() => Commands.Count <= 1
        ? [this]
        : [this with { Commands = [Commands[0]] }, .. Commands.Skip(1).Select(command => new Step { Commands = [command] })];

    public override string ToString()
    {
        var time = ToNextExpiry is { } gap ? $"wait for the next expiry and {gap.TotalMilliseconds:F0} ms; " : Wait == TimeSpan.Zero ? "" : $"wait {Wait.TotalMilliseconds:F0} ms; ";
        return time + string.Join("; ", Commands.Select(Text));
    }

    private static string Text(StockCommand command) =>
        $"{command.Verb} {command.Id}{(command.Verb == StockVerb.Refund ? $" of {command.Target}" : "")}{(command.Verb == StockVerb.Reserve ? $" for {command.TimeToLive.TotalSeconds} s" : "")}"
        + (command.Lines.IsEmpty ? "" : $": {string.Join(", ", command.Lines.Select(line => $"{line.Sku} {line.Quantity}"))}");
}
