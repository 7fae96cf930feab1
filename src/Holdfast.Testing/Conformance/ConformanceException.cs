namespace Holdfast.Testing;

/// <summary>An engine broke the contract; the message says where and how.</summary>
public sealed class ConformanceException : Exception
{
    /// <summary>Makes the exception.</summary>
    public ConformanceException(string message)
        : base(message)
    {
    }

    /// <summary>Makes the exception.</summary>
    public ConformanceException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
