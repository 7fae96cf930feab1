using Microsoft.AspNetCore.Http.Features;

namespace Holdfast.Server.Http;

/// <summary>
/// Names in paths. The server decodes a path before routing but leaves <c>%2F</c> alone, so that a name with a slash
/// stays one segment; and then <c>%252F</c> and <c>%2F</c> look the same. Where it matters the segment is taken from the
/// request line as it was sent.
/// </summary>
internal static class PathSegment
{
    /// <param name="context">The request.</param>
    /// <param name="name">The route parameter.</param>
    /// <param name="index">Its place among the path's segments, from 0.</param>
    public static string Read(HttpContext context, string name, int index)
    {
        var value = (string)context.Request.RouteValues[name]!;
        if (!value.Contains("%2F", StringComparison.OrdinalIgnoreCase))
        {
            return value;
        }

        var sent = SentPath(context).Split('/');
        var routed = context.Request.Path.Value!.Split('/');

        // A path with dot segments was shortened before routing: its places don't agree, and the value is the best there is.
        return sent.Length == routed.Length
            ? Uri.UnescapeDataString(sent[index + 1])
            : value.Replace("%2F", "/", StringComparison.OrdinalIgnoreCase);
    }

    private static string SentPath(HttpContext context)
    {
        var target = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        var query = target.IndexOf('?', StringComparison.Ordinal);
        var path = query < 0 ? target : target[..query];
        if (path.StartsWith('/'))
        {
            return path;
        }

        // The absolute form, as sent to proxies: http://host/path.
        var authority = path.IndexOf("//", StringComparison.Ordinal);
        var slash = authority < 0 ? -1 : path.IndexOf('/', authority + 2);
        return slash < 0 ? "/" : path[slash..];
    }
}
