namespace Holdfast.Testing;

/// <summary>Random commands over few SKUs and ids, so that they collide. Same seed, same steps.</summary>
internal sealed class CommandGenerator(int seed, DifferentialOptions options)
{
    private static readonly string[] Skus = ["A", "a", "B b", "ß", "\uFF5E", "\U0001F600"];

    private readonly Random _random = new(seed);
    private readonly List<StockCommand> _sent = [];
    private readonly Dictionary<string, string> _firstSkus = new(StringComparer.Ordinal);
    private int _ids;

    public List<Step> Steps()
    {
        var steps = new List<Step>();
        while (_sent.Count < options.Commands)
        {
            // Most batches are small, some are of full size.
            var size = Math.Min(options.Commands - _sent.Count, _random.Next(4) == 0 ? _random.Next(1, options.MaxBatch + 1) : _random.Next(1, 4));
            var batch = new StockCommand[size];
            for (var i = 0; i < size; i++)
            {
                _sent.Add(batch[i] = InCommon(Next()));
            }

            steps.Add(new() { Wait = Wait(), ToNextExpiry = _random.Next(12) == 0 ? TimeSpan.FromMilliseconds(_random.Next(-1, 2)) : null, Commands = batch });
        }

        return steps;
    }

    /// <summary>The same command, with the first SKU that its id was used for among its lines where the options ask for it.</summary>
    private StockCommand InCommon(StockCommand command)
    {
        if (options.IsOneStore || command.IsTransition || _firstSkus.TryAdd(command.Id, command.Lines[0].Sku))
        {
            return command;
        }

        var first = _firstSkus[command.Id];
        if (command.Lines.Any(line => line.Sku == first))
        {
            return command;
        }

        StockLine[] lines = [.. command.Lines, new(first, 1)];
        return command.Verb switch
        {
            StockVerb.Deduct => StockCommand.Deduct(command.Id, lines, command.Note),
            StockVerb.Reserve => StockCommand.Reserve(command.Id, lines, command.TimeToLive, command.Note),
            StockVerb.Refund => StockCommand.Refund(command.Id, command.Target!, lines, command.Note),
            StockVerb.Restock => StockCommand.Restock(command.Id, lines, command.Note),
            _ => StockCommand.Adjust(command.Id, lines, command.Note),
        };
    }

    private TimeSpan Wait() => _random.Next(40) switch
    {
        0 => TimeSpan.FromSeconds(options.IsOneStore ? -_random.Next(1, 30) : 0),
        1 => TimeSpan.FromSeconds(_random.Next(1, 20)),
        < 14 => TimeSpan.FromMilliseconds(_random.Next(1, 1_500)),
        _ => TimeSpan.Zero,
    };

    private StockCommand Next()
    {
        if (_sent.Count > 0 && _random.Next(6) == 0)
        {
            // A repetition, mostly of something recent.
            return _sent[Math.Max(0, _sent.Count - 1 - _random.Next(_random.Next(3) == 0 ? _sent.Count : 30))];
        }

        return _random.Next(100) switch
        {
            < 24 => StockCommand.Deduct(NewId(), Lines(1, 4), Note()),
            < 44 => StockCommand.Reserve(NewId(), Lines(1, 3), TimeSpan.FromMilliseconds(_random.Next(4) == 0 ? 1_000 : _random.Next(1_000, 9_000)), Note()),
            < 58 => StockCommand.Confirm(UsedId()),
            < 64 => StockCommand.Cancel(UsedId()),
            < 68 => StockCommand.Abandon(UsedId()),
            < 84 => Refund(),
            < 94 => StockCommand.Restock(NewId(), Lines(0, 9), Note()),
            _ => StockCommand.Adjust(NewId(), Changes(), Note()),
        };
    }

    /// <summary>Mostly of lines that the order may have, in quantities that may be too much.</summary>
    private StockCommand Refund()
    {
        var order = _sent.Count == 0 ? null : _sent[Math.Max(0, _sent.Count - 1 - _random.Next(60))];
        return order is { Verb: StockVerb.Deduct or StockVerb.Reserve } && _random.Next(5) > 0
            ? StockCommand.Refund(NewId(), order.Id, [.. order.Lines.Take(_random.Next(1, 4)).Select(line => line with { Quantity = _random.Next(1, (int)line.Quantity + 1) })], Note())
            : StockCommand.Refund(NewId(), UsedId(), Lines(1, 3), Note());
    }

    /// <summary>An id for a new operation: mostly a fresh one, sometimes one that is taken.</summary>
    private string NewId() => _random.Next(6) == 0 ? UsedId() : $"id{++_ids}";

    /// <summary>A recent id, or one that is still to come.</summary>
    private string UsedId() => $"id{Math.Max(1, _ids + 2 - (_random.Next(3) == 0 ? _random.Next(40) : _random.Next(10)))}";

    private StockLine[] Lines(int least, int most)
    {
        var lines = new StockLine[_random.Next(3) switch { 0 => 1, 1 => 2, _ => _random.Next(1, 6) }];
        for (var i = 0; i < lines.Length; i++)
        {
            lines[i] = new(Sku(), _random.Next(least, most + 1));
        }

        return lines;
    }

    private StockLine[] Changes()
    {
        // Each SKU once: changes of one SKU that add up to 0 would be refused before they reach an engine.
        var lines = Skus.Where(_ => _random.Next(3) == 0).Select(sku => new StockLine(sku, _random.Next(2) == 0 ? _random.Next(1, 4) : -_random.Next(1, 4))).ToArray();
        return lines.Length > 0 ? lines : [new(Sku(), 1)];
    }

    /// <summary>The last SKU is rare, so that it stays unknown for a while.</summary>
    private string Sku() => Skus[_random.Next(200) == 0 ? Skus.Length - 1 : _random.Next(Skus.Length - 1)];

    private string? Note() => _random.Next(5) == 0 ? $"note {_sent.Count}" : null;
}
