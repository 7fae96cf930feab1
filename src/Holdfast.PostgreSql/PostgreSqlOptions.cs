using Npgsql;

namespace Holdfast;

/// <summary>How a <see cref="PostgreSqlEngine"/> turns commands into transactions.</summary>
public enum PostgreSqlTransactions
{
    /// <summary>
    /// All commands of one call in one transaction (in parts, where a call is huge), with their rows locked in one order:
    /// one flush to disk for many commands. For use under group commit.
    /// </summary>
    Call = 0,

    /// <summary>
    /// One transaction a command: a conditional update a line, the ledger entry and the operation, rolled back when a
    /// line reports no row. The plain choice, and the honest baseline.
    /// </summary>
    Command = 1,

    /// <summary>
    /// One transaction a command without row locks while deciding: each update asks that the row's version is still the
    /// one read, and the command is decided anew when it is not. Kept to show how it does on a hot row.
    /// </summary>
    Version = 2,
}

/// <summary>How a <see cref="PostgreSqlEngine"/> reaches and treats its database. Checked when it opens.</summary>
public sealed record PostgreSqlOptions
{
    /// <summary>
    /// An Npgsql connection string, for example <c>Host=db;Database=shop;Username=holdfast;Password=…</c>. What it says
    /// about pooling counts; what this record says about time-outs wins.
    /// </summary>
    public required string ConnectionString { get; init; }

    /// <summary>The schema that holds the store's tables, made where it is missing: lower-case letters, digits and underscores. One schema is one store.</summary>
    public string Schema { get; init; } = "holdfast";

    /// <summary>How commands become transactions.</summary>
    public PostgreSqlTransactions Transactions { get; init; }

    /// <summary>Opens for readers only: nothing is migrated or written, and commands are refused with an exception.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Longest wait for a row that another transaction has locked, 10 milliseconds to 5 minutes; past it the answer is Busy.</summary>
    public TimeSpan LockTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Longest run of one statement, 100 milliseconds to 5 minutes; past it the server stops it and the answer is Busy.</summary>
    public TimeSpan StatementTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Longest wait for a free connection or a new one, 1 second to 5 minutes; past it the answer is Busy.</summary>
    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Most calls that are under way or wait for a connection; the next is answered Busy at once.</summary>
    public int MaxWaiting { get; init; } = 8_192;

    /// <summary>
    /// How often a transaction is tried before the answer is Busy: after a deadlock, a serialization failure, a unique
    /// violation (another node was faster with the same id), a lost connection before anything could have committed, or,
    /// with <see cref="PostgreSqlTransactions.Version"/>, a row that changed in between. 1 to 1,000.
    /// </summary>
    public int MaxAttempts { get; init; } = 10;

    /// <summary>
    /// Takes the place of the database's clock: for tests and rehearsals only, since two processes would not agree on it.
    /// </summary>
    public TimeProvider? TestClock { get; init; }

    /// <summary>Checks every option.</summary>
    /// <exception cref="ArgumentException">An option is out of its bounds; the message names it, never the password.</exception>
    public void Validate() => Parse();

    /// <summary>Checks every option, and reads the connection string.</summary>
    internal NpgsqlConnectionStringBuilder Parse()
    {
        Check(nameof(Schema), Schema is { Length: >= 1 and <= 48 } && Schema[0] is (>= 'a' and <= 'z') or '_' && Schema.All(c => c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '_'),
            $"is '{Schema}'; it must be 1 to 48 lower-case letters, digits and underscores, not beginning with a digit");
        Check(nameof(Transactions), Enum.IsDefined(Transactions), $"is {(int)Transactions}; it must be Call, Command or Version");
        CheckTime(nameof(LockTimeout), LockTimeout, TimeSpan.FromMilliseconds(10));
        CheckTime(nameof(StatementTimeout), StatementTimeout, TimeSpan.FromMilliseconds(100));
        CheckTime(nameof(ConnectTimeout), ConnectTimeout, TimeSpan.FromSeconds(1));
        Check(nameof(MaxWaiting), MaxWaiting is >= 1 and <= 1_000_000, $"is {MaxWaiting}; it must be from 1 to 1000000");
        Check(nameof(MaxAttempts), MaxAttempts is >= 1 and <= 1_000, $"is {MaxAttempts}; it must be from 1 to 1000");
        return ParseConnectionString(nameof(ConnectionString), ConnectionString);
    }

    /// <summary>Reads a connection string; a failure names the option and what the driver said, never the string itself.</summary>
    internal static NpgsqlConnectionStringBuilder ParseConnectionString(string option, string text)
    {
        Check(option, !string.IsNullOrWhiteSpace(text), "is empty; give an Npgsql connection string, for example Host=localhost;Database=shop;Username=holdfast;Password=…");
        NpgsqlConnectionStringBuilder builder;
        try
        {
            builder = new(text);
        }
        catch (Exception e) when (e is ArgumentException or FormatException or InvalidCastException or KeyNotFoundException)
        {
#pragma warning disable MA0054 // The driver's words may quote the text, and with it the password.
            throw new ArgumentException($"PostgreSqlOptions.{option} is no Npgsql connection string: write it as Key=Value pairs, for example Host=localhost;Database=shop;Username=holdfast;Password=…", option);
#pragma warning restore MA0054
        }

        Check(option, !string.IsNullOrWhiteSpace(builder.Host), "names no Host; give the server's name or address");
        Check(option, !builder.Multiplexing, "asks for Multiplexing; the store's transactions need connections of their own, so leave it out");
        return builder;
    }

    private static void CheckTime(string option, TimeSpan value, TimeSpan least) =>
        Check(option, value >= least && value <= TimeSpan.FromMinutes(5), $"is {value:c}; it must be from {least:c} to 5 minutes");

    private static void Check(string option, bool isValid, string problem)
    {
        if (!isValid)
        {
            throw new ArgumentException($"PostgreSqlOptions.{option} {problem}.", option);
        }
    }
}
