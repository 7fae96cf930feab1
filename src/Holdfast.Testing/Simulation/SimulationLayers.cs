namespace Holdfast.Testing;

/// <summary>What can be simulated, by name.</summary>
internal static class SimulationLayers
{
    private static readonly Dictionary<string, Func<SimulationScenario>> s_all = new(StringComparer.Ordinal)
    {
        ["group-commit"] = static () => new GroupCommitScenario(1),
        ["group-commit-concurrent"] = static () => new GroupCommitScenario(4),
        ["sharding"] = static () => new ShardingScenario(),
    };

    public static IReadOnlyCollection<string> Names => s_all.Keys;

    /// <summary>Makes scenarios of a layer; each run needs one of its own.</summary>
    public static Func<SimulationScenario> Find(string name) => s_all[name];
}
