namespace Holdfast.Testing;

/// <summary>Says which of the possible steps is next.</summary>
internal interface ISimulationChooser
{
    /// <summary>How much time may pass although something can happen: one more choice, behind all others, while a race is on.</summary>
    TimeSpan LetsPass => TimeSpan.MinValue;

    /// <summary>Chooses one.</summary>
    /// <param name="steps">What can happen; the oldest is mostly the first.</param>
    /// <param name="count">How many choices there are: the first so many of the steps, and perhaps one more; two or more.</param>
    /// <param name="isRacing">Whether the order is what is tested.</param>
    int Choose(IReadOnlyList<SimulationStep> steps, int count, bool isRacing);
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

    public int Choose(IReadOnlyList<SimulationStep> steps, int count, bool isRacing) => _way switch
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

/// <summary>
/// One order of steps after the other, all of them that differ from "the oldest first" in at most so many places (delay
/// bounding: Emmi, Qadeer and Rakamaric, POPL 2011; most bugs need only few).
/// </summary>
internal sealed class ExploringChooser(int maxDeviations) : ISimulationChooser
{
    private readonly List<(int Choice, int Count)> _path = [];
    private int _position;

    /// <summary>The pauses of those who try again, and of recovery; not the patience of those who wait for an answer.</summary>
    public TimeSpan LetsPass { get; } = TimeSpan.FromSeconds(1);

    public int Choose(IReadOnlyList<SimulationStep> steps, int count, bool isRacing)
    {
        if (!isRacing)
        {
            return 0;
        }

        if (_position == _path.Count)
        {
            _path.Add((0, count));
        }

        return _path[_position++].Choice;
    }

    /// <summary>Turns to the next order; <see langword="false"/> after the last.</summary>
    public bool MoveOn()
    {
        _position = 0;
        while (_path.Count > 0)
        {
            var (choice, count) = _path[^1];
            _path.RemoveAt(_path.Count - 1);
            var deviations = _path.Count(static step => step.Choice > 0);
            if (choice + 1 < count && deviations < maxDeviations)
            {
                _path.Add((choice + 1, count));
                return true;
            }
        }

        return false;
    }
}
