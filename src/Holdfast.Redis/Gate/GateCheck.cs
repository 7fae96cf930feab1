using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>
/// Asks the gate about commands, many callers' at a time. A verdict is a result: Insufficient refuses, Busy says that the
/// gate could not be asked, everything else lets the command through.
/// </summary>
internal sealed class GateCheck : IAsyncDisposable
{
    /// <summary>SKUs that are remembered one by one; past it all are taken as touched.</summary>
    private const int MostTouched = 20_000;

    /// <summary>Short, but the store has to be asked: a verdict of the first look only.</summary>
    private const StockStatus Undecided = StockStatus.Pending;

    private readonly IStockEngine _store;
    private readonly RedisConnection _redis;
    private readonly GateNode _node;
    private readonly GateFollower _follower;
    private readonly RedisGateOptions _options;
    private readonly ILogger _logger;
    private readonly GroupCommit _judging;
    private readonly GroupCommit _noting;
    private readonly GroupCommit _confirming;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, long> _touched = new(StringComparer.Ordinal);
    private long _allTouched = -1;
    private long _refused;
    private long _confirmed;
    private long _passed;

    public GateCheck(IStockEngine store, RedisConnection redis, GateNode node, GateFollower follower, RedisGateOptions options, TimeProvider clock, ILogger logger)
    {
        _store = store;
        _redis = redis;
        _node = node;
        _follower = follower;
        _options = options;
        _logger = logger;
        var bounds = new GroupCommitOptions { MaxBatchCommands = 512, MaxConcurrentBatches = 2, RetryTimeout = TimeSpan.Zero };
        _judging = new(new Judge(commands => LookAsync(commands, judges: true)), bounds, clock, logger);
        _noting = new(new Judge(commands => LookAsync(commands, judges: false)), bounds, clock, logger);
        _confirming = new(new Judge(ConfirmAsync), bounds, clock, logger);
    }

    public RedisGateCounts Counts => new(Interlocked.Read(ref _passed), Interlocked.Read(ref _refused), Interlocked.Read(ref _confirmed));

    /// <summary>Asks about one caller's commands.</summary>
    public async ValueTask<IReadOnlyList<StockResult>> AskAsync(StockCommand[] commands)
    {
        if (!MayJudge(commands))
        {
            return await _noting.ExecuteAsync(commands).ConfigureAwait(false);
        }

        var verdicts = await _judging.ExecuteAsync(commands).ConfigureAwait(false);
        if (verdicts.All(static verdict => verdict.Status is StockStatus.None) || verdicts.Any(static verdict => verdict.Status is StockStatus.Busy))
        {
            return verdicts;
        }

        var final = verdicts.ToArray();
        await ReplaceAsync(commands, final, [.. Enumerable.Range(0, final.Length).Where(i => final[i].Status == Undecided)], _confirming).ConfigureAwait(false);
        await ReplaceAsync(commands, final, FindFollowers(commands, final), _noting).ConfigureAwait(false);
        return final;
    }

    /// <summary>Refused commands behind others of the same call that go to the store and name the same SKUs: they are to see the effects of those.</summary>
    private static int[] FindFollowers(StockCommand[] commands, StockResult[] verdicts)
    {
        if (commands.Length == 1 || verdicts.All(static verdict => verdict.Status == StockStatus.Insufficient))
        {
            return [];
        }

        var skus = new HashSet<string>(StringComparer.Ordinal);
        var followers = new List<int>();
        for (var i = 0; i < commands.Length; i++)
        {
            var isRefused = verdicts[i].Status == StockStatus.Insufficient;
            if (isRefused && commands[i].Lines.Any(line => skus.Contains(line.Sku)))
            {
                followers.Add(i);
            }

            if (!isRefused || (followers.Count > 0 && followers[^1] == i))
            {
                skus.UnionWith(commands[i].Lines.Select(static line => line.Sku));
            }
        }

        return [.. followers];
    }

    private static async ValueTask ReplaceAsync(StockCommand[] commands, StockResult[] verdicts, int[] places, GroupCommit by)
    {
        if (places.Length > 0)
        {
            var answers = await by.ExecuteAsync([.. places.Select(i => commands[i])]).ConfigureAwait(false);
            for (var i = 0; i < places.Length; i++)
            {
                verdicts[places[i]] = answers[i];
            }
        }
    }

    /// <summary>
    /// Remembers what this process has just changed in the store: until the copies are known to have it, its own callers are
    /// refused by the store's numbers, not by older ones.
    /// </summary>
    public void Touch(IReadOnlyList<StockCommand> commands, IReadOnlyList<StockResult>? answers)
    {
        var now = _node.RedisTimeAtMost();
        lock (_lock)
        {
            for (var i = 0; i < commands.Count; i++)
            {
                if (answers is null || answers[i].IsRetryable)
                {
                    _allTouched = now;
                    continue;
                }

                foreach (var (sku, _) in commands[i].Lines)
                {
                    _touched[sku] = now;
                }

                foreach (var (sku, _) in answers[i].Left)
                {
                    _touched[sku] = now;
                }
            }

            if (_touched.Count > MostTouched)
            {
                _touched.Clear();
                _allTouched = now;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _judging.DisposeAsync().ConfigureAwait(false);
        await _noting.DisposeAsync().ConfigureAwait(false);
        await _confirming.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Whether each command can be judged by itself: nothing in the call gives units back or ends anything, and no id stands twice.</summary>
    private static bool MayJudge(StockCommand[] commands)
    {
        if (commands.Length == 1)
        {
            return commands[0].Verb is StockVerb.Deduct or StockVerb.Reserve;
        }

        var ids = new HashSet<string>(commands.Length, StringComparer.Ordinal);
        return commands.All(command => command.Verb is StockVerb.Deduct or StockVerb.Reserve && ids.Add(command.Id));
    }

    private bool IsTouched(StockCommand command, long fresh)
    {
        lock (_lock)
        {
            if (_allTouched >= fresh)
            {
                return true;
            }

            foreach (var (sku, _) in command.Lines)
            {
                if (_touched.TryGetValue(sku, out var at))
                {
                    if (at >= fresh)
                    {
                        return true;
                    }

                    _touched.Remove(sku);
                }
            }

            return false;
        }
    }

    /// <summary>Looks at the gate, and notes what it lets through.</summary>
    private async ValueTask<IReadOnlyList<StockResult>> LookAsync(IReadOnlyList<StockCommand> commands, bool judges)
    {
        var verdicts = new StockResult[commands.Count];
        try
        {
            var answers = (RedisResult[])await _redis.RunAsync(GateScripts.Check, _node.Keys, Arguments(commands, judges), CancellationToken.None).ConfigureAwait(false);
            var fresh = (long)answers[0];
            if (answers.Length == 1)
            {
                // Closed: the next heartbeat begins an epoch, whose listing of ids waits for what is under way since before it.
                Interlocked.Add(ref _passed, verdicts.Length);
                return verdicts;
            }

            var codes = (RedisResult[])answers[1];
            var shortages = ReadShortages(answers);
            for (var i = 0; i < verdicts.Length; i++)
            {
                verdicts[i] = Read(commands[i], (int)codes[i], shortages, fresh);
            }
        }
        catch (RedisStoreException e)
        {
            _node.Detach(e);
            Array.Fill(verdicts, StockResult.Of(StockStatus.Busy, e.Message));
        }

        return verdicts;
    }

    /// <summary>The refusals of the SKUs that are short: a crowd is refused the same few over and over.</summary>
    private static StockResult[] ReadShortages(RedisResult[] answers)
    {
        var shortages = new StockResult[(answers.Length - 2) / 2];
        for (var i = 0; i < shortages.Length; i++)
        {
            shortages[i] = StockResult.Refused(
                StockStatus.Insufficient, (string)answers[2 + (2 * i)], long.Parse((string)answers[3 + (2 * i)], System.Globalization.CultureInfo.InvariantCulture));
        }

        return shortages;
    }

    /// <summary>The verdict behind a number of gate-check.lua.</summary>
    private StockResult Read(StockCommand command, int code, StockResult[] shortages, long fresh)
    {
        if (code < 2)
        {
            Interlocked.Increment(ref _passed);
            if (code == 1)
            {
                foreach (var (sku, _) in command.Lines)
                {
                    _follower.Want(sku);
                }
            }

            return default;
        }

        if (code % 2 == 1 || IsTouched(command, fresh))
        {
            return StockResult.Of(Undecided);
        }

        Interlocked.Increment(ref _refused);
        return shortages[(code / 2) - 1];
    }

    private RedisValue[] Arguments(IReadOnlyList<StockCommand> commands, bool judges)
    {
        var size = 1;
        for (var i = 0; i < commands.Count; i++)
        {
            size += 2 + (judges ? 2 * commands[i].Lines.Length : 0);
        }

        var arguments = new RedisValue[size];
        arguments[0] = (long)_options.MaxLag.TotalMilliseconds;
        var at = 1;
        for (var i = 0; i < commands.Count; i++)
        {
            var command = commands[i];
            arguments[at++] = GateIds.Places(command.Id, _options.IdBits);
            arguments[at++] = judges ? command.Lines.Length : 0;
            if (judges)
            {
                foreach (var (sku, quantity) in command.Lines)
                {
                    arguments[at++] = sku;
                    arguments[at++] = quantity;
                }
            }
        }

        return arguments;
    }

    /// <summary>
    /// Asks the store for the stock that short commands want, one question for all that wait: its answer counts what is due, and was
    /// begun after they were sent. Then the ids are looked at once more: one that was let through meanwhile is not refused.
    /// </summary>
    private async ValueTask<IReadOnlyList<StockResult>> ConfirmAsync(IReadOnlyList<StockCommand> commands)
    {
        var verdicts = new StockResult[commands.Count];
        try
        {
            var skus = commands.SelectMany(static command => command.Lines).Select(static line => line.Sku).Distinct(StringComparer.Ordinal).ToArray();
            var levels = new Dictionary<string, StockLevel>(StringComparer.Ordinal);
            foreach (var level in await _store.GetStockAsync(skus).ConfigureAwait(false))
            {
                levels[level.Sku] = level;
            }

            var refused = new List<int>();
            for (var i = 0; i < verdicts.Length; i++)
            {
                if (FindShort(commands[i], levels) is { } shortage)
                {
                    verdicts[i] = StockResult.Refused(StockStatus.Insufficient, shortage.Sku, shortage.Available);
                    refused.Add(i);
                }
            }

            if (refused.Count > 0)
            {
                RedisValue[] arguments = ["ask", 0, 0, .. refused.Select(i => GateIds.Places(commands[i].Id, _options.IdBits))];
                var known = (RedisResult[])await _redis.RunAsync(GateScripts.Ids, _node.Keys, arguments, CancellationToken.None).ConfigureAwait(false);
                for (var i = 0; i < refused.Count; i++)
                {
                    if (known.Length == 0 || (long)known[i] == 1)
                    {
                        verdicts[refused[i]] = default;
                    }
                    else
                    {
                        Interlocked.Increment(ref _confirmed);
                    }
                }
            }
        }
        catch (RedisStoreException e)
        {
            _node.Detach(e);
            Array.Fill(verdicts, StockResult.Of(StockStatus.Busy, e.Message));
            return verdicts;
        }
        catch (Exception e)
        {
            _logger.LogDebug(e, "The store could not be asked for its stock; {Count} commands go to it unjudged.", commands.Count);
            Array.Clear(verdicts);
        }

        var passing = Enumerable.Range(0, verdicts.Length).Where(i => verdicts[i].Status == StockStatus.None).ToArray();
        if (passing.Length > 0)
        {
            var noted = await LookAsync([.. passing.Select(i => commands[i])], judges: false).ConfigureAwait(false);
            for (var i = 0; i < passing.Length; i++)
            {
                verdicts[passing[i]] = noted[i];
            }
        }

        return verdicts;
    }

    /// <summary>The first line that is short, if all SKUs are known.</summary>
    private static LineBalance? FindShort(StockCommand command, Dictionary<string, StockLevel> levels)
    {
        LineBalance? first = null;
        foreach (var (sku, quantity) in command.Lines)
        {
            if (!levels.TryGetValue(sku, out var level) || !level.IsKnown)
            {
                return null;
            }

            if (first is null && level.Available < quantity)
            {
                first = new(sku, level.Available);
            }
        }

        return first;
    }

    /// <summary>What group commit sees of a check, so that those of many callers share calls.</summary>
    private sealed class Judge(Func<IReadOnlyList<StockCommand>, ValueTask<IReadOnlyList<StockResult>>> judge) : IStockEngine
    {
        public StockTraits Traits => StockTraits.None;

        public ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default) => judge(commands);

        public ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) => throw Unused();

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private static NotSupportedException Unused() => new("A check of the gate executes only.");
    }
}
