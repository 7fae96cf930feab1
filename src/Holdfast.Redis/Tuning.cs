namespace Holdfast.Redis;

/// <summary>Bounds and sizes, each with its reason.</summary>
internal static class Tuning
{
    /// <summary>The oldest server whose scripts and commands do what ours need.</summary>
    public static readonly Version OldestServer = new(6, 2);

    /// <summary>Most commands of one script: a millisecond or two, in which Redis does nothing else.</summary>
    public const int CommandsPerCall = 1_024;

    /// <summary>About the most lines of one script; a cart of 4,096 lines goes by itself. (execute.lua bounds the lines that only it knows.)</summary>
    public const int LinesPerCall = 4_096;

    /// <summary>Most SKUs of one reading script.</summary>
    public const int SkusPerCall = 1_024;

    /// <summary>Reading scripts under way at once, so that one is encoded and decoded while another runs.</summary>
    public const int ReadsInFlight = 3;

    /// <summary>Most SKUs that wait for a reading script.</summary>
    public const int MaxWaitingReads = 65_536;

    /// <summary>Rows, entries or operations of one page of a listing.</summary>
    public const int PageRows = 512;

    /// <summary>Bytes of the journal of one page.</summary>
    public const int PageBytes = 65_536;

    /// <summary>Ids of one look for what was acknowledged.</summary>
    public const int IdsPerCall = 2_000;

    /// <summary>How often a call is sent when the store was found to have lost something in between.</summary>
    public const int Attempts = 3;
}
