using System.Globalization;
using Holdfast.Cli.Compare;

namespace Holdfast.Cli.Advise;

/// <summary>What a shop says of itself.</summary>
/// <param name="Peak">Orders per second at the peak.</param>
/// <param name="HottestPercent">The hottest SKU's share of all orders.</param>
/// <param name="CartLines">Lines of an average order.</param>
/// <param name="Lookers">Orders per second for what is sold out.</param>
/// <param name="Loss">What loss is tolerable.</param>
/// <param name="Servers">The servers that there are.</param>
/// <param name="Sellers">Processes that sell at once.</param>
/// <param name="MayWait">Whether buyers can wait for the verdict.</param>
internal sealed record Shop(double Peak, double HottestPercent, double CartLines, double Lookers, string Loss, IReadOnlyList<string> Servers, int Sellers, bool MayWait);

/// <summary>What a measurement says of a scheme for a shop.</summary>
/// <param name="OrdersPerSecond">Orders of that shop that it takes per second, estimated from <paramref name="Workload"/>; <see langword="null"/> where it was not measured.</param>
/// <param name="RefusedPerSecond">Orders that it refuses per second when all is sold out.</param>
/// <param name="P99Ms">p99 at half its capacity.</param>
/// <param name="Workload">The measured workload that decided.</param>
/// <param name="IsScaled">Whether the figure was divided because the shop's carts are larger than the measured ones.</param>
internal sealed record Measurement(double? OrdersPerSecond, double? RefusedPerSecond, double? P99Ms, string Workload, bool IsScaled);

/// <summary>A scheme that is not advised, and why.</summary>
internal sealed record NotAdvised(string Row, string Why);

/// <summary>The answer.</summary>
/// <param name="Scheme">What is advised; <see langword="null"/> when nothing fits.</param>
/// <param name="Measured">What it measured.</param>
/// <param name="IsEnough">Whether it measured enough, headroom included.</param>
/// <param name="NeededPerSecond">Orders per second that were asked for, headroom included.</param>
/// <param name="Others">Why not the others.</param>
internal sealed record Advice(KnownScheme? Scheme, Measurement? Measured, bool IsEnough, double NeededPerSecond, IReadOnlyList<NotAdvised> Others);

/// <summary>
/// Finds a shop's scheme: of those that it can run and whose losses it can bear, the first in the order of preference that measured
/// enough; or the fastest, where none did. Pure: knows no clock and no I/O.
/// </summary>
internal static class Advisor
{
    /// <summary>The mean number of lines in the workload carts-10.</summary>
    private const double MeasuredCartLines = 5.5;

    private const string Carts = "carts-10";

    public static Advice Advise(Shop shop, Knowledge knowledge, CompareReport measured)
    {
        var needed = knowledge.Headroom.Factor * shop.Peak;
        var refusals = knowledge.Headroom.Factor * shop.Lookers;
        var losses = knowledge.Losses.Select(loss => loss.Name).ToList();
        var others = new List<NotAdvised>();
        var able = new List<(KnownScheme Scheme, Measurement Measured)>();
        foreach (var scheme in knowledge.Schemes)
        {
            if (WhyNot(scheme) is { } why)
            {
                others.Add(new(scheme.Row, why));
            }
            else
            {
                able.Add((scheme, Measure(scheme, shop, knowledge, measured)));
            }
        }

        var chosen = able.Find(each => IsEnough(each.Measured));
        var isEnough = chosen.Scheme is not null;
        if (!isEnough)
        {
            chosen = able.OrderByDescending(each => each.Measured.OrdersPerSecond ?? 0).FirstOrDefault();
        }

        foreach (var (scheme, figures) in able.Where(each => each.Scheme != chosen.Scheme))
        {
            others.Add(new(scheme.Row, Compare(figures)));
        }

        return new(chosen.Scheme, chosen.Measured, isEnough, needed, others);

        bool IsEnough(Measurement figures) => figures.OrdersPerSecond >= needed && !(figures.RefusedPerSecond < refusals);

        string? WhyNot(KnownScheme scheme)
        {
            var missing = scheme.Needs.Except(shop.Servers).ToList();
            return scheme.Never is { } never ? never
                : missing.Count > 0 ? $"needs {string.Join(" and ", missing)}, which you did not name"
                : losses.IndexOf(scheme.Loss) > losses.IndexOf(shop.Loss) ? $"may lose more than you can bear: {knowledge.Losses[losses.IndexOf(scheme.Loss)].Meaning}"
                : scheme.Sellers == "one" && shop.Sellers > 1 ? $"one process at most sells with it, and you have {shop.Sellers}"
                : scheme.Verdict == "later" && !shop.MayWait ? "the buyer is told later, and yours don't wait"
                : null;
        }

        string Compare(Measurement figures) => figures.OrdersPerSecond switch
        {
            null => "was not measured",
            { } orders when orders < needed => $"measured too little: {Number(orders)} orders/s of yours, and {Number(needed)} are needed",
            _ when figures.RefusedPerSecond < refusals => $"refuses too few when all is sold out: {Number(figures.RefusedPerSecond!.Value)}/s, and {Number(refusals)} are needed",
            _ => "would do, and is more to run or promises less than what is advised",
        };
    }

    /// <summary>What the comparison says: of all workloads that resemble the shop, the worst.</summary>
    private static Measurement Measure(KnownScheme scheme, Shop shop, Knowledge knowledge, CompareReport measured)
    {
        var cells = measured.Rows.FirstOrDefault(row => row.Name == scheme.Row)?.Cells ?? [];
        var workloads = new List<(string Name, double Scale)>();
        if (shop.HottestPercent >= knowledge.HotFrom.Percent)
        {
            workloads.Add(("hot", 1));
        }

        if (shop.CartLines > 1)
        {
            workloads.Add((Carts, Math.Max(1, shop.CartLines / MeasuredCartLines)));
        }

        if (workloads.Count == 0)
        {
            workloads.Add(("zipf", 1));
        }

        var figures = workloads.Select(workload => (workload.Name, workload.Scale, Cell: cells.FirstOrDefault(cell => cell.Workload == workload.Name))).ToList();
        var refused = cells.FirstOrDefault(cell => cell.Workload == "sold-out")?.Closed?.RefusedPerSecond;
        if (figures.Exists(each => each.Cell?.Closed is null))
        {
            return new(null, refused, null, string.Join(" and ", workloads.Select(workload => workload.Name)), IsScaled: false);
        }

        var worst = figures.MinBy(each => each.Cell!.Closed!.AcceptedPerSecond / each.Scale);
        return new(
            worst.Cell!.Closed!.AcceptedPerSecond / worst.Scale,
            refused,
            worst.Cell.Open.FirstOrDefault(open => open.Share == 0.5)?.P99Ms,
            worst.Name,
            worst.Scale > 1);
    }

    private static string Number(double value) => value.ToString("#,##0", CultureInfo.InvariantCulture);
}
