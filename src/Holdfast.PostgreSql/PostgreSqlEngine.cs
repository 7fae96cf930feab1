using System.Globalization;
using Holdfast.PostgreSql;
using Holdfast.Rules;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Holdfast;

/// <summary>
/// The whole contract in an ordinary PostgreSQL database, the owner of the truth. Keeps no state of its own: any number
/// of engines, in any number of processes, on one schema are one store. Thread-safe.
/// </summary>
/// <remarks>
/// With <see cref="PostgreSqlTransactions.Call"/> under group commit it is the scheme <c>batched</c>; alone with
/// <see cref="PostgreSqlTransactions.Command"/> the scheme <c>database</c>, with <see cref="PostgreSqlTransactions.Version"/>
/// <c>database-version</c>. A trouble that may pass (no connection, a lock held for too long, a shutdown) is answered as
/// Busy, or as InDoubt when the connection was lost with the COMMIT on its way; a read then throws
/// <see cref="PostgreSqlStoreException"/>. Every wait is bounded by the options. The database's clock decides expiry.
/// </remarks>
public sealed partial class PostgreSqlEngine : IStockEngine, IFlowEnd
{
    private static readonly string[] s_begin = [Statements.Begin];
    private static readonly string[] s_rollBack = [Statements.RollBack];
    private static readonly string[] s_beginAgain = [Statements.RollBack, Statements.Begin];
    private static readonly string[] s_confirm = [Statements.AwaitStandby, Statements.Commit];
    private static readonly string[] s_beginAndConfirm = [Statements.Begin, .. s_confirm];

    private readonly PostgreSqlOptions _options;
    private readonly NpgsqlDataSource _source;
    private readonly IAsyncDisposable _owner;
    private readonly Statements _sql;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly int _timeoutSeconds;
    private int _calls;
    private int _closing;

    /// <summary>The highest store time that this engine has seen.</summary>
    private long _highest;

    private PostgreSqlEngine(PostgreSqlOptions options, (NpgsqlDataSource Source, IAsyncDisposable Owner) connections, string server, TimeProvider clock, ILogger logger)
    {
        _options = options;
        (_source, _owner) = connections;
        _clock = clock;
        _logger = logger;
        Server = server;
        _sql = new(options.Schema);

        // The server stops a statement by itself; this is for a server that does not answer at all.
        _timeoutSeconds = (int)Math.Ceiling((options.StatementTimeout + TimeSpan.FromSeconds(2)).TotalSeconds);
    }

    /// <inheritdoc/>
    public StockTraits Traits { get; private set; } = StockTraits.All;

    /// <summary>What an acknowledgement survives, in words for logs and benchmark reports.</summary>
    public string Durability { get; private set; } = "";

    /// <summary>Where the data lies, for people: host, port, database and schema, no password.</summary>
    public string Server { get; }

    internal PostgreSqlOptions Options => _options;

    /// <summary>Connects, makes the schema or brings it up to date where need be, and looks at how durable the server is set.</summary>
    /// <param name="options">How to reach and treat the database; checked here.</param>
    /// <param name="clock">The clock of pauses between tries; the system's by default. (The store's time is the database's.)</param>
    /// <param name="logger">Where it says what it opened and what went wrong; nowhere by default.</param>
    /// <param name="cancellationToken">Stops the opening.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="PostgreSqlStoreException">The database can't be used; the message says why and what to do.</exception>
    public static async Task<PostgreSqlEngine> OpenAsync(PostgreSqlOptions options, TimeProvider? clock = null, ILogger<PostgreSqlEngine>? logger = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        var builder = options.Parse();
        var log = (ILogger?)logger ?? NullLogger.Instance;
        var server = NameOf(builder, options.Schema);
        var engine = new PostgreSqlEngine(options, SourceOf(builder, options), server, clock ?? TimeProvider.System, log);
        try
        {
            await engine.PrepareAsync(cancellationToken).ConfigureAwait(false);
            log.LogInformation("{Server} is open: {Durability}{ReadOnly}.", server, engine.Durability, options.ReadOnly ? ", read-only" : "");
            return engine;
        }
        catch (Exception e)
        {
            await engine.DisposeAsync().ConfigureAwait(false);
            if (Failure.IsOfStore(e) && e is not PostgreSqlStoreException)
            {
                throw new PostgreSqlStoreException(Failure.Describe(e, server), Failure.RemedyFor(e, Stage.Connecting) != Remedy.Fail, (e as PostgresException)?.SqlState, e);
            }

            throw;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The store was opened read-only.</exception>
    /// <exception cref="PostgreSqlStoreException">A retry can't help: the store's rows or tables were changed by other hands.</exception>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"{Server} was opened read-only: it answers reads only.");
        }

        cancellationToken.ThrowIfCancellationRequested();
        var all = commands switch
        {
            ArraySegment<StockCommand> segment => segment,
            StockCommand[] array => new(array),
            _ => new ArraySegment<StockCommand>([.. commands]),
        };
        var results = new StockResult[all.Count];
        try
        {
            if (Interlocked.Increment(ref _calls) > _options.MaxWaiting)
            {
                Array.Fill(results, StockResult.Of(StockStatus.Busy, $"More than {_options.MaxWaiting} calls wait for {Server} already; try again later."));
                return results;
            }

            for (var start = 0; start < results.Length;)
            {
                var end = EndOfTransaction(all, start);
                var trouble = await TransactAsync(all[start..end], new(results, start, end - start), cancellationToken).ConfigureAwait(false);
                start = end;
                if (trouble is not null)
                {
                    // What troubled this transaction would trouble the next: the rest is not attempted.
                    Array.Fill(results, StockResult.Of(StockStatus.Busy, trouble), start, results.Length - start);
                    break;
                }
            }

            return results;
        }
        finally
        {
            Interlocked.Decrement(ref _calls);
        }
    }

    /// <summary>Answers what comes from now on Busy, and closes the connections as calls give them back.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _closing, 1) == 0)
        {
            await _makingMonths.ConfigureAwait(false);
            await _owner.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Names a server for people.</summary>
    internal static string NameOf(NpgsqlConnectionStringBuilder builder, string schema)
    {
        // Of several hosts each may name a port of its own.
        var hosts = builder.Host!.Split(',', StringSplitOptions.TrimEntries).Select(host => host.Contains(':', StringComparison.Ordinal) ? host : string.Create(CultureInfo.InvariantCulture, $"{host}:{builder.Port}"));
        return $"PostgreSQL at {string.Join(',', hosts)}, database {builder.Database ?? builder.Username ?? Environment.UserName}, schema {schema}";
    }

    /// <summary>The connections, with what the store needs of each, and what closes them all.</summary>
    internal static (NpgsqlDataSource Source, IAsyncDisposable Owner) SourceOf(NpgsqlConnectionStringBuilder given, PostgreSqlOptions options, bool ofStandby = false)
    {
        var builder = new NpgsqlConnectionStringBuilder(given.ConnectionString)
        {
            // Statements are kept by their text, and nothing is left behind in a session that a reset would have to undo.
            MaxAutoPrepare = Says(given, "Max Auto Prepare") ? given.MaxAutoPrepare : Tuning.PreparedStatements,
            AutoPrepareMinUsages = 2,
            NoResetOnClose = true,

            // Several hosts share the time, since the driver may have to try one after the other.
            Timeout = (int)Math.Ceiling(options.ConnectTimeout.TotalSeconds / given.Host!.Split(',').Length),
            CommandTimeout = (int)Math.Ceiling((options.StatementTimeout + TimeSpan.FromSeconds(2)).TotalSeconds),
            Enlist = false,
            IncludeErrorDetail = false,
        };
        if (!Says(given, "Maximum Pool Size"))
        {
            builder.MaxPoolSize = Math.Max(Tuning.PoolSize, given.MinPoolSize);
        }

        if (string.IsNullOrEmpty(given.ApplicationName))
        {
            builder.ApplicationName = "holdfast";
        }

        if (ofStandby)
        {
            // A standby that does not answer is left, not waited for.
            builder.CancellationTimeout = -1;
        }

        // Every statement finds its rows by key, so plans need no look at the values: one generic plan each, and never
        // one that scans a table because it was small when the plan was made. A process that stands still with rows
        // locked loses its transaction before others give up waiting twice.
        var session = string.Create(
            CultureInfo.InvariantCulture,
            $"-c statement_timeout={(long)options.StatementTimeout.TotalMilliseconds} -c lock_timeout={(long)options.LockTimeout.TotalMilliseconds} -c idle_in_transaction_session_timeout={(long)options.StatementTimeout.TotalMilliseconds} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off -c client_min_messages=warning");
        builder.Options = string.IsNullOrEmpty(given.Options) ? session : $"{given.Options} {session}";
        if (!IsMultiHost(given))
        {
            var source = new NpgsqlDataSourceBuilder(builder.ConnectionString).Build();
            return (source, source);
        }

        // With several hosts the driver finds out which is the primary, also after another was promoted: a lost connection
        // makes it ask at once. Beyond that it seldom need ask, which costs a time-out where a host is gone without a word.
        builder.TargetSessionAttributes = null;
        if (!ofStandby && !Says(given, "Host Recheck Seconds"))
        {
            builder.HostRecheckSeconds = Tuning.HostRecheckSeconds;
        }

        var hosts = new NpgsqlDataSourceBuilder(builder.ConnectionString).BuildMultiHost();
        return (hosts.WithTargetSession(ofStandby ? TargetSessionAttributes.Standby : TargetSessionAttributes.Primary), hosts);
    }

    /// <summary>Whether a connection string has a keyword, by the driver's own spelling. (Its ContainsKey says whether the driver knows the word.)</summary>
    private static bool Says(NpgsqlConnectionStringBuilder given, string keyword) => given.Keys.Cast<string>().Contains(keyword, StringComparer.OrdinalIgnoreCase);

    /// <summary>Whether a connection string names several servers: a primary and its standbys.</summary>
    internal static bool IsMultiHost(NpgsqlConnectionStringBuilder builder) => builder.Host!.Contains(',', StringComparison.Ordinal);

    /// <summary>The store time that a test clock says, or <see langword="null"/> for the database's.</summary>
    private long? TestTime => _options.TestClock?.GetUtcNow().ToUnixTimeMilliseconds();

    internal long Highest => Interlocked.Read(ref _highest);

    private async Task PrepareAsync(CancellationToken cancellationToken)
    {
        var connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        await using var disposing = connection.ConfigureAwait(false);
        var command = new NpgsqlCommand(
            "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_version'), current_setting('server_version_num')::integer, current_setting('synchronous_standby_names')",
            connection);
        await using var disposingToo = command.ConfigureAwait(false);
        var reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await using (reader.ConfigureAwait(false))
        {
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            var encoding = reader.GetString(0);
            if (encoding != "UTF8")
            {
                throw new PostgreSqlStoreException($"{Server} keeps text as {encoding}: SKUs and ids need a database with the encoding UTF8.");
            }

            if (reader.GetInt32(5) < 140_000)
            {
                throw new PostgreSqlStoreException($"{Server} is version {reader.GetString(4)}: the store needs 14 or newer.");
            }

            var (commit, fsync, pages, standbys) = (reader.GetString(1), reader.GetString(2), reader.GetString(3), reader.GetString(6));
            Durability = $"PostgreSQL {reader.GetString(4)}, synchronous_commit={commit}, fsync={fsync}, full_page_writes={pages}{(standbys.Length == 0 ? "" : $", synchronous_standby_names={standbys}")}, one transaction per {(_options.Transactions == PostgreSqlTransactions.Call ? "call" : "command")}";
            if (commit == "off" || fsync != "on" || pages != "on")
            {
                Traits &= ~StockTraits.DurableAck;
                _logger.LogWarning("{Server} may lose acknowledged commands on a crash: {Durability}.", Server, Durability);
            }
        }

        if (_options.ReadOnly)
        {
            await Schema.RequireAsync(connection, _options.Schema, Schema.Migrations.Count, Server, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await Schema.MigrateAsync(connection, _options.Schema, Schema.Migrations, Server, cancellationToken).ConfigureAwait(false);
            await MakeMonthsAsync(connection, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Where the transaction that begins with command <paramref name="start"/> ends.</summary>
    private int EndOfTransaction(ArraySegment<StockCommand> commands, int start)
    {
        if (_options.Transactions != PostgreSqlTransactions.Call)
        {
            return start + 1;
        }

        var most = Math.Min(commands.Count, start + Tuning.CommandsPerTransaction);
        var lines = commands[start].Lines.Length;
        var end = start + 1;
        while (end < most && (lines += commands[end].Lines.Length) <= Tuning.LinesPerTransaction)
        {
            end++;
        }

        return end;
    }

    /// <summary>Decides commands in one transaction, trying it again as long as that is safe and sensible.</summary>
    /// <returns>What went wrong, or <see langword="null"/>.</returns>
    private async Task<string?> TransactAsync(ArraySegment<StockCommand> commands, ArraySegment<StockResult> results, CancellationToken cancellationToken)
    {
        var began = _clock.GetTimestamp();
        var trouble = "";
        for (var attempt = 1; attempt <= _options.MaxAttempts && _clock.GetElapsedTime(began) < _options.StatementTimeout; attempt++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (Volatile.Read(ref _closing) == 1)
            {
                trouble = "The store is shutting down; try again when it is back.";
                break;
            }

            var work = new Work(commands, results);
            NpgsqlConnection? connection = null;
            try
            {
                connection = await _source.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
                connection.Notice += work.TakeNotice;
                work.Stage = Stage.Working;
                if (await TryAsync(connection, work, cancellationToken).ConfigureAwait(false))
                {
                    MakeMonthsWhenDue();
                    if (!work.IsUnconfirmed)
                    {
                        return null;
                    }

                    trouble = $"{Server}: its synchronous standby did not confirm in time.";
                    _logger.LogWarning("{Server}: the wait for the synchronous standby was cut short: {Commands} commands are in doubt.", Server, commands.Count);
                    Fill(results, StockStatus.InDoubt, $"It is on the primary, but the standby did not confirm it, so a failover may lose it; try again with the same id. {trouble}");
                    return trouble;
                }

                trouble = $"{Server}: the rows changed faster than this transaction could be decided, {attempt} times; try again later.";
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                await RollBackAsync(connection).ConfigureAwait(false);
                throw;
            }
            catch (Exception e) when (Failure.IsOfStore(e))
            {
                trouble = Failure.Describe(e, Server);
                var remedy = Failure.RemedyFor(e, work.Stage);
                if (remedy == Remedy.TryAgain)
                {
                    _logger.LogDebug(e, "{Server}: a transaction of {Commands} commands is tried again.", Server, commands.Count);
                }
                else
                {
                    _logger.LogWarning(e, "{Server}: a transaction of {Commands} commands failed: {Remedy}.", Server, commands.Count, remedy);
                }

                if (Failure.IsLoss(e))
                {
                    ForgetConnections();
                }
                else
                {
                    await RollBackAsync(connection).ConfigureAwait(false);
                }

                switch (remedy)
                {
                    case Remedy.Fail:
                        throw e as PostgreSqlStoreException ?? new PostgreSqlStoreException(trouble, sqlState: (e as PostgresException)?.SqlState, innerException: e);
                    case Remedy.InDoubt:
                        Fill(results, StockStatus.InDoubt, $"The connection was lost around the commit, so it may or may not have applied; try again with the same id. {trouble}");
                        return trouble;
                    case Remedy.Busy:
                        Fill(results, StockStatus.Busy, trouble);
                        return trouble;
                }

                if (Failure.IsLoss(e))
                {
                    await Task.Delay(TimeSpan.FromMilliseconds(10 << Math.Min(attempt, 6)), _clock, cancellationToken).ConfigureAwait(false);
                }
            }
            catch
            {
                await RollBackAsync(connection).ConfigureAwait(false);
                throw;
            }
            finally
            {
                if (connection is not null)
                {
                    await connection.DisposeAsync().ConfigureAwait(false);
                }
            }
        }

        Fill(results, StockStatus.Busy, trouble);
        return trouble;
    }

    /// <summary>One attempt.</summary>
    /// <returns>Whether it was decided; otherwise nothing was applied and it may be tried again.</returns>
    private Task<bool> TryAsync(NpgsqlConnection connection, Work work, CancellationToken cancellationToken) => _options.Transactions switch
    {
        PostgreSqlTransactions.Version => TryVersionAsync(connection, work, cancellationToken),
        PostgreSqlTransactions.Command when work.Commands[0] is { Verb: StockVerb.Deduct or StockVerb.Reserve, Branch: null } => TryConditionalAsync(connection, work, cancellationToken),
        _ => TryLockedAsync(connection, work, s_begin, cancellationToken),
    };

    /// <summary>The exact batch: lock, look, decide, write, commit.</summary>
    private async Task<bool> TryLockedAsync(NpgsqlConnection connection, Work work, string[] prologue, CancellationToken cancellationToken)
    {
        var transaction = new Transaction(_sql, connection, null, _timeoutSeconds, work.Commands);
        if (await LoadLockedAsync(transaction, work.Commands, prologue, s_beginAgain, cancellationToken).ConfigureAwait(false) is not { } state)
        {
            await transaction.RunAsync(s_rollBack, cancellationToken).ConfigureAwait(false);
            return false;
        }

        Decide(state, work.Commands, work.Results);
        if (!state.HasChanges)
        {
            // Nothing but refusals and replays: nothing to flush. But what is replayed must be on the standby, too.
            if (work.HasReplay)
            {
                work.IsCommitting = true;
                await transaction.RunAsync(s_confirm, CancellationToken.None).ConfigureAwait(false);
            }
            else
            {
                await transaction.RunAsync(s_rollBack, cancellationToken).ConfigureAwait(false);
            }

            return true;
        }

        work.Stage = Stage.Committing;
        await transaction.WriteAsync(state, Statements.Commit).ConfigureAwait(false);
        return true;
    }

    /// <summary>Loads with locks, beginning again with more of them where the first turn out too few.</summary>
    /// <returns>The loaded state, or <see langword="null"/> when that never was enough; the transaction is open either way.</returns>
    private async Task<LoadedState?> LoadLockedAsync(Transaction transaction, ArraySegment<StockCommand> commands, string[] prologue, string[] again, CancellationToken cancellationToken)
    {
        const int mostWidenings = 8;
        HashSet<string> extra = [];
        for (var widening = 0; widening < mostWidenings; widening++)
        {
            var state = await transaction.LoadAsync(widening == 0 ? prologue : again, locks: true, extra, Highest, TestTime, cancellationToken).ConfigureAwait(false);
            if (IsTimely(state))
            {
                var missing = state.FindMissing(commands);
                if (missing.Count == 0)
                {
                    return state;
                }

                extra.UnionWith(missing);
            }
        }

        return null;
    }

    /// <summary>
    /// Raises the store's time to what the loaded rows say. Only after the database's clock was set back can a row be
    /// ahead of it; what was due must then be looked up again.
    /// </summary>
    private bool IsTimely(LoadedState state)
    {
        var latest = state.Now;
        var holds = false;
        foreach (var row in state.Rows)
        {
            latest = Math.Max(latest, row.ChangedAt);
            holds |= row.Reserved > 0;
        }

        NoteTime(latest);
        var late = latest > state.Now;
        state.Now = latest;
        return !late || !holds;
    }

    private void NoteTime(long time)
    {
        var known = Interlocked.Read(ref _highest);
        while (known < time)
        {
            var before = Interlocked.CompareExchange(ref _highest, time, known);
            if (before == known)
            {
                return;
            }

            known = before;
        }
    }

    private static void Decide(LoadedState state, ArraySegment<StockCommand> commands, ArraySegment<StockResult> results)
    {
        for (var i = 0; i < commands.Count; i++)
        {
            var result = StockRules.Decide(state, commands[i], state.Now);
            results[i] = result.IsApplied ? result with { AcknowledgedBy = Acknowledgement.Store } : result;
        }
    }

    /// <summary>
    /// After a restart of the server the pool's other connections are as dead as one that was lost; and of several hosts
    /// another may be the primary now.
    /// </summary>
    private void ForgetConnections()
    {
        _source.Clear();
        (_owner as NpgsqlMultiHostDataSource)?.ClearDatabaseStates();
    }

    private static void Fill(ArraySegment<StockResult> results, StockStatus status, string detail) => results.AsSpan().Fill(StockResult.Of(status, detail));

    /// <summary>Ends a transaction that failed, so that its locks go at once and not when the connection is used again.</summary>
    private async ValueTask RollBackAsync(NpgsqlConnection? connection)
    {
        if (connection is not { FullState: System.Data.ConnectionState.Open })
        {
            return;
        }

        try
        {
            var command = new NpgsqlCommand(Statements.RollBack, connection) { CommandTimeout = _timeoutSeconds };
            await using var disposing = command.ConfigureAwait(false);
            await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (Failure.IsOfStore(e))
        {
            // The connection goes with its transaction.
            _logger.LogDebug(e, "{Server}: a rollback failed; the server ends the transaction with its connection.", Server);
        }
    }

    /// <summary>What one attempt works on, and how far it has come.</summary>
    private sealed class Work(ArraySegment<StockCommand> commands, ArraySegment<StockResult> results)
    {
        public ArraySegment<StockCommand> Commands { get; } = commands;

        public ArraySegment<StockResult> Results { get; } = results;

        public Stage Stage { get; set; } = Stage.Connecting;

        /// <summary>Whether a COMMIT is on its way, be it only to learn that others' changes are on the standby.</summary>
        public bool IsCommitting { get => field || Stage == Stage.Committing; set; }

        /// <summary>
        /// Whether the server gave up waiting for its synchronous standby: by a cancel of the driver (a time-out) or of an
        /// administrator. The COMMIT then succeeds with a mere warning, and a failover loses what was acknowledged.
        /// </summary>
        public bool IsUnconfirmed { get; private set; }

        public bool HasReplay
        {
            get
            {
                foreach (var result in Results.AsSpan())
                {
                    if (result.Status == StockStatus.Replayed)
                    {
                        return true;
                    }
                }

                return false;
            }
        }

        public void TakeNotice(object sender, NpgsqlNoticeEventArgs e) =>
            IsUnconfirmed |= IsCommitting && e.Notice is { InvariantSeverity: "WARNING", SqlState: PostgresErrorCodes.Warning };
    }
}
