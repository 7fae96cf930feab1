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

    internal async Task BeatAsync(string node, long number, CancellationToken cancellationToken) =>
        await ReadAsync((_sql.Beat, this), command => command.With(node).With(number), static (_, _) => { }, cancellationToken).ConfigureAwait(false);

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
    internal async Task<long> CheckAsync(string node, string[] skus, TimeSpan tolerance, Dictionary<string, StandbyPreCheck.CheckRow> rows, CancellationToken cancellationToken)
    {
        var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var batch = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
        await using var disposingToo = batch.ConfigureAwait(false);
        batch.Add(_sql.ReadBeat).With(node);
        batch.Add(_sql.Check).With(skus).With(TestTime).With((long)tolerance.TotalMilliseconds);
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
