using System.Runtime.InteropServices;

namespace Holdfast.Testing;

/// <summary>What goes wrong with one call of <see cref="FaultyEngine"/>.</summary>
public enum Fault
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Nothing is attempted; every command is answered Busy.</summary>
    Busy = 1,

    /// <summary>Nothing is attempted; every command is answered InDoubt.</summary>
    InDoubtBefore = 2,

    /// <summary>Everything is applied, and every command is answered InDoubt: the lost acknowledgement.</summary>
    InDoubtAfter = 3,

    /// <summary>Nothing is attempted; the call throws <see cref="FaultException"/>.</summary>
    ThrowBefore = 4,

    /// <summary>Everything is applied; the call throws <see cref="FaultException"/>.</summary>
    ThrowAfter = 5,

    /// <summary>The first half of the commands is applied; the call throws <see cref="FaultException"/>.</summary>
    ThrowHalfway = 6,

    /// <summary>Nothing is attempted; the call throws <see cref="OperationCanceledException"/>.</summary>
    CancelBefore = 7,

    /// <summary>Everything is applied; the call throws <see cref="OperationCanceledException"/>.</summary>
    CancelAfter = 8,

    /// <summary>The call waits for <see cref="FaultyEngine.Delay"/>, then goes well.</summary>
    Delay = 9,
}

/// <summary>How often each fault happens, as a part of all calls. The sum is at most 1.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct FaultRates
{
    /// <summary>How often <see cref="Fault.Busy"/>.</summary>
    public double Busy { get; init; }

    /// <summary>How often <see cref="Fault.InDoubtBefore"/>.</summary>
    public double InDoubtBefore { get; init; }

    /// <summary>How often <see cref="Fault.InDoubtAfter"/>.</summary>
    public double InDoubtAfter { get; init; }

    /// <summary>How often <see cref="Fault.ThrowBefore"/>.</summary>
    public double ThrowBefore { get; init; }

    /// <summary>How often <see cref="Fault.ThrowAfter"/>.</summary>
    public double ThrowAfter { get; init; }

    /// <summary>How often <see cref="Fault.ThrowHalfway"/>.</summary>
    public double ThrowHalfway { get; init; }

    /// <summary>How often <see cref="Fault.CancelBefore"/>.</summary>
    public double CancelBefore { get; init; }

    /// <summary>How often <see cref="Fault.CancelAfter"/>.</summary>
    public double CancelAfter { get; init; }

    /// <summary>How often <see cref="Fault.Delay"/>.</summary>
    public double Delay { get; init; }

    /// <summary>Every fault as often as every other.</summary>
    /// <param name="rate">How often each.</param>
    public static FaultRates Each(double rate) => new()
    {
        Busy = rate,
        InDoubtBefore = rate,
        InDoubtAfter = rate,
        ThrowBefore = rate,
        ThrowAfter = rate,
        ThrowHalfway = rate,
        CancelBefore = rate,
        CancelAfter = rate,
        Delay = rate,
    };

    internal Fault Choose(double dice)
    {
        foreach (var (rate, fault) in new[]
        {
            (Busy, Fault.Busy), (InDoubtBefore, Fault.InDoubtBefore), (InDoubtAfter, Fault.InDoubtAfter), (ThrowBefore, Fault.ThrowBefore),
            (ThrowAfter, Fault.ThrowAfter), (ThrowHalfway, Fault.ThrowHalfway), (CancelBefore, Fault.CancelBefore), (CancelAfter, Fault.CancelAfter), (Delay, Fault.Delay),
        })
        {
            if ((dice -= rate) < 0)
            {
                return fault;
            }
        }

        return Fault.None;
    }
}

/// <summary>What a <see cref="FaultyEngine"/> throws: it stands for whatever a broken store throws.</summary>
public sealed class FaultException : Exception
{
    /// <summary>Makes the exception.</summary>
    public FaultException(string message)
        : base(message)
    {
    }
}

/// <summary>
/// An engine that goes wrong on purpose: before the write, after it (the lost acknowledgement), halfway, slowly, or for
/// certain commands always. What goes wrong comes from a script first, then by seeded chance. Thread-safe; with several
/// callers the seed repeats the faults, not which call gets them.
/// </summary>
public sealed class FaultyEngine : DelegatingStockEngine
{
    private readonly Lock _lock = new();
    private readonly Queue<Fault> _script = new();
    private readonly Random _random;
    private readonly FaultRates _rates;
    private readonly TimeProvider _clock;
    private readonly int[] _injected = new int[Enum.GetValues<Fault>().Length];

    /// <summary>Wraps an engine.</summary>
    /// <param name="inner">The engine that works.</param>
    /// <param name="rates">What goes wrong by chance; nothing by default.</param>
    /// <param name="seed">Same seed, same faults.</param>
    /// <param name="clock">The clock that delays go by; the system's by default.</param>
    public FaultyEngine(IStockEngine inner, FaultRates rates = default, int seed = 0, TimeProvider? clock = null)
        : base(inner)
    {
        _rates = rates;
        _random = new(seed);
        _clock = clock ?? TimeProvider.System;
    }

    /// <summary>How long <see cref="Fault.Delay"/> takes: 5 milliseconds by default.</summary>
    public TimeSpan Delay { get; init; } = TimeSpan.FromMilliseconds(5);

    /// <summary>Commands that the store can't stomach: a batch with one of them throws before anything is applied. None by default.</summary>
    public Func<StockCommand, bool>? IsPoison { get; init; }

    /// <summary>Whether the store can't be reached: commands are answered Busy, and reads throw <see cref="FaultException"/>.</summary>
    public bool IsDown { get; set; }

    /// <summary>How often a fault has happened.</summary>
    public int Count(Fault fault)
    {
        lock (_lock)
        {
            return _injected[(int)fault];
        }
    }

    /// <summary>Says what goes wrong with the next calls, one fault a call; afterwards chance decides again.</summary>
    public void Script(params ReadOnlySpan<Fault> faults)
    {
        lock (_lock)
        {
            foreach (var fault in faults)
            {
                _script.Enqueue(fault);
            }
        }
    }

    /// <inheritdoc/>
    public override async ValueTask<IReadOnlyList<StockResult>> ExecuteAsync(IReadOnlyList<StockCommand> commands, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(commands);
        if (IsDown)
        {
            return All(commands, StockStatus.Busy, "The store is down, on purpose.");
        }

        if (IsPoison is { } isPoison && commands.FirstOrDefault(isPoison) is { } poison)
        {
            throw new FaultException($"The store can't stomach {poison}, on purpose.");
        }

        var fault = Next();
        switch (fault)
        {
            case Fault.Busy:
                return All(commands, StockStatus.Busy, "Not attempted, on purpose.");
            case Fault.InDoubtBefore:
                return All(commands, StockStatus.InDoubt, "Not attempted, and not said, on purpose.");
            case Fault.ThrowBefore:
                throw new FaultException("Failed before the write, on purpose.");
            case Fault.CancelBefore:
                throw new OperationCanceledException("Cancelled before the write, on purpose.");
            case Fault.ThrowHalfway:
                await Inner.ExecuteAsync([.. commands.Take((commands.Count + 1) / 2)], CancellationToken.None).ConfigureAwait(false);
                throw new FaultException("Failed halfway, on purpose.");
            case Fault.Delay:
                await Task.Delay(Delay, _clock, cancellationToken).ConfigureAwait(false);
                break;
            default:
                break;
        }

        var results = await Inner.ExecuteAsync(commands, cancellationToken).ConfigureAwait(false);
        return fault switch
        {
            Fault.InDoubtAfter => All(commands, StockStatus.InDoubt, "The acknowledgement was lost, on purpose."),
            Fault.ThrowAfter => throw new FaultException("Failed after the write, on purpose."),
            Fault.CancelAfter => throw new OperationCanceledException("Cancelled after the write, on purpose."),
            _ => results,
        };
    }

    /// <inheritdoc/>
    public override ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default)
    {
        ThrowWhenDown();
        return base.GetStockAsync(skus, options, cancellationToken);
    }

    /// <inheritdoc/>
    public override ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default)
    {
        ThrowWhenDown();
        return base.GetOperationAsync(id, cancellationToken);
    }

    /// <inheritdoc/>
    public override IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default)
    {
        ThrowWhenDown();
        return base.ListStockAsync(prefix, after, cancellationToken);
    }

    /// <inheritdoc/>
    public override IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default)
    {
        ThrowWhenDown();
        return base.ListOperationsAsync(query, cancellationToken);
    }

    /// <inheritdoc/>
    public override IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default)
    {
        ThrowWhenDown();
        return base.ReadFlowAsync(query, cancellationToken);
    }

    private static StockResult[] All(IReadOnlyList<StockCommand> commands, StockStatus status, string detail)
    {
        var results = new StockResult[commands.Count];
        Array.Fill(results, StockResult.Of(status, detail));
        return results;
    }

    private void ThrowWhenDown()
    {
        if (IsDown)
        {
            throw new FaultException("The store is down, on purpose.");
        }
    }

    private Fault Next()
    {
        lock (_lock)
        {
            var fault = _script.TryDequeue(out var scripted) ? scripted : _rates.Choose(_random.NextDouble());
            _injected[(int)fault]++;
            return fault;
        }
    }
}
