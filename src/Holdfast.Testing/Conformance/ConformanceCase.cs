using System.Diagnostics;

namespace Holdfast.Testing;

/// <summary>How a conformance case ended.</summary>
public enum ConformanceVerdict
{
    /// <summary>Not a verdict.</summary>
    None = 0,

    /// <summary>The engine keeps the promise.</summary>
    Passed = 1,

    /// <summary>The engine does not give the promise; <see cref="ConformanceOutcome.Reason"/> says which.</summary>
    NotApplicable = 2,

    /// <summary>The engine breaks the promise; <see cref="ConformanceOutcome.Reason"/> says how.</summary>
    Failed = 3,
}

/// <summary>How much of a case an engine is held to.</summary>
public enum ConformanceScope
{
    /// <summary>The case does not apply.</summary>
    None = 0,

    /// <summary>The weaker promise that holds without the trait that the case needs.</summary>
    Weaker = 1,

    /// <summary>The whole case.</summary>
    Full = 2,
}

/// <summary>How a conformance case ended, and why.</summary>
public sealed record ConformanceOutcome
{
    /// <summary>The case.</summary>
    public required ConformanceCase Case { get; init; }

    /// <summary>How it ended.</summary>
    public required ConformanceVerdict Verdict { get; init; }

    /// <summary>Why it failed or does not apply; <see langword="null"/> when it passed.</summary>
    public string? Reason { get; init; }

    /// <summary>What was thrown, when it failed.</summary>
    public Exception? Exception { get; init; }

    /// <summary>How long it took.</summary>
    public TimeSpan Elapsed { get; init; }
}

/// <summary>
/// One promise of the contract as a plain function over an engine, of no test framework. A case uses names of its own
/// only, so that it runs on a shared store, beside other cases; it ends with an audit of the SKUs that it touched.
/// </summary>
public sealed class ConformanceCase
{
    private readonly Func<ConformanceContext, Task> _body;
    private readonly Func<ConformanceContext, Task>? _otherwise;

    internal ConformanceCase(string name, string description, string script)
        : this(name, description, context => context.PlayAsync(script)) => UsesTime = script.Contains("wait ", StringComparison.Ordinal);

    internal ConformanceCase(string name, string description, Func<ConformanceContext, Task> body, Func<ConformanceContext, Task>? otherwise = null)
    {
        Name = name;
        Description = description;
        _body = body;
        _otherwise = otherwise;
    }

    /// <summary>A short name in kebab case, stable.</summary>
    public string Name { get; }

    /// <summary>What the engine must do, in a sentence.</summary>
    public string Description { get; }

    /// <summary>What an engine must promise for the case to hold in full; without it a weaker case runs where there is one.</summary>
    public StockTraits Needs { get; internal init; }

    /// <summary>Whether time has to pass for the store: seconds, where its clock is a real one.</summary>
    public bool UsesTime { get; internal init; }

    /// <summary>Whether the engine's clock must be a <see cref="ManualTimeProvider"/>, because the case is about single milliseconds or a clock that jumps.</summary>
    public bool NeedsManualClock { get; internal init; }

    /// <summary>How much of the case an engine is held to.</summary>
    /// <param name="traits">What the engine promises.</param>
    /// <param name="hasManualClock">Whether the engine follows a <see cref="ManualTimeProvider"/>.</param>
    public ConformanceScope HeldTo(StockTraits traits, bool hasManualClock) =>
        NeedsManualClock && !hasManualClock ? ConformanceScope.None
        : (traits & Needs) == Needs ? ConformanceScope.Full
        : _otherwise is null ? ConformanceScope.None
        : ConformanceScope.Weaker;

    /// <summary>Runs the case and the audit of what it touched. Throws nothing but for a cancelled <see cref="ConformanceContext.CancellationToken"/>.</summary>
    public async Task<ConformanceOutcome> RunAsync(ConformanceContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        var started = Stopwatch.GetTimestamp();
        try
        {
            var scope = HeldTo(context.Engine.Traits, context.Clock is not null);
            if (scope == ConformanceScope.None)
            {
                var reason = NeedsManualClock && context.Clock is null
                    ? "the store follows a real clock, which the case cannot set"
                    : $"the scheme does not promise {Needs & ~context.Engine.Traits}";
                return Outcome(ConformanceVerdict.NotApplicable, reason, null);
            }

            await (scope == ConformanceScope.Full ? _body : _otherwise!)(context).ConfigureAwait(false);
            if (context.Skus is { Count: > 0 } skus)
            {
                var audit = await LedgerAudit.RunAsync(context.Engine, new() { Skus = skus }, context.CancellationToken).ConfigureAwait(false);
                Check.That(audit.Passed, $"The case ended well, but its {audit}");
            }

            return Outcome(ConformanceVerdict.Passed, null, null);
        }
        catch (Exception failure) when (!context.CancellationToken.IsCancellationRequested)
        {
            return Outcome(ConformanceVerdict.Failed, failure is ConformanceException ? failure.Message : failure.ToString(), failure);
        }

        ConformanceOutcome Outcome(ConformanceVerdict verdict, string? reason, Exception? exception) => new()
        {
            Case = this,
            Verdict = verdict,
            Reason = reason,
            Exception = exception,
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <summary>The case's name.</summary>
    public override string ToString() => Name;
}
