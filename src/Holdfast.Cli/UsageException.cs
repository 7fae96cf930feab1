namespace Holdfast.Cli;

/// <summary>What the caller gave can't be used: the message names the option, file or line and says what to do. Ends with exit code 2.</summary>
internal sealed class UsageException(string message) : Exception(message);
