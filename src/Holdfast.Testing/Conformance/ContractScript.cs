using System.Globalization;
using System.Text;

namespace Holdfast.Testing;

/// <summary>
/// Runs scenarios that read like a ledger: one line a step, what it should answer after the arrow. Names are the case's
/// own (<see cref="ConformanceContext.Sku"/>, <see cref="ConformanceContext.Id(string)"/>).
/// <code>
/// restock r1: A 5, B 3            => Done: A 5, B 3
/// deduct o1: A 2, B 1             => Done: A 3, B 2
/// refund f1 of o1: A 3            => ExceedsDeducted: A has 2
/// reserve h1 for 1s: A 3          => Done: A 0
/// wait 1s
/// confirm h1                      => Expired
/// cancel o1                       => Done: A 5, B 3
/// stock A                         => 5 available, 0 reserved, 0 sold
/// operation o1                    => Cancelled: A 2, B 1
/// </code>
/// Where an arrow is missing nothing is expected; <c>|</c> separates answers that are both right; text after <c>#</c>
/// is a comment.
/// </summary>
public static class ContractScript
{
    /// <summary>Behind an answer that a gate acknowledged by itself: what it shows as left does not count what is due and not released yet.</summary>
    private const string ByGate = " (by the gate)";

    /// <summary>Runs a scenario to its end; throws at the first answer that is not the expected one, naming the step and what came before.</summary>
    public static async Task RunAsync(ConformanceContext context, string script)
    {
        ArgumentNullException.ThrowIfNull(context);
        ArgumentNullException.ThrowIfNull(script);
        var transcript = new StringBuilder();
        foreach (var written in script.Split('\n'))
        {
            var comment = written.IndexOf('#', StringComparison.Ordinal);
            var step = (comment < 0 ? written : written[..comment]).Trim();
            if (step.Length == 0)
            {
                continue;
            }

            var arrow = step.IndexOf("=>", StringComparison.Ordinal);
            var action = (arrow < 0 ? step : step[..arrow]).Trim();
            bool IsRight(string answer) => arrow < 0 || step[(arrow + 2)..].Split('|').Any(expected => SameText(expected, answer));
            var answer = IsRead(action)
                ? await context.ReadAsync(() => StepAsync(context, action), IsRight).ConfigureAwait(false)
                : await StepAsync(context, action).ConfigureAwait(false);
            transcript.Append("  ").Append(action).Append(" => ").AppendLine(answer);
            if (!IsRight(answer))
            {
                throw new ConformanceException($"'{action}' answered '{answer}'; expected '{step[(arrow + 2)..].Trim()}'. The steps so far:\n{transcript}");
            }
        }
    }

    /// <summary>Makes the command that a step's text stands for.</summary>
    public static StockCommand ParseCommand(ConformanceContext context, string action)
    {
        ArgumentNullException.ThrowIfNull(context);
        ArgumentNullException.ThrowIfNull(action);
        var colon = action.IndexOf(':', StringComparison.Ordinal);
        var words = (colon < 0 ? action : action[..colon]).Split(' ', StringSplitOptions.RemoveEmptyEntries);
        var lines = colon < 0 ? [] : action[(colon + 1)..].Split(',').Select(line => ParseLine(context, line)).ToArray();
        return words switch
        {
            ["deduct", var id] => StockCommand.Deduct(context.Id(id), lines),
            ["reserve", var id, "for", var time] => StockCommand.Reserve(context.Id(id), lines, ParseTime(time)),
            ["confirm", var id] => StockCommand.Confirm(context.Id(id)),
            ["cancel", var id] => StockCommand.Cancel(context.Id(id)),
            ["abandon", var id] => StockCommand.Abandon(context.Id(id)),
            ["refund", var id, "of", var target] => StockCommand.Refund(context.Id(id), context.Id(target), lines),
            ["restock", var id] => StockCommand.Restock(context.Id(id), lines),
            ["adjust", var id] => StockCommand.Adjust(context.Id(id), lines),
            _ => throw new FormatException($"No step is written '{action}'."),
        };
    }

    /// <summary>A result as a script writes it.</summary>
    public static string Describe(ConformanceContext context, StockResult result)
    {
        ArgumentNullException.ThrowIfNull(context);
        var status = result.Status == StockStatus.Replayed && result.Original != StockStatus.Done
            ? $"Replayed {result.Original}"
            : result.Status.ToString();
        if (result.Sku is not null)
        {
            return result.Status is StockStatus.Insufficient or StockStatus.ExceedsDeducted
                ? $"{status}: {context.Name(result.Sku)} has {result.Available}"
                : $"{status}: {context.Name(result.Sku)}";
        }

        return result.Left.IsEmpty ? status : $"{status}: {string.Join(", ", result.Left.Select(left => $"{context.Name(left.Sku)} {left.Available}"))}";
    }

    private static bool IsRead(string action) => action.Split(' ', 2)[0] is "stock" or "operation" or "flow";

    private static async ValueTask<string> StepAsync(ConformanceContext context, string action)
    {
        var words = action.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        switch (words)
        {
            case ["wait", var time]:
                await context.AdvanceAsync(ParseTime(time)).ConfigureAwait(false);
                return "later";

            case ["stock", var name]:
                var level = await context.Engine.GetStockAsync(context.Sku(name), cancellationToken: context.CancellationToken).ConfigureAwait(false);
                return level.IsKnown ? $"{level.Available} available, {level.Reserved} reserved, {level.Sold} sold" : "unknown";

            case ["operation", var id]:
                var view = await context.Engine.GetOperationAsync(context.Id(id), context.CancellationToken).ConfigureAwait(false);
                return Describe(context, view);

            case ["flow", var name]:
                var entries = new List<string>();
                await foreach (var entry in context.Engine.ReadFlowAsync(new() { Sku = context.Sku(name) }, context.CancellationToken).ConfigureAwait(false))
                {
                    entries.Add($"{entry.Kind} {context.Name(entry.OperationId)} {Signed(entry.AvailableChange)} {Signed(entry.ReservedChange)}");
                }

                return string.Join("; ", entries);

            default:
                var result = await context.ExecuteAsync(ParseCommand(context, action)).ConfigureAwait(false);
                return Describe(context, result) + (result.AcknowledgedBy == Acknowledgement.Gate ? ByGate : "");
        }
    }

    private static string Describe(ConformanceContext context, OperationView? view)
    {
        if (view is null)
        {
            return "unknown";
        }

        var lines = view.Lines.Select(line => $"{context.Name(line.Sku)} {line.Quantity}" + (line.Refunded == 0 ? "" : $" less {line.Refunded}"));
        var target = view.Target is null ? "" : $" of {context.Name(view.Target)}";
        return $"{view.Verb} {view.State}{target}" + (view.Lines.IsEmpty ? "" : $": {string.Join(", ", lines)}");
    }

    private static string Signed(long units) => units.ToString("+0;-0;0", CultureInfo.InvariantCulture);

    private static bool SameText(string expected, string actual)
    {
        var mayShowLess = actual.EndsWith(ByGate, StringComparison.Ordinal);
        var (wanted, given) = (Words(expected), Words(mayShowLess ? actual[..^ByGate.Length] : actual));
        return wanted.Length == given.Length && wanted.Zip(given).All(both => both.First == both.Second || (mayShowLess && IsLess(both.Second, both.First)));
    }

    private static string[] Words(string text) => text.Split(' ', StringSplitOptions.RemoveEmptyEntries);

    private static bool IsLess(string units, string than) =>
        long.TryParse(units.TrimEnd(','), CultureInfo.InvariantCulture, out var less) && long.TryParse(than.TrimEnd(','), CultureInfo.InvariantCulture, out var more) && less < more;

    private static StockLine ParseLine(ConformanceContext context, string line) =>
        line.Split(' ', StringSplitOptions.RemoveEmptyEntries) is [var sku, var quantity]
            ? context.Line(sku, long.Parse(quantity, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture))
            : throw new FormatException($"No line is written '{line}'; write a SKU and a quantity.");

    private static TimeSpan ParseTime(string time) => time[^1] == 's'
        ? TimeSpan.FromSeconds(double.Parse(time[..^1], CultureInfo.InvariantCulture))
        : throw new FormatException($"No time is written '{time}'; write seconds, for example 10s.");
}
