namespace Holdfast.Sqlite;

/// <summary>Numbers that trade memory and disk for speed; none of them changes what an answer is worth.</summary>
internal static class Tuning
{
    /// <summary>Most commands of one transaction; a longer call is split.</summary>
    public const int CommandsPerTransaction = 4_096;

    /// <summary>Most lines of one transaction, unless a single command has more.</summary>
    public const int LinesPerTransaction = 16_384;

    /// <summary>From then on a turn of several transactions ends after the one that runs.</summary>
    public static readonly TimeSpan LongestTurn = TimeSpan.FromMilliseconds(20);

    /// <summary>Pages in the log (of 4 KiB) from which on a commit moves them into the file.</summary>
    public const int CheckpointPages = 4_096;

    /// <summary>Bytes in the log from which on readers are held up to empty it.</summary>
    public const long LongLog = 48L << 20;

    /// <summary>How long emptying the log waits for another process's reader.</summary>
    public static readonly TimeSpan CheckpointTimeout = TimeSpan.FromMilliseconds(50);

    public const int WriterCacheKiB = 65_536;

    public const int ReaderCacheKiB = 8_192;

    /// <summary>Most rows of one page of a listing: a page is one short read, so that no reader keeps the log from being emptied.</summary>
    public const int PageRows = 512;

    /// <summary>Most operation lines of one page, unless a single operation has more.</summary>
    public const int PageLines = 8_192;
}
