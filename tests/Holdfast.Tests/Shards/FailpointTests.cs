namespace Holdfast.Tests.Shards;

/// <summary>A coordinator dies at every step of every command over several shards, and another process finds what it has left.</summary>
public sealed class FailpointTests(ITestOutputHelper output)
{
    /// <summary>Each verb: what comes before it, and the command itself.</summary>
    public static TheoryData<string> Commands => ["deduct", "reserve", "confirm", "cancel", "cancel a reservation", "refund", "restock", "restock new", "adjust", "short", "cancel before", "abandon before"];

    [Theory]
    [MemberData(nameof(Commands))]
    public async Task Whatever_its_coordinator_dies_of_a_command_applies_whole_or_not_at_all_and_is_settled(string name)
    {
        var steps = await RunAsync(name, dieAt: int.MaxValue);
        steps.Count.ShouldBeGreaterThan(0);
        output.WriteLine($"{steps.Count} steps: {string.Join(", ", steps)}");
        for (var step = 1; step <= steps.Count; step++)
        {
            await RunAsync(name, step);
        }
    }

    /// <summary>The same, and the process that settles it dies at each of its own steps too.</summary>
    [Theory]
    [MemberData(nameof(Commands))]
    public async Task Recovery_may_die_as_well(string name)
    {
        var steps = (await RunAsync(name, dieAt: int.MaxValue)).Count;
        for (var step = 1; step <= steps; step++)
        {
            for (var second = 1; second <= 6; second++)
            {
                await RunAsync(name, step, second);
            }
        }
    }

    /// <summary>Runs the command with a coordinator that dies at a step; the steps it came to.</summary>
    private static async Task<List<string>> RunAsync(string name, int dieAt, int recoveryDiesAt = int.MaxValue)
    {
        var token = TestContext.Current.CancellationToken;
        await using var store = new ShardedStore();
        var before = store.Node();
        StockLine[] lines = [store.On(0, 2), store.On(1, 3), new(store.Sku(1, 1), 1), store.On(2, 4)];
        await Done(before, StockCommand.Restock("opening", [.. lines.Select(line => line with { Quantity = 10 })]));
        var command = name switch
        {
            "deduct" => StockCommand.Deduct("x", lines),
            "reserve" => StockCommand.Reserve("x", lines, TimeSpan.FromMinutes(10)),
            "confirm" => StockCommand.Confirm("x"),
            "cancel" or "cancel a reservation" or "cancel before" => StockCommand.Cancel("x"),
            "abandon before" => StockCommand.Abandon("x"),
            "refund" => StockCommand.Refund("f", "x", lines.AsSpan(1)),
            "restock" => StockCommand.Restock("x", lines),
            "restock new" => StockCommand.Restock("x", [.. lines, new(store.Sku(0, 2), 5), new(store.Sku(2, 3), 0)]),
            "adjust" => StockCommand.Adjust("x", [lines[0] with { Quantity = -2 }, lines[1], lines[3] with { Quantity = -4 }]),
            _ => StockCommand.Deduct("x", [.. lines[..3], lines[3] with { Quantity = 11 }]),
        };
        if (name is "confirm" or "cancel a reservation")
        {
            await Done(before, StockCommand.Reserve("x", lines, TimeSpan.FromMinutes(10)));
        }
        else if (name is "cancel" or "refund")
        {
            await Done(before, StockCommand.Deduct("x", lines));
        }

        var steps = new List<string>();
        var coordinator = store.Node();
        Die(coordinator, dieAt, steps);
        StockResult? answer = null;
        try
        {
            answer = await coordinator.ExecuteAsync(command, token);
        }
        catch (DeadException)
        {
            // Its caller does not know what became of it.
        }

        if (recoveryDiesAt < int.MaxValue)
        {
            var dying = store.Node();
            Die(dying, recoveryDiesAt, []);
            for (var round = 0; round < 20; round++)
            {
                try
                {
                    await dying.RecoverAsync(token);
                }
                catch (DeadException)
                {
                    break;
                }
            }
        }

        var after = store.Node();
        await store.RecoverAsync(after);
        await store.AuditAsync(after, store.Skus);
        await CheckAsync(store, after, name, command, answer);
        return steps;
    }

    /// <summary>Sends the command again: it applies now, or is found applied, and nothing of it is there twice.</summary>
    private static async Task CheckAsync(ShardedStore store, Sharding after, string name, StockCommand command, StockResult? answer)
    {
        var token = TestContext.Current.CancellationToken;
        if (name == "short")
        {
            (answer?.Status ?? StockStatus.Insufficient).ShouldBe(StockStatus.Insufficient);
            (await after.ExecuteAsync(command, token)).Status.ShouldBe(StockStatus.Insufficient);
            foreach (var level in await after.GetStockAsync([.. command.Lines.Select(line => line.Sku)], cancellationToken: token))
            {
                (level.Available, level.Version).ShouldBe((10, 1), "a refusal leaves no trace");
            }

            (await after.GetOperationAsync("x", token)).ShouldBeNull();
            return;
        }

        var known = await after.GetOperationAsync(command.Id, token);
        var again = await after.ExecuteAsync(command, token);
        again.Status.ShouldBeOneOf(StockStatus.Done, StockStatus.Replayed);
        if (answer is { Status: StockStatus.Done })
        {
            again.Status.ShouldBe(StockStatus.Replayed, "it was acknowledged");
            known.ShouldNotBeNull();
        }

        var change = name switch { "cancel" or "confirm" or "cancel a reservation" => 1, _ => 0 };
        var view = (await after.GetOperationAsync(command.Id, token)).ShouldNotBeNull();
        view.State.ShouldBe(name switch
        {
            "reserve" => OperationState.Reserved,
            "confirm" => OperationState.Confirmed,
            "cancel" or "cancel a reservation" or "cancel before" => OperationState.Cancelled,
            "abandon before" => OperationState.Abandoned,
            _ => OperationState.Applied,
        });
        foreach (var line in view.Lines)
        {
            var entries = 0;
            await foreach (var entry in after.ReadFlowAsync(new() { Sku = line.Sku }, token))
            {
                entries += entry.OperationId == command.Id ? 1 : 0;
            }

            entries.ShouldBe(1 + change, $"{line.Sku} was changed by the command once");
        }

        (await after.ExecuteAsync(command, token)).Status.ShouldBe(StockStatus.Replayed);
        await store.AuditAsync(after, store.Skus);
    }

    private static void Die(Sharding node, int at, List<string> steps)
    {
        var count = 0;
        node.Failpoint = step =>
        {
            steps.Add(step);

            // Dead is dead: what ran beside it goes no further either.
            return ++count >= at ? throw new DeadException() : ValueTask.CompletedTask;
        };
    }

    private static async Task Done(Sharding node, StockCommand command) =>
        (await node.ExecuteAsync(command, TestContext.Current.CancellationToken)).Status.ShouldBe(StockStatus.Done);

    private sealed class DeadException : Exception;
}
