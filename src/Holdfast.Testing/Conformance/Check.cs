namespace Holdfast.Testing;

/// <summary>The assertions of the conformance cases; they throw <see cref="ConformanceException"/>.</summary>
internal static class Check
{
    public static void That(bool holds, string otherwise)
    {
        if (!holds)
        {
            throw new ConformanceException(otherwise);
        }
    }

    public static void Equal<T>(T actual, T expected, string what)
    {
        if (!EqualityComparer<T>.Default.Equals(actual, expected))
        {
            throw new ConformanceException($"{what} should be {expected} but is {actual}.");
        }
    }

    public static void Sequence<T>(IEnumerable<T> actual, IEnumerable<T> expected, string what)
    {
        var (found, wanted) = (actual.ToArray(), expected.ToArray());
        if (!found.SequenceEqual(wanted))
        {
            throw new ConformanceException($"{what} should be [{string.Join(", ", wanted)}] but is [{string.Join(", ", found)}].");
        }
    }
}
