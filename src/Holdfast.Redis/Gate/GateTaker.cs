using System.Globalization;
using System.Runtime.InteropServices;
using Holdfast.Wire;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>What the gate said of a command.</summary>
/// <param name="Result">The answer; default while the command waits in the stream.</param>
/// <param name="Number">Its number in its entry, where it stands in one.</param>
/// <param name="Decision">What the store makes of the entry, where the command waits for that.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct Taken(StockResult Result, int Number = 0, Task<Dictionary<int, StockResult>?>? Decision = null);

/// <summary>
/// Hands commands to the gate; those of many callers share calls. While two calls are under way the next ones gather: no
/// timer and no minimum. Bounded. Thread-safe.
/// </summary>
internal sealed class GateTaker(RedisConnection redis, GateNode node, GateEpochs epochs, GateUnsettled unsettled, GatePersister persister, RedisGateOptions options)
{
    /// <summary>Most commands of a script, which holds up everybody else.</summary>
    public const int MostCommands = 512;

    /// <summary>Most lines of a script, unless a single command has more.</summary>
    public const int MostLines = 4_096;

    private const int MostWaiting = 65_536;
    private const int CallsUnderWay = 2;

    private readonly Lock _lock = new();
    private readonly Queue<Request> _waiting = new();
    private int _waitingCommands;
    private int _underWay;
    private long _acknowledged;
    private long _refused;
    private long _deferred;

    public RedisGateCounts Counts => new(Interlocked.Read(ref _deferred), Interlocked.Read(ref _refused), 0) { Acknowledged = Interlocked.Read(ref _acknowledged) };

    /// <summary>Hands over one caller's commands, at most <see cref="MostCommands"/> and <see cref="MostLines"/> of them.</summary>
    public Task<Taken[]> TakeAsync(ArraySegment<StockCommand> commands)
    {
        var request = new Request(commands);
        var isFirst = false;
        lock (_lock)
        {
            if (_waitingCommands > 0 && _waitingCommands + commands.Count > MostWaiting)
            {
                return Task.FromResult(All(commands.Count, StockResult.Of(StockStatus.Busy, "Too many commands wait for the gate already; try again later.")));
            }

            _waiting.Enqueue(request);
            _waitingCommands += commands.Count;
            if (_underWay < CallsUnderWay)
            {
                _underWay++;
                isFirst = true;
            }
        }

        if (isFirst)
        {
            _ = SendAsync();
        }

        return request.Task;
    }

    private static Taken[] All(int count, StockResult result) => [.. Enumerable.Repeat(new Taken(result), count)];

    /// <summary>Sends what waits until nothing does. Never throws: what fails, fails at those who wait.</summary>
    private async Task SendAsync()
    {
        // Whoever comes at the same moment goes along.
        await Task.Yield();
        while (true)
        {
            var batch = new List<Request>();
            lock (_lock)
            {
                var (commands, lines) = (0, 0);
                while (_waiting.TryPeek(out var next) && (batch.Count == 0 || (commands + next.Commands.Count <= MostCommands && lines + next.Lines <= MostLines)))
                {
                    _waiting.Dequeue();
                    batch.Add(next);
                    (commands, lines) = (commands + next.Commands.Count, lines + next.Lines);
                }

                _waitingCommands -= commands;
                if (batch.Count == 0)
                {
                    _underWay--;
                    return;
                }
            }

            await SendAsync(batch).ConfigureAwait(false);
        }
    }

    private async Task SendAsync(List<Request> batch)
    {
        if (!epochs.TryEnter(out var epoch, out var whyNot))
        {
            AnswerAll(batch, StockResult.Of(StockStatus.Busy, $"{whyNot}; try again."));
            return;
        }

        var hasLeft = false;
        try
        {
            var answer = (RedisResult[])await redis.RunAsync(GateScripts.Take, node.Keys, Arguments(batch, epoch), CancellationToken.None).ConfigureAwait(false);
            if (answer.Length == 0)
            {
                epochs.Suspect();
                AnswerAll(batch, StockResult.Of(StockStatus.Busy, "the gate is closed; try again."));
                return;
            }

            var place = StreamPlace.Parse((string)answer[1] ?? "");
            var acknowledged = new List<GateCommand>();
            var taken = Read(batch, answer, place, acknowledged);

            // Remembered before anybody is told, and before an epoch that ends now asks for it.
            if (acknowledged.Count > 0)
            {
                unsettled.Add(place, acknowledged);
            }

            unsettled.Settle(StreamPlace.Parse((string)answer[0]));

            // Before an epoch that ends now tells those who wait that they have to ask again.
            if (Array.Exists(taken, static each => each.Result.Status == StockStatus.None))
            {
                var decision = persister.WaitAsync(place);
                taken = Array.ConvertAll(taken, each => each.Result.Status == StockStatus.None ? each with { Decision = decision } : each);
            }

            hasLeft = true;
            if (!epochs.Leave())
            {
                // The lease ran out on the way: another epoch may sell these units already.
                AnswerAll(batch, StockResult.Of(StockStatus.InDoubt, "the store was not heard for too long; try again with the same id."));
                return;
            }

            if (place != default)
            {
                persister.Added();
            }

            Answer(batch, taken);
        }
        catch (RedisStoreException e)
        {
            AnswerAll(batch, StockResult.Of(e.Failure == CallFailure.InDoubt ? StockStatus.InDoubt : StockStatus.Busy, e.Message));
            epochs.Suspect(e);
        }
        catch (Exception e)
        {
            foreach (var request in batch)
            {
                request.TrySetException(e);
            }
        }
        finally
        {
            if (!hasLeft)
            {
                epochs.Leave();
            }
        }
    }

    private RedisValue[] Arguments(List<Request> batch, long epoch)
    {
        var arguments = new List<RedisValue>(4 + (batch.Count * 7)) { epoch, options.MaxBacklog, epochs.StoreAnswers ? 1 : 0, (long)options.MaxLag.TotalMilliseconds };
        for (var call = 0; call < batch.Count; call++)
        {
            foreach (var command in batch[call].Commands)
            {
                arguments.Add(call);
                arguments.Add(GateIds.Places(command.Id, options.IdBits));
                arguments.Add(Takings.MayBeDecided(command) ? "t" : "w");
                arguments.Add(StockJson.WriteCommand(command));
                arguments.Add(Takings.Count(command));
                foreach (var (sku, units) in Takings.Of(command))
                {
                    arguments.Add(sku);
                    arguments.Add(units);
                }
            }
        }

        return [.. arguments];
    }

    private Taken[] Read(List<Request> batch, RedisResult[] answer, StreamPlace place, List<GateCommand> acknowledged)
    {
        var taken = new Taken[answer.Length - 2];
        var (i, number) = (0, 0);
        foreach (var command in batch.SelectMany(static request => request.Commands))
        {
            var text = (string)answer[i + 2];
            switch (text[0])
            {
                case 'a':
                    acknowledged.Add(new(place, number, IsAcknowledged: true, command));
                    taken[i] = new(new() { Status = StockStatus.Done, AcknowledgedBy = Acknowledgement.Gate, Left = Left(command, text) }, number++);
                    break;
                case 'w':
                    Interlocked.Increment(ref _deferred);
                    taken[i] = new(default, number++);
                    break;
                case 's':
                    Interlocked.Increment(ref _refused);
                    var comma = text.IndexOf(',', StringComparison.Ordinal);
                    taken[i] = new(StockResult.Refused(StockStatus.Insufficient, text[(comma + 1)..], long.Parse(text.AsSpan(1, comma - 1), CultureInfo.InvariantCulture)));
                    break;
                default:
                    taken[i] = new(StockResult.Of(StockStatus.Busy, text[0] == 'f' ? $"{options.MaxBacklog} commands wait for the store already; try again later." : "The store does not answer, and only it can tell; try again later."));
                    break;
            }

            i++;
        }

        Interlocked.Add(ref _acknowledged, acknowledged.Count);
        return taken;
    }

    private static System.Collections.Immutable.ImmutableArray<LineBalance> Left(StockCommand command, string text)
    {
        var left = new LineBalance[command.Lines.Length];
        var at = 1;
        for (var line = 0; line < left.Length; line++)
        {
            var end = text.IndexOf(',', at);
            end = end < 0 ? text.Length : end;
            left[line] = new(command.Lines[line].Sku, long.Parse(text.AsSpan(at, end - at), CultureInfo.InvariantCulture));
            at = end + 1;
        }

        return ImmutableCollectionsMarshal.AsImmutableArray(left);
    }

    private static void AnswerAll(List<Request> batch, StockResult result)
    {
        foreach (var request in batch)
        {
            request.TrySetResult(All(request.Commands.Count, result));
        }
    }

    private static void Answer(List<Request> batch, Taken[] taken)
    {
        var at = 0;
        foreach (var request in batch)
        {
            request.TrySetResult(taken[at..(at += request.Commands.Count)]);
        }
    }

    private sealed class Request(ArraySegment<StockCommand> commands) : TaskCompletionSource<Taken[]>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public ArraySegment<StockCommand> Commands { get; } = commands;

        public int Lines { get; } = commands.Sum(static command => command.Lines.Length);
    }
}
