using System.Security.Cryptography;
using System.Text;
using Holdfast.Hosting;

namespace Holdfast.Server.Security;

/// <summary>What a caller may do.</summary>
[Flags]
internal enum Roles
{
    None = 0,
    Read = 1,
    Sell = 2,
    Stock = 4,
}

/// <summary>
/// The configured keys. Required on every request under <c>/v1</c> as soon as one is configured. A presented key is
/// hashed and compared with every configured one in constant time, so that neither the time nor the place of a match
/// tells anything.
/// </summary>
internal sealed class ApiKeys
{
    private const int LeastKeyLength = 16;

    private readonly Entry[] _entries;

    public ApiKeys(IEnumerable<ApiKeyOptions> options) => _entries =
        [.. options.Select(option => new Entry(HashOf(option)!, option.Roles.Aggregate(Roles.None, (roles, name) => roles | Parse(name))))];

    public bool AreRequired => _entries.Length > 0;

    /// <summary>The role that a verb needs.</summary>
    public static Roles RoleOf(StockVerb verb) => verb is StockVerb.Restock or StockVerb.Adjust ? Roles.Stock : Roles.Sell;

    /// <summary>The roles of the caller, or <see langword="null"/> when no valid key was sent.</summary>
    public Roles? Identify(HttpRequest request)
    {
        var key = Presented(request);
        if (key is null)
        {
            return null;
        }

        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.UTF8.GetBytes(key), hash);
        Roles? found = null;
        foreach (var entry in _entries)
        {
            if (CryptographicOperations.FixedTimeEquals(hash, entry.Hash))
            {
                found = entry.Roles;
            }
        }

        return found;
    }

    public static void AddProblems(IList<ApiKeyOptions> keys, List<string> problems)
    {
        var names = new HashSet<string>(StringComparer.Ordinal);
        var hashes = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < keys.Count; i++)
        {
            var key = keys[i];
            var field = $"{HoldfastOptions.SectionName}:ApiKeys:{i}";
            if (string.IsNullOrWhiteSpace(key.Name))
            {
                problems.Add($"{field}:Name is missing; it says in logs whose key it is.");
            }
            else if (!names.Add(key.Name))
            {
                problems.Add($"{field}:Name '{key.Name}' appears twice.");
            }

            if (key.Key is null == key.KeySha256 is null)
            {
                problems.Add($"{field} must have either Key or KeySha256.");
            }
            else if (key.Key is { Length: < LeastKeyLength })
            {
                problems.Add($"{field}:Key is too short; at least {LeastKeyLength} characters are needed (openssl rand -hex 32 makes a good one).");
            }
            else if (HashOf(key) is not { } hash)
            {
                problems.Add($"{field}:KeySha256 must be the 64 hexadecimal digits of the key's SHA-256 (printf %s \"$KEY\" | sha256sum).");
            }
            else if (!hashes.Add(Convert.ToHexString(hash)))
            {
                problems.Add($"{field} has the same key as another entry.");
            }

            if (key.Roles.Count == 0)
            {
                problems.Add($"{field}:Roles is empty; it lists one or more of read, sell, stock.");
            }

            for (var r = 0; r < key.Roles.Count; r++)
            {
                if (Parse(key.Roles[r]) == Roles.None)
                {
                    problems.Add($"{field}:Roles:{r} '{key.Roles[r]}' is not known; the roles are read, sell, stock.");
                }
            }
        }
    }

    private static string? Presented(HttpRequest request)
    {
        string? authorization = request.Headers.Authorization;
        if (authorization is not null)
        {
            return authorization.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase) ? authorization["Bearer ".Length..].Trim() : null;
        }

        return request.Headers.TryGetValue("X-Api-Key", out var header) ? header.ToString() : null;
    }

    private static byte[]? HashOf(ApiKeyOptions option)
    {
        if (option.Key is not null)
        {
            return SHA256.HashData(Encoding.UTF8.GetBytes(option.Key));
        }

        var hex = option.KeySha256 ?? "";
        return hex.Length == SHA256.HashSizeInBytes * 2 && hex.All(char.IsAsciiHexDigit) ? Convert.FromHexString(hex) : null;
    }

    private static Roles Parse(string name) => name switch
    {
        "read" => Roles.Read,
        "sell" => Roles.Sell,
        "stock" => Roles.Stock,
        _ => Roles.None,
    };

    private sealed record Entry(byte[] Hash, Roles Roles);
}
