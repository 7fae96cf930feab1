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

                // One process writes, and it has just begun: those that a gate knew are gone.
                writer.ForgetGateNodes();
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
    public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        return ExecuteAsync(commands, mayWrite: null, cancellationToken);
    }

    /// <summary>Executes commands in transactions each of which asks first whether it may write.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, Func<Writer, bool>? mayWrite, CancellationToken cancellationToken)
    {
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
                _ => await TakeTurnAsync(commands, results, next, mayWrite).ConfigureAwait(false),
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
    private async ValueTask<(string? Trouble, int Next)> TakeTurnAsync(IReadOnlyList<StockCommand> commands, StockResult[] results, int next, Func<Writer, bool>? mayWrite)
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
                trouble = RunTransaction(commands, results, next, end, mayWrite);
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
    private string? RunTransaction(IReadOnlyList<StockCommand> commands, StockResult[] results, int start, int end, Func<Writer, bool>? mayWrite)
    {
        var committing = false;
        try
        {
            var writer = _writer ??= Writer.Open(_path, _options);
            writer.Begin();
            if (mayWrite?.Invoke(writer) == false)
            {
                writer.RollBack();
                Array.Fill(results, StockResult.Of(StockStatus.Busy, "The epoch of the gate is over."), start, end - start);
                return "The epoch of the gate is over.";
            }

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
