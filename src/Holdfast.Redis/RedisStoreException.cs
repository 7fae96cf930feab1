namespace Holdfast;

/// <summary>
/// Redis could not be reached, read or written. The message names the server and says what to do. Commands meet it only
/// where a retry can't help; passing troubles are answered as Busy or InDoubt. Reads meet it for both, and
/// <see cref="MayPass"/> tells which.
/// </summary>
public sealed class RedisStoreException : IOException
{
    /// <summary>Makes the exception.</summary>
    /// <param name="message">Names the server and says what to do.</param>
    /// <param name="mayPass">Whether a retry makes sense.</param>
    /// <param name="innerException">What caused it.</param>
    public RedisStoreException(string message, bool mayPass = false, Exception? innerException = null)
        : base(message, innerException) => MayPass = mayPass;

    internal RedisStoreException(string message, Redis.CallFailure failure, Exception? innerException = null)
        : this(message, failure != Redis.CallFailure.Broken, innerException) => Failure = failure;

    /// <summary>Whether the trouble may pass, so that a retry makes sense.</summary>
    public bool MayPass { get; }

    /// <summary>What is known about the call's effect.</summary>
    internal Redis.CallFailure Failure { get; } = Redis.CallFailure.Refused;
}
