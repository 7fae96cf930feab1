using System.Text;
using Holdfast.Queueing;
using Holdfast.Wire;

namespace Holdfast.Tests.Wire;

public sealed class QueuedCommandJsonTests
{
    private static readonly DateTimeOffset s_at = DateTimeOffset.FromUnixTimeMilliseconds(1_291_190_760_000);

    [Fact]
    public void What_is_written_is_read()
    {
        QueuedCommand[] all =
        [
            new() { Command = StockCommand.Deduct("o1", [new("85123A", 6)], "two\nlines"), AcceptedAt = s_at, Deadline = s_at.AddMinutes(10) },
            new() { Command = StockCommand.Confirm("h \"1\""), AcceptedAt = s_at, Deadline = s_at.AddDays(1), RequestId = "ünïcode 1", Tries = 3 },
            new() { Command = StockCommand.Abandon("o2", "why"), AcceptedAt = s_at, Deadline = s_at },
        ];
        foreach (var queued in all)
        {
            var read = QueuedCommandJson.Read(QueuedCommandJson.Write(queued));
            (read with { Command = queued.Command }).ShouldBe(queued);
            read.Command.ToString().ShouldBe(queued.Command.ToString());
            read.Command.Note.ShouldBe(queued.Command.Note);
        }

        Encoding.UTF8.GetString(QueuedCommandJson.Write(all[0])).ShouldBe(
            """{"v":1,"at":1291190760000,"deadline":1291191360000,"command":{"verb":"deduct","id":"o1","lines":[{"sku":"85123A","quantity":6}],"note":"two\nlines"}}""");
    }

    [Theory]
    [InlineData("", "body")]
    [InlineData("[1]", "body")]
    [InlineData("{", "body")]
    [InlineData("""{"v":1,"at":1,"deadline":1}""", "command")]
    [InlineData("""{"at":1,"deadline":1,"command":{"verb":"cancel","target":"o1"}}""", "v")]
    [InlineData("""{"v":2,"at":1,"deadline":1,"command":{"verb":"cancel","target":"o1"}}""", "v")]
    [InlineData("""{"v":1,"deadline":1,"command":{"verb":"cancel","target":"o1"}}""", "at")]
    [InlineData("""{"v":1,"at":1,"deadline":-1,"command":{"verb":"cancel","target":"o1"}}""", "deadline")]
    [InlineData("""{"v":1,"at":1,"deadline":1,"request":" x","command":{"verb":"cancel","target":"o1"}}""", "request")]
    [InlineData("""{"v":1,"at":1,"deadline":1,"tries":"1","command":{"verb":"cancel","target":"o1"}}""", "tries")]
    [InlineData("""{"v":1,"at":1,"deadline":1,"more":1,"command":{"verb":"cancel","target":"o1"}}""", "body")]
    [InlineData("""{"v":1,"at":1,"deadline":1,"command":{"verb":"steal","target":"o1"}}""", "verb")]
    [InlineData("""{"v":1,"at":1,"deadline":1,"command":{"verb":"cancel","target":"o1"}} {}""", "body")]
    public void What_is_no_command_is_refused_by_name(string text, string field) =>
        Should.Throw<InvalidCommandException>(() => QueuedCommandJson.Read(Encoding.UTF8.GetBytes(text))).Field.ShouldBe(field);

    /// <summary>Messages wait over an upgrade: where a command belongs must never change.</summary>
    [Fact]
    public void An_order_and_all_that_speaks_of_it_belong_to_one_queue_for_ever()
    {
        StockCommand[] ofOne =
        [
            StockCommand.Deduct("order-1", [new("A", 1)]), StockCommand.Cancel("order-1"), StockCommand.Confirm("order-1"), StockCommand.Abandon("order-1"),
            StockCommand.Refund("refund-1", "order-1", [new("A", 1)]),
        ];
        ofOne.Select(command => QueueOf(command, 16)).Distinct().Count().ShouldBe(1);
        Enumerable.Range(0, 8).Select(i => QueueOf(StockCommand.Cancel($"order-{i}"), 16)).ShouldBe(s_places);
        var counts = Enumerable.Range(0, 10_000).CountBy(i => QueueOf(StockCommand.Cancel($"order-{i}"), 8)).ToDictionary();
        counts.Values.ShouldAllBe(count => count > 1_000 && count < 1_500);
    }

    private static readonly int[] s_places = [5, 2, 11, 8, 1, 14, 7, 4];

    private static int QueueOf(StockCommand command, int queues) => new QueuedCommand { Command = command, AcceptedAt = s_at, Deadline = s_at }.QueueOf(queues);
}
