namespace Holdfast;

/// <summary>
/// The database could not be reached, read or written. The message names the server and says what to do. Commands meet
/// it only where a retry can't help (a guard that tripped, rows changed by other hands); passing troubles are answered
/// as Busy or InDoubt. Reads meet it for both, and <see cref="MayPass"/> tells which.
/// </summary>
public sealed class PostgreSqlStoreException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">Names the server and says what to do.</param>
    /// <param name="mayPass">Whether a retry makes sense.</param>
    /// <param name="sqlState">PostgreSQL's error code, where it gave one.</param>
    /// <param name="innerException">What caused it.</param>
    public PostgreSqlStoreException(string message, bool mayPass = false, string? sqlState = null, Exception? innerException = null)
        : base(message, innerException)
    {
        MayPass = mayPass;
        SqlState = sqlState;
    }

    /// <summary>Whether the trouble may pass, so that a retry makes sense.</summary>
    public bool MayPass { get; }

    /// <summary>PostgreSQL's error code, where it gave one.</summary>
    public string? SqlState { get; }
}
