using System.Globalization;

namespace Holdfast.Redis;

/// <summary>The texts of cursors: numbers with dots between.</summary>
internal static class JournalCursor
{
    public static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    /// <summary>A line of a record, and by which record that is: after a loss another may lie in its place.</summary>
    public static string Text(long position, int line, uint record) => string.Create(CultureInfo.InvariantCulture, $"{position}.{line}.{record}");

    /// <summary>A record as a cursor knows it again: a hash (FNV-1a) of its time and its operation's id.</summary>
    public static uint Digest(long time, string id)
    {
        const uint prime = 16_777_619;
        var hash = 2_166_136_261;
        for (var i = 0; i < 6; i++)
        {
            hash = unchecked((hash ^ (byte)(time >> (8 * i))) * prime);
        }

        foreach (var c in id)
        {
            hash = unchecked((hash ^ c) * prime);
        }

        return hash;
    }

    /// <summary>What <see cref="Text(long, int, uint)"/> wrote.</summary>
    public static (long Position, int Line, uint Record) ParseLine(string cursor) =>
        cursor.Split('.') is [var position, var line, var record]
        && long.TryParse(position, NumberStyles.None, CultureInfo.InvariantCulture, out var at)
        && int.TryParse(line, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number > 0
        && uint.TryParse(record, NumberStyles.None, CultureInfo.InvariantCulture, out var digest)
            ? (at, number, digest)
            : throw Bad(cursor);

    public static long Parse(string cursor) => long.TryParse(cursor, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : throw Bad(cursor);

    /// <summary>A number before the first dot, and what comes after it.</summary>
    public static (long Number, string After) Split(string cursor)
    {
        var dot = cursor.IndexOf('.', StringComparison.Ordinal);
        return dot > 0 && long.TryParse(cursor.AsSpan(0, dot), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? (number, cursor[(dot + 1)..]) : throw Bad(cursor);
    }

    public static ArgumentException Bad(string cursor) => new($"'{cursor}' is no cursor of this store's listing.", nameof(cursor));
}
