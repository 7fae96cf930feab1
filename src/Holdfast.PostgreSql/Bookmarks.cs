using System.Globalization;

namespace Holdfast.PostgreSql;

/// <summary>
/// How the whole ledger can be read in one order, from a cursor, without ever passing over an entry that commits late.
/// </summary>
/// <remarks>
/// <para>A transaction takes a block of positions while it holds its stock rows. Per SKU, blocks therefore rise with the
/// versions. Over the store they need not commit in their order: block 8 may be visible while block 7 is still being
/// written, and a reader that went on from 8 would never see 7.</para>
/// <para>So each writer first leaves a bookmark, a shared advisory lock that ends with its transaction and names the
/// latest block at that time; only then does it take a block, which is greater. A reader first looks at the latest block
/// L, and then at the bookmarks: a writer whose bookmark it sees will end above that bookmark; a writer whose bookmark
/// it does not see yet takes its block after the reader looked, above L; all others have ended, and a new statement sees
/// what they wrote. Everything up to the lesser of L and the lowest bookmark is therefore final.</para>
/// <para>Comparing transaction numbers (xmin of a snapshot) would do without bookmarks, but any long transaction of any
/// database of the server would then hold the readers up.</para>
/// </remarks>
internal static class Bookmarks
{
    /// <summary>The class of this store's advisory locks.</summary>
    public static int Class(string schema) => unchecked((int)(Schema.LockKey("holdfast flow " + schema) >> 16));

    /// <summary>The SQL of a block's number as the second key of an advisory lock: its lower 32 bits.</summary>
    public static string Place(string block) => string.Create(CultureInfo.InvariantCulture, $"(({block} & 4294967295) - 2147483648)::integer");

    /// <summary>The block that a bookmark names, given a block nearby.</summary>
    /// <param name="objectId">What pg_locks shows: the key as an unsigned number.</param>
    /// <param name="near">The latest block.</param>
    public static long BlockOf(long objectId, long near)
    {
        var low = unchecked((uint)((int)(uint)objectId + 2147483648L));
        var distance = unchecked((int)((uint)near - low));
        return near - distance;
    }
}
