using System.Buffers;
using System.Text;
using System.Text.Json;
using Holdfast.Queueing;
using Holdfast.Wire;
using Npgsql;

namespace Holdfast.PostgreSql;

/// <summary>Verdicts in the store's schema.</summary>
internal sealed class PostgreSqlVerdicts : IVerdictStore
{
    private const string Columns = "v.id, v.verb, v.operation, v.result, v.at";
    private const string Now = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

    private readonly PostgreSqlEngine _engine;
    private readonly Statements _sql;
    private readonly string _record, _find, _purge, _take, _settle, _count;

    public PostgreSqlVerdicts(PostgreSqlEngine engine, Statements sql)
    {
        _engine = engine;
        _sql = sql;
        var s = Schema.Quote(engine.Options.Schema);

        // Ascending by id, as every unique insert.
        _record = $"INSERT INTO {s}.verdict(id, verb, operation, result, at, due_at) SELECT v.id, v.verb, v.operation, v.result, v.at, CASE WHEN $6::bigint = 1 THEN {Now} END FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::bigint[]) v(id, verb, operation, result, at) ORDER BY v.id COLLATE \"C\" ON CONFLICT DO NOTHING";
        _find = $"SELECT {Columns} FROM {s}.verdict v WHERE v.id = ANY($1)";
        _purge = $"DELETE FROM {s}.verdict v WHERE v.id = ANY(ARRAY(SELECT o.id FROM {s}.verdict o WHERE o.at < $1 AND o.due_at IS NULL LIMIT $2)) RETURNING 1";
        _take = $"UPDATE {s}.verdict v SET due_at = {Now} + $2, attempts = v.attempts + 1 FROM (SELECT d.id FROM {s}.verdict d WHERE d.due_at <= {Now} ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED) due WHERE v.id = due.id RETURNING {Columns}, v.attempts";
        _settle = $"UPDATE {s}.verdict v SET due_at = $2::bigint, given_up = $3::bigint = 1 WHERE v.id = $1";
        _count = $"SELECT (SELECT count(*) FROM {s}.verdict v WHERE v.due_at IS NOT NULL), (SELECT count(*) FROM {s}.verdict v WHERE v.given_up)";
    }

    public async ValueTask RecordAsync(IReadOnlyList<Verdict> verdicts, bool announce = false, CancellationToken cancellationToken = default) => await _engine.QueryAsync(
        _record,
        command => command
            .With([.. verdicts.Select(static verdict => verdict.Id)])
            .With([.. verdicts.Select(static verdict => (short)verdict.Verb)])
            .With([.. verdicts.Select(static verdict => verdict.OperationId)])
            .With(ResultTexts(verdicts))
            .With([.. verdicts.Select(static verdict => verdict.At.ToUnixTimeMilliseconds())])
            .With(announce ? 1L : 0L),
        static _ => true,
        cancellationToken).ConfigureAwait(false);

    public async ValueTask<IReadOnlyList<Verdict?>> FindAsync(IReadOnlyList<string> ids, CancellationToken cancellationToken = default)
    {
        // What the contract does not let in is not in the store, and some of it the database would not even take as text.
        var asked = ids.Where(id => StockKey.Problem(id) is null).Distinct(StringComparer.Ordinal).ToArray();
        var found = new Dictionary<string, Verdict>(StringComparer.Ordinal);
        foreach (var verdict in await _engine.QueryAsync(_find, command => command.With(asked), Read, cancellationToken).ConfigureAwait(false))
        {
            found.Add(verdict.Id, verdict);
        }

        var rest = asked.Where(id => !found.ContainsKey(id)).ToArray();
        if (rest.Length > 0)
        {
            foreach (var verdict in await _engine.QueryAsync(
                _sql.FindOperations, command => command.With(rest), static row => Verdict.Of(StoredOperation.Read(row).Operation.ToView(0)), cancellationToken).ConfigureAwait(false))
            {
                found.Add(verdict.Id, verdict);
            }
        }

        return [.. ids.Select(found.GetValueOrDefault)];
    }

    public async ValueTask<int> PurgeAsync(DateTimeOffset before, int most, CancellationToken cancellationToken = default) => (await _engine.QueryAsync(
        _purge, command => command.With(before.ToUnixTimeMilliseconds()).With((long)most), static _ => true, cancellationToken).ConfigureAwait(false)).Count;

    public async ValueTask<IReadOnlyList<Announcement>> TakeAnnouncementsAsync(int most, TimeSpan lease, CancellationToken cancellationToken = default) => await _engine.QueryAsync(
        _take,
        command => command.With((long)most).With((long)lease.TotalMilliseconds),
        static row => new Announcement(Read(row), row.GetInt32(5)),
        cancellationToken).ConfigureAwait(false);

    public async ValueTask SettleAnnouncementAsync(string id, bool isDelivered, DateTimeOffset? again = null, CancellationToken cancellationToken = default) => await _engine.QueryAsync(
        _settle,
        command => command.With(id).With(isDelivered ? null : again?.ToUnixTimeMilliseconds()).With(!isDelivered && again is null ? 1L : 0L),
        static _ => true,
        cancellationToken).ConfigureAwait(false);

    public async ValueTask<AnnouncementCounts> CountAnnouncementsAsync(CancellationToken cancellationToken = default) => (await _engine.QueryAsync(
        _count, static _ => { }, static row => new AnnouncementCounts(row.GetInt64(0), row.GetInt64(1)), cancellationToken).ConfigureAwait(false))[0];

    private static Verdict Read(NpgsqlDataReader row) => new()
    {
        Id = row.GetString(0),
        Verb = (StockVerb)row.GetInt16(1),
        OperationId = row.GetString(2),
        Result = StockJson.ReadResult(Encoding.UTF8.GetBytes(row.GetString(3))),
        At = DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(4)),
    };

    private static string[] ResultTexts(IReadOnlyList<Verdict> verdicts)
    {
        var bytes = new ArrayBufferWriter<byte>(256);
        using var json = new Utf8JsonWriter(bytes);
        var texts = new string[verdicts.Count];
        for (var i = 0; i < texts.Length; i++)
        {
            bytes.ResetWrittenCount();
            json.Reset(bytes);
            StockJson.WriteResult(json, verdicts[i].Result);
            json.Flush();
            texts[i] = Encoding.UTF8.GetString(bytes.WrittenSpan);
        }

        return texts;
    }
}
