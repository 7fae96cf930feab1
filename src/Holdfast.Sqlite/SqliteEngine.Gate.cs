using System.Runtime.CompilerServices;
using Holdfast.Sqlite;

namespace Holdfast;

// What gates that acknowledge by themselves need of the store.
public sealed partial class SqliteEngine : IGateStore
{
    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be written.</exception>
    public ValueTask<long> KeepGateAsync(string gate, string node, long carried, TimeSpan lease, CancellationToken cancellationToken = default) =>
        WriteAsync(
            writer =>
            {
                writer.KeepGateNode(gate, node, carried, RealTime() + (long)lease.TotalMilliseconds);
                return writer.GateEpoch(gate);
            },
            cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be written.</exception>
    public ValueTask<long> AdvanceGateAsync(string gate, CancellationToken cancellationToken = default) =>
        WriteAsync(writer => writer.AdvanceGate(gate, RealTime()), cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be read.</exception>
    public async ValueTask<IReadOnlyList<GateMember>> GetGateMembersAsync(string gate, CancellationToken cancellationToken = default) =>
        await WriteAsync(writer => writer.GateNodes(gate, RealTime()), cancellationToken).ConfigureAwait(false);

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be written.</exception>
    public async ValueTask LeaveGateAsync(string gate, string node, CancellationToken cancellationToken = default) =>
        await WriteAsync(
            writer =>
            {
                writer.ForgetGateNode(gate, node);
                return 0;
            },
            cancellationToken).ConfigureAwait(false);

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be written.</exception>
    public ValueTask<long> TakeGateTurnAsync(string gate, long epoch, CancellationToken cancellationToken = default) =>
        WriteAsync(writer => writer.TakeGateTurn(gate, epoch), cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The store was opened read-only.</exception>
    public async ValueTask<IReadOnlyList<StockResult>?> ExecuteFromGateAsync(string gate, long epoch, long turn, IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        var isOver = false;
        var results = await ExecuteAsync(commands, writer => !(isOver |= !writer.IsGateAt(gate, epoch, turn)), cancellationToken).ConfigureAwait(false);
        return isOver ? null : results;
    }

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be written.</exception>
    public async ValueTask AddIncidentsAsync(IReadOnlyList<GateIncident> incidents, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(incidents);
        await WriteAsync(
            writer =>
            {
                foreach (var incident in incidents)
                {
                    writer.AddIncident(incident);
                }

                return 0;
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    /// <exception cref="SqliteStoreException">The file could not be read.</exception>
    public async IAsyncEnumerable<GateIncident> ReadIncidentsAsync(string gate, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        for (var after = 0L; ;)
        {
            var (page, last) = await ReadAsync((gate, after), static (_, reader, from) => reader.ReadIncidents(from.gate, from.after), cancellationToken).ConfigureAwait(false);
            foreach (var incident in page)
            {
                yield return incident;
            }

            if (page.Count == 0)
            {
                yield break;
            }

            after = last;
        }
    }

    /// <summary>Leases are about processes, not about stock: they follow the machine's clock.</summary>
    private static long RealTime() => TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Does something in a write turn and a transaction of its own.</summary>
    private async ValueTask<T> WriteAsync<T>(Func<Writer, T> write, CancellationToken cancellationToken)
    {
        if (await _writeTurns.BeginAsync(cancellationToken).ConfigureAwait(false) is Turn.Crowded or Turn.TimedOut)
        {
            throw new SqliteStoreException($"The stock file '{_path}' is being written by others for too long; try again later.");
        }

        try
        {
            if (_options.ReadOnly || Volatile.Read(ref _closing) == 1)
            {
                throw new SqliteStoreException($"The stock file '{_path}' is {(_options.ReadOnly ? "open for readers only" : "being closed")}.");
            }

            var writer = _writer ??= Writer.Open(_path, _options);
            writer.Begin();
            var written = write(writer);
            writer.Commit();
            return written;
        }
        catch
        {
            RollBack();
            throw;
        }
        finally
        {
            _writeTurns.End();
        }
    }
}
