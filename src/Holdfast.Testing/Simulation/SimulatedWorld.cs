namespace Holdfast.Testing;

/// <summary>What a simulated world consists of, and everything in it that hangs on the seed.</summary>
internal sealed class SimulatedWorld
{
    private static readonly TimeSpan s_healing = TimeSpan.FromMinutes(10);

    private readonly SimulatedProcess _fate;
    private readonly List<SimulatedProcess> _mortals = [];
    private readonly List<SimulatedCaller> _callers = [];
    private readonly List<Task> _tasks = [];
    private readonly bool _isCalm;

    /// <summary>Makes an empty world.</summary>
    /// <param name="scheduler">Takes its steps.</param>
    /// <param name="seed">Everything hangs on it.</param>
    /// <param name="isCalm">Whether nothing goes wrong by chance, and no time passes while anything can happen.</param>
    public SimulatedWorld(SimulationScheduler scheduler, int seed, bool isCalm)
    {
        _isCalm = isCalm;
        Scheduler = scheduler;
        Random = new(seed);
        _fate = scheduler.AddProcess("fate");
        if (isCalm)
        {
            Faults = new(Random) { MaxDelay = TimeSpan.Zero };
            return;
        }

        Faults = new(Random)
        {
            Rate = Pick(0, 0.03, 0.1, 0.3),
            MaxDelay = TimeSpan.FromMilliseconds(Pick(0, 1, 20, 300)),
        };
        var (stepTicks, slowness) = (Pick(0, 1, 500, 20_000), Pick(0, 0, 0.002, 0.02));
        scheduler.StepTicks = () => stepTicks == 0 ? 0 : Random.Next(stepTicks);
        scheduler.IsSlow = () => slowness > 0 && !Faults.IsHealed && Random.NextDouble() < slowness;
    }

    public SimulationScheduler Scheduler { get; }

    public Random Random { get; }

    public SimulatedFaults Faults { get; }

    public History History { get; } = new();

    public IReadOnlyList<SimulatedCaller> Callers => _callers;

    /// <summary>One of several, all alike.</summary>
    public T Pick<T>(params ReadOnlySpan<T> choices) => choices[Random.Next(choices.Length)];

    /// <summary>A process that fate may strike: it crashes and starts again, or pauses.</summary>
    public SimulatedProcess AddMortal(string name)
    {
        var process = Scheduler.AddProcess(name);
        _mortals.Add(process);
        return process;
    }

    /// <summary>Adds a caller, who begins at once.</summary>
    public void AddCaller(Func<SimulatedProcess, IStockEngine> connect, IEnumerable<IReadOnlyList<StockCommand>> batches)
    {
        var process = Scheduler.AddProcess($"caller {_callers.Count}");
        var caller = _isCalm
            ? new SimulatedCaller(process, connect(process), History, Random)
            : new SimulatedCaller(process, connect(process), History, Random) { Impatience = Pick(0, 0.1), GivesUp = Pick(0, 0.1) };
        _callers.Add(caller);
        _tasks.Add(Scheduler.Start(process, "begins", () => caller.RunAsync(batches)));
    }

    /// <summary>The truth of a store: what it was told is kept, whatever process serves it.</summary>
    public MemoryEngine NewMemory() => new(Scheduler.Clock);

    /// <summary>The truth of several: all of them as one, with nothing in between.</summary>
    public Sharding NewSharding(IReadOnlyList<IStockEngine> shards) => new(shards, new() { Recovery = false }, Scheduler.Clock, random: new(Random.Next()));

    /// <summary>Sends commands straight to an engine and writes them into the history.</summary>
    public async Task SendAsync(IStockEngine engine, IEnumerable<StockCommand> commands)
    {
        foreach (var command in commands)
        {
            var sentAt = Scheduler.NextInstant();
            var result = await engine.ExecuteAsync(command).ConfigureAwait(false);
            History.Add(new() { Command = command, SentAt = sentAt, AnsweredAt = Scheduler.NextInstant(), Result = result });
        }
    }

    /// <summary>Lets things happen until every caller is done, with strokes of fate for a while and then none.</summary>
    public void RunToEnd()
    {
        Scheduler.IsRacing = true;
        var strokes = Pick(0, 0, 2, 5, 12);
        var fate = _isCalm ? Task.CompletedTask : Scheduler.Start(_fate, "begins", () => StrikeAsync(strokes));
        var deadline = TimeSpan.FromTicks(Scheduler.Clock.Ticks) + s_healing;
        Scheduler.RunUntil(
            () => fate.IsCompleted && _tasks.TrueForAll(task => task.IsCompleted),
            () => $"these still wait for a verdict: {string.Join(", ", _callers.SelectMany(caller => caller.Undecided))}",
            deadline);
        Scheduler.IsRacing = false;
        foreach (var task in _tasks.Append(fate))
        {
            ThrowIfFailed(task);
        }
    }

    /// <summary>Crashes a process now, which starts again a second later.</summary>
    public void Strike(SimulatedProcess process)
    {
        process.Crash();
        Scheduler.Post(_fate, "repairs", TimeSpan.FromSeconds(1), process.Restart);
    }

    /// <summary>Runs an activity to its end, with nothing in its way.</summary>
    public void Run(string name, Func<Task> activity, TimeSpan? limit = null)
    {
        var task = Scheduler.Start(Scheduler.AddProcess(name), "begins", activity);
        Scheduler.RunUntil(() => task.IsCompleted, () => $"{name} is not done", TimeSpan.FromTicks(Scheduler.Clock.Ticks) + (limit ?? s_healing));
        ThrowIfFailed(task);
    }

    /// <summary>Lets what is still on its way arrive.</summary>
    public void Settle(TimeSpan time)
    {
        var end = Scheduler.Clock.Ticks + time.Ticks;
        Scheduler.Post(_fate, "end of the rest", time, static () => { });
        while (Scheduler.Clock.Ticks < end && Scheduler.TryStep())
        {
        }
    }

    private static void ThrowIfFailed(Task task)
    {
        if (task.Exception is { } e)
        {
            throw new SimulationException($"An activity failed: {e.InnerException}");
        }
    }

    private async Task StrikeAsync(int strokes)
    {
        var gap = Pick(5, 100, 1_000);
        for (var i = 0; i < strokes && _mortals.Count > 0; i++)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(Random.Next(0, gap)), Scheduler.Clock).ConfigureAwait(false);
            var struck = _mortals[Random.Next(_mortals.Count)];
            var time = TimeSpan.FromMilliseconds(Random.Next(0, 2 * gap));
            if (Random.Next(3) == 0)
            {
                struck.Pause(time);
            }
            else if (struck.IsUp)
            {
                struck.Crash();
                Scheduler.Post(_fate, "repairs", time, struck.Restart);
            }
        }

        await Task.Delay(TimeSpan.FromMilliseconds(Random.Next(0, 3_000)), Scheduler.Clock).ConfigureAwait(false);
        Scheduler.Note(_fate, "heals everything");
        Faults.IsHealed = true;
        foreach (var process in _mortals)
        {
            process.Resume();
            process.Restart();
        }
    }
}
