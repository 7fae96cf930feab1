namespace Holdfast.Cli.Bench;

/// <summary>
/// Who buys what. Deterministic by a seed: the commands of a caller are the same in every run, their ids aside.
/// </summary>
internal sealed class Workload
{
    private const int ManySkus = 10_000;
    private const int MaxCartLines = 5;

    /// <summary>How unequal popular goods are: the usual constant of such benchmarks.</summary>
    private const double ZipfExponent = 0.99;

    private readonly string _run;
    private readonly int _seed;
    private readonly string[] _skus;
    private readonly double[]? _cumulative;
    private readonly int _maxLines;

    private Workload(string name, string run, int seed, int skus, double? exponent, int maxLines)
    {
        Name = name;
        _run = run;
        _seed = seed;
        _maxLines = maxLines;
        _skus = [.. Enumerable.Range(0, skus).Select(i => $"{run}-{i:d5}")];
        _cumulative = exponent is null ? null : Cumulative(skus, exponent.Value);
    }

    /// <summary>The names that <c>--workload</c> knows.</summary>
    public static IReadOnlyList<string> Names { get; } = ["hot", "zipf", "uniform", "carts"];

    /// <summary>What every SKU and id of it begins with.</summary>
    public string Run => _run;

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>All SKUs that it may ask for.</summary>
    public IReadOnlyList<string> Skus => _skus;

    /// <summary>Makes a workload.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <param name="run">A prefix of every SKU and id, unique to the run.</param>
    /// <param name="seed">What the choice of SKUs hangs on.</param>
    public static Workload Of(string name, string run, int seed) => name switch
    {
        "hot" => new(name, run, seed, 1, exponent: null, maxLines: 1),
        "zipf" => new(name, run, seed, ManySkus, exponent: ZipfExponent, maxLines: 1),
        "uniform" => new(name, run, seed, ManySkus, exponent: null, maxLines: 1),
        "carts" => new(name, run, seed, ManySkus, exponent: ZipfExponent, MaxCartLines),
        _ => throw new UsageException($"--workload '{name}' is not known; known are: {string.Join(", ", Names)}"),
    };

    /// <summary>The restocks that stock every SKU.</summary>
    public IEnumerable<StockCommand> Openings(long units) =>
        _skus.Chunk(StockLimits.MaxLines).Select((skus, i) => StockCommand.Restock($"{_run}-opening-{i}", [.. skus.Select(sku => new StockLine(sku, units))]));

    /// <summary>The id of a caller's n-th order. Ids grow with time, as order numbers do.</summary>
    public string OrderId(long index, int caller) => $"{_run}-{index:x8}-{caller:x}";

    /// <summary>The endless commands of one caller; each call makes the next. Not thread-safe: it belongs to its caller.</summary>
    public Func<StockCommand> Caller(int number)
    {
        var random = new Random(unchecked((_seed * 1_000_003) + number));
        var index = 0L;
        return () =>
        {
            var id = OrderId(index++, number);
            if (_maxLines == 1)
            {
                return StockCommand.Deduct(id, [new(Pick(random), 1)]);
            }

            var lines = new StockLine[random.Next(1, _maxLines + 1)];
            for (var i = 0; i < lines.Length; i++)
            {
                lines[i] = new(Pick(random), random.Next(1, 4));
            }

            return StockCommand.Deduct(id, lines);
        };
    }

    private string Pick(Random random)
    {
        if (_skus.Length == 1)
        {
            return _skus[0];
        }

        if (_cumulative is null)
        {
            return _skus[random.Next(_skus.Length)];
        }

        var place = Array.BinarySearch(_cumulative, random.NextDouble());
        return _skus[Math.Min(place < 0 ? ~place : place, _skus.Length - 1)];
    }

    /// <summary>Zipf: the k-th SKU is asked for in proportion to 1 / k^exponent.</summary>
    private static double[] Cumulative(int count, double exponent)
    {
        var cumulative = new double[count];
        var sum = 0.0;
        for (var i = 0; i < count; i++)
        {
            sum += Math.Pow(i + 1, -exponent);
            cumulative[i] = sum;
        }

        for (var i = 0; i < count; i++)
        {
            cumulative[i] /= sum;
        }

        return cumulative;
    }
}
