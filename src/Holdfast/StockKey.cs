namespace Holdfast;

/// <summary>
/// The rules for SKUs and operation ids: 1 to 64 characters, compared ordinally, inner spaces allowed, no control
/// characters, no leading or trailing white space. Thread-safe.
/// </summary>
public static class StockKey
{
    /// <summary>
    /// Orders keys by their UTF-8 bytes. This is the order of SQLite's BINARY and PostgreSQL's "C" collations and of
    /// every listing; it differs from <see cref="StringComparer.Ordinal"/> (UTF-16 order) above U+D7FF only.
    /// </summary>
    public static IComparer<string> ByteOrder { get; } = new Utf8Order();

    /// <summary>Says what is wrong with <paramref name="key"/>, or <see langword="null"/> when it is valid.</summary>
    public static string? Problem(string? key)
    {
        if (string.IsNullOrEmpty(key))
        {
            return "is missing or empty";
        }

        if (key.Length > StockLimits.MaxKeyLength)
        {
            return $"is {key.Length} characters long; at most {StockLimits.MaxKeyLength} are allowed";
        }

        if (char.IsWhiteSpace(key[0]) || char.IsWhiteSpace(key[^1]))
        {
            return "begins or ends with white space";
        }

        return TextProblem(key, allowLineBreaks: false);
    }

    /// <summary>What is wrong with the characters of a text, or <see langword="null"/>: control characters and halves of surrogate pairs can't be stored everywhere.</summary>
    internal static string? TextProblem(string text, bool allowLineBreaks)
    {
        for (var i = 0; i < text.Length; i++)
        {
            var c = text[i];
            if (char.IsControl(c) && !(allowLineBreaks && c is '\n' or '\r' or '\t'))
            {
                return $"contains the control character U+{(int)c:X4}";
            }

            if (char.IsSurrogate(c))
            {
                if (!char.IsHighSurrogate(c) || i + 1 == text.Length || !char.IsLowSurrogate(text[i + 1]))
                {
                    return "contains half of a surrogate pair";
                }

                i++;
            }
        }

        return null;
    }

    private sealed class Utf8Order : IComparer<string>
    {
        public int Compare(string? x, string? y)
        {
            if (x is null || y is null)
            {
                return x is null ? (y is null ? 0 : -1) : 1;
            }

            var common = x.AsSpan().CommonPrefixLength(y);
            if (common == x.Length || common == y.Length)
            {
                return x.Length - y.Length;
            }

            // Surrogates (U+D800..U+DFFF in UTF-16) stand for U+10000 and above, which UTF-8 sorts after U+FFFF.
            return Rank(x[common]) - Rank(y[common]);
        }

        private static int Rank(char c) => char.IsSurrogate(c) ? c + 0x10000 : c;
    }
}
