namespace Holdfast.Testing;

/// <summary>
/// A process of the simulated world: callers, a node, a store. Every step belongs to one; what waits in it when it
/// crashes never goes on, so it dies at one of its awaits.
/// </summary>
internal sealed class SimulatedProcess(SimulationScheduler scheduler, string name)
{
    private readonly List<Action> _onCrash = [];
    private readonly List<Action> _onStart = [];

    /// <summary>For the trace.</summary>
    public string Name { get; } = name;

    public SimulationScheduler Scheduler { get; } = scheduler;

    /// <summary>How often it was started; a step of an earlier start is dropped.</summary>
    public int Incarnation { get; private set; } = 1;

    public bool IsUp { get; private set; } = true;

    /// <summary>Until when it does nothing, as a process that is paused or collects garbage.</summary>
    public long PausedUntil { get; private set; }

    /// <summary>Says what else happens when it crashes: connections to it break.</summary>
    public void OnCrash(Action action) => _onCrash.Add(action);

    /// <summary>Says what happens in it when it is started again: it builds what was lost with its memory.</summary>
    public void OnStart(Action action) => _onStart.Add(action);

    public void Crash()
    {
        if (!IsUp)
        {
            return;
        }

        IsUp = false;
        Incarnation++;
        PausedUntil = 0;
        Scheduler.Note(this, "crashes");
        _onCrash.ForEach(static action => action());
    }

    public void Restart()
    {
        if (IsUp)
        {
            return;
        }

        Scheduler.Post(this, "starts", () =>
        {
            if (!IsUp)
            {
                IsUp = true;
                _onStart.ForEach(static action => action());
            }
        });
    }

    public void Pause(TimeSpan time)
    {
        Scheduler.Note(this, "pauses");
        PausedUntil = Scheduler.Clock.Ticks + time.Ticks;
    }

    public void Resume() => PausedUntil = 0;

    public override string ToString() => Name;
}
