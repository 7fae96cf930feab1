using SQLitePCL;

namespace Holdfast;

/// <summary>
/// The store's file could not be opened, read or written. The message names the file and says what to do. Commands meet
/// it only where a retry can't help (a damaged file, a guard that tripped); a passing trouble is answered as Busy or InDoubt.
/// </summary>
public sealed class SqliteStoreException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">Names the file and says what to do.</param>
    /// <param name="resultCode">SQLite's extended result code; 0 where SQLite was not asked.</param>
    /// <param name="innerException">What caused it.</param>
    public SqliteStoreException(string message, int resultCode = 0, Exception? innerException = null)
        : base(message, innerException) => ResultCode = resultCode;

    /// <summary>SQLite's extended result code; 0 where SQLite was not asked.</summary>
    public int ResultCode { get; }

    /// <summary>Whether the trouble may pass, so that a retry makes sense.</summary>
    internal bool MayPass => (ResultCode & 0xFF) is raw.SQLITE_BUSY or raw.SQLITE_LOCKED or raw.SQLITE_FULL or raw.SQLITE_IOERR
        or raw.SQLITE_READONLY or raw.SQLITE_CANTOPEN or raw.SQLITE_NOMEM or raw.SQLITE_PERM or raw.SQLITE_PROTOCOL or raw.SQLITE_INTERRUPT;

    /// <summary>Puts what SQLite said into words for people.</summary>
    internal static SqliteStoreException From(string path, int resultCode, string said)
    {
        var advice = (resultCode & 0xFF) switch
        {
            raw.SQLITE_BUSY or raw.SQLITE_LOCKED => "another connection holds its lock (a backup, or a shell with an open transaction?): end that, then try again",
            raw.SQLITE_FULL => "the disk, or the room that the file may take, is full: make room, then try again",
            raw.SQLITE_IOERR => "the operating system could not read or write it: check the disk, then try again",
            raw.SQLITE_READONLY => "it can't be written: check its permissions, its folder's and whether the file was moved away, then try again",
            raw.SQLITE_CANTOPEN => "it can't be opened: check that the folder exists and that this user may read and write in it",
            raw.SQLITE_PERM => "this user may not use it: check the permissions",
            raw.SQLITE_NOMEM => "there was no memory left: try again",
            raw.SQLITE_NOTADB => "it is not an SQLite database: check the path",
            raw.SQLITE_CORRUPT => "it is damaged: stop using it, keep a copy, and restore a backup (PRAGMA integrity_check says more)",
            raw.SQLITE_CONSTRAINT => "a guard of the schema refused what the rules had allowed, so the file was changed by other hands: run the audit",
            _ => "SQLite refused",
        };
        return new($"The stock file '{path}': {advice}. SQLite says: {said} (code {resultCode}).", resultCode);
    }
}
