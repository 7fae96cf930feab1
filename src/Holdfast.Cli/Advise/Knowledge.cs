using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Holdfast.Cli.Compare;

namespace Holdfast.Cli.Advise;

/// <summary>What is known of the schemes beside their measurements: data with sources (<c>knowledge.json</c>), the order of which is the order of preference.</summary>
internal sealed record Knowledge
{
    private const string KnowledgeResource = "Holdfast.Cli.Advise.knowledge.json";
    private const string MeasuredResource = "Holdfast.Cli.Advise.compare.json";

    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web) { UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow };

    /// <summary>As the comparison's own file has it, read back leniently: it may be from a newer version.</summary>
    private static readonly JsonSerializerOptions s_measured = new(JsonSerializerDefaults.Web);

    public required KnownBound Headroom { get; init; }

    public required KnownBound HotFrom { get; init; }

    /// <summary>What may be lost, the strictest first.</summary>
    public required IReadOnlyList<KnownLoss> Losses { get; init; }

    /// <summary>The schemes, the one to be preferred first.</summary>
    public required IReadOnlyList<KnownScheme> Schemes { get; init; }

    public static Knowledge Load() => JsonSerializer.Deserialize<Knowledge>(Resource(KnowledgeResource), s_json)!;

    /// <summary>The measurements that come with this version.</summary>
    public static CompareReport LoadMeasured() => JsonSerializer.Deserialize<CompareReport>(Resource(MeasuredResource), s_measured)!;

    /// <summary>Measurements of one's own, as <c>bench compare</c> writes them.</summary>
    /// <exception cref="UsageException">The file is not there or is something else.</exception>
    public static CompareReport LoadMeasured(string file)
    {
        try
        {
            return JsonSerializer.Deserialize<CompareReport>(File.ReadAllText(file), s_measured) ?? throw new JsonException("it is empty");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new UsageException($"--measured '{file}' can't be used: {e.Message} 'holdfast bench compare' writes such a file, compare.json.");
        }
    }

    private static Stream Resource(string name) => typeof(Knowledge).Assembly.GetManifestResourceStream(name) ?? throw new InvalidOperationException($"The resource {name} is missing from this build.");
}

/// <summary>A number that decides something, and why it is that one.</summary>
internal sealed record KnownBound
{
    public double Factor { get; init; }

    public double Percent { get; init; }

    public required string Because { get; init; }

    public required string Source { get; init; }
}

/// <summary>A degree of loss.</summary>
internal sealed record KnownLoss(string Name, string Meaning);

/// <summary>A scheme as the advice knows it.</summary>
internal sealed record KnownScheme
{
    /// <summary>The row of the comparison that measures it.</summary>
    public required string Row { get; init; }

    /// <summary>Servers that it needs: postgres, standby, redis, rabbitmq.</summary>
    public required IReadOnlyList<string> Needs { get; init; }

    /// <summary>What it may lose.</summary>
    public required string Loss { get; init; }

    /// <summary>How many processes may sell: one, many.</summary>
    public required string Sellers { get; init; }

    /// <summary>When the buyer knows: now, later.</summary>
    public required string Verdict { get; init; }

    /// <summary>Why it is never advised; <see langword="null"/> where it may be.</summary>
    public string? Never { get; init; }

    public string? Guarantees { get; init; }

    public string? Because { get; init; }

    public string? BreaksFirst { get; init; }

    public JsonObject? Configuration { get; init; }

    public required IReadOnlyList<string> Sources { get; init; }
}
