using System.Globalization;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>A copy as it stands in Redis: the numbers that can be read, and whether all that are there could be.</summary>
internal readonly record struct GateCopy(long? Version, long? Available, long? Reserved, long? Restocked, long? Adjusted, bool IsReadable)
{
    public static GateCopy Read(string[] fields)
    {
        var numbers = Array.ConvertAll(fields, static text =>
            long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) && number.ToString(CultureInfo.InvariantCulture) == text ? number : (long?)null);
        var isReadable = numbers[0] > 0 && numbers[1] is not null && numbers[2] is not null
            && (numbers[3] is not null || fields[3].Length == 0) && (numbers[4] is not null || fields[4].Length == 0);
        return new(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], isReadable);
    }

    /// <summary>
    /// Compares with a row that was read after the copy, so that a copy can't be newer than the row, and units of reservations that
    /// have come due meanwhile can only have moved from reserved to available.
    /// </summary>
    public GateDifferenceKind Compare(in StockLevel row)
    {
        if (IsReadable && Version != row.Version)
        {
            return Version > row.Version ? GateDifferenceKind.Ahead : GateDifferenceKind.Missed;
        }

        return IsReadable
            && Available + Reserved == row.Available + row.Reserved && Available >= 0 && Available <= row.Available
            && (Restocked ?? row.Restocked) == row.Restocked && (Adjusted ?? row.Adjusted) == row.Adjusted
            ? GateDifferenceKind.None
            : GateDifferenceKind.Altered;
    }
}

/// <summary>What gate-compare.lua answers.</summary>
internal sealed record GateCopiesRead(long Now, long Epoch, long Fresh, long IdsEnd, GateCopy?[] Copies)
{
    public static GateCopiesRead Read(RedisResult result)
    {
        var all = (RedisResult[])result;
        var head = (string[])all[0];
        var copies = new GateCopy?[all.Length - 1];
        for (var i = 0; i < copies.Length; i++)
        {
            copies[i] = (string[])all[i + 1] is { Length: > 0 } fields ? GateCopy.Read(fields) : null;
        }

        return new(Number(head[0]), Number(head[1]), Number(head[2]), Number(head[3]), copies);
    }

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
}
