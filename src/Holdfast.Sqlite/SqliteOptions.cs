using Holdfast.Sqlite;

namespace Holdfast;

/// <summary>When SQLite tells the disk to keep what was written. The numbers are SQLite's own.</summary>
public enum SqliteSynchronous
{
    /// <summary>Survives the loss of the process; a loss of power may take the latest acknowledged commits (never the file's consistency).</summary>
    Normal = 1,

    /// <summary>Every commit is on the disk before it is acknowledged: survives a loss of power. The default.</summary>
    Full = 2,

    /// <summary>As <see cref="Full"/>, and the folder is flushed too where SQLite's journal asks for it.</summary>
    Extra = 3,
}

/// <summary>What one transaction of a <see cref="SqliteEngine"/> holds.</summary>
public enum SqliteTransactionScope
{
    /// <summary>All commands of one call (in parts, where a call is huge): one flush to disk for many commands.</summary>
    Call = 0,

    /// <summary>One command: one flush to disk each. The plain choice, and the honest baseline.</summary>
    Command = 1,
}

/// <summary>How a <see cref="SqliteEngine"/> opens and treats its file. Checked when it opens.</summary>
public sealed record SqliteOptions
{
    /// <summary>The file. It and its folder are created where they are missing, unless <see cref="ReadOnly"/>.</summary>
    public required string Path { get; init; }

    /// <summary>
    /// Opens beside a running writer, for the audit and other readers. Without it this process becomes the file's one
    /// writer, and opening fails while another process is.
    /// </summary>
    public bool ReadOnly { get; init; }

    /// <summary>What one transaction holds.</summary>
    public SqliteTransactionScope TransactionPer { get; init; }

    /// <summary>When a commit counts as done.</summary>
    public SqliteSynchronous Synchronous { get; init; } = SqliteSynchronous.Full;

    /// <summary>
    /// Longest wait for a turn: of a command behind other commands, of a read for a free connection, and of either for
    /// another process's lock on the file. Then a command is answered Busy and a read fails with a <see cref="SqliteStoreException"/>.
    /// </summary>
    public TimeSpan BusyTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Most calls that wait for the writer, and most that wait for a read connection; the next is answered Busy at once.</summary>
    public int MaxWaiting { get; init; } = 8_192;

    /// <summary>How many reads run at once.</summary>
    public int ReadConnections { get; init; } = 4;

    /// <summary>Most pages the file may have: lets a test meet a full disk.</summary>
    internal long? MaxPages { get; init; }

    /// <summary>Bytes in the log from which on readers are held up to empty it.</summary>
    internal long LongLog { get; init; } = Tuning.LongLog;

    /// <summary>Checks every option.</summary>
    /// <exception cref="ArgumentException">An option is out of its bounds; the message names it.</exception>
    internal void Validate()
    {
        if (string.IsNullOrWhiteSpace(Path))
        {
            throw Invalid(nameof(Path), "is empty; name the file that holds the stock, for example data/stock.db");
        }

        if (Path.Contains('\0', StringComparison.Ordinal) || Path.StartsWith("file:", StringComparison.OrdinalIgnoreCase) || Path == ":memory:")
        {
            throw Invalid(nameof(Path), $"is '{Path}'; it must be the plain path of a file (for stock in memory use MemoryEngine)");
        }

        if (!Enum.IsDefined(TransactionPer))
        {
            throw Invalid(nameof(TransactionPer), $"is {(int)TransactionPer}; it must be Call or Command");
        }

        if (!Enum.IsDefined(Synchronous))
        {
            throw Invalid(nameof(Synchronous), $"is {(int)Synchronous}; it must be Normal, Full or Extra");
        }

        if (BusyTimeout < TimeSpan.FromMilliseconds(1) || BusyTimeout > TimeSpan.FromMinutes(10))
        {
            throw Invalid(nameof(BusyTimeout), $"is {BusyTimeout:c}; it must be from 1 millisecond to 10 minutes");
        }

        if (MaxWaiting is < 1 or > 1_000_000)
        {
            throw Invalid(nameof(MaxWaiting), $"is {MaxWaiting}; it must be from 1 to 1000000");
        }

        if (ReadConnections is < 1 or > 64)
        {
            throw Invalid(nameof(ReadConnections), $"is {ReadConnections}; it must be from 1 to 64");
        }
    }

    private static ArgumentException Invalid(string option, string problem) => new($"SqliteOptions.{option} {problem}.", option);
}
