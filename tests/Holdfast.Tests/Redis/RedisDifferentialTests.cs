using Holdfast.Testing;
using Holdfast.Tests.Conformance;

namespace Holdfast.Tests.Redis;

/// <summary>
/// The rules in Lua are the only ones besides the common rules, so they are held to the reference model with far more
/// commands than the other schemes: at least 100,000 in each run, in batches of up to 200, so that one script decides many.
/// </summary>
public sealed class RedisDifferentialTests(ITestOutputHelper output)
{
    private const int CommandsPerSeed = 3_500;

    [Theory]
    [InlineData(1_000)]
    [InlineData(2_000)]
    public async Task The_scripts_and_the_model_agree_on_100_000_commands(int firstSeed)
    {
        var commands = 0;
        var outcomes = new SortedDictionary<StockStatus, int>();
        for (var seed = firstSeed; commands < 50_000; seed++)
        {
            // Of each seed's batches, some are small: what a batch's first command sees differs from what its later ones see.
            var report = await DifferentialTest.RunAsync(
                OpenAsync, seed, new() { Commands = CommandsPerSeed, MaxBatch = seed % 4 == 0 ? 12 : 200, BatchesBetweenReads = 200 }, TestContext.Current.CancellationToken);
            commands += report.Commands;
            foreach (var (status, count) in report.Outcomes)
            {
                outcomes[status] = outcomes.GetValueOrDefault(status) + count;
            }
        }

        output.WriteLine($"{commands} commands: {string.Join(", ", outcomes.Select(outcome => $"{outcome.Value} {outcome.Key}"))}");
        commands.ShouldBeGreaterThanOrEqualTo(50_000, "two of these make 100,000");
    }

    private static async ValueTask<IStockEngine> OpenAsync(ManualTimeProvider clock)
    {
        var start = new SchemeStart(clock);
        return new OwningEngine(await SharedRedis.OpenAsync(start), start);
    }

    private sealed class OwningEngine(IStockEngine inner, SchemeStart start) : DelegatingStockEngine(inner)
    {
        public override async ValueTask DisposeAsync()
        {
            await base.DisposeAsync();
            await start.DisposeAsync();
        }
    }
}
