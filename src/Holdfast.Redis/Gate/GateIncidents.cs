using Microsoft.Extensions.Logging;

namespace Holdfast.Redis;

/// <summary>Records what a gate had acknowledged and the store refused: in the store, in the log and as a count. Thread-safe.</summary>
internal sealed class GateIncidents(IStockEngine engine, IGateStore store, string gate, TimeProvider clock, ILogger logger)
{
    private long _count;

    public long Count => Interlocked.Read(ref _count);

    /// <summary>Looks for acknowledged commands among these that the store refused, and records them.</summary>
    public async Task ReportAsync(long epoch, IReadOnlyList<GateCommand> commands, IReadOnlyList<StockResult> results, CancellationToken cancellationToken)
    {
        List<GateIncident>? incidents = null;
        for (var i = 0; i < results.Count; i++)
        {
            if (commands[i].IsAcknowledged && !results[i].IsApplied && !await WasAppliedAsync(commands[i].Command, results[i].Status, cancellationToken).ConfigureAwait(false))
            {
                (incidents ??= []).Add(new() { Gate = gate, Epoch = epoch, Entry = commands[i].Key, Command = commands[i].Command, Outcome = results[i].Status == StockStatus.None ? StockStatus.InDoubt : results[i].Status, At = clock.GetUtcNow() });
            }
        }

        if (incidents is not null)
        {
            await AddAsync(incidents, cancellationToken).ConfigureAwait(false);
        }
    }

    public async Task AddAsync(IReadOnlyList<GateIncident> incidents, CancellationToken cancellationToken)
    {
        await store.AddIncidentsAsync(incidents, cancellationToken).ConfigureAwait(false);
        Interlocked.Add(ref _count, incidents.Count);
        foreach (var incident in incidents)
        {
            logger.LogError(
                "The gate {Gate} had acknowledged {Command}, and the store refused it: {Outcome}. It is among the incidents ('holdfast reconcile' lists them); see to the order by its id {Id}.",
                incident.Gate, incident.Command, incident.Outcome, incident.Command.Id);
        }
    }

    /// <summary>A command that comes a second time, from an old copy of the stream, may since have been undone: then it was there.</summary>
    private async Task<bool> WasAppliedAsync(StockCommand command, StockStatus status, CancellationToken cancellationToken) =>
        status is StockStatus.Cancelled or StockStatus.Expired
        && await engine.GetOperationAsync(command.Id, cancellationToken).ConfigureAwait(false) is { } view
        && view.Verb == command.Verb
        && view.Lines.Select(static line => new StockLine(line.Sku, line.Quantity)).SequenceEqual(command.Lines);
}
