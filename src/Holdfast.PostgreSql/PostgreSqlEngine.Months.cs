using Holdfast.PostgreSql;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Holdfast;

// The ledger's months are made while the store runs, by whichever process notices first; see Months.
public sealed partial class PostgreSqlEngine
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromHours(1);

    private Task _makingMonths = Task.CompletedTask;
    private int _isMakingMonths;
    private long _monthsDueAt;
    private TimeSpan _monthsPause = s_firstPause;

    private async Task MakeMonthsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        var now = new NpgsqlBatch(connection) { Timeout = _timeoutSeconds };
        await using var disposing = now.ConfigureAwait(false);
        now.Add(_sql.Now).With(Highest).With(TestTime);
        var time = (long)(await now.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
        try
        {
            Interlocked.Exchange(ref _monthsDueAt, await Months.MakeAsync(connection, _options.Schema, time, cancellationToken).ConfigureAwait(false));
            _monthsPause = s_firstPause;
        }
        catch (PostgresException e) when (e.InvariantSeverity == "ERROR")
        {
            // No sale hangs on it: what no month covers goes into the rest.
            Interlocked.Exchange(ref _monthsDueAt, time + (long)_monthsPause.TotalMilliseconds);
            _monthsPause = _monthsPause * 2 < s_longestPause ? _monthsPause * 2 : s_longestPause;
            _logger.LogWarning(e, "{Server}: the ledger's partition for the coming month could not be made, entries go on into its rest; tried again later.", Server);
        }
    }

    /// <summary>Makes months beside the caller's way when the store's time has come; one at a time.</summary>
    private void MakeMonthsWhenDue()
    {
        if (Highest < Interlocked.Read(ref _monthsDueAt) || Interlocked.Exchange(ref _isMakingMonths, 1) == 1)
        {
            return;
        }

        _makingMonths = MakeMonthsOnceAsync();
    }

    private async Task MakeMonthsOnceAsync()
    {
        try
        {
            var connection = await _source.OpenConnectionAsync().ConfigureAwait(false);
            await using var disposing = connection.ConfigureAwait(false);
            await MakeMonthsAsync(connection, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e))
        {
            Interlocked.Exchange(ref _monthsDueAt, Highest + (long)s_firstPause.TotalMilliseconds);
            _logger.LogDebug(e, "{Server}: no connection for making the coming month's partition; tried again later.", Server);
        }
        finally
        {
            Interlocked.Exchange(ref _isMakingMonths, 0);
        }
    }
}
