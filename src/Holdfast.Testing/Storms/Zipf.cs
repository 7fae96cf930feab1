namespace Holdfast.Testing;

/// <summary>
/// Numbers from 0 with the popularity of Zipf's law: the k-th is asked for in proportion to 1 / k^exponent. The method of
/// Gray, Sundaresan, Englert, Baclawski and Weinberger, "Quickly Generating Billion-Record Synthetic Databases"
/// (SIGMOD 1994), which the YCSB benchmark made usual together with the exponent 0.99. Immutable and thread-safe.
/// </summary>
public sealed class Zipf
{
    private readonly int _count;
    private readonly double _exponent;
    private readonly double _zeta;
    private readonly double _alpha;
    private readonly double _eta;

    /// <summary>Prepares the distribution; takes a moment in proportion to <paramref name="count"/>.</summary>
    /// <param name="count">How many numbers, 1 or more.</param>
    /// <param name="exponent">More than 0 and less than 1.</param>
    public Zipf(int count, double exponent = 0.99)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(exponent, 0);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(exponent, 1);
        _count = count;
        _exponent = exponent;
        _zeta = Zeta(count);
        _alpha = 1 / (1 - exponent);
        _eta = (1 - Math.Pow(2.0 / count, 1 - exponent)) / (1 - (Zeta(Math.Min(2, count)) / _zeta));
    }

    /// <summary>How often a number is asked for, as a part of all.</summary>
    public double Share(int number) => 1 / Math.Pow(number + 1, _exponent) / _zeta;

    /// <summary>The next number.</summary>
    public int Next(Random random)
    {
        ArgumentNullException.ThrowIfNull(random);
        var u = random.NextDouble();
        var uz = u * _zeta;
        if (uz < 1 || _count == 1)
        {
            return 0;
        }

        if (uz < 1 + Math.Pow(0.5, _exponent) || _count == 2)
        {
            return 1;
        }

        return Math.Min(_count - 1, (int)(_count * Math.Pow((_eta * u) - _eta + 1, _alpha)));
    }

    private double Zeta(int count)
    {
        var sum = 0.0;
        for (var i = 1; i <= count; i++)
        {
            sum += 1 / Math.Pow(i, _exponent);
        }

        return sum;
    }
}
