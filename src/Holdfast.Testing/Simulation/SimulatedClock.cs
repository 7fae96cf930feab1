namespace Holdfast.Testing;

/// <summary>
/// The clock of a simulated world. It moves when the scheduler says so; a timer that falls due becomes a step of the
/// process that set it, and so waits for its turn like any other.
/// </summary>
internal sealed class SimulatedClock(SimulationScheduler scheduler) : TimeProvider
{
    private static readonly DateTimeOffset s_start = new(2010, 12, 1, 0, 0, 0, TimeSpan.Zero);

    private readonly PriorityQueue<(SimulatedTimer Timer, int Setting), (long DueAt, long Number)> _due = new();
    private long _timers;

    /// <summary>Simulated time since the world began.</summary>
    public long Ticks { get; private set; }

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override DateTimeOffset GetUtcNow()
    {
        scheduler.CheckThread();
        return s_start.AddTicks(Ticks);
    }

    public override long GetTimestamp()
    {
        scheduler.CheckThread();
        return Ticks;
    }

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        scheduler.CheckThread();
        var timer = new SimulatedTimer(this, scheduler.Running, callback, state);
        timer.Change(dueTime, period);
        return timer;
    }

    /// <summary>When the next timer is due; <see langword="null"/> when none is set.</summary>
    public long? NextDue()
    {
        while (_due.TryPeek(out var next, out var priority))
        {
            if (next.Timer.IsSet(next.Setting))
            {
                return priority.DueAt;
            }

            _due.Dequeue();
        }

        return null;
    }

    /// <summary>Moves on, and lets every timer fall due that is due by then.</summary>
    public void MoveTo(long ticks)
    {
        Ticks = Math.Max(Ticks, ticks);
        while (NextDue() is { } dueAt && dueAt <= Ticks)
        {
            _due.Dequeue().Timer.FallDue();
        }
    }

    private sealed class SimulatedTimer(SimulatedClock clock, SimulatedProcess process, TimerCallback callback, object? state) : ITimer
    {
        private readonly int _incarnation = process.Incarnation;
        private int _setting;
        private bool _isSet;
        private TimeSpan _period;

        public bool IsSet(int setting) => _isSet && _setting == setting && process.Incarnation == _incarnation;

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            _setting++;
            _isSet = dueTime != Timeout.InfiniteTimeSpan;
            _period = period;
            if (_isSet)
            {
                clock._due.Enqueue((this, _setting), (clock.Ticks + dueTime.Ticks, ++clock._timers));
            }

            return true;
        }

        public void FallDue()
        {
            var setting = _setting;
            process.Scheduler.Post(process, "timer", () =>
            {
                // Changed or disposed while it waited for its turn.
                if (_isSet && _setting == setting)
                {
                    if (_period > TimeSpan.Zero)
                    {
                        Change(_period, _period);
                    }
                    else
                    {
                        _isSet = false;
                    }

                    callback(state);
                }
            });
        }

        public void Dispose() => _isSet = false;

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
