namespace Holdfast.Testing;

/// <summary>One thing that can be simulated: what runs where, who calls, and what must be true in the end.</summary>
internal abstract class SimulationScenario
{
    /// <summary>How it is called on the command line.</summary>
    public abstract string Name { get; }

    /// <summary>Builds the world: stores, nodes, callers.</summary>
    public abstract void Build(SimulatedWorld world);

    /// <summary>What the audits read when all is at rest; asked after <see cref="RestAsync"/>.</summary>
    public abstract IStockEngine Truth { get; }

    /// <summary>The SKUs to audit.</summary>
    public abstract IReadOnlyCollection<string> Skus { get; }

    /// <summary>Whether nothing goes wrong in it but what it does itself, and no time passes while anything can happen.</summary>
    public virtual bool IsCalm => false;

    /// <summary>How long messages that are late may be under way when every fault is healed.</summary>
    public virtual TimeSpan Settling => TimeSpan.FromMinutes(2);

    /// <summary>Waits until nothing is under way any more: every fault is healed, and every message has arrived.</summary>
    public virtual Task RestAsync() => Task.CompletedTask;

    /// <summary>What else must be true in the end; the first thing that is not.</summary>
    public virtual ValueTask<string?> FindProblemAsync() => new((string?)null);
}
