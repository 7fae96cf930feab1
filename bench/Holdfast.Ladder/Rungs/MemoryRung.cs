using System.Threading.Channels;
using Holdfast.Cli;
using Holdfast.Cli.Bench;

namespace Holdfast.Ladder.Rungs;

/// <summary>The engine itself, without a disk: group commit over memory, against the plainest way to hand a request to another thread and wait for its answer.</summary>
internal static class MemoryRung
{
    /// <summary>Against a channel whose requests carry nothing at all.</summary>
    public static Rung Bare(RungOptions options) => new()
    {
        Name = "memory",
        Question = "MemoryEngine under GroupCommit against a bare channel's request and answer",
        SubjectName = "engine",
        BaselineName = "channel",
        Bound = 0.7,
        Settings = [options.Describe(), "channel: unbounded, one reader, a TaskCompletionSource a request; requests carry nothing, answers are a number"],
        Subject = cancellationToken => EngineAsync(options, cancellationToken),
        Baseline = cancellationToken => ChannelAsync(options, _ => () => null, cancellationToken),
    };

    /// <summary>Against a channel whose callers make the same commands as the engine's, so that only the engine differs.</summary>
    public static Rung WithCommands(RungOptions options) => new()
    {
        Name = "memory-commands",
        Question = "MemoryEngine under GroupCommit against a channel that carries the same commands to a reader that decides nothing",
        SubjectName = "engine",
        BaselineName = "channel",
        Bound = 0.7,
        Settings = [options.Describe(), "channel: unbounded, one reader, a TaskCompletionSource a request; requests carry the commands that the engine gets, ids and all; answers are a number"],
        Subject = cancellationToken => EngineAsync(options, cancellationToken),
        Baseline = cancellationToken => ChannelAsync(options, Workload.Of("hot", RunName.New(TimeProvider.System), seed: 1).Caller, cancellationToken),
    };

    private static async Task<Measured> EngineAsync(RungOptions options, CancellationToken cancellationToken)
    {
        var engine = new StockEngineBuilder(new MemoryEngine()).UseGroupCommit().Build();
        await using (engine.ConfigureAwait(false))
        {
            return await EngineMeasure.RunAsync(engine, "hot", options, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A channel, a single reader that answers each request, and a task source a request: what many programs do by hand.</summary>
    private static async Task<Measured> ChannelAsync(RungOptions options, Func<int, Func<StockCommand?>> content, CancellationToken cancellationToken)
    {
        var channel = Channel.CreateUnbounded<Request>(new() { SingleReader = true });
        var reader = AnswerAsync(channel.Reader);
        var result = await LoadGenerator.RunAsync(
            options.Load,
            number =>
            {
                var next = content(number);
                return async () =>
                {
                    var request = new Request(next());
                    channel.Writer.TryWrite(request);
                    return await request.Task.ConfigureAwait(false) >= 0 ? LoadAnswer.Accepted : LoadAnswer.Refused;
                };
            },
            TimeProvider.System,
            cancellationToken: cancellationToken).ConfigureAwait(false);
        channel.Writer.Complete();
        await reader.ConfigureAwait(false);
        return EngineMeasure.Describe(result, audit: null);
    }

    private static async Task AnswerAsync(ChannelReader<Request> requests)
    {
        var left = long.MaxValue;
        while (await requests.WaitToReadAsync().ConfigureAwait(false))
        {
            while (requests.TryRead(out var request))
            {
                left -= request.Command?.Lines[0].Quantity ?? 1;
                request.SetResult(left);
            }
        }
    }

    private sealed class Request(StockCommand? command) : TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public StockCommand? Command { get; } = command;
    }
}
