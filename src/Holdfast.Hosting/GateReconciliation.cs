using System.Diagnostics.Metrics;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Holdfast.Hosting;

/// <summary>How the copies of a gate are compared with the store, in the background.</summary>
public sealed class ReconciliationOptions
{
    /// <summary>Whether this process compares. One of all is enough. Default true.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>The pause between two comparisons, 10 milliseconds to 1 day. Default 1 minute.</summary>
    public TimeSpan Interval { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>SKUs that are read at once, 1 to 5,000. Default 500.</summary>
    public int PageSize { get; set; } = 500;

    /// <summary>The pause after each page, up to 1 minute: with <see cref="PageSize"/> it bounds the rate. Default 50 ms.</summary>
    public TimeSpan PagePause { get; set; } = TimeSpan.FromMilliseconds(50);

    /// <summary>How long a copy that is behind may take to catch up, 0 to 10 minutes. Default 5 s.</summary>
    public TimeSpan Patience { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>How long one comparison may take, 1 second to 1 day. Default 1 hour.</summary>
    public TimeSpan Timeout { get; set; } = TimeSpan.FromHours(1);

    internal RedisGateReconcilerOptions ToReconciler() => new() { PageSize = PageSize, PagePause = PagePause, Patience = Patience };

    internal void AddProblems(List<string> problems)
    {
        const string section = HoldfastOptions.SectionName + ":Reconciliation:";
        try
        {
            ToReconciler().Validate();
        }
        catch (ArgumentException e)
        {
            problems.Add(section + e.Message);
        }

        if (Interval < TimeSpan.FromMilliseconds(10) || Interval > TimeSpan.FromDays(1))
        {
            problems.Add($"{section}Interval is {Interval}; it must be from 10 milliseconds to 1 day.");
        }

        if (Timeout < TimeSpan.FromSeconds(1) || Timeout > TimeSpan.FromDays(1))
        {
            problems.Add($"{section}Timeout is {Timeout}; it must be from 1 second to 1 day.");
        }
    }
}

/// <summary>
/// Compares the copies of a gate with the store again and again while the host runs, and keeps what came of it for those
/// who show it; the meter <c>Holdfast</c> shows it too. It never repairs. Thread-safe.
/// </summary>
public sealed class GateReconciliation : IHostedService, IDisposable
{
    private readonly OpenedSchemeAccessor _opened;
    private readonly ReconciliationOptions _options;
    private readonly ILogger<GateReconciliation> _logger;
    private readonly ILogger<RedisGateReconciler> _repairs;
    private readonly TimeProvider _clock;
    private readonly CancellationTokenSource _stop = new();
    private readonly Meter _meter = new(Telemetry.SourceName);
    private Task _rounds = Task.CompletedTask;
    private GateComparison? _latest;
    private string? _failure;
    private int _disposed;

    /// <summary>Made by the host.</summary>
    /// <param name="opened">What runs.</param>
    /// <param name="options">Whether and how fast it compares.</param>
    /// <param name="logger">Told when differences appear and when they are gone.</param>
    /// <param name="repairs">The reconciler's own log.</param>
    /// <param name="clock">The clock of pauses and ages; the system's by default.</param>
    public GateReconciliation(OpenedSchemeAccessor opened, IOptions<HoldfastOptions> options, ILogger<GateReconciliation> logger, ILogger<RedisGateReconciler> repairs, TimeProvider? clock = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        _opened = opened;
        _options = options.Value.Reconciliation;
        _logger = logger;
        _repairs = repairs;
        _clock = clock ?? TimeProvider.System;
        Gauge("holdfast.reconciliation.differing", "{sku}", "SKUs whose copy in the gate differs from the store's row.", static latest => latest.Differing);
        Gauge("holdfast.reconciliation.units", "{unit}", "By how many units the copies are off, in sum.", static latest => latest.Units);
        Gauge("holdfast.reconciliation.lagging", "{sku}", "SKUs whose copy is older than the row, as traffic makes them.", static latest => latest.Lagging);
        Gauge("holdfast.reconciliation.unloaded", "{sku}", "SKUs without a copy.", static latest => latest.Unloaded);
        Gauge("holdfast.reconciliation.oldest", "s", "For how long the oldest difference has been known; 0 without one.", static latest => latest.OldestAge?.TotalSeconds ?? 0);
        Gauge("holdfast.reconciliation.age", "s", "How long ago the last comparison that came to its end was begun.", latest => (_clock.GetUtcNow() - latest.At).TotalSeconds);
    }

    /// <summary>Whether the scheme has a gate, so that there is something to compare.</summary>
    public bool HasGate { get; private set; }

    /// <summary>Whether this process compares.</summary>
    public bool IsEnabled => _options.Enabled;

    /// <summary>What the last comparison that came to its end found; <see langword="null"/> before the first.</summary>
    public GateComparison? Latest => Volatile.Read(ref _latest);

    /// <summary>Why the last try failed; <see langword="null"/> when it did not.</summary>
    public string? Failure => Volatile.Read(ref _failure);

    /// <inheritdoc/>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        var gate = FindGate(_opened.Scheme.Engine);
        HasGate = gate is not null;
        if (gate is not null && _options.Enabled)
        {
            _rounds = RunAsync(gate, _stop.Token);
        }

        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _rounds.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // The container knows it by two names and disposes it once for each.
        if (Interlocked.Exchange(ref _disposed, 1) == 1)
        {
            return;
        }

        _stop.Cancel();
        _stop.Dispose();
        _meter.Dispose();
    }

    private static RedisGate? FindGate(IStockEngine engine)
    {
        while (engine is DelegatingStockEngine layer and not RedisGate)
        {
            engine = layer.Inner;
        }

        return engine as RedisGate;
    }

    private void Gauge(string name, string unit, string description, Func<GateComparison, double> value) =>
        _meter.CreateObservableGauge<double>(name, () => Latest is { } latest ? [new(value(latest))] : [], unit, description);

    private async Task RunAsync(RedisGate gate, CancellationToken stoppingToken)
    {
        RedisGateReconciler? reconciler = null;
        try
        {
            while (true)
            {
                try
                {
                    using var limit = new CancellationTokenSource(_options.Timeout, _clock);
                    using var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, stoppingToken);
                    reconciler ??= await gate.OpenReconcilerAsync(_options.ToReconciler(), _repairs, both.Token).ConfigureAwait(false);
                    var comparison = await reconciler.RunAsync(cancellationToken: both.Token).ConfigureAwait(false);
                    Tell(comparison);
                    Volatile.Write(ref _latest, comparison);
                    Volatile.Write(ref _failure, null);
                }
                catch (Exception e) when (!stoppingToken.IsCancellationRequested)
                {
                    // The first failure is said aloud, those after it quietly.
                    var why = e is OperationCanceledException ? $"it took longer than {_options.Timeout}" : e.Message;
                    _logger.Log(Failure is null ? LogLevel.Warning : LogLevel.Debug, e, "The gate could not be compared with the store: {Failure} The next round tries again.", why);
                    Volatile.Write(ref _failure, why);
                }

                await Task.Delay(_options.Interval, _clock, stoppingToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (stoppingToken.IsCancellationRequested)
        {
            // The host stops. What was under way may have ended otherwise than by the token.
            _logger.LogDebug(e, "The comparison stopped.");
        }
        finally
        {
            if (reconciler is not null)
            {
                await reconciler.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private void Tell(GateComparison comparison)
    {
        var before = Latest?.Differing ?? 0;
        if (comparison.Differing > 0 && comparison.Differing != before)
        {
            _logger.LogError(
                "{Differing} SKUs differ between the gate and the store, by {Units} units, {Sku} ({Kind}) first; 'holdfast reconcile --fix' repairs them.",
                comparison.Differing, comparison.Units, comparison.Differences[0].Sku, comparison.Differences[0].Kind);
        }
        else if (comparison.Differing == 0 && before > 0)
        {
            _logger.LogInformation("The gate and the store agree again.");
        }
    }
}
