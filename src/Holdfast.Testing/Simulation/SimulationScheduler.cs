using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;

namespace Holdfast.Testing;

/// <summary>
/// The one thread of a simulated world. Everything that happens is a step; the chooser says which of the possible ones
/// is next, and when none is possible the clock moves on to the next timer. Same choices, same run, to the last step.
/// </summary>
/// <remarks>
/// The world's thread has no synchronization context and no scheduler of its own, so the runtime runs the continuation
/// of a promise right where the promise is kept. Promises are kept in steps only, and layers hand on to "another
/// thread" through <see cref="Dispatcher"/>; so nothing reaches the thread pool. What does so all the same is found by
/// <see cref="CheckThread"/>, or as a standstill.
/// </remarks>
internal sealed class SimulationScheduler : Dispatcher, IDisposable
{
    private readonly List<SimulationStep> _possible = [];
    private readonly Queue<(long Step, long Ticks, SimulatedProcess Process, string What, object? About)> _tail = new();
    private readonly ISimulationChooser _chooser;
    private readonly Dispatcher? _before;
    private readonly SynchronizationContext? _contextBefore;
    private readonly int _thread = Environment.CurrentManagedThreadId;
    private readonly long _maxSteps;
    private volatile string? _escape;
    private int _racingSteps;

    /// <summary>Takes the present thread over, until it is disposed.</summary>
    /// <param name="chooser">Says what happens next.</param>
    /// <param name="maxSteps">A run that takes more steps than this never comes to rest.</param>
    public SimulationScheduler(ISimulationChooser chooser, long maxSteps = 1_000_000)
    {
        _chooser = chooser;
        _maxSteps = maxSteps;
        _contextBefore = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        if (TaskScheduler.Current != TaskScheduler.Default)
        {
            throw new InvalidOperationException("A simulation needs a thread without a task scheduler of its own.");
        }

        Clock = new(this);
        Running = new(this, "world");
        _before = Own(this);
    }

    public SimulatedClock Clock { get; }

    /// <summary>The process whose step is running; what is posted or timed meanwhile belongs to it.</summary>
    public SimulatedProcess Running { get; private set; }

    /// <summary>How many steps were taken.</summary>
    public long Steps { get; private set; }

    /// <summary>Grows with everything that callers do and see: the time of a history.</summary>
    public long Instant { get; private set; }

    /// <summary>A number for all that has happened, the same in every process on every machine.</summary>
    public ulong TraceHash { get; private set; } = 14695981039346656037;

    /// <summary>How many ticks a step takes: chosen by whoever runs the world.</summary>
    public Func<long> StepTicks { get; set; } = static () => 0;

    /// <summary>Whether time passes to the next timer although something else is possible: a slow machine.</summary>
    public Func<bool> IsSlow { get; set; } = static () => false;

    /// <summary>Whether callers are at it, so that the order of steps is what is tested.</summary>
    public bool IsRacing { get; set; }

    /// <summary>Called before each step while <see cref="IsRacing"/>, with how many there were before it: for what is to happen at a certain one.</summary>
    public Action<int>? OnStep { get; set; }

    public override TaskCreationOptions PromiseOptions => TaskCreationOptions.None;

    public void Dispose()
    {
        Own(_before);
        SynchronizationContext.SetSynchronizationContext(_contextBefore);
    }

    public SimulatedProcess AddProcess(string name) => new(this, name);

    /// <summary>Makes a step possible in a process.</summary>
    public void Post(SimulatedProcess process, string what, Action action, object? about = null)
    {
        CheckThread();
        _possible.Add(new(process, what, action, about));
    }

    /// <summary>Makes a step possible in a process some time later; it is lost if the process crashes before.</summary>
    public void Post(SimulatedProcess process, string what, TimeSpan delay, Action action, object? about = null)
    {
        if (delay <= TimeSpan.Zero)
        {
            Post(process, what, action, about);
            return;
        }

        Within(process, () => Clock.CreateTimer(_ => Post(process, what, action, about), null, delay, Timeout.InfiniteTimeSpan));
    }

    /// <summary>Does something in a process now, as a part of the present step.</summary>
    public T Within<T>(SimulatedProcess process, Func<T> action)
    {
        var running = Running;
        Running = process;
        try
        {
            return action();
        }
        finally
        {
            Running = running;
        }
    }

    /// <summary>Begins an asynchronous activity of a process.</summary>
    public Task Start(SimulatedProcess process, string what, Func<Task> activity)
    {
        var promise = new TaskCompletionSource();
        Post(process, what, () => _ = FollowAsync(activity, promise));
        return promise.Task;

        static async Task FollowAsync(Func<Task> activity, TaskCompletionSource promise)
        {
            try
            {
                await activity().ConfigureAwait(false);
                promise.SetResult();
            }
            catch (Exception e)
            {
                promise.SetException(e);
            }
        }
    }

    /// <summary>The present instant of a history; never the same twice.</summary>
    public long NextInstant() => ++Instant;

    public override void Queue(IThreadPoolWorkItem work) => Post(Running, "handed on", work.Execute);

    public override void Queue<T>(Action<T> work, T state) => Post(Running, "handed on", () => work(state));

    public override ValueTask YieldAsync()
    {
        var promise = new TaskCompletionSource();
        Post(Running, "yields", promise.SetResult);
        return new(promise.Task);
    }

    /// <summary>Takes steps until something has come true.</summary>
    /// <param name="isDone">What is waited for.</param>
    /// <param name="waitingFor">Says what is missing, when it does not come true.</param>
    /// <param name="until">Simulated time by which it must.</param>
    public void RunUntil(Func<bool> isDone, Func<string> waitingFor, TimeSpan? until = null)
    {
        var end = until?.Ticks ?? long.MaxValue;
        while (!isDone())
        {
            if (!TryStep())
            {
                throw new SimulationException($"Standstill: nothing can happen any more, but {waitingFor()}.");
            }

            if (Clock.Ticks > end)
            {
                throw new SimulationException($"At {TimeSpan.FromTicks(Clock.Ticks).TotalSeconds:0} s, when everything has long been well again, {waitingFor()}.");
            }
        }
    }

    /// <summary>Takes one step; <see langword="false"/> when none is possible and no timer is set.</summary>
    public bool TryStep()
    {
        if (_escape is { } escape)
        {
            throw new SimulationException(escape);
        }

        if (++Steps > _maxSteps)
        {
            throw new SimulationException($"No rest after {_maxSteps} steps.");
        }

        if (IsRacing)
        {
            OnStep?.Invoke(_racingSteps++);
        }

        Clock.MoveTo(Clock.Ticks + StepTicks());
        if (IsSlow() && Clock.NextDue() is { } next)
        {
            Clock.MoveTo(next);
        }

        int number;
        while ((number = ChooseStep()) < 0)
        {
            if (NextChange() is not { } change)
            {
                return false;
            }

            Clock.MoveTo(change);
        }

        var step = _possible[number];
        _possible.RemoveAt(number);
        Record(step.Process, step.What, step.About);
        Mix((ulong)number);
        Running = step.Process;
        step.Run();
        return true;
    }

    /// <summary>Adds a line to the trace.</summary>
    public void Note(SimulatedProcess process, string what, object? about = null) => Record(process, what, about);

    /// <summary>Mixes a number into <see cref="TraceHash"/>.</summary>
    public void Mix(ulong value) => TraceHash = unchecked((TraceHash ^ value) * 1099511628211);

    /// <summary>The last steps, as lines for people that are made when they are read.</summary>
    public IEnumerable<string> Tail()
    {
        var tail = _tail.ToArray();
        return tail.Select(static happened => string.Create(
            CultureInfo.InvariantCulture,
            $"{happened.Step,6}  {TimeSpan.FromTicks(happened.Ticks).TotalSeconds,10:0.000000} s  {happened.Process.Name,-10}  {happened.What}{Describe(happened.About)}"));
    }

    /// <summary>A continuation that got out of the simulation must not go unnoticed: it could do anything at any time.</summary>
    public void CheckThread()
    {
        if (Environment.CurrentManagedThreadId != _thread)
        {
            _escape = "Something ran outside of the simulation's thread: " + Environment.StackTrace;
            ThrowOutside();
        }
    }

    [DoesNotReturn]
    private static void ThrowOutside() => throw new InvalidOperationException("This belongs to a simulation and runs outside of its thread.");

    /// <summary>The number of the next step, after what belongs to the dead was dropped; -1 when time is to pass.</summary>
    private int ChooseStep()
    {
        _possible.RemoveAll(static step => step.IsDead);
        var ready = 0;
        for (var i = 0; i < _possible.Count; i++)
        {
            // Those that are not held up by a pause come first.
            if (_possible[i].Process.PausedUntil <= Clock.Ticks)
            {
                (_possible[ready], _possible[i]) = (_possible[i], _possible[ready]);
                ready++;
            }
        }

        if (ready == 0)
        {
            return -1;
        }

        // Who explores every order also lets pauses end early; it comes last.
        var choices = IsRacing && Clock.NextDue() - Clock.Ticks <= _chooser.LetsPass.Ticks ? ready + 1 : ready;
        var choice = choices == 1 ? 0 : _chooser.Choose(_possible, choices, IsRacing);
        return choice == ready ? -1 : choice;
    }

    /// <summary>When anything becomes possible again: the next timer, or the end of a pause.</summary>
    private long? NextChange()
    {
        var change = Clock.NextDue();
        foreach (var step in _possible)
        {
            change = Math.Min(change ?? long.MaxValue, step.Process.PausedUntil);
        }

        return change;
    }

    private void Record(SimulatedProcess process, string what, object? about)
    {
        if (_tail.Count == SimulationReport.LongestTrace)
        {
            _tail.Dequeue();
        }

        _tail.Enqueue((Steps, Clock.Ticks, process, what, about));
        foreach (var character in what)
        {
            Mix(character);
        }

        foreach (var character in process.Name)
        {
            Mix(character);
        }

        Mix((ulong)Clock.Ticks);
    }

    private static string Describe(object? about) => about switch
    {
        null => "",
        IEnumerable<StockCommand> commands => " " + Join(commands, Describe),
        IEnumerable<StockResult> results => " " + Join(results, static result => result.ToString()),
        _ => $" {about}",
    };

    private static string Describe(StockCommand command) => command.Lines.Length == 0
        ? command.ToString()
        : $"{command.Verb} {command.Id}{(command.Target is null ? "" : $" of {command.Target}")} {string.Join('+', command.Lines.Select(line => $"{line.Quantity} {line.Sku}"))}";

    private static string Join<T>(IEnumerable<T> items, Func<T, string> describe)
    {
        const int Shown = 6;
        var text = new StringBuilder("[");
        text.AppendJoin(", ", items.Take(Shown).Select(describe));
        return text.Append(items.Skip(Shown).Any() ? ", …]" : "]").ToString();
    }
}
