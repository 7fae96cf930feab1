using System.Globalization;
using System.Text;

namespace Holdfast;

/// <summary>Where a reader of several shards is: each shard's own cursor, each with its length before it; <c>3:120-2:17</c> stands at 120 of the first of three and at 17 of the third, and has read nothing of the second.</summary>
internal static class ShardCursor
{
    public static string Write(string?[] cursors)
    {
        var text = new StringBuilder();
        foreach (var cursor in cursors)
        {
            if (cursor is null)
            {
                text.Append('-');
            }
            else
            {
                text.Append(CultureInfo.InvariantCulture, $"{cursor.Length}:{cursor}");
            }
        }

        return text.ToString();
    }

    public static string?[] Read(string? text, int shards)
    {
        var cursors = new string?[shards];
        var rest = text.AsSpan();
        for (var shard = 0; shard < shards && text is not null; shard++)
        {
            if (rest is ['-', ..])
            {
                rest = rest[1..];
                continue;
            }

            var colon = rest.IndexOf(':');
            if (colon < 1 || !int.TryParse(rest[..colon], NumberStyles.None, CultureInfo.InvariantCulture, out var length) || length > rest.Length - colon - 1)
            {
                throw NoCursor();
            }

            cursors[shard] = rest.Slice(colon + 1, length).ToString();
            rest = rest[(colon + 1 + length)..];
        }

        return rest.IsEmpty ? cursors : throw NoCursor();

        ArgumentException NoCursor() => new($"'{text}' is no cursor of these {shards} shards.", nameof(text));
    }
}
