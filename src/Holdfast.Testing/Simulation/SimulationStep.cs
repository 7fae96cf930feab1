namespace Holdfast.Testing;

/// <summary>Something that can happen next: a message arrives, a timer fires, work that was handed on begins.</summary>
/// <param name="process">Where it happens.</param>
/// <param name="what">What it is, for the trace: a constant text.</param>
/// <param name="action">What it does.</param>
/// <param name="about">What it is about; told in the trace of a failure.</param>
internal sealed class SimulationStep(SimulatedProcess process, string what, Action action, object? about)
{
    private readonly int _incarnation = process.Incarnation;

    public SimulatedProcess Process => process;

    public string What => what;

    public object? About => about;

    /// <summary>Whether its process died since.</summary>
    public bool IsDead => process.Incarnation != _incarnation;

    public void Run() => action();
}
