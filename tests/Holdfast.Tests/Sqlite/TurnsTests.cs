using Holdfast.Sqlite;

namespace Holdfast.Tests.Sqlite;

/// <summary>Who waits for a turn gets it, whatever the thread that gave it back does next.</summary>
public sealed class TurnsTests
{
    [Fact]
    public async Task A_turn_given_back_by_a_thread_that_stays_busy_reaches_who_waits_for_it()
    {
        var stop = 0;
        var turns = new Turns(1, maxWaiting: 10, TimeSpan.FromSeconds(30));
        turns.TryBegin().ShouldBeTrue();
        var waiting = SqliteFaultTests.OnThePool(() => turns.BeginAsync(CancellationToken.None));

        // The pool has always something else to do, so that no thread looks into the queues of others.
        var others = Enumerable.Range(0, 8).Select(_ => SqliteFaultTests.OnThePool(async () =>
        {
            while (Volatile.Read(ref stop) == 0)
            {
                await Task.Yield();
            }

            return 0;
        })).ToArray();
        while (turns.Waiting == 0)
        {
            await Task.Yield();
        }

        var arrived = await SqliteFaultTests.OnThePool(() =>
        {
            turns.End();

            // As a caller does that goes on with file work of its own.
            return new ValueTask<bool>(SpinWait.SpinUntil(() => waiting.IsCompleted, TimeSpan.FromSeconds(5)));
        });

        Volatile.Write(ref stop, 1);
        await Task.WhenAll(others);
        arrived.ShouldBeTrue();
        (await waiting).ShouldBe(Turn.Granted);
    }
}
