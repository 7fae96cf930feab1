namespace Holdfast.Testing;

/// <summary>Says which of the possible steps is next.</summary>
internal interface ISimulationChooser
{
    /// <summary>Chooses one.</summary>
    /// <param name="steps">What can happen; the oldest is mostly the first.</param>
    /// <param name="count">How many of them may be chosen, from the first on; two or more.</param>
    int Choose(IReadOnlyList<SimulationStep> steps, int count);
}

/// <summary>
/// By a seeded random number generator, in one of three ways, since each finds bugs that the others rarely meet: all
/// alike; the first with exceptions; and by priorities of processes that change now and then, so that one races ahead
/// while another stands still for long (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of
/// Finding Bugs", ASPLOS 2010).
/// </summary>
internal sealed class RandomChooser(int seed) : ISimulationChooser
{
    private readonly Random _random = new(seed);
    private readonly int _way = seed % 3;
    private readonly Dictionary<SimulatedProcess, int> _priorities = [];

    public int Choose(IReadOnlyList<SimulationStep> steps, int count) => _way switch
    {
        0 => _random.Next(count),
        1 => _random.Next(4) == 0 ? _random.Next(count) : 0,
        _ => ByPriority(steps, count),
    };

    private int ByPriority(IReadOnlyList<SimulationStep> steps, int count)
    {
        var best = 0;
        for (var i = 1; i < count; i++)
        {
            best = PriorityOf(steps[i].Process) > PriorityOf(steps[best].Process) ? i : best;
        }

        if (_random.Next(16) == 0)
        {
            _priorities[steps[best].Process] = _random.Next();
        }

        return best;
    }

    private int PriorityOf(SimulatedProcess process)
    {
        if (!_priorities.TryGetValue(process, out var priority))
        {
            _priorities.Add(process, priority = _random.Next());
        }

        return priority;
    }
}
