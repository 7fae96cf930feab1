using System.Text.Json;

namespace Holdfast.Client;

/// <summary>What a server says of itself.</summary>
/// <param name="Scheme">The scheme that it runs.</param>
/// <param name="Traits">What its engine guarantees; names that this version does not know are left out.</param>
/// <param name="Version">Its version.</param>
/// <param name="Durability">What its acknowledgements are worth, in words.</param>
public sealed record ServerInfo(string Scheme, StockTraits Traits, string Version, string Durability)
{
    internal static ServerInfo Read(ReadOnlySpan<byte> utf8)
    {
        var reader = new Utf8JsonReader(utf8);
        using var document = JsonDocument.ParseValue(ref reader);
        var root = document.RootElement;
        var traits = StockTraits.None;
        foreach (var name in root.GetProperty("traits").EnumerateArray())
        {
            if (Enum.TryParse<StockTraits>(name.GetString(), out var trait))
            {
                traits |= trait;
            }
        }

        return new(Text("scheme"), traits, Text("version"), Text("durability"));

        string Text(string name) => root.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
    }
}
