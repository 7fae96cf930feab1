namespace Holdfast.Cli;

/// <summary>The exit codes of the command, the same for every verb.</summary>
internal static class ExitCode
{
    /// <summary>All went well.</summary>
    public const int Success = 0;

    /// <summary>Something failed, was interrupted, or did not pass its audit.</summary>
    public const int Failed = 1;

    /// <summary>What was asked makes no sense: an unknown option, a bad value, a missing or malformed file. Nothing was changed.</summary>
    public const int Usage = 2;
}
