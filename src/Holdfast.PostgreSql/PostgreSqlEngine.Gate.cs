using System.Runtime.CompilerServices;
using System.Text;
using Holdfast.PostgreSql;
using Holdfast.Wire;
using Npgsql;

namespace Holdfast;

// What gates that acknowledge by themselves need of the store.
public sealed partial class PostgreSqlEngine : IGateStore
{
    /// <summary>What {s}.hold_gate says when the epoch or the turn is another.</summary>
    private const string EpochIsOver = "HF001";

    private const int IncidentsAPage = 500;

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask<long> KeepGateAsync(string gate, string node, long carried, TimeSpan lease, CancellationToken cancellationToken = default) =>
        await ScalarAsync(
            _sql.KeepGate,
            command => command.With(gate).With(node).With(carried).With((long)lease.TotalMilliseconds),
            cancellationToken).ConfigureAwait(false) as long? ?? 0;

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask<long> AdvanceGateAsync(string gate, CancellationToken cancellationToken = default) =>
        (long)(await ScalarAsync(_sql.AdvanceGate, command => command.With(gate), cancellationToken).ConfigureAwait(false))!;

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask<IReadOnlyList<GateMember>> GetGateMembersAsync(string gate, CancellationToken cancellationToken = default)
    {
        var members = new List<GateMember>();
        await ReadAsync(
            (_sql.GateMembers, members),
            command => command.With(gate),
            static (members, row) => members.Add(new(row.GetString(0), row.GetInt64(1), row.GetBoolean(2))),
            cancellationToken).ConfigureAwait(false);
        return members;
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask LeaveGateAsync(string gate, string node, CancellationToken cancellationToken = default) =>
        await ScalarAsync(_sql.LeaveGate, command => command.With(gate).With(node), cancellationToken).ConfigureAwait(false);

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask<long> TakeGateTurnAsync(string gate, long epoch, CancellationToken cancellationToken = default) =>
        await ScalarAsync(_sql.TakeGateTurn, command => command.With(gate).With(epoch), cancellationToken).ConfigureAwait(false) as long? ?? 0;

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">A retry can't help: the store's rows or tables were changed by other hands.</exception>
    public async ValueTask<IReadOnlyList<StockResult>?> ExecuteFromGateAsync(string gate, long epoch, long turn, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        try
        {
            return await ExecuteAsync(commands, _sql.HoldGate(gate, epoch, turn), cancellationToken).ConfigureAwait(false);
        }
        catch (PostgreSqlStoreException e) when (e.SqlState == EpochIsOver)
        {
            return null;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be reached.</exception>
    public async ValueTask AddIncidentsAsync(IReadOnlyList<GateIncident> incidents, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(incidents);
        GateIncident[] all = [.. incidents];
        if (all.Length > 0)
        {
            await ScalarAsync(
                _sql.AddIncidents,
                command => command
                    .With(Array.ConvertAll(all, static incident => incident.Gate))
                    .With(Array.ConvertAll(all, static incident => incident.Epoch))
                    .With(Array.ConvertAll(all, static incident => incident.Entry))
                    .With(Array.ConvertAll(all, static incident => StockJson.StatusName(incident.Outcome)))
                    .With(Array.ConvertAll(all, static incident => incident.At.ToUnixTimeMilliseconds()))
                    .With(Array.ConvertAll(all, static incident => Encoding.UTF8.GetString(StockJson.WriteCommand(incident.Command)))),
                cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    /// <exception cref="PostgreSqlStoreException">The database could not be read.</exception>
    public async IAsyncEnumerable<GateIncident> ReadIncidentsAsync(string gate, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        for (var after = 0L; ;)
        {
            var page = new List<(long Number, GateIncident Incident)>();
            await ReadAsync(
                (_sql.ReadIncidents, page),
                command => command.With(gate).With(after).With((long)IncidentsAPage),
                static (page, row) => page.Add((row.GetInt64(0), new()
                {
                    Gate = row.GetString(1),
                    Epoch = row.GetInt64(2),
                    Entry = row.GetString(3),
                    Outcome = Enum.TryParse<StockStatus>(row.GetString(4), out var outcome) ? outcome : StockStatus.None,
                    At = DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(5)),
                    Command = StockJson.ReadCommand(Encoding.UTF8.GetBytes(row.GetString(6))),
                })),
                cancellationToken).ConfigureAwait(false);
            foreach (var (number, incident) in page)
            {
                after = number;
                yield return incident;
            }

            if (page.Count < IncidentsAPage)
            {
                yield break;
            }
        }
    }

    /// <summary>Runs one statement that may be run twice, and returns its first value.</summary>
    private async Task<object?> ScalarAsync(string sql, Action<NpgsqlBatchCommand> bind, CancellationToken cancellationToken)
    {
        var values = new List<object?>(1);
        await ReadAsync((sql, values), bind, static (values, row) => values.Add(row.IsDBNull(0) ? null : row.GetValue(0)), cancellationToken).ConfigureAwait(false);
        return values.Count == 0 ? null : values[0];
    }
}
