namespace Holdfast.Cli.Bench;

/// <summary>What one request of a load came to.</summary>
internal enum LoadAnswer
{
    /// <summary>It applied.</summary>
    Accepted,

    /// <summary>It was refused for good.</summary>
    Refused,

    /// <summary>No verdict: busy, in doubt, or still pending.</summary>
    Unknown,

    /// <summary>The same order as before, answered as before.</summary>
    Repeated,
}

/// <summary>How a load is put on.</summary>
/// <param name="Callers">How many ask at once, each waiting for its answer before it asks again.</param>
/// <param name="WarmUp">How long they do so before anything is measured.</param>
/// <param name="Duration">How long it is measured.</param>
/// <param name="Rate">
/// Requests per second over all callers, at intended times set in advance (open loop): a latency then counts from the
/// intended time, so that a store that stalls is charged for everyone it kept waiting. <see langword="null"/> asks as
/// fast as answers come (closed loop).
/// </param>
internal sealed record Load(int Callers, TimeSpan WarmUp, TimeSpan Duration, double? Rate = null);

/// <summary>What was measured.</summary>
internal sealed class LoadResult
{
    public required long Accepted { get; init; }

    public required long Refused { get; init; }

    public required long Unknown { get; init; }

    /// <summary>Orders sent once more and answered as before.</summary>
    public required long Repeated { get; init; }

    /// <summary>The measured time.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary>Latencies of all answers in the measured time.</summary>
    public required LatencyHistogram Latency { get; init; }

    /// <summary>Everything accepted, warm-up and wind-down included: what the ledger must have.</summary>
    public required long AllAccepted { get; init; }

    /// <summary>Everything without a verdict, warm-up and wind-down included: what the ledger may have.</summary>
    public required long AllUnknown { get; init; }

    /// <summary>Processor time that this process used, warm-up included: what a request costs, also on a machine that others use.</summary>
    public required TimeSpan ProcessorTime { get; init; }

    /// <summary>Requests answered, warm-up included.</summary>
    public required long AllAnswered { get; init; }

    public double AcceptedPerSecond => Accepted / Duration.TotalSeconds;

    public double RefusedPerSecond => Refused / Duration.TotalSeconds;

    /// <summary>Everything that was answered with a verdict, per second.</summary>
    public double AnsweredPerSecond => (Accepted + Refused + Repeated) / Duration.TotalSeconds;
}

/// <summary>Callers that ask and measure. The same for every engine and every baseline, so that what it costs itself cancels out of a ratio.</summary>
internal static class LoadGenerator
{
    private static readonly TimeSpan WindDown = TimeSpan.FromSeconds(60);

    /// <summary>Puts a load on.</summary>
    /// <param name="load">How.</param>
    /// <param name="caller">Makes the request function of a caller, from its number.</param>
    /// <param name="time">The clock.</param>
    /// <param name="progress">Called about once a second with the whole seconds gone by.</param>
    /// <param name="cancellationToken">Ends the measurement early; what was measured until then is the result.</param>
    public static async Task<LoadResult> RunAsync(Load load, Func<int, Func<ValueTask<LoadAnswer>>> caller, TimeProvider time, Action<long>? progress = null, CancellationToken cancellationToken = default)
    {
        var run = new Run(load, time);
        var callers = new Task[load.Callers];
        for (var i = 0; i < callers.Length; i++)
        {
            callers[i] = run.CallAsync(i, caller(i));
        }

        var all = Task.WhenAll(callers);
        try
        {
            for (var seconds = 1L; time.GetElapsedTime(run.Started) is var elapsed && elapsed < load.WarmUp + load.Duration; seconds++)
            {
                var pause = TimeSpan.FromSeconds(1);
                var rest = load.WarmUp + load.Duration - elapsed;

                await Task.WhenAny(all, Task.Delay(rest < pause ? rest : pause, time, cancellationToken)).ConfigureAwait(false);
                if (run.IsStopped || cancellationToken.IsCancellationRequested)
                {
                    break;
                }

                progress?.Invoke(seconds);
            }
        }
        finally
        {
            run.Stop();
        }

        try
        {
            await all.WaitAsync(WindDown, time, CancellationToken.None).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"Requests were still without an answer {WindDown.TotalSeconds:0} s after the load had ended.", e);
        }

        return run.ToResult();
    }

    private sealed class Run(Load load, TimeProvider time)
    {
        private readonly LatencyHistogram _latency = new();
        private readonly Tally[] _tallies = [.. Enumerable.Range(0, load.Callers).Select(_ => new Tally())];
        private readonly long _warmUp = ToTimestamp(load.WarmUp, time);
        private readonly long _end = ToTimestamp(load.WarmUp + load.Duration, time);
        private readonly TimeSpan _processorTime = Environment.CpuUsage.TotalTime;
        private long _stopped;

        public long Started { get; } = time.GetTimestamp();

        public bool IsStopped => Interlocked.Read(ref _stopped) != 0;

        public void Stop() => Interlocked.CompareExchange(ref _stopped, time.GetTimestamp(), 0);

        public async Task CallAsync(int number, Func<ValueTask<LoadAnswer>> send)
        {
            try
            {
                await CallUntilStoppedAsync(number, send).ConfigureAwait(false);
            }
            catch
            {
                // Requests answer; one that throws is a bug, and a load without that caller would measure something else.
                Stop();
                throw;
            }
        }

        public LoadResult ToResult()
        {
            var stopped = time.GetElapsedTime(Started, Interlocked.Read(ref _stopped)) - load.WarmUp;
            return new()
            {
                Accepted = _tallies.Sum(t => t.Measured[(int)LoadAnswer.Accepted]),
                Refused = _tallies.Sum(t => t.Measured[(int)LoadAnswer.Refused]),
                Unknown = _tallies.Sum(t => t.Measured[(int)LoadAnswer.Unknown]),
                Repeated = _tallies.Sum(t => t.Measured[(int)LoadAnswer.Repeated]),
                Duration = stopped < load.Duration ? TimeSpan.FromTicks(Math.Max(1, stopped.Ticks)) : load.Duration,
                Latency = _latency,
                AllAccepted = _tallies.Sum(t => t.All[(int)LoadAnswer.Accepted]),
                AllUnknown = _tallies.Sum(t => t.All[(int)LoadAnswer.Unknown]),
                AllAnswered = _tallies.Sum(t => t.All.Sum()),
                ProcessorTime = Environment.CpuUsage.TotalTime - _processorTime,
            };
        }

        private async Task CallUntilStoppedAsync(int number, Func<ValueTask<LoadAnswer>> send)
        {
            var tally = _tallies[number];
            var measureFrom = Started + _warmUp;
            var measureTo = Started + _end;

            // Off the thread that starts the callers; and an engine that answers without waiting must not keep others from their turn.
            await Task.Yield();
            for (var i = 0L; !IsStopped; i++)
            {
                var asked = load.Rate is null ? time.GetTimestamp() : await AwaitTurnAsync(number, i).ConfigureAwait(false);
                if (asked >= measureTo)
                {
                    break;
                }

                var pending = send();
                var wasImmediate = pending.IsCompleted;
                var answer = await pending.ConfigureAwait(false);
                var answered = time.GetTimestamp();
                tally.All[(int)answer]++;
                if (answered >= measureFrom && answered < measureTo)
                {
                    tally.Measured[(int)answer]++;
                    if (asked >= measureFrom)
                    {
                        _latency.Add(time.GetElapsedTime(asked, answered));
                    }
                }

                if (wasImmediate)
                {
                    await Task.Yield();
                }
            }
        }

        /// <summary>Waits until a request's intended time, and returns that time. It may have passed already.</summary>
        private async ValueTask<long> AwaitTurnAsync(int number, long index)
        {
            var intended = Started + (long)(((index * load.Callers) + number) / load.Rate!.Value * time.TimestampFrequency);
            while (!IsStopped && time.GetElapsedTime(time.GetTimestamp(), intended) is var wait && wait > TimeSpan.Zero)
            {
                // A timer is good to a millisecond: being late by that is part of the latency, being early is not allowed.
                var nap = TimeSpan.FromMilliseconds(Math.Clamp(Math.Ceiling(wait.TotalMilliseconds), 1, 100));
                await Task.Delay(nap, time).ConfigureAwait(false);
            }

            return intended;
        }

        private static long ToTimestamp(TimeSpan duration, TimeProvider time) => (long)(duration.TotalSeconds * time.TimestampFrequency);
    }

    /// <summary>The counts of one caller, which only that caller writes.</summary>
    private sealed class Tally
    {
        public long[] Measured { get; } = new long[4];

        public long[] All { get; } = new long[4];
    }
}
