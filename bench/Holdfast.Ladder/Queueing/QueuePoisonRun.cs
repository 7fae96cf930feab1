using System.Globalization;
using System.Text;
using Holdfast.Testing;

namespace Holdfast.Ladder.Queueing;

/// <summary>Poison of four kinds among good orders, on RabbitMQ and PostgreSQL.</summary>
internal static class QueuePoisonRun
{
    private const int PoisonEvery = 100;
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(4);

    public static async Task<bool> RunAsync(int messages, Output output, CancellationToken cancellationToken)
    {
        var setting = await QueueSetting.StartAsync("rabbitmq", QueueBench.Queues, cancellationToken).ConfigureAwait(false);
        await using var disposing = setting.ConfigureAwait(false);
        var options = new CommandQueueOptions { RetryDelay = TimeSpan.FromMilliseconds(200) };
        output.Heading(
            $"queue-poison: {messages:#,##0} messages, one in {PoisonEvery} poison: no JSON, an unknown verb, too many lines, a command that makes the engine throw",
            $"{setting.Description}; a command that makes the engine throw is given up after {options.MaxTries} tries",
            "bounds: every good order Done, once; every poison message in the dead letters with its reason; the id of the throwing command closed; audit passes");
        var queue = new CommandQueue(setting.Store, setting.Transport, setting.Verdicts, options, new Stumbles(setting.Store));
        await using var disposingToo = queue.ConfigureAwait(false);
        await queue.Inner.RestockAsync("opening", [("hot", messages)], cancellationToken: cancellationToken).ConfigureAwait(false);
        var manyLines = string.Join(',', Enumerable.Range(0, StockLimits.MaxLines + 1).Select(static i => string.Create(CultureInfo.InvariantCulture, $$"""{"sku":"S{{i}}","quantity":1}""")));
        var good = new List<string>();
        var throwing = new List<string>();
        var poison = 0;
        queue.Start();
        for (var i = 0; i < messages; i++)
        {
            var id = string.Create(CultureInfo.InvariantCulture, $"order-{i}");
            if (i % PoisonEvery != PoisonEvery / 2)
            {
                good.Add(id);
                continue;
            }

            if (poison % 4 == 3)
            {
                throwing.Add(id);
            }
            else
            {
                var text = (poison % 4) switch
                {
                    0 => "this is no JSON",
                    1 => """{"v":1,"at":1,"deadline":9000000000000,"command":{"verb":"steal","id":"x","lines":[{"sku":"hot","quantity":1}]}}""",
                    _ => """{"v":1,"at":1,"deadline":9000000000000,"command":{"verb":"deduct","id":"many","lines":[""" + manyLines + "]}}",
                };
                await setting.Transport.SendAsync([new(i % QueueBench.Queues, Encoding.UTF8.GetBytes(text))], cancellationToken).ConfigureAwait(false);
            }

            poison++;
        }

        StockCommand[] commands = [.. good.Select(static id => StockCommand.Deduct(id, [new("hot", 1)])), .. throwing.Select(static id => StockCommand.Deduct(id, [new("hot", 1), new(Stumbles.Sku, 1)]))];
        new Random(1).Shuffle(commands);
        var accepted = 0;
        foreach (var part in commands.Chunk(500))
        {
            accepted += (await queue.ExecuteAsync(part, cancellationToken).ConfigureAwait(false)).Count(static result => result.Status == StockStatus.Pending);
        }

        var done = 0;
        foreach (var id in good)
        {
            done += await queue.WaitForVerdictAsync(id, s_patience, cancellationToken).ConfigureAwait(false) is { Result.Status: StockStatus.Done } ? 1 : 0;
        }

        var closed = 0;
        foreach (var id in throwing)
        {
            closed += await queue.WaitForVerdictAsync(id, s_patience, cancellationToken).ConfigureAwait(false) is { Result: { Status: StockStatus.Cancelled, Detail: not null } } ? 1 : 0;
        }

        var dead = await setting.Transport.PeekDeadAsync(messages, cancellationToken).ConfigureAwait(false);
        for (var i = 0; i < 50 && dead.Count < poison; i++)
        {
            await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken).ConfigureAwait(false);
            dead = await setting.Transport.PeekDeadAsync(messages, cancellationToken).ConfigureAwait(false);
        }

        var audit = await LedgerAudit.RunAsync(queue.Inner, cancellationToken: cancellationToken).ConfigureAwait(false);
        var sold = (await queue.Inner.GetStockAsync("hot", cancellationToken: cancellationToken).ConfigureAwait(false)).Sold;
        var isRight = accepted == commands.Length && done == good.Count && sold == done && closed == throwing.Count && dead.Count == poison && dead.All(static letter => letter.Reason.Length > 0);
        output.Line($"accepted {accepted:#,##0} commands and {poison - throwing.Count} unreadable messages");
        output.Line($"verdicts {done:#,##0} of {good.Count:#,##0} good orders Done, {sold:#,##0} sold; {closed} of {throwing.Count} throwing commands closed");
        foreach (var reason in dead.GroupBy(static letter => letter.Reason[..Math.Min(letter.Reason.Length, 60)], StringComparer.Ordinal))
        {
            output.Line($"dead     {reason.Count(),5} because {reason.Key}…");
        }

        output.Line($"ledger   {audit}");
        output.Line($"bounds: {(isRight && audit.Passed ? "reached" : "NOT reached")}");
        await output.FinishAsync(new { run = "queue-poison", messages, poison, done, sold, closed, dead = dead.Count, audit = audit.Passed ? "pass" : $"fail: {audit.FirstDifference}", passed = isRight && audit.Passed }).ConfigureAwait(false);
        return isRight && audit.Passed;
    }

    /// <summary>Throws whenever a call names one SKU.</summary>
    private sealed class Stumbles(IStockEngine inner) : DelegatingStockEngine(inner)
    {
        public const string Sku = "poison";

        public override ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) =>
            commands.Any(static command => command.Lines.Any(static line => line.Sku == Sku)) ? throw new InvalidOperationException("It stumbles.") : base.ExecuteAsync(commands, cancellationToken);
    }
}
