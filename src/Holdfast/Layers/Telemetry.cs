using System.Diagnostics;
using Holdfast.Wire;

namespace Holdfast;

/// <summary>
/// Measures an engine: the <c>Holdfast</c> meter counts commands by verb and outcome, moved units, and the time of calls;
/// the <c>Holdfast</c> activity source has one activity a call. Costs next to nothing while nobody listens. Thread-safe.
/// </summary>
/// <param name="inner">The engine to measure.</param>
public sealed class Telemetry(IStockEngine inner) : DelegatingStockEngine(inner)
{
    /// <summary>The name of the meter and of the activity source.</summary>
    public const string SourceName = HoldfastMeter.Name;

    /// <inheritdoc/>
    public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
        HoldfastMeter.Commands.Enabled || HoldfastMeter.Units.Enabled || HoldfastMeter.CallDuration.Enabled || HoldfastMeter.Activities.HasListeners()
            ? MeasureAsync(commands, cancellationToken)
            : Inner.ExecuteAsync(commands, cancellationToken);

    private async ValueTask<IReadOnlyList<StockResult>> MeasureAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(commands);
        using var activity = HoldfastMeter.Activities.StartActivity("holdfast.execute");
        activity?.SetTag("holdfast.commands", commands.Count);
        if (activity is not null && commands.Count == 1)
        {
            activity.SetTag("holdfast.verb", StockJson.VerbName(commands[0].Verb));
            activity.SetTag("holdfast.operation.id", commands[0].Id);
        }

        var start = Stopwatch.GetTimestamp();
        try
        {
            var results = await Inner.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < results.Count; i++)
            {
                Count(commands[i], results[i]);
            }

            if (activity is not null && results.Count == 1)
            {
                activity.SetTag("holdfast.outcome", StockJson.StatusName(results[0].Status));
            }

            return results;
        }
        catch (Exception e)
        {
            activity?.SetStatus(ActivityStatusCode.Error, e.Message);
            throw;
        }
        finally
        {
            HoldfastMeter.CallDuration.Record(Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
    }

    private static void Count(StockCommand command, in StockResult result)
    {
        var verb = new KeyValuePair<string, object?>("verb", StockJson.VerbName(command.Verb));
        HoldfastMeter.Commands.Add(1, verb, new("outcome", StockJson.StatusName(result.Status)));
        if (result.Status == StockStatus.Done && HoldfastMeter.Units.Enabled)
        {
            long units = 0;
            foreach (var line in command.Lines)
            {
                units += Math.Abs(line.Quantity);
            }

            HoldfastMeter.Units.Add(units, verb);
        }
    }
}
