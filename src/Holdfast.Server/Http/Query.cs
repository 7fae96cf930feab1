using System.Globalization;

namespace Holdfast.Server.Http;

/// <summary>Reads query parameters strictly: what is unknown, repeated or malformed is refused by name, nothing is guessed.</summary>
internal sealed class Query
{
    private const int DefaultLimit = 100;
    private const int MaxLimit = 1_000;
    private const int MaxStalenessSeconds = 2_592_000;

    /// <summary>The parameter that says how old an answer may be.</summary>
    public const string MaxStalenessName = "maxStalenessSeconds";

    private readonly IQueryCollection _values;

    /// <exception cref="InvalidCommandException">A parameter is not one of <paramref name="known"/>.</exception>
    public Query(HttpRequest request, params ReadOnlySpan<string> known)
    {
        _values = request.Query;
        foreach (var (name, _) in _values)
        {
            if (!known.Contains(name))
            {
                throw new InvalidCommandException(name, $"is not a parameter here; there {(known.IsEmpty ? "are none" : $"is {string.Join(", ", known)}")}");
            }
        }
    }

    /// <summary>All values of a parameter that may be repeated.</summary>
    public IReadOnlyList<string?> All(string name) => _values.TryGetValue(name, out var values) ? values.ToArray() : [];

    public bool Has(string name) => _values.ContainsKey(name);

    public string? Text(string name)
    {
        if (!_values.TryGetValue(name, out var values))
        {
            return null;
        }

        return values.Count == 1 ? values[0] : throw new InvalidCommandException(name, "appears twice");
    }

    /// <summary>A SKU or an operation id.</summary>
    public string? Key(string name)
    {
        var text = Text(name);
        return text is not null && StockKey.Problem(text) is { } problem ? throw new InvalidCommandException(name, problem) : text;
    }

    public int Limit()
    {
        var text = Text("limit");
        return text is null ? DefaultLimit
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var limit) && limit is >= 1 and <= MaxLimit ? limit
            : throw new InvalidCommandException("limit", $"must be a whole number from 1 to {MaxLimit}");
    }

    /// <summary>How old the answer may be.</summary>
    public TimeSpan MaxStaleness()
    {
        var text = Text(MaxStalenessName);
        return text is null ? TimeSpan.Zero
            : decimal.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var seconds) && seconds <= MaxStalenessSeconds ? TimeSpan.FromTicks((long)(seconds * TimeSpan.TicksPerSecond))
            : throw new InvalidCommandException(MaxStalenessName, $"must be a number of seconds from 0 to {MaxStalenessSeconds} (30 days)");
    }

    public bool Flag(string name) => Text(name) switch
    {
        null or "false" => false,
        "true" => true,
        _ => throw new InvalidCommandException(name, "must be true or false"),
    };

    public DateTimeOffset? Time(string name)
    {
        var text = Text(name);
        return text is null ? null
            : DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var time) ? time
            : throw new InvalidCommandException(name, "must be a time such as 2010-12-01T08:26:00Z");
    }
}
