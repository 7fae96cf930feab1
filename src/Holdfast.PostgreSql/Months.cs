using System.Globalization;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>
/// The ledger's partitions: one a month (UTC), made ahead by whichever process comes first, and the rest, which takes
/// what no month covers. A missing month therefore costs nothing but a slower archive later.
/// </summary>
internal static class Months
{
    /// <summary>How many months are made ahead of the present one.</summary>
    private const int Ahead = 1;

    public static DateTime Of(long milliseconds)
    {
        var at = DateTimeOffset.FromUnixTimeMilliseconds(milliseconds).UtcDateTime;
        return new(at.Year, at.Month, 1, 0, 0, 0, DateTimeKind.Utc);
    }

    public static long Begin(DateTime month) => new DateTimeOffset(month).ToUnixTimeMilliseconds();

    public static string NameOf(DateTime month) => month.ToString("'flow_'yyyy'_'MM", CultureInfo.InvariantCulture);

    /// <summary>Makes the partitions that are missing for an instant's month and the next.</summary>
    /// <returns>The instant from which on there is something to do again.</returns>
    /// <remarks>
    /// Attaching a partition waits for transactions that have read the rest, and keeps new ones waiting meanwhile: so it
    /// gives up after a second, and is tried again later. Rows that are in the rest already keep their month there.
    /// </remarks>
    public static async Task<long> MakeAsync(NpgsqlConnection connection, string schema, long now, CancellationToken cancellationToken)
    {
        var s = Schema.Quote(schema);
        var first = Of(now);
        var missing = await MissingAsync(connection, s, first, cancellationToken).ConfigureAwait(false);
        if (missing.Count > 0)
        {
            var transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
            await using var disposing = transaction.ConfigureAwait(false);
            await Schema.RunAsync(connection, $"SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '5s'; SELECT pg_advisory_xact_lock({Schema.LockKey("holdfast months " + schema)})", cancellationToken).ConfigureAwait(false);
            foreach (var month in await MissingAsync(connection, s, first, cancellationToken).ConfigureAwait(false))
            {
                var name = NameOf(month);
                await Schema.RunAsync(
                    connection,
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"""
                        CREATE TABLE {s}.{name}(LIKE {s}.flow);
                        CREATE UNIQUE INDEX ON {s}.{name}(sku, version);
                        CREATE UNIQUE INDEX ON {s}.{name}(position);
                        ALTER TABLE {s}.flow ATTACH PARTITION {s}.{name} FOR VALUES FROM ({Begin(month)}) TO ({Begin(month.AddMonths(1))})
                        """),
                    cancellationToken).ConfigureAwait(false);
            }

            await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
        }

        return Begin(first.AddMonths(1));
    }

    /// <summary>The months from one on that have no partition, and no rows in the rest.</summary>
    private static async Task<List<DateTime>> MissingAsync(NpgsqlConnection connection, string s, DateTime first, CancellationToken cancellationToken)
    {
        var missing = new List<DateTime>();
        for (var i = 0; i <= Ahead; i++)
        {
            var month = first.AddMonths(i);
            var command = new NpgsqlCommand(
                $"SELECT to_regclass($1) IS NULL AND NOT EXISTS (SELECT FROM {s}.flow_rest r WHERE r.at >= $2 AND r.at < $3)", connection)
            {
                Parameters = { new() { Value = $"{s}.{NameOf(month)}" }, new() { Value = Begin(month) }, new() { Value = Begin(month.AddMonths(1)) } },
            };
            await using var disposing = command.ConfigureAwait(false);
            if (await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true)
            {
                missing.Add(month);
            }
        }

        return missing;
    }
}
