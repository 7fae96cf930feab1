using System.Globalization;
using System.Text;
using Holdfast.Queueing;
using Holdfast.Rules;
using Holdfast.Wire;
using Microsoft.Data.Sqlite;

namespace Holdfast.Sqlite;

/// <summary>
/// A connection that only reads. Each method is one short read of one snapshot and holds nothing afterwards; listings
/// go on from a key. Used by one caller at a time.
/// </summary>
internal sealed class Reader : IDisposable
{
    private readonly Database _database;
    private readonly Dictionary<string, Statement> _listings = new(StringComparer.Ordinal);
    private readonly Statement _begin, _end, _level, _operation, _highestTime;

    private Reader(Database database)
    {
        _database = database;
        _begin = database.Prepare("BEGIN");
        _end = database.Prepare("COMMIT");
        _level = database.Prepare($"SELECT {Level} WHERE s.sku = ?2");
        _operation = database.Prepare($"SELECT {StoredOperation.Columns} FROM operation o WHERE o.id = ?1");
        _highestTime = database.Prepare("SELECT highest_time FROM store");
    }

    /// <summary>A stock row, and the units of it that reservations hold whose time (?1) has passed. One statement, so one snapshot.</summary>
    private static string Level =>
        """
        s.sku, s.available, s.reserved, s.restocked, s.adjusted, s.version,
        CASE WHEN s.reserved > 0 THEN (SELECT sum(h.quantity) FROM hold h WHERE h.stock = s.id AND h.expires_at <= ?1) END
        FROM stock s
        """;

    public static Reader Open(string path, SqliteOptions options)
    {
        var database = Database.Open(path, SqliteOpenMode.ReadOnly, options.BusyTimeout);
        try
        {
            var version = Schema.Examine(database, Schema.Migrations);
            if (version < Schema.Migrations.Count)
            {
                throw new SqliteStoreException(version == 0
                    ? $"The stock file '{path}' is empty: open it for writing first."
                    : $"The stock file '{path}' has schema version {version}, older than this build's {Schema.Migrations.Count}: open it for writing once, which brings it up to date.");
            }

            database.Run($"PRAGMA cache_size = -{Tuning.ReaderCacheKiB}");
            return new(database);
        }
        catch
        {
            database.Dispose();
            throw;
        }
    }

    /// <summary>Who opened the file for writing last; empty where that is not known.</summary>
    public string Signature() => _database.Text("SELECT writer FROM store");

    /// <summary>Incidents of a gate after a number, and the last one's number.</summary>
    public (List<GateIncident> Page, long Last) ReadIncidents(string gate, long after)
    {
        using var read = new Statement(_database, "SELECT number, epoch, entry, outcome, at, command FROM gate_incident WHERE gate = ?1 AND number > ?2 ORDER BY number LIMIT 500");
        read.Bind(1, gate).Bind(2, after);
        var page = new List<GateIncident>();
        while (read.Step())
        {
            after = read.Int(0);
            page.Add(new()
            {
                Gate = gate,
                Epoch = read.Int(1),
                Entry = read.TextOrNull(2)!,
                Outcome = Enum.TryParse<StockStatus>(read.TextOrNull(3), out var outcome) ? outcome : StockStatus.None,
                At = DateTimeOffset.FromUnixTimeMilliseconds(read.Int(4)),
                Command = StockJson.ReadCommand(Encoding.UTF8.GetBytes(read.TextOrNull(5)!)),
            });
        }

        return (page, after);
    }

    public long HighestTime()
    {
        try
        {
            _highestTime.Step();
            return _highestTime.Int(0);
        }
        finally
        {
            _highestTime.Reset();
        }
    }

    public StockLevel[] Levels(IReadOnlyList<string> skus, long now)
    {
        var levels = new StockLevel[skus.Count];
        if (levels.Length == 1)
        {
            levels[0] = FindLevel(skus[0], now);
            return levels;
        }

        // One snapshot for all of them: a cart is never seen half applied.
        _begin.Run();
        try
        {
            for (var i = 0; i < levels.Length; i++)
            {
                levels[i] = FindLevel(skus[i], now);
            }
        }
        finally
        {
            // SQLite may have ended it after an error.
            if (_database.InTransaction)
            {
                _end.Run();
            }
        }

        return levels;
    }

    /// <summary>The SKUs after <paramref name="after"/> that begin with <paramref name="prefix"/>, and whether there may be more.</summary>
    public (List<StockLevel> Page, bool MayGoOn) ListLevels(string prefix, string? after, long now)
    {
        var listing = after is null
            ? Listing($"SELECT {Level} WHERE s.sku >= ?2 ORDER BY s.sku LIMIT ?3").Bind(2, prefix.Length == 0 ? "\0" : prefix)
            : Listing($"SELECT {Level} WHERE s.sku > ?2 ORDER BY s.sku LIMIT ?3").Bind(2, after);
        listing.Bind(1, now).Bind(3, Tuning.PageRows);
        var page = new List<StockLevel>();
        try
        {
            while (listing.Step())
            {
                var sku = listing.Text(0);
                if (!sku.StartsWith(prefix, StringComparison.Ordinal))
                {
                    return (page, false);
                }

                page.Add(ReadLevel(listing, sku));
            }
        }
        finally
        {
            listing.Reset();
        }

        return (page, page.Count == Tuning.PageRows);
    }

    /// <summary>A recorded verdict. Only where the tables of queue and verdicts were made.</summary>
    public Verdict? FindVerdict(string id)
    {
        var find = Listing(SqliteVerdicts.Find).Bind(1, id);
        try
        {
            return find.Step() ? SqliteVerdicts.Read(find) : null;
        }
        finally
        {
            find.Reset();
        }
    }

    public OperationView? FindOperation(string id, long now)
    {
        try
        {
            return _operation.Bind(1, id).Step() ? StoredOperation.Read(_operation).Operation.ToView(now) : null;
        }
        finally
        {
            _operation.Reset();
        }
    }

    /// <summary>The number of the newest operation.</summary>
    public long LastOperation() => _database.Number("SELECT max(seq) FROM operation");

    /// <summary>The next page of a listing in the order of creation, from after <paramref name="after"/> up to <paramref name="end"/>, both numbers of operations.</summary>
    /// <returns>The operations, and where to go on; <see langword="null"/> at the end.</returns>
    public (List<OperationView> Page, long? GoOnAfter) ListOperations(OperationQuery query, long after, long end, long now)
    {
        const string range = "o.seq > ?1 AND o.seq <= ?2";
        var select = $"SELECT {StoredOperation.Columns} FROM operation o WHERE";
        var listing = query switch
        {
            { Target: { } target } => Listing($"{select} o.target = ?4 AND o.state <> 7 AND {range} ORDER BY o.seq LIMIT ?3").Bind(4, target),

            // A reservation that is due counts as expired although its row says otherwise.
            { State: OperationState.Expired } => Listing(
                $"""
                {select} o.state <> 1 AND o.state = 6 AND {range}
                UNION ALL
                {select} o.state <> 1 AND o.state = 2 AND o.pending IS NULL AND o.expires_at <= ?4 AND {range}
                ORDER BY 1 LIMIT ?3
                """).Bind(4, now),
            { State: { } state and not OperationState.Applied } => Listing(
                $"{select} o.state <> 1 AND o.state = ?4 AND {range} ORDER BY o.seq LIMIT ?3").Bind(4, (long)state),
            _ => Listing($"{select} o.state <> 7 AND {range} ORDER BY o.seq LIMIT ?3"),
        };
        listing.Bind(1, after).Bind(2, end).Bind(3, Tuning.PageRows);
        var page = new List<OperationView>();
        int rows = 0, lines = 0;
        try
        {
            while (listing.Step())
            {
                var stored = StoredOperation.Read(listing);
                after = stored.Seq;
                var view = stored.Operation.ToView(now, after.ToString(CultureInfo.InvariantCulture));
                if (view.CreatedAt >= query.CreatedBefore)
                {
                    // Store time never falls, so what was created later is not asked for either.
                    return (page, null);
                }

                if ((query.State is null || view.State == query.State) && (query.Target is null || view.Target == query.Target))
                {
                    page.Add(view);
                }

                rows++;
                lines += view.Lines.Length;
                if (lines >= Tuning.PageLines)
                {
                    return (page, after);
                }
            }
        }
        finally
        {
            listing.Reset();
        }

        return (page, rows == Tuning.PageRows ? after : null);
    }

    /// <summary>The next page of the reservations whose time has passed and which nobody ended, in the order of expiry.</summary>
    public (List<OperationView> Page, (long ExpiresAt, long Seq)? GoOnAfter) ListDue(OperationQuery query, (long ExpiresAt, long Seq) after, long now)
    {
        var listing = Listing(
            $"""
            SELECT {StoredOperation.Columns} FROM operation o
            WHERE o.state = 2 AND o.pending IS NULL AND o.expires_at <= ?1 AND (o.expires_at, o.seq) > (?2, ?3)
            ORDER BY o.expires_at, o.seq LIMIT ?4
            """).Bind(1, now).Bind(2, after.ExpiresAt).Bind(3, after.Seq).Bind(4, Tuning.PageRows);
        var page = new List<OperationView>();
        int rows = 0, lines = 0;
        try
        {
            while (listing.Step())
            {
                var stored = StoredOperation.Read(listing);
                after = (stored.Operation.ExpiresAt, stored.Seq);
                var view = stored.Operation.ToView(now, string.Create(CultureInfo.InvariantCulture, $"{after.ExpiresAt}.{after.Seq}"));
                if ((query.State is null || view.State == query.State)
                    && (query.Target is null || view.Target == query.Target)
                    && !(view.CreatedAt >= query.CreatedBefore))
                {
                    page.Add(view);
                }

                rows++;
                lines += view.Lines.Length;
                if (lines >= Tuning.PageLines)
                {
                    return (page, after);
                }
            }
        }
        finally
        {
            listing.Reset();
        }

        return (page, rows == Tuning.PageRows ? after : null);
    }

    /// <summary>What is prepared and not decided: operations, and what is pending about operations.</summary>
    public List<OperationView> ListUndecided(long now)
    {
        var listing = Listing(
            $"""
            SELECT {StoredOperation.Columns} FROM operation o WHERE o.state <> 1 AND o.state = 7
            UNION ALL
            SELECT {StoredOperation.Columns} FROM operation o WHERE o.pending IS NOT NULL
            """);
        var all = new List<OperationView>();
        try
        {
            while (listing.Step())
            {
                all.Add(StoredOperation.Read(listing).Operation.ToView(now));
            }
        }
        finally
        {
            listing.Reset();
        }

        return all;
    }

    /// <summary>The present end of the ledger: of a SKU its version, of the whole store the last position. And the SKU's number.</summary>
    public (long Stock, long End) FlowEnd(string? sku)
    {
        if (sku is null)
        {
            return (0, _database.Number("SELECT max(position) FROM flow"));
        }

        var row = Listing("SELECT id, version FROM stock WHERE sku = ?1").Bind(1, sku);
        try
        {
            return row.Step() ? (row.Int(0), row.Int(1)) : (0, 0);
        }
        finally
        {
            row.Reset();
        }
    }

    /// <summary>The next entries after <paramref name="after"/> up to <paramref name="end"/>, at most so many: versions of one SKU, or positions of the whole ledger.</summary>
    public List<FlowEntry> ReadFlow(string? sku, long stock, long after, long end, int most)
    {
        const string columns = "f.position, s.sku, f.version, o.id, f.kind, f.available_change, f.reserved_change, f.available, f.reserved, f.at";
        const string joins = "LEFT JOIN stock s ON s.id = f.stock LEFT JOIN operation o ON o.seq = f.operation";
        var listing = sku is null
            ? Listing($"SELECT {columns} FROM flow f {joins} WHERE f.position > ?1 AND f.position <= ?2 ORDER BY f.position LIMIT ?3")
            : Listing($"SELECT {columns} FROM flow f {joins} WHERE f.stock = ?4 AND f.version > ?1 AND f.version <= ?2 ORDER BY f.version LIMIT ?3").Bind(4, stock);
        listing.Bind(1, after).Bind(2, end).Bind(3, most);
        var page = new List<FlowEntry>(most);
        try
        {
            while (listing.Step())
            {
                if (listing.IsNull(1) || listing.IsNull(3))
                {
                    throw new SqliteStoreException(
                        $"The stock file '{_database.Path}': entry {listing.Int(0)} of the ledger belongs to a stock row or an operation that is missing, so the file was changed by other hands: restore a backup.");
                }

                var version = listing.Int(2);
                page.Add(new()
                {
                    Sku = sku ?? RepeatedText(listing.Utf8(1), page.Count > 0 ? page[^1].Sku : ""),
                    Version = version,
                    OperationId = RepeatedText(listing.Utf8(3), page.Count > 0 ? page[^1].OperationId : ""),
                    Kind = (FlowKind)listing.Int(4),
                    AvailableChange = listing.Int(5),
                    ReservedChange = listing.Int(6),
                    Available = listing.Int(7),
                    Reserved = listing.Int(8),
                    At = DateTimeOffset.FromUnixTimeMilliseconds(listing.Int(9)),
                    Cursor = (sku is null ? listing.Int(0) : version).ToString(CultureInfo.InvariantCulture),
                });
            }
        }
        finally
        {
            listing.Reset();
        }

        return page;
    }

    public void Dispose() => _database.Dispose();

    private StockLevel FindLevel(string sku, long now)
    {
        // What the contract does not let in is not in the file; asked for, half a surrogate pair would be read as U+FFFD.
        if (StockKey.Problem(sku) is not null)
        {
            return new() { Sku = sku };
        }

        try
        {
            return _level.Bind(1, now).Bind(2, sku).Step() ? ReadLevel(_level, sku) : new() { Sku = sku };
        }
        finally
        {
            _level.Reset();
        }
    }

    private static StockLevel ReadLevel(Statement row, string sku)
    {
        var stock = new StockRow(sku)
        {
            Available = row.Int(1),
            Reserved = row.Int(2),
            Restocked = row.Int(3),
            Adjusted = row.Int(4),
            Version = row.Int(5),
        };
        return stock.ToLevel(dueUnits: row.Int(6));
    }

    /// <summary>Neighbouring entries often share their SKU (one hot SKU) or their operation (a cart): then the text too.</summary>
    private static string RepeatedText(ReadOnlySpan<byte> utf8, string previous)
    {
        Span<byte> buffer = stackalloc byte[StockLimits.MaxKeyLength * 3];
        var length = previous.Length <= StockLimits.MaxKeyLength ? Encoding.UTF8.GetBytes(previous, buffer) : 0;
        return length > 0 && utf8.SequenceEqual(buffer[..length]) ? previous : Encoding.UTF8.GetString(utf8);
    }

    /// <summary>Listings come in few shapes; each is prepared when it is first asked for.</summary>
    private Statement Listing(string sql)
    {
        if (!_listings.TryGetValue(sql, out var listing))
        {
            _listings.Add(sql, listing = _database.Prepare(sql));
        }

        return listing;
    }
}
