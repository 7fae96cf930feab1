namespace Holdfast.Cli.Bench;

/// <summary>
/// Who buys what. Deterministic by a seed: the commands of a caller are the same in every run, their ids aside.
/// </summary>
internal sealed class Workload
{
    private const int ManySkus = 10_000;

    /// <summary>How often a caller of the workload selling-out asks for a SKU before it turns to the next; each is stocked for half of all who ask.</summary>
    private const int AsksASku = 8;

    /// <summary>The share of orders that are sent twice in the workload duplicates.</summary>
    private const double Duplicates = 0.1;

    /// <summary>A duplicate is one of so many orders before.</summary>
    private const int Remembered = 16;

    private const long Plenty = 1_000_000_000;

    /// <summary>How unequal popular goods are: the usual constant of such benchmarks.</summary>
    private const double ZipfExponent = 0.99;

    private static readonly Kind[] s_kinds =
    [
        new("hot", "one SKU", Skus: 1),
        new("zipf", "10,000 SKUs, few of them popular: exponent 0.99", Exponent: ZipfExponent),
        new("uniform", "10,000 SKUs alike"),
        new("carts", "zipf, 1 to 5 lines an order", Exponent: ZipfExponent, MaxLines: 5),
        new("carts-10", "zipf, 1 to 10 lines an order", Exponent: ZipfExponent, MaxLines: 10),
        new("selling-out", "one hot SKU after the other, each with units for half of those who ask", IsRolling: true),
        new("sold-out", "one SKU of which nothing is left", Skus: 1, Stock: 0),
        new("duplicates", "zipf, and one order in ten is sent once more", Exponent: ZipfExponent, DuplicateShare: Duplicates),
    ];

    private readonly Kind _kind;
    private readonly string _run;
    private readonly int _seed;
    private readonly string[] _skus;
    private readonly double[]? _cumulative;

    private Workload(Kind kind, string run, int seed)
    {
        _kind = kind;
        _run = run;
        _seed = seed;
        _skus = [.. Enumerable.Range(0, kind.Skus).Select(i => $"{run}-{i:d5}")];
        _cumulative = kind.Exponent is { } exponent ? Cumulative(kind.Skus, exponent) : null;
    }

    /// <summary>The names that <c>--workload</c> knows.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. s_kinds.Select(kind => kind.Name)];

    /// <summary>Each name with what it means, for help texts.</summary>
    public static string Explained => string.Join("; ", s_kinds.Select(kind => $"{kind.Name} ({kind.Meaning})"));

    /// <summary>What every SKU and id of it begins with.</summary>
    public string Run => _run;

    /// <summary>Its name.</summary>
    public string Name => _kind.Name;

    /// <summary>What it is, in a few words.</summary>
    public string Meaning => _kind.Meaning;

    /// <summary>All SKUs that it may ask for.</summary>
    public IReadOnlyList<string> Skus => _skus;

    /// <summary>Makes a workload.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <param name="run">A prefix of every SKU and id, unique to the run.</param>
    /// <param name="seed">What the choice of SKUs hangs on.</param>
    public static Workload Of(string name, string run, int seed) => Array.Find(s_kinds, kind => kind.Name == name) is { } kind
        ? new(kind, run, seed)
        : throw new UsageException($"--workload '{name}' is not known; known are: {string.Join(", ", Names)}");

    /// <summary>The units of each SKU that make it what it is: plenty, none, or what half of those who ask will get.</summary>
    /// <param name="callers">How many ask.</param>
    public long UnitsFor(int callers) => _kind.IsRolling ? Math.Max(1, AsksASku * (long)callers / 2) : _kind.Stock;

    /// <summary>The restocks that stock every SKU.</summary>
    public IEnumerable<StockCommand> Openings(long units) =>
        _skus.Chunk(StockLimits.MaxLines).Select((skus, i) => StockCommand.Restock($"{_run}-opening-{i}", [.. skus.Select(sku => new StockLine(sku, units))]));

    /// <summary>The id of a caller's n-th order. Ids grow with time, as order numbers do.</summary>
    public string OrderId(long index, int caller) => $"{_run}-{index:x8}-{caller:x}";

    /// <summary>The endless commands of one caller; each call makes the next. Not thread-safe: it belongs to its caller.</summary>
    public Func<StockCommand> Caller(int number)
    {
        var next = Orders(number);
        return () => next().Command;
    }

    /// <summary>The same, saying which were sent before.</summary>
    public Func<(StockCommand Command, bool IsRepeat)> Orders(int number)
    {
        var random = new Random(unchecked((_seed * 1_000_003) + number));
        var index = 0L;
        var before = _kind.DuplicateShare > 0 ? new StockCommand[Remembered] : [];
        return () =>
        {
            if (index > 0 && before.Length > 0 && random.NextDouble() < _kind.DuplicateShare)
            {
                return (before[random.Next((int)Math.Min(index, before.Length))], true);
            }

            var id = OrderId(index, number);
            var order = StockCommand.Deduct(id, Lines(random, index));
            if (before.Length > 0)
            {
                before[index % before.Length] = order;
            }

            index++;
            return (order, false);
        };
    }

    private StockLine[] Lines(Random random, long index)
    {
        if (_kind.MaxLines == 1)
        {
            return [new(_kind.IsRolling ? _skus[index / AsksASku % _skus.Length] : Pick(random), 1)];
        }

        var lines = new StockLine[random.Next(1, _kind.MaxLines + 1)];
        for (var i = 0; i < lines.Length; i++)
        {
            lines[i] = new(Pick(random), random.Next(1, 4));
        }

        return lines;
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

    private sealed record Kind(
        string Name, string Meaning, int Skus = ManySkus, double? Exponent = null, int MaxLines = 1, long Stock = Plenty, bool IsRolling = false, double DuplicateShare = 0);
}
