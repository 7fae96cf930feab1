namespace Holdfast.Client;

/// <summary>
/// Results with a meaning between the parts of the client only, carried through group commit as the status that no engine
/// answers (<see cref="StockStatus.None"/>); they never leave the client.
/// </summary>
internal static class Verdict
{
    /// <summary>The server refuses to serve this client (its key, its version): the caller gets an exception.</summary>
    public static StockResult Misconfigured(string detail) => new() { Detail = detail };

    /// <summary>In doubt, and trying again makes no sense: an outcome of a newer version that says so.</summary>
    public static StockResult FinallyInDoubt(string? detail) => new() { Original = StockStatus.InDoubt, Detail = detail };

    public static bool IsMisconfigured(in StockResult result) => result is { Status: StockStatus.None, Original: StockStatus.None };

    /// <summary>The result as the caller sees it.</summary>
    public static StockResult Unwrap(in StockResult result) =>
        result.Status == StockStatus.None ? StockResult.Of(result.Original, result.Detail) : result;
}
