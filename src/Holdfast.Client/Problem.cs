using System.Text.Json;

namespace Holdfast.Client;

/// <summary>What a refused request's body says, where it is a problem document; every part may be missing.</summary>
internal sealed record Problem(string? Outcome, string? Title, string? Detail, string? Field)
{
    private const int MaxSize = 64 * 1024;

    private static readonly Problem s_unreadable = new(null, null, null, null);

    /// <summary>The most telling sentence of it, or the status where it says nothing.</summary>
    public string Describe(System.Net.HttpStatusCode status) =>
        $"HTTP {(int)status}{(Field is null ? "" : $", field {Field}")}: {Detail ?? Title ?? status.ToString()}";

    /// <summary>Reads it; a body that is none leaves every part empty.</summary>
    public static async ValueTask<Problem> ReadAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        if (response.Content.Headers.ContentType?.MediaType is not ("application/problem+json" or "application/json"))
        {
            return s_unreadable;
        }

        try
        {
            await response.Content.LoadIntoBufferAsync(MaxSize, cancellationToken).ConfigureAwait(false);
            var body = await response.Content.ReadAsByteArrayAsync(cancellationToken).ConfigureAwait(false);
            using var document = JsonDocument.Parse(body);
            var root = document.RootElement;
            return root.ValueKind != JsonValueKind.Object ? s_unreadable : new(Text("outcome"), Text("title"), Text("detail"), Text("field"));

            string? Text(string name) => root.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
        }
        catch (Exception e) when (e is JsonException or HttpRequestException or IOException)
        {
            // The status alone still says what happened; the explanation did not arrive whole.
            return s_unreadable;
        }
    }
}
