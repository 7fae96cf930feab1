namespace Holdfast.Testing;

/// <summary>A simulated run went wrong: it came to a standstill, never came to rest, or left the simulation's thread.</summary>
internal sealed class SimulationException(string message) : Exception(message);
