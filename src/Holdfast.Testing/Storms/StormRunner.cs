using System.Collections.Concurrent;

namespace Holdfast.Testing;

/// <summary>How a storm goes.</summary>
public sealed record StormOptions
{
    /// <summary>How many callers at once.</summary>
    public int Callers { get; init; } = 64;

    /// <summary>How many commands each caller sends, retries not counted.</summary>
    public int CommandsPerCaller { get; init; } = 50;

    /// <summary>Units of each SKU at the beginning.</summary>
    public long OpeningUnits { get; init; } = 100;

    /// <summary>How long a caller goes on sending one command that is answered Busy or InDoubt, or that throws; afterwards it abandons the id.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How long a caller waits before it sends a command again.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromMilliseconds(2);

    /// <summary>The clock that the store follows, moved on now and then so that reservations expire in the middle of the storm.</summary>
    public ManualTimeProvider? Clock { get; init; }

    /// <summary>The store behind the engine under storm, for the audit; the engine itself by default.</summary>
    public IStockEngine? Truth { get; init; }

    /// <summary>Operations on the same SKUs that are not the storm's own.</summary>
    public Func<string, bool>? IsForeign { get; init; }
}

/// <summary>What became of a storm.</summary>
public sealed record StormReport
{
    /// <summary>Commands whose effect stands, by the last answer that their caller got.</summary>
    public required long Applied { get; init; }

    /// <summary>Commands that were refused.</summary>
    public required long Refused { get; init; }

    /// <summary>Commands whose caller gave up and closed the id.</summary>
    public required long GivenUp { get; init; }

    /// <summary>Times a command was sent again.</summary>
    public required long Retries { get; init; }

    /// <summary>One of the exceptions that callers saw, if any; each made its command a retry.</summary>
    public required Exception? AnException { get; init; }

    /// <summary>The audit of the whole store and of the history.</summary>
    public required AuditReport Audit { get; init; }

    /// <summary>What was sent and answered.</summary>
    public required History History { get; init; }

    /// <summary>One line for people.</summary>
    public override string ToString() => $"{Applied} applied, {Refused} refused, {GivenUp} given up, {Retries} retries; {Audit}";
}

/// <summary>Many callers, retries with the same id, a recorded history, and audits at the end.</summary>
public static class StormRunner
{
    /// <summary>Runs a storm to its end and audits the store.</summary>
    public static async Task<StormReport> RunAsync(IStockEngine engine, StormWorkload workload, StormOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentNullException.ThrowIfNull(workload);
        options ??= new();
        var history = new History();
        var storm = new Storm(history.Record(engine), options, cancellationToken);
        foreach (var opening in workload.Opening(options.OpeningUnits))
        {
            await storm.SendAsync(opening).ConfigureAwait(false);
        }

        // Every caller has ended before the audit reads: none of their commands can land late.
        await Parallel.ForEachAsync(
            Enumerable.Range(0, options.Callers),
            new ParallelOptions { MaxDegreeOfParallelism = options.Callers, CancellationToken = cancellationToken },
            async (caller, _) => await storm.CallAsync(workload.Commands(caller).Take(options.CommandsPerCaller), caller).ConfigureAwait(false)).ConfigureAwait(false);
        var truth = options.Truth ?? engine;
        var ledger = await LedgerAudit.RunAsync(truth, cancellationToken: cancellationToken).ConfigureAwait(false);
        var audit = ledger.And(await HistoryAudit.RunAsync(truth, history, new() { IsForeign = options.IsForeign }, cancellationToken).ConfigureAwait(false));
        return storm.Report(audit, history);
    }

    private sealed class Storm(IStockEngine engine, StormOptions options, CancellationToken cancellationToken)
    {
        private const int CommandsBetweenTicks = 10;

        private readonly ConcurrentDictionary<string, long> _counts = new(StringComparer.Ordinal);
        private Exception? _exception;

        public StormReport Report(AuditReport audit, History history) => new()
        {
            Applied = _counts.GetValueOrDefault(nameof(StormReport.Applied)),
            Refused = _counts.GetValueOrDefault(nameof(StormReport.Refused)),
            GivenUp = _counts.GetValueOrDefault(nameof(StormReport.GivenUp)),
            Retries = _counts.GetValueOrDefault(nameof(StormReport.Retries)),
            AnException = _exception,
            Audit = audit,
            History = history,
        };

        public async Task CallAsync(IEnumerable<StockCommand> commands, int caller)
        {
            var number = 0;
            foreach (var command in commands)
            {
                cancellationToken.ThrowIfCancellationRequested();
                await SendAsync(command).ConfigureAwait(false);
                if (caller == 0 && ++number % CommandsBetweenTicks == 0)
                {
                    options.Clock?.Advance(TimeSpan.FromSeconds(1));
                }
            }
        }

        public async Task SendAsync(StockCommand command)
        {
            if (await TryAsync(command).ConfigureAwait(false) is { } result)
            {
                Count(result.IsApplied || result is { Status: StockStatus.Replayed, Original: StockStatus.Cancelled or StockStatus.Expired } ? nameof(StormReport.Applied) : nameof(StormReport.Refused));
                return;
            }

            Count(nameof(StormReport.GivenUp));
            if (!command.IsTransition && await TryAsync(StockCommand.Abandon(command.Id)).ConfigureAwait(false) is null)
            {
                throw new ConformanceException($"{command} was not decided within {options.Patience * 2}: an operation must not stay in doubt for ever.", _exception ?? new TimeoutException());
            }
        }

        /// <summary>Sends a command until it is decided; <see langword="null"/> when patience ends first.</summary>
        private async Task<StockResult?> TryAsync(StockCommand command)
        {
            var started = TimeProvider.System.GetTimestamp();
            while (true)
            {
                try
                {
                    var result = await engine.ExecuteAsync(command, cancellationToken).ConfigureAwait(false);
                    if (!result.IsRetryable && result.Status is not (StockStatus.None or StockStatus.Pending))
                    {
                        return result;
                    }
                }
                catch (Exception failure) when (!cancellationToken.IsCancellationRequested)
                {
                    // The outcome is unknown, as after a lost connection: the same id will tell.
                    _exception ??= failure;
                }

                if (TimeProvider.System.GetElapsedTime(started) > options.Patience)
                {
                    return null;
                }

                Count(nameof(StormReport.Retries));
                await Task.Delay(options.RetryDelay, TimeProvider.System, cancellationToken).ConfigureAwait(false);
            }
        }

        private void Count(string what) => _counts.AddOrUpdate(what, 1, static (_, count) => count + 1);
    }
}
