using System.Globalization;

namespace Holdfast.Redis;

/// <summary>The texts of cursors: a number, or two with a dot between.</summary>
internal static class JournalCursor
{
    public static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    public static string Text(long position, int line) => string.Create(CultureInfo.InvariantCulture, $"{position}.{line}");

    public static long Parse(string cursor) => long.TryParse(cursor, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : throw Bad(cursor);

    /// <summary>A number before the first dot, and what comes after it.</summary>
    public static (long Number, string After) Split(string cursor)
    {
        var dot = cursor.IndexOf('.', StringComparison.Ordinal);
        return dot > 0 && long.TryParse(cursor.AsSpan(0, dot), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? (number, cursor[(dot + 1)..]) : throw Bad(cursor);
    }

    public static ArgumentException Bad(string cursor) => new($"'{cursor}' is no cursor of this store's listing.", nameof(cursor));
}
