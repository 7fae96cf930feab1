using Holdfast.PostgreSql;
using Npgsql;

namespace Holdfast;

// What the pre-check on a standby asks of the primary and of the standby.
public sealed partial class PostgreSqlEngine
{
    /// <summary>An engine that reads a standby of a primary. It connects when it is first asked: a standby that is down must keep nobody from starting.</summary>
    internal static PostgreSqlEngine ForStandby(PostgreSqlEngine primary, StandbyOptions options, TimeProvider clock)
    {
        var builder = PostgreSqlOptions.ParseConnectionString(nameof(StandbyOptions) + "." + nameof(StandbyOptions.ConnectionString), options.ConnectionString);
        var own = primary._options with { ConnectionString = options.ConnectionString, ReadOnly = true };
        return new(own, SourceOf(builder, own, ofStandby: true), NameOf(builder, own.Schema), clock, primary._logger);
    }

    /// <summary>The standby among the hosts of this store's own connection string.</summary>
    internal StandbyOptions OwnStandby() => IsMultiHost(PostgreSqlOptions.ParseConnectionString(nameof(PostgreSqlOptions.ConnectionString), _options.ConnectionString))
        ? new() { ConnectionString = _options.ConnectionString }
        : throw new InvalidOperationException("The store's connection string names one Host; to check against a standby name both, for example Host=primary,standby, or give StandbyOptions.");

    /// <summary>Writes a heartbeat, and says up to which position the ledger was final before it; see <see cref="Bookmarks"/>.</summary>
    /// <remarks>
    /// One round trip, in this order: all that ended up to that position had committed before the heartbeat does. A
    /// standby repeats commits in their order, so one that shows the heartbeat has every entry up to the position.
    /// </remarks>
    internal async Task<long> BeatAsync(string node, long number, CancellationToken cancellationToken)
    {
        try
        {
            return await TryBeatAsync(node, number, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e) && Failure.IsLoss(e))
        {
            // The others of the pool are as dead, most likely: the next heartbeat shall not try them one after the other.
            _source.Clear();
            throw;
        }
    }

    private async Task<long> TryBeatAsync(string node, long number, CancellationToken cancellationToken)
    {
        var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var batch = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
        await using var disposingToo = batch.ConfigureAwait(false);
        batch.Add(_sql.LastBlock);
        batch.Add(_sql.FindBookmarks);
        batch.Add(_sql.Beat).With(node).With(number);
        var reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingThree = reader.ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        var latest = reader.GetInt64(0);
        var final = latest;
        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            final = Math.Min(final, Bookmarks.BlockOf(reader.GetInt64(0), latest));
        }

        // To the end of the batch: only then the heartbeat is known to be written.
        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        return EndOfBlock(final);
    }

    /// <summary>Reads a page of a standby's ledger; of the whole one up to a position that it is known to have everything of.</summary>
    internal async Task<List<FlowEntry>> ReadFlowOfStandbyAsync(FlowQuery page, long wholeEnd)
    {
        var entries = new List<FlowEntry>();
        await foreach (var entry in ReadFlowAsync(page, wholeEnd, CancellationToken.None).ConfigureAwait(false))
        {
            entries.Add(entry);
        }

        return entries;
    }

    internal async Task ForgetBeatsAsync(string node, CancellationToken cancellationToken) =>
        await ReadAsync((_sql.ForgetBeats, this), command => command.With(node), static (_, _) => { }, cancellationToken).ConfigureAwait(false);

    /// <summary>The number of the latest heartbeat of a node; 0 when there is none.</summary>
    internal Task<long> ReadBeatAsync(string node, CancellationToken cancellationToken) =>
        ReadNumberAsync(_sql.ReadBeat, command => command.With(node), cancellationToken);

    /// <summary>Which of these ids are taken: one unlocked look.</summary>
    internal async Task<HashSet<string>> FindKnownAsync(string[] ids, CancellationToken cancellationToken)
    {
        var known = new HashSet<string>(StringComparer.Ordinal);
        await ReadAsync((_sql.KnownIds, known), command => command.With(ids), static (known, row) => known.Add(row.GetString(0)), cancellationToken).ConfigureAwait(false);
        return known;
    }

    /// <summary>Reads the heartbeat first and the stock after it, so that the stock is at least as new; one round trip.</summary>
    /// <param name="node">Whose heartbeat.</param>
    /// <param name="skus">Which stock.</param>
    /// <param name="highest">The highest store time known: after a clock jumped back, what had expired by then still counts as expired.</param>
    /// <param name="tolerance">A hold that expires within this is marked.</param>
    /// <param name="rows">What is found.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    internal async Task<long> CheckAsync(string node, string[] skus, long highest, TimeSpan tolerance, Dictionary<string, StandbyPreCheck.CheckRow> rows, CancellationToken cancellationToken)
    {
        var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var batch = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
        await using var disposingToo = batch.ConfigureAwait(false);
        batch.Add(_sql.ReadBeat).With(node);
        batch.Add(_sql.Check).With(highest).With(TestTime).With(skus).With((long)tolerance.TotalMilliseconds);
        var reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using var disposingThree = reader.ConfigureAwait(false);
        var beat = await reader.ReadAsync(cancellationToken).ConfigureAwait(false) ? reader.GetInt64(0) : 0;
        await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            rows.Add(reader.GetString(0), new(reader.GetInt64(1), reader.GetBoolean(2)));
        }

        return beat;
    }
}
