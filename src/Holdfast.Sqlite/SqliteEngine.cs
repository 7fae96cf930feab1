using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.Rules;
using Holdfast.Sqlite;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Holdfast;

/// <summary>
/// The whole contract in one SQLite file, the owner of the truth. One process writes it, one transaction at a time,
/// durable before the answer; any number read beside it. Thread-safe. Calls do their file work on the caller's thread:
/// a read takes microseconds, a write as long as the disk takes to flush.
/// </summary>
/// <remarks>
/// Alone with <see cref="SqliteTransactionScope.Command"/> it is the scheme <c>database</c>; with
/// <see cref="SqliteTransactionScope.Call"/> under group commit it is the scheme <c>batched</c>.
/// A trouble that may pass (a full disk, a foreign lock, too many waiting) is answered as Busy, or as InDoubt when the
/// commit itself failed; a read then throws <see cref="SqliteStoreException"/>. Once it is being disposed, commands are
/// answered Busy and reads throw <see cref="ObjectDisposedException"/>.
/// </remarks>
public sealed partial class SqliteEngine : IStockEngine, IFlowEnd
{
    private readonly string _path;
    private readonly SqliteOptions _options;
    private readonly ILogger _logger;
    private readonly StoreClock _clock;
    private readonly Lock _clockLock = new();
    private readonly Turns _writeTurns;
    private readonly Turns _readTurns;
    private readonly Stack<Reader> _readers = new();
    private readonly WriterLock? _writerLock;

    /// <summary>Belongs to whoever has the write turn; <see langword="null"/> when read-only, closed, or to be opened anew after a rollback that failed.</summary>
    private Writer? _writer;
    private int _closing;

    private SqliteEngine(string path, SqliteOptions options, TimeProvider clock, ILogger logger, WriterLock? writerLock, Writer? writer, List<Reader> readers)
    {
        _path = path;
        _options = options;
        _logger = logger;
        _writerLock = writerLock;
        _writer = writer;
        _clock = new(clock, readers[0].HighestTime());
        _writeTurns = new(1, options.MaxWaiting, options.BusyTimeout);
        _readTurns = new(readers.Count, options.MaxWaiting, options.BusyTimeout);
        readers.ForEach(_readers.Push);
    }

    /// <inheritdoc/>
    public StockTraits Traits => StockTraits.All;

    /// <summary>What an acknowledgement survives, in words for logs and benchmark reports.</summary>
    public string Durability => $"SQLite, WAL, synchronous={_options.Synchronous.ToString().ToUpperInvariant()}, one transaction per {_options.TransactionPer.ToString().ToLowerInvariant()}";

    /// <summary>Opens a store, creating the file and bringing its schema up to date where need be.</summary>
    /// <param name="options">How to open it; checked here.</param>
    /// <param name="clock">The clock that decides expiry; the system's by default.</param>
    /// <param name="logger">Where it says what it opened and what went wrong; nowhere by default.</param>
    /// <exception cref="ArgumentException">An option is out of its bounds.</exception>
    /// <exception cref="SqliteStoreException">The file can't be used; the message says why and what to do.</exception>
    public static SqliteEngine Open(SqliteOptions options, TimeProvider? clock = null, ILogger<SqliteEngine>? logger = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        var log = (ILogger?)logger ?? NullLogger.Instance;
        var path = FullPath(options);
        WriterLock? writerLock = null;
        Writer? writer = null;
        var readers = new List<Reader>();
        try
        {
            if (!options.ReadOnly)
            {
                writerLock = WriterLock.TryTake(path) ?? throw new SqliteStoreException(
                    $"The stock file '{path}' is being written by {HolderOf(path, options)}: stop that one, use its server, or open the file read-only.");
                writer = Writer.Open(path, options);
                writer.SignAs($"process {Environment.ProcessId} on {Environment.MachineName}");
            }

            while (readers.Count < options.ReadConnections)
            {
                readers.Add(Reader.Open(path, options));
            }

            var engine = new SqliteEngine(path, options, clock ?? TimeProvider.System, log, writerLock, writer, readers);
            log.LogInformation("Stock file {Path} is open: {Durability}{ReadOnly}.", path, engine.Durability, options.ReadOnly ? ", read-only" : "");
            return engine;
        }
        catch
        {
            readers.ForEach(reader => reader.Dispose());
            writer?.Dispose();
            writerLock?.Dispose();
            throw;
        }
    }

    /// <summary>A store for a <see cref="StockEngineBuilder"/>, with the clock and the logger of the services.</summary>
    /// <param name="options">How to open it; checked when it opens.</param>
    public static Func<IServiceProvider, IStockEngine> Factory(SqliteOptions options) => services => Open(
        options,
        (TimeProvider?)services.GetService(typeof(TimeProvider)),
        (ILogger<SqliteEngine>?)services.GetService(typeof(ILogger<SqliteEngine>)));

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The store was opened read-only.</exception>
    public async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        if (_options.ReadOnly)
        {
            throw new InvalidOperationException($"The stock file '{_path}' was opened read-only: it answers reads only.");
        }

        cancellationToken.ThrowIfCancellationRequested();
        var results = new StockResult[commands.Count];
        for (var next = 0; next < results.Length;)
        {
            var turn = await _writeTurns.BeginAsync(cancellationToken).ConfigureAwait(false);
            (var trouble, next) = turn switch
            {
                Turn.Crowded => ($"More than {_options.MaxWaiting} calls wait for the stock file already; try again later.", next),
                Turn.TimedOut => ($"Waited {_options.BusyTimeout.TotalSeconds:0.###} s for a turn to write the stock file; try again later.", next),
                _ => await TakeTurnAsync(commands, results, next).ConfigureAwait(false),
            };
            if (trouble is not null)
            {
                // What troubled this transaction would trouble the next: the rest is not attempted.
                results.AsSpan(next).Fill(StockResult.Of(StockStatus.Busy, trouble));
                break;
            }
        }

        return results;
    }

    /// <inheritdoc/>
    public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(skus);
        return ReadAsync<IReadOnlyList<string>, IReadOnlyList<StockLevel>>(skus, static (engine, reader, skus) => reader.Levels(skus, engine.Now(reader)), cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(id);
        return StockKey.Problem(id) is not null
            ? new((OperationView?)null)
            : ReadAsync(id, static (engine, reader, id) => reader.FindOperation(id, engine.Now(reader)), cancellationToken);
    }

    /// <inheritdoc/>
    public async IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        prefix ??= "";

        // Half a surrogate pair at the end can't be looked up in UTF-8: look up what precedes it, and compare here.
        var lookedUp = prefix.Length > 0 && char.IsHighSurrogate(prefix[^1]) ? prefix[..^1] : prefix;
        if (after is not null && StockKey.ByteOrder.Compare(after, lookedUp) < 0)
        {
            after = null;
        }

        while (true)
        {
            var (page, mayGoOn) = await ReadAsync(
                (lookedUp, after),
                static (engine, reader, from) => reader.ListLevels(from.lookedUp, from.after, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            foreach (var level in page)
            {
                if (level.Sku.StartsWith(prefix, StringComparison.Ordinal))
                {
                    yield return level;
                }
            }

            if (!mayGoOn)
            {
                yield break;
            }

            after = page[^1].Sku;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this kind of listing.</exception>
    public async IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var pages = query.UndecidedOnly ? UndecidedPagesAsync(cancellationToken) : query.DueOnly ? DuePagesAsync(query, cancellationToken) : PagesAsync(query, cancellationToken);
        var left = query.Limit ?? int.MaxValue;
        if (left <= 0)
        {
            yield break;
        }

        await foreach (var page in pages.ConfigureAwait(false))
        {
            foreach (var view in page)
            {
                yield return view;
                if (--left == 0)
                {
                    yield break;
                }
            }
        }
    }

    /// <inheritdoc/>
    public async ValueTask<string?> GetFlowEndAsync(CancellationToken cancellationToken = default)
    {
        var (_, end) = await ReadAsync((string?)null, static (_, reader, sku) => reader.FlowEnd(sku), cancellationToken).ConfigureAwait(false);
        return end == 0 ? null : end.ToString(CultureInfo.InvariantCulture);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The cursor is none of this store's ledger.</exception>
    public async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var after = query.After is null ? 0 : ParseCursor(query.After, query.After);
        if (query.Sku is not null && StockKey.Problem(query.Sku) is not null)
        {
            yield break;
        }

        var (stock, end) = await ReadAsync(query.Sku, static (_, reader, sku) => reader.FlowEnd(sku), cancellationToken).ConfigureAwait(false);
        var left = query.Limit ?? int.MaxValue;
        while (left > 0 && after < end)
        {
            var page = await ReadAsync(
                (query.Sku, stock, after, end, most: Math.Min(left, Tuning.PageRows)),
                static (_, reader, from) => reader.ReadFlow(from.Sku, from.stock, from.after, from.end, from.most),
                cancellationToken).ConfigureAwait(false);
            if (page.Count == 0)
            {
                yield break;
            }

            foreach (var entry in page)
            {
                yield return entry;
            }

            left -= page.Count;
            after = ParseCursor(page[^1].Cursor!, page[^1].Cursor!);
        }
    }

    /// <summary>
    /// Finishes the running transaction, answers waiting commands Busy, empties the log into the file and lets go of it.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _closing, 1) == 1)
        {
            return;
        }

        // Those who wait before us find the engine closing and leave at once, so these waits are for what runs now.
        var writes = await _writeTurns.BeginLastAsync().ConfigureAwait(false);
        var reads = 0;
        while (reads < _options.ReadConnections && await _readTurns.BeginLastAsync().ConfigureAwait(false))
        {
            reads++;
        }

        if (writes && reads == _options.ReadConnections)
        {
            Close();
        }
        else
        {
            // A connection can't be closed under a call in flight. The process is about to end; the log is whole.
            _logger.LogWarning("Stock file {Path}: calls were still running after {Timeout}; the log is left for the next start.", _path, _options.BusyTimeout);
        }

        // Whoever came meanwhile finds the engine closed.
        if (writes)
        {
            _writeTurns.End();
        }

        while (reads-- > 0)
        {
            _readTurns.End();
        }
    }

    private void Close()
    {
        foreach (var reader in _readers)
        {
            reader.Dispose();
        }

        _readers.Clear();
        try
        {
            _writer?.ShortenLog();
        }
        catch (SqliteStoreException e)
        {
            // Nothing is lost: the log is read again at the next start.
            _logger.LogWarning(e, "Stock file {Path}: the log could not be emptied at closing; the next start does it.", _path);
        }

        _writer?.Dispose();
        _writer = null;
        _writerLock?.Dispose();
    }

    /// <summary>
    /// Decides commands from <paramref name="next"/> on and gives the turn back. A turn takes one transaction, or as many
    /// as fit into a short while: a long call of small transactions neither keeps others waiting nor waits behind all of
    /// them for each of its commands.
    /// </summary>
    /// <returns>What went wrong, or <see langword="null"/>, and the first command that is not decided yet.</returns>
    private async ValueTask<(string? Trouble, int Next)> TakeTurnAsync(IReadOnlyList<StockCommand> commands, StockResult[] results, int next)
    {
        try
        {
            if (Volatile.Read(ref _closing) == 1)
            {
                return ("The store is shutting down; try again when it is back.", next);
            }

            // Real time, as every bound on waiting here.
            var began = TimeProvider.System.GetTimestamp();
            string? trouble;
            do
            {
                var end = EndOfTransaction(commands, next);
                trouble = RunTransaction(commands, results, next, end);
                next = end;
            }
            while (trouble is null && next < results.Length && TimeProvider.System.GetElapsedTime(began) < Tuning.LongestTurn);

            if (trouble is null && _writer is { LogIsLong: true } writer)
            {
                await ShortenLogAsync(writer).ConfigureAwait(false);
            }

            return (trouble, next);
        }
        finally
        {
            _writeTurns.End();
        }
    }

    /// <summary>Decides commands [start, end) in one transaction.</summary>
    /// <returns>What went wrong, or <see langword="null"/>; every result is filled either way.</returns>
    private string? RunTransaction(IReadOnlyList<StockCommand> commands, StockResult[] results, int start, int end)
    {
        var committing = false;
        try
        {
            var writer = _writer ??= Writer.Open(_path, _options);
            writer.Begin();
            var now = Now();
            for (var i = start; i < end; i++)
            {
                var result = StockRules.Decide(writer, commands[i], now);
                results[i] = result.IsApplied ? result with { AcknowledgedBy = Acknowledgement.Store } : result;
            }

            if (!writer.HasChanges)
            {
                // Nothing but refusals and replays: nothing to flush.
                writer.RollBack();
                return null;
            }

            writer.Write(now);
            committing = true;
            writer.Commit();
            return null;
        }
        catch (SqliteStoreException e) when (e.MayPass)
        {
            _logger.LogError(e, "Stock file {Path}: a transaction of {Commands} commands failed {Where}.", _path, end - start, committing ? "at its commit" : "and was rolled back");
            RollBack();

            // A commit that failed at its flush may have left its frames in the log, whole; a crash before the next
            // commit overwrites them would bring it back. So only the same id, sent again, settles it.
            var outcome = committing
                ? StockResult.Of(StockStatus.InDoubt, $"The commit failed, so it may or may not have applied; try again with the same id. {e.Message}")
                : StockResult.Of(StockStatus.Busy, e.Message);
            Array.Fill(results, outcome, start, end - start);
            return e.Message;
        }
        catch (Exception)
        {
            RollBack();
            throw;
        }
    }

    /// <summary>
    /// SQLite can begin its log anew only at an instant without readers. Where reads never pause, the log grows without
    /// a bound; so when it is long, new reads are held up for as long as its last part takes to move into the file.
    /// </summary>
    private async ValueTask ShortenLogAsync(Writer writer)
    {
        var reads = 0;
        try
        {
            while (reads < _options.ReadConnections && await _readTurns.BeginLastAsync().ConfigureAwait(false))
            {
                reads++;
            }

            if (!writer.ShortenLog())
            {
                _logger.LogWarning("Stock file {Path}: its log is long and can't be shortened while another process reads the file in one long transaction; it goes on growing.", _path);
            }
        }
        catch (SqliteStoreException e)
        {
            // The commit before it stands; the log stays long, and the next commits try again.
            _logger.LogWarning(e, "Stock file {Path}: its log could not be shortened.", _path);
        }
        finally
        {
            while (reads-- > 0)
            {
                _readTurns.End();
            }
        }
    }

    /// <summary>Rolls back after an error; where even that fails, the connection is given up, and with it the transaction.</summary>
    private void RollBack()
    {
        try
        {
            _writer?.RollBack();
        }
        catch (SqliteStoreException e)
        {
            _logger.LogError(e, "Stock file {Path}: rolling back failed; the connection is opened anew.", _path);
            _writer?.Dispose();
            _writer = null;
        }
    }

    /// <summary>Where the transaction that begins at a command ends: a huge call is split, a command never.</summary>
    private int EndOfTransaction(IReadOnlyList<StockCommand> commands, int start)
    {
        if (_options.TransactionPer == SqliteTransactionScope.Command)
        {
            return start + 1;
        }

        var end = start;
        for (var lines = 0; end < commands.Count && end - start < Tuning.CommandsPerTransaction; end++)
        {
            lines += commands[end].Lines.Length;
            if (lines > Tuning.LinesPerTransaction && end > start)
            {
                break;
            }
        }

        return end;
    }

    /// <summary>Store time.</summary>
    private long Now()
    {
        lock (_clockLock)
        {
            return _clock.Now();
        }
    }

    /// <summary>Store time for a read: beside a writer in another process, what that one stored counts too.</summary>
    private long Now(Reader reader) => _options.ReadOnly ? Math.Max(Now(), reader.HighestTime()) : Now();

    private async IAsyncEnumerable<List<OperationView>> PagesAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var after = query.After is null ? 0 : ParseCursor(query.After, query.After);
        var end = await ReadAsync(query, static (_, reader, _) => reader.LastOperation(), cancellationToken).ConfigureAwait(false);
        for (long? goOn = after; goOn is { } from && from < end;)
        {
            (var page, goOn) = await ReadAsync(
                (query, from, end),
                static (engine, reader, at) => reader.ListOperations(at.query, at.from, at.end, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            yield return page;
        }
    }

    private async IAsyncEnumerable<List<OperationView>> UndecidedPagesAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return await ReadAsync(this, static (engine, reader, _) => reader.ListUndecided(engine.Now(reader)), cancellationToken).ConfigureAwait(false);
    }

    private async IAsyncEnumerable<List<OperationView>> DuePagesAsync(OperationQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        (long, long)? goOn = (0, 0);
        if (query.After is { } cursor)
        {
            var dot = cursor.IndexOf('.', StringComparison.Ordinal);
            goOn = (ParseCursor(dot < 0 ? "" : cursor[..dot], cursor), ParseCursor(cursor[(dot + 1)..], cursor));
        }

        while (goOn is { } from)
        {
            (var page, goOn) = await ReadAsync(
                (query, from),
                static (engine, reader, at) => reader.ListDue(at.query, at.from, engine.Now(reader)),
                cancellationToken).ConfigureAwait(false);
            yield return page;
        }
    }

    private static long ParseCursor(string number, string cursor) =>
        long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var value)
            ? value
            : throw new ArgumentException($"'{cursor}' is no cursor of this store's listing.", nameof(cursor));

    /// <summary>Runs one short read on a connection of its own; without a wait where one is free.</summary>
    private ValueTask<TResult> ReadAsync<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return _readTurns.TryBegin() ? new(ReadInTurn(argument, read)) : WaitAndReadAsync(argument, read, cancellationToken);
    }

    private async ValueTask<TResult> WaitAndReadAsync<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read, CancellationToken cancellationToken) =>
        (await _readTurns.BeginAsync(cancellationToken).ConfigureAwait(false)) switch
        {
            Turn.Crowded => throw new SqliteStoreException($"More than {_options.MaxWaiting} reads of the stock file '{_path}' wait already; try again later."),
            Turn.TimedOut => throw new SqliteStoreException($"Waited {_options.BusyTimeout.TotalSeconds:0.###} s for a connection to read the stock file '{_path}'; try again later."),
            _ => ReadInTurn(argument, read),
        };

    private TResult ReadInTurn<TArgument, TResult>(TArgument argument, Func<SqliteEngine, Reader, TArgument, TResult> read)
    {
        Reader? reader = null;
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _closing) == 1, this);
            lock (_readers)
            {
                reader = _readers.Pop();
            }

            return read(this, reader, argument);
        }
        finally
        {
            if (reader is not null)
            {
                lock (_readers)
                {
                    _readers.Push(reader);
                }
            }

            _readTurns.End();
        }
    }

    /// <summary>The file's full path, links followed (so that one file has one lock), its folder created.</summary>
    private static string FullPath(SqliteOptions options)
    {
        var path = Path.GetFullPath(options.Path);
        try
        {
            if (Directory.Exists(path))
            {
                throw new SqliteStoreException($"'{path}' is a folder: give the path of a file in it, for example '{Path.Combine(path, "stock.db")}'.");
            }

            if (File.Exists(path))
            {
                return File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;
            }

            if (options.ReadOnly)
            {
                throw new SqliteStoreException($"There is no stock file '{path}' to read: check the path.");
            }

            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            return path;
        }
        catch (Exception e) when (e is UnauthorizedAccessException or (IOException and not SqliteStoreException))
        {
            throw new SqliteStoreException($"The folder of the stock file '{path}' can't be made ({e.Message}): make it, or give another path.", innerException: e);
        }
    }

    /// <summary>Who has the file, as far as it says so itself.</summary>
    private static string HolderOf(string path, SqliteOptions options)
    {
        try
        {
            using var reader = Reader.Open(path, options);
            return reader.Signature() is { Length: > 0 } signature ? signature : "another process";
        }
        catch (SqliteStoreException)
        {
            // The holder may have the file only just made; the refusal itself stands without its name.
            return "another process";
        }
    }
}
