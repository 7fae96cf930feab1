using System.Globalization;

namespace Holdfast.PostgreSql;

/// <summary>
/// The SQL of a store, with its schema's name in it: nothing depends on the search path, so the same text runs in an
/// application's own transaction.
/// </summary>
internal sealed class Statements
{
    /// <summary>The columns that <see cref="StoredOperation.Read"/> expects, in its order.</summary>
    public const string OperationColumns = "o.id, o.verb, o.state, o.target, o.lines, o.note, o.created_at, o.expires_at, o.ended_at, o.end_left, o.refunded, o.cart, o.pending";

    public const string Begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    public const string Commit = "COMMIT";
    public const string RollBack = "ROLLBACK";

    /// <summary>
    /// Before a COMMIT of nothing: makes it wait for the synchronous standby, where there is one, as a COMMIT of something
    /// would (a mark in the log, a few bytes). Everything that this transaction has seen is on the standby then. Where
    /// there is none the COMMIT flushes nothing, as little as a ROLLBACK.
    /// </summary>
    public const string AwaitStandby =
        "SELECT CASE WHEN current_setting('synchronous_standby_names') <> '' THEN pg_logical_emit_message(true, 'holdfast', ''::text)::text ELSE set_config('synchronous_commit', 'off', true) END";

    private const string RowColumns = "s.sku, s.available, s.reserved, s.restocked, s.adjusted, s.supplied, s.version, s.changed_at, s.held";

    private readonly string _holdGate;

    public Statements(string schema)
    {
        var s = Schema.Quote(schema);

        // The store's time: the later of its clock and the highest time it has stored. $1 is the highest that this
        // process knows of, $2 a clock that takes the database's place in tests. The newest ledger entry stands for what
        // other processes stored; reading it costs one step down an index, where a row that every transaction writes
        // would make them all queue up. The latest archive stands for the entries that it took away.
        const string clock = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        var time = $"greatest($1::bigint, coalesce($2::bigint, {clock}), (SELECT f.at FROM {s}.flow f ORDER BY f.position DESC LIMIT 1), (SELECT a.before FROM {s}.flow_archive a ORDER BY a.number DESC LIMIT 1))";

        // The SKUs of the operations named in $2 and of the reservations that are due, beside those of $1: a Confirm
        // names no SKU, but touches some.
        var widened =
            $"""
            WITH a AS MATERIALIZED (
                SELECT $1::text[] || ARRAY(
                    SELECT l.value->>0 FROM {s}.operation o CROSS JOIN LATERAL json_array_elements(o.lines::json) l WHERE o.id = ANY($2::text[])) AS skus)
            """;
        var due = "SELECT l.value->>0 FROM {s}.hold h JOIN {s}.operation d ON d.id = h.operation CROSS JOIN LATERAL json_array_elements(d.lines::json) l WHERE h.sku = ANY((SELECT a.skus FROM a)::text[]) AND h.expires_at <= greatest($3::bigint, coalesce($4::bigint, clock))"
            .Replace("{s}", s, StringComparison.Ordinal).Replace("clock))", clock + "))", StringComparison.Ordinal);

        ReadRows = $"SELECT {RowColumns} FROM {s}.stock s WHERE s.sku = ANY($1)";

        // Ascending by SKU, as everywhere: two transactions never wait for each other in a circle.
        LockRows = $"{ReadRows} ORDER BY s.sku FOR NO KEY UPDATE";
        ReadRowsWidened = $"{widened} SELECT {RowColumns} FROM {s}.stock s WHERE s.sku = ANY(((SELECT a.skus FROM a) || ARRAY({due}))::text[])";
        LockRowsWidened = $"{ReadRowsWidened} ORDER BY s.sku FOR NO KEY UPDATE";

        PlaceBookmark = $"SELECT pg_advisory_xact_lock_shared({Bookmarks.Class(schema)}, {Bookmarks.Place("last_value")}) FROM {s}.flow_block";
        TakeBlock = $"SELECT nextval('{s}.flow_block'::regclass)";
        LastBlock = $"SELECT last_value FROM {s}.flow_block";
        FindBookmarks = $"SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = {unchecked((uint)Bookmarks.Class(schema))} AND objsubid = 2";

        Now = $"SELECT {time}";

        // The time, and the reservations of the SKUs that are due at it: one row at least.
        TimeAndDue =
            $"""
            WITH t AS MATERIALIZED (SELECT {time} AS now)
            SELECT t.now, {OperationColumns}
            FROM t LEFT JOIN LATERAL (
                SELECT d.* FROM {s}.hold h JOIN {s}.operation d ON d.id = h.operation WHERE h.sku = ANY($3) AND h.expires_at <= t.now
            ) o ON true
            """;
        TimeAndDueWidened =
            $"""
            WITH t AS MATERIALIZED (SELECT {time} AS now),
            a AS MATERIALIZED (
                SELECT $3::text[] || ARRAY(
                    SELECT l.value->>0 FROM {s}.operation o CROSS JOIN LATERAL json_array_elements(o.lines::json) l WHERE o.id = ANY($4::text[])) AS skus)
            SELECT t.now, {OperationColumns}
            FROM t LEFT JOIN LATERAL (
                SELECT d.* FROM {s}.hold h JOIN {s}.operation d ON d.id = h.operation WHERE h.sku = ANY((SELECT a.skus FROM a)::text[]) AND h.expires_at <= t.now
            ) o ON true
            """;
        FindOperations = $"SELECT {OperationColumns} FROM {s}.operation o WHERE o.id = ANY($1)";

        InsertRows =
            $"""
            INSERT INTO {s}.stock(sku, available, reserved, restocked, adjusted, supplied, version, held, changed_at)
            SELECT u.*, $9 FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) u
            """;
        UpdateRows =
            $"""
            UPDATE {s}.stock s SET available = u.available, reserved = u.reserved, restocked = u.restocked, adjusted = u.adjusted, supplied = u.supplied, version = u.version, held = u.held, changed_at = $9
            FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) u(sku, available, reserved, restocked, adjusted, supplied, version, held)
            WHERE s.sku = u.sku
            """;
        UpdateRowOfVersion =
            $"UPDATE {s}.stock SET available = $2, reserved = $3, restocked = $4, adjusted = $5, supplied = $6, version = $7, changed_at = $8, held = $10 WHERE sku = $1 AND version = $9 AND held = $11 AND supplied = $12";
        InsertPlainOperations =
            $"""
            INSERT INTO {s}.operation(id, verb, lines, state, created_at)
            SELECT u.*, 1, $4 FROM unnest($1::text[], $2::smallint[], $3::text[]) u
            """;
        InsertOperations =
            $"""
            INSERT INTO {s}.operation(id, verb, lines, state, expires_at, ended_at, target, note, end_left, refunded, cart, pending, created_at)
            SELECT u.*, $13 FROM unnest($1::text[], $2::smallint[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]) u
            """;
        UpdateOperations =
            $"""
            UPDATE {s}.operation o SET state = u.state, ended_at = u.ended_at, end_left = u.end_left, refunded = u.refunded, pending = u.pending
            FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::text[]) u(id, state, ended_at, end_left, refunded, pending)
            WHERE o.id = u.id
            """;
        UpdateOperationAsRead =
            $"UPDATE {s}.operation SET state = $2, ended_at = $3, end_left = $4, refunded = $5, pending = $8 WHERE id = $1 AND state = $6 AND refunded IS NOT DISTINCT FROM $7 AND pending IS NOT DISTINCT FROM $9";
        RemoveOperations = $"DELETE FROM {s}.operation WHERE id = ANY($1)";
        InsertHolds = $"INSERT INTO {s}.hold(sku, expires_at, operation, quantity) SELECT u.* FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) u";
        DeleteHolds =
            $"""
            DELETE FROM {s}.hold h USING unnest($1::text[], $2::bigint[], $3::text[]) u(sku, expires_at, operation)
            WHERE h.sku = u.sku AND h.expires_at = u.expires_at AND h.operation = u.operation
            """;

        // A transaction that took its time before the ledger up to there was archived finds no time to write, fails, and is
        // decided anew: an archive stays complete. It can only have stood still for very long.
        var inTime = $"CASE WHEN {{at}} >= coalesce((SELECT a.before FROM {s}.flow_archive a ORDER BY a.number DESC LIMIT 1), 0) THEN {{at}} END";
        InsertFlow =
            $"""
            INSERT INTO {s}.flow(position, sku, version, operation, kind, available_change, reserved_change, available, reserved, at)
            SELECT u.*, {inTime.Replace("{at}", "$10", StringComparison.Ordinal)} FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) u
            """;

        // Nothing but deductions, say: what is the same for every entry is sent once, and positions are counted up from $1.
        InsertPlainFlow =
            $"""
            INSERT INTO {s}.flow(position, sku, version, operation, available_change, available, kind, reserved_change, reserved, at)
            SELECT $1 + u.place - 1, u.sku, u.version, u.operation, u.available_change, u.available, $7, 0, 0, {inTime.Replace("{at}", "$8", StringComparison.Ordinal)}
            FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) WITH ORDINALITY u(sku, version, operation, available_change, available, place)
            """;

        // The article's conditional update. Rows with holds are left to the rules, which release those that are due.
        TakeIfThere =
            $"""
            UPDATE {s}.stock SET available = available - $4, reserved = reserved + $5, version = version + 1, changed_at = greatest(changed_at, {time})
            WHERE sku = $3 AND available - held >= $4 AND reserved = 0
            RETURNING available, version, changed_at
            """;

        var level =
            $"""
            s.sku, s.available, s.reserved, s.restocked, s.adjusted, s.version,
            CASE WHEN s.reserved > 0 THEN (SELECT sum(h.quantity)::bigint FROM {s}.hold h WHERE h.sku = s.sku AND h.expires_at <= greatest(t.now, s.changed_at)) END
            FROM t, {s}.stock s
            """;
        Levels = $"WITH t AS MATERIALIZED (SELECT {time} AS now) SELECT {level} WHERE s.sku = ANY($3)";
        ListLevels = $"WITH t AS MATERIALIZED (SELECT {time} AS now) SELECT {level} WHERE s.sku >= $3 AND s.sku > $4 ORDER BY s.sku LIMIT $5";
        _holdGate = $"CALL {s}.hold_gate";
        KeepGate = $"""
            WITH kept AS (
                INSERT INTO {s}.gate_node AS n(gate, node, carried, until) VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')
                ON CONFLICT (gate, node) DO UPDATE SET carried = excluded.carried, until = excluded.until
            )
            SELECT epoch FROM {s}.gate WHERE name = $1 FOR SHARE
            """;
        AdvanceGate = $"""
            INSERT INTO {s}.gate AS g(name, turn, epoch) VALUES ($1, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
            ON CONFLICT (name) DO UPDATE SET epoch = greatest(g.epoch + 1, excluded.epoch), turn = 0 RETURNING epoch
            """;
        TakeGateTurn = $"UPDATE {s}.gate SET turn = turn + 1 WHERE name = $1 AND epoch = $2 RETURNING turn";
        GateMembers = $"SELECT node, carried, until > clock_timestamp() FROM {s}.gate_node WHERE gate = $1 ORDER BY node";
        LeaveGate = $"DELETE FROM {s}.gate_node WHERE gate = $1 AND node = $2";
        AddIncidents = $"""
            INSERT INTO {s}.gate_incident(gate, epoch, entry, outcome, at, command)
            SELECT * FROM unnest($1, $2, $3, $4, $5, $6) ON CONFLICT (gate, entry) DO NOTHING
            """;
        ReadIncidents = $"SELECT number, gate, epoch, entry, outcome, at, command FROM {s}.gate_incident WHERE gate = $1 AND number > $2 ORDER BY number LIMIT $3";
        FindOperation = $"SELECT {time}, {OperationColumns} FROM {s}.operation o WHERE o.id = $3";

        const string page = "AND o.id > $2 AND ($3::bigint IS NULL OR o.created_at < $3) ORDER BY o.id LIMIT $4";
        var select = $"SELECT {OperationColumns} FROM {s}.operation o WHERE";
        ListAll = $"{select} $1::bigint > 0 AND o.state <> 7 {page}";
        ListByTarget = $"{select} $1::bigint > 0 AND o.target = $5 AND o.state <> 7 {page}";
        ListByState = $"{select} $1::bigint > 0 AND o.state = $5 AND o.state <> 1 {page}";
        ListApplied = $"{select} $1::bigint > 0 AND o.state = 1 {page}";
        ListLive = $"{select} o.state = 2 AND o.state <> 1 AND o.expires_at > $1 {page}";
        ListExpired =
            $"""
            SELECT * FROM (
                ({select} $1::bigint > 0 AND o.state = 6 AND o.state <> 1 {page})
                UNION ALL
                ({select} o.state = 2 AND o.state <> 1 AND o.pending IS NULL AND o.expires_at <= $1 {page})
            ) o ORDER BY o.id LIMIT $4
            """;
        ListDue =
            $"{select} o.state = 2 AND o.pending IS NULL AND o.expires_at <= $1 AND (o.expires_at, o.id) > ($5, $2) AND ($3::bigint IS NULL OR o.created_at < $3) ORDER BY o.expires_at, o.id LIMIT $4";

        ListUndecided = $"{select} o.state = 7 AND o.state <> 1 UNION ALL {select} o.pending IS NOT NULL";

        const string flow = "f.position, f.sku, f.version, f.operation, f.kind, f.available_change, f.reserved_change, f.available, f.reserved, f.at";
        VersionOf = $"SELECT s.version FROM {s}.stock s WHERE s.sku = $1";
        const string opening = "o.position, o.sku, o.version, o.operation, 9::smallint AS kind, o.available AS available_change, o.reserved AS reserved_change, o.available, o.reserved, o.before AS at, o.restocked, o.adjusted, o.supplied, o.holds";

        // Openings stand in the place of the last entry that they stand for. Each side finds its own page by its index.
        string Page(string where, string order) =>
            $"""
            SELECT * FROM (
                (SELECT {flow}, NULL::bigint AS restocked, NULL::bigint AS adjusted, NULL::bigint AS supplied, NULL::text AS holds FROM {s}.flow f WHERE {where.Replace("{e}", "f", StringComparison.Ordinal)} ORDER BY f.{order} LIMIT $3)
                UNION ALL
                (SELECT {opening} FROM {s}.flow_opening o WHERE {where.Replace("{e}", "o", StringComparison.Ordinal)} ORDER BY o.{order} LIMIT $3)
            ) e ORDER BY e.{order} LIMIT $3
            """;
        SkuFlow = Page("{e}.sku = $4 AND {e}.version > $1 AND {e}.version <= $2", "version");
        WholeFlow = Page("{e}.position > $1 AND {e}.position <= $2", "position");
        Openings = $"SELECT {opening} FROM {s}.flow_opening o WHERE o.position > $1 AND o.position <= $2 ORDER BY o.position LIMIT $3";
        OldFlow = $"SELECT {flow} FROM {s}.flow f WHERE f.position > $1 AND f.position <= $2 AND f.at < $4 ORDER BY f.position LIMIT $3";
        Beat =
            $"""
            INSERT INTO {s}.heartbeat AS h(node, number, at) VALUES ($1, $2, {clock})
            ON CONFLICT (node) DO UPDATE SET number = excluded.number, at = excluded.at
            """;
        ForgetBeats = $"DELETE FROM {s}.heartbeat WHERE node = $1 OR at < {clock} - 86400000";
        ReadBeat = $"SELECT number FROM {s}.heartbeat WHERE node = $1";
        Check =
            $"""
            WITH t AS MATERIALIZED (SELECT {time} AS now)
            SELECT s.sku, s.available, s.reserved > 0 AND EXISTS (
                SELECT FROM {s}.hold h WHERE h.sku = s.sku AND h.expires_at <= greatest(t.now, s.changed_at) + $4::bigint)
            FROM t, {s}.stock s WHERE s.sku = ANY($3)
            """;
        KnownIds = $"SELECT o.id FROM {s}.operation o WHERE o.id = ANY($1)";
    }

    public string ReadRows { get; }

    public string LockRows { get; }

    public string ReadRowsWidened { get; }

    public string LockRowsWidened { get; }

    public string PlaceBookmark { get; }

    public string TakeBlock { get; }

    public string LastBlock { get; }

    public string FindBookmarks { get; }

    public string Now { get; }

    public string TimeAndDue { get; }

    public string TimeAndDueWidened { get; }

    public string FindOperations { get; }

    public string InsertRows { get; }

    public string UpdateRows { get; }

    public string UpdateRowOfVersion { get; }

    public string InsertPlainOperations { get; }

    public string InsertOperations { get; }

    public string UpdateOperations { get; }

    public string UpdateOperationAsRead { get; }

    public string RemoveOperations { get; }

    public string InsertHolds { get; }

    public string DeleteHolds { get; }

    public string InsertFlow { get; }

    public string InsertPlainFlow { get; }

    public string TakeIfThere { get; }

    public string Levels { get; }

    public string ListLevels { get; }

    public string FindOperation { get; }

    public string KeepGate { get; }

    public string AdvanceGate { get; }

    public string TakeGateTurn { get; }

    public string GateMembers { get; }

    public string LeaveGate { get; }

    public string AddIncidents { get; }

    public string ReadIncidents { get; }

    /// <summary>Fails in a transaction whose gate is in another epoch or turn, and keeps it in this one until the transaction ends. A gate's name has nothing to quote.</summary>
    public string HoldGate(string gate, long epoch, long turn) => string.Create(CultureInfo.InvariantCulture, $"{_holdGate}('{gate}', {epoch}, {turn})");

    public string ListAll { get; }

    public string ListByTarget { get; }

    public string ListByState { get; }

    public string ListApplied { get; }

    public string ListLive { get; }

    public string ListExpired { get; }

    public string ListDue { get; }

    public string ListUndecided { get; }

    public string VersionOf { get; }

    public string SkuFlow { get; }

    public string WholeFlow { get; }

    /// <summary>What earlier archives left.</summary>
    public string Openings { get; }

    /// <summary>The ledger up to a position, before an instant, openings left out.</summary>
    public string OldFlow { get; }

    public string Beat { get; }

    public string ForgetBeats { get; }

    public string ReadBeat { get; }

    public string Check { get; }

    public string KnownIds { get; }
}
