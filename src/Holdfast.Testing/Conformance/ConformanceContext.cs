using System.Globalization;

namespace Holdfast.Testing;

/// <summary>
/// What a conformance case works with: an engine, names of its own so that cases run side by side on a shared store that
/// is not empty, and a way to let time pass. Thread-safe.
/// </summary>
public sealed class ConformanceContext
{
    private static readonly TimeSpan BusyLimit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan BusyPause = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan StaleLimit = TimeSpan.FromSeconds(10);

    private readonly Func<TimeSpan, CancellationToken, Task> _advance;
    private readonly Lock _lock = new();
    private readonly SortedSet<string> _skus = new(StockKey.ByteOrder);

    /// <summary>Makes the context of one case.</summary>
    /// <param name="engine">The engine under test.</param>
    /// <param name="prefix">What every SKU and id of the case begins with: at most 24 characters, not used in this store before.</param>
    /// <param name="clock">The clock that the engine follows, moved by <see cref="AdvanceAsync"/>; <see langword="null"/> when the engine follows a real clock, then <see cref="AdvanceAsync"/> really waits.</param>
    /// <param name="cancellationToken">Ends the case early.</param>
    public ConformanceContext(IStockEngine engine, string prefix, ManualTimeProvider? clock = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentException.ThrowIfNullOrEmpty(prefix);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(prefix.Length, 24, nameof(prefix));
        Engine = engine;
        Prefix = prefix;
        Clock = clock;
        CancellationToken = cancellationToken;
        _advance = clock is null
            ? static (time, token) => Task.Delay(time + ClockTolerance, TimeProvider.System, token)
            : (time, _) =>
            {
                clock.Advance(time);
                return Task.CompletedTask;
            };
    }

    /// <summary>How much longer than asked a real wait takes, so that a store whose clock differs a little agrees that the time has passed.</summary>
    public static TimeSpan ClockTolerance { get; } = TimeSpan.FromMilliseconds(300);

    /// <summary>The engine under test.</summary>
    public IStockEngine Engine { get; }

    /// <summary>What every SKU and id of this case begins with.</summary>
    public string Prefix { get; }

    /// <summary>The clock that the engine follows, or <see langword="null"/> when it is a real one.</summary>
    public ManualTimeProvider? Clock { get; }

    /// <summary>Ends the case early.</summary>
    public CancellationToken CancellationToken { get; }

    /// <summary>The SKUs that the case has named so far.</summary>
    public IReadOnlyList<string> Skus
    {
        get
        {
            lock (_lock)
            {
                return [.. _skus];
            }
        }
    }

    /// <summary>Whether the engine promises this.</summary>
    public bool Promises(StockTraits trait) => (Engine.Traits & trait) == trait;

    /// <summary>The SKU that the case calls <paramref name="name"/>; it is audited at the end of the case.</summary>
    public string Sku(string name)
    {
        var sku = Prefix + name;
        lock (_lock)
        {
            _skus.Add(sku);
        }

        return sku;
    }

    /// <summary>The operation id that the case calls <paramref name="name"/>.</summary>
    public string Id(string name) => Prefix + name;

    /// <summary>The operation id made of a name and a number.</summary>
    public string Id(string name, int number) => Prefix + name + number.ToString(CultureInfo.InvariantCulture);

    /// <summary>A line of so many units of the SKU that the case calls <paramref name="name"/>.</summary>
    public StockLine Line(string name, long quantity) => new(Sku(name), quantity);

    /// <summary>The name without the case's prefix, for messages.</summary>
    public string Name(string key)
    {
        ArgumentNullException.ThrowIfNull(key);
        return key.StartsWith(Prefix, StringComparison.Ordinal) ? key[Prefix.Length..] : key;
    }

    /// <summary>Lets time pass for the store: moves its clock, or waits.</summary>
    public Task AdvanceAsync(TimeSpan time) => _advance(time, CancellationToken);

    /// <summary>Runs steps that read like a ledger, see <see cref="ContractScript"/>.</summary>
    public Task PlayAsync(string script) => ContractScript.RunAsync(this, script);

    /// <summary>Executes a command; one that is answered Busy is sent again, for half a minute at most.</summary>
    public async Task<StockResult> ExecuteAsync(StockCommand command) => (await ExecuteAsync([command]).ConfigureAwait(false))[0];

    /// <summary>Executes commands in one batch; those that are answered Busy are sent again, for half a minute at most.</summary>
    public async Task<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands)
    {
        ArgumentNullException.ThrowIfNull(commands);
        var results = await Engine.ExecuteAsync(commands, CancellationToken).ConfigureAwait(false);
        Check.Equal(results.Count, commands.Count, "the number of results");
        var started = TimeProvider.System.GetTimestamp();
        while (results.Any(result => result.Status == StockStatus.Busy) && TimeProvider.System.GetElapsedTime(started) < BusyLimit)
        {
            await Task.Delay(BusyPause, TimeProvider.System, CancellationToken).ConfigureAwait(false);
            var settled = results.ToArray();
            for (var i = 0; i < settled.Length; i++)
            {
                settled[i] = settled[i].Status == StockStatus.Busy ? await Engine.ExecuteAsync(commands[i], CancellationToken).ConfigureAwait(false) : settled[i];
            }

            results = settled;
        }

        return results;
    }

    /// <summary>Does something for each number from 0, so many at once.</summary>
    public Task ForEachAsync(int count, int atOnce, Func<int, Task> action) => Parallel.ForEachAsync(
        Enumerable.Range(0, count),
        new ParallelOptions { MaxDegreeOfParallelism = atOnce, CancellationToken = CancellationToken },
        async (i, _) => await action(i).ConfigureAwait(false));

    /// <summary>Reads until what is read is right; only once where the engine promises that reads see what was acknowledged.</summary>
    internal async Task<T> ReadAsync<T>(Func<ValueTask<T>> read, Func<T, bool> isRight)
    {
        var started = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var value = await read().ConfigureAwait(false);
            if (isRight(value) || Promises(StockTraits.ReadYourWrites) || TimeProvider.System.GetElapsedTime(started) > StaleLimit)
            {
                return value;
            }

            await Task.Delay(BusyPause, TimeProvider.System, CancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Reads the stock of the SKU that the case calls <paramref name="name"/>.</summary>
    public ValueTask<StockLevel> StockAsync(string name) => Engine.GetStockAsync(Sku(name), cancellationToken: CancellationToken);

    /// <summary>Reads the whole ledger of the SKU that the case calls <paramref name="name"/>.</summary>
    public async Task<IReadOnlyList<FlowEntry>> FlowAsync(string name)
    {
        var entries = new List<FlowEntry>();
        await foreach (var entry in Engine.ReadFlowAsync(new() { Sku = Sku(name) }, CancellationToken).ConfigureAwait(false))
        {
            entries.Add(entry);
        }

        return entries;
    }
}
