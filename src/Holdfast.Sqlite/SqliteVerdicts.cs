using System.Buffers;
using System.Text.Json;
using Holdfast.Queueing;
using Holdfast.Wire;

namespace Holdfast.Sqlite;

/// <summary>Verdicts in the stock file.</summary>
internal sealed class SqliteVerdicts(SqliteEngine engine, TimeProvider clock) : IVerdictStore
{
    private const string Columns = "id, verb, operation, result, at";

    public async ValueTask RecordAsync(IReadOnlyList<Verdict> verdicts, bool announce = false, CancellationToken cancellationToken = default) =>
        await engine.WriteAsync(
            database =>
            {
                using var insert = new Statement(database, $"INSERT INTO verdict({Columns}, due_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING");
                var bytes = new ArrayBufferWriter<byte>(256);
                using var json = new Utf8JsonWriter(bytes);
                foreach (var verdict in verdicts)
                {
                    bytes.ResetWrittenCount();
                    json.Reset(bytes);
                    StockJson.WriteResult(json, verdict.Result);
                    json.Flush();
                    var at = verdict.At.ToUnixTimeMilliseconds();
                    insert.Bind(1, verdict.Id).Bind(2, (long)verdict.Verb).Bind(3, verdict.OperationId).BindUtf8(4, bytes.WrittenSpan);
                    insert.Bind(5, at).Bind(6, announce ? at : null).Run();
                }

                return true;
            },
            cancellationToken).ConfigureAwait(false);

    public ValueTask<IReadOnlyList<Verdict?>> FindAsync(IReadOnlyList<string> ids, CancellationToken cancellationToken = default) => engine.QueryAsync<IReadOnlyList<string>, IReadOnlyList<Verdict?>>(
        ids,
        static (reader, ids, now) =>
        {
            var found = new Verdict?[ids.Count];
            for (var i = 0; i < found.Length; i++)
            {
                found[i] = reader.FindVerdict(ids[i]) ?? (reader.FindOperation(ids[i], now) is { } operation ? Verdict.Of(operation) : null);
            }

            return found;
        },
        cancellationToken);

    public ValueTask<int> PurgeAsync(DateTimeOffset before, int most, CancellationToken cancellationToken = default) => engine.WriteAsync(
        database =>
        {
            using var delete = new Statement(database, "DELETE FROM verdict WHERE id IN (SELECT id FROM verdict WHERE at < ?1 AND due_at IS NULL LIMIT ?2)");
            delete.Bind(1, before.ToUnixTimeMilliseconds()).Bind(2, most).Run();
            return (int)database.Number("SELECT changes()");
        },
        cancellationToken);

    public ValueTask<IReadOnlyList<Announcement>> TakeAnnouncementsAsync(int most, TimeSpan lease, CancellationToken cancellationToken = default) => engine.WriteAsync<IReadOnlyList<Announcement>>(
        database =>
        {
            var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
            using var take = new Statement(
                database,
                $"""
                UPDATE verdict SET due_at = ?1, attempts = attempts + 1
                WHERE id IN (SELECT id FROM verdict WHERE due_at <= ?2 ORDER BY due_at LIMIT ?3)
                RETURNING {Columns}, attempts
                """);
            take.Bind(1, now + (long)lease.TotalMilliseconds).Bind(2, now).Bind(3, most);
            var taken = new List<Announcement>();
            while (take.Step())
            {
                taken.Add(new(Read(take), (int)take.Int(5)));
            }

            return taken;
        },
        cancellationToken);

    public async ValueTask SettleAnnouncementAsync(string id, bool isDelivered, DateTimeOffset? again = null, CancellationToken cancellationToken = default) =>
        await engine.WriteAsync(
            database =>
            {
                using var settle = new Statement(database, "UPDATE verdict SET due_at = ?2, given_up = ?3 WHERE id = ?1");
                settle.Bind(1, id).Bind(2, isDelivered ? null : again?.ToUnixTimeMilliseconds()).Bind(3, !isDelivered && again is null ? 1 : 0).Run();
                return true;
            },
            cancellationToken).ConfigureAwait(false);

    public ValueTask<AnnouncementCounts> CountAnnouncementsAsync(CancellationToken cancellationToken = default) => engine.WriteAsync(
        static database => new AnnouncementCounts(
            database.Number("SELECT count(*) FROM verdict WHERE due_at IS NOT NULL"),
            database.Number("SELECT count(*) FROM verdict WHERE given_up = 1")),
        cancellationToken);

    /// <summary>The verdict of the row that a statement stands on.</summary>
    public static Verdict Read(Statement row) => new()
    {
        Id = row.Text(0),
        Verb = (StockVerb)row.Int(1),
        OperationId = row.Text(2),
        Result = StockJson.ReadResult(row.Utf8(3)),
        At = DateTimeOffset.FromUnixTimeMilliseconds(row.Int(4)),
    };

    /// <summary>What a reader asks for one verdict.</summary>
    public const string Find = $"SELECT {Columns} FROM verdict WHERE id = ?1";
}
