using Holdfast.PostgreSql;
using Npgsql;

namespace Holdfast;

// Retention: an explicit command that moves old entries into a file.
public sealed partial class PostgreSqlEngine
{
    /// <summary>How long the archive's statements may run: they read and delete whole months.</summary>
    private static readonly TimeSpan s_archiveTimeout = TimeSpan.FromHours(1);

    /// <summary>
    /// Moves the ledger's entries before an instant into a file, and records for each SKU an opening that stands for them
    /// (<see cref="FlowKind.Opening"/>). Sales go on meanwhile, on any number of nodes; operations stay, so that ids stay
    /// unique and refunds, cancellations and repetitions work as before.
    /// </summary>
    /// <remarks>
    /// May be stopped, or killed, at any point and then simply be called again with the same options: the file is written
    /// under a temporary name and named once it is on the disk, and only then one transaction records the openings and takes
    /// the entries away. Until it commits the store is unchanged; afterwards a repetition changes nothing. Months that end
    /// before the instant are dropped as a whole, at once; a month's part is deleted row by row.
    /// </remarks>
    /// <exception cref="ArgumentException">The instant is later than the store's time.</exception>
    /// <exception cref="IOException">The file can't be written, or there is another one of that name.</exception>
    /// <exception cref="PostgreSqlStoreException">The database could not do it now, or its ledger does not add up; nothing was changed.</exception>
    public async Task<FlowArchiveResult> ArchiveFlowAsync(FlowArchiveOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"{Server} was opened read-only: it answers reads only.");
        }

        var now = await NowAsync(cancellationToken).ConfigureAwait(false);
        var before = CeilingMilliseconds(options.Before);
        if (before > now)
        {
            throw new ArgumentException($"{options.Before:O} is later than the store's time, {DateTimeOffset.FromUnixTimeMilliseconds(now):O}: only what is past can be archived.", nameof(options));
        }

        var builder = PostgreSqlOptions.ParseConnectionString(nameof(PostgreSqlOptions.ConnectionString), _options.ConnectionString);

        // Each of its statements runs a few times at most.
        builder.MaxAutoPrepare = 0;
        var (source, owner) = SourceOf(builder, _options with { StatementTimeout = s_archiveTimeout });
        await using var disposing = owner.ConfigureAwait(false);
        try
        {
            var connection = await source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
            await using var disposingToo = connection.ConfigureAwait(false);
            return await new FlowArchive(connection, _options.Schema, _sql, FinalPositionAsync, _clock, _options.StatementTimeout * 6, Server, options, before).RunAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e) && e is not PostgreSqlStoreException && !cancellationToken.IsCancellationRequested)
        {
            throw new PostgreSqlStoreException($"The archive was not finished; run it again. {Failure.Describe(e, Server)}", mayPass: true, (e as PostgresException)?.SqlState, e);
        }
    }
}
