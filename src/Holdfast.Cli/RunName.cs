namespace Holdfast.Cli;

/// <summary>A short name that tells one run's SKUs and ids from those of every other run on the same store.</summary>
internal static class RunName
{
    /// <summary>Eleven characters: the time in seconds, and a random part for runs that begin in the same second.</summary>
    public static string New(TimeProvider time) =>
        $"{time.GetUtcNow().ToUnixTimeSeconds():x8}{System.Security.Cryptography.RandomNumberGenerator.GetInt32(0x1000):x3}";
}
