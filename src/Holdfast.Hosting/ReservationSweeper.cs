using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Holdfast.Hosting;

/// <summary>
/// Releases reservations whose time has passed. Correctness does not hang on it (due units count as available, and every
/// decision releases what is due); it keeps the ledger up to date where nobody asks for a SKU.
/// </summary>
/// <remarks>
/// It sends Abandon: the rules release a due reservation when any command names it, and Abandon is the one verb that can
/// never undo a live one, whatever the sweeper believes. See docs/decisions/0006-sweeper-uses-abandon.md.
/// </remarks>
internal sealed class ReservationSweeper(IStockEngine engine, IOptions<HoldfastOptions> options, ILogger<ReservationSweeper> logger, TimeProvider? clock = null) : IHostedService, IDisposable
{
    /// <summary>A round ends after so many pages, so that a store that lists the same reservations again can't hold it for ever.</summary>
    private const int MaxPagesPerRound = 1_000;

    private readonly TimeProvider _clock = clock ?? TimeProvider.System;
    private readonly SweeperOptions _options = options.Value.Sweeper;
    private readonly CancellationTokenSource _stop = new();
    private Task _rounds = Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        if (_options.Enabled)
        {
            _rounds = RunAsync(_stop.Token);
        }

        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _rounds.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public void Dispose()
    {
        _stop.Cancel();
        _stop.Dispose();
    }

    private async Task RunAsync(CancellationToken stoppingToken)
    {
        var failures = 0;
        try
        {
            while (true)
            {
                await Task.Delay(_options.Interval, _clock, stoppingToken).ConfigureAwait(false);
                try
                {
                    var released = await SweepAsync(stoppingToken).ConfigureAwait(false);
                    if (failures > 0)
                    {
                        logger.LogInformation("The sweeper works again after {Failures} failed rounds.", failures);
                        failures = 0;
                    }

                    if (released > 0)
                    {
                        logger.LogDebug("Released {Count} reservations whose time has passed.", released);
                    }
                }
                catch (Exception e) when (!stoppingToken.IsCancellationRequested)
                {
                    // The first failure is said aloud, those after it quietly: a store that is down for an hour needs one line.
                    logger.Log(failures++ == 0 ? LogLevel.Warning : LogLevel.Debug, e, "A round of the reservation sweeper failed; the next one tries again.");
                }
            }
        }
        catch (Exception e) when (stoppingToken.IsCancellationRequested)
        {
            // The host stops; what is due stays due and is released by whoever looks next. A store may fail otherwise than by the token.
            logger.LogDebug(e, "The sweeper stopped.");
        }
    }

    /// <summary>One round: releases what is due, page by page.</summary>
    /// <returns>How many reservations were released.</returns>
    internal async Task<int> SweepAsync(CancellationToken cancellationToken)
    {
        var released = 0;
        for (var page = 0; page < MaxPagesPerRound; page++)
        {
            using var limit = new CancellationTokenSource(_options.Timeout, _clock);
            using var both = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
            var abandons = new List<StockCommand>();
            await foreach (var due in engine.ListOperationsAsync(new() { DueOnly = true, Limit = _options.PageSize }, both.Token).ConfigureAwait(false))
            {
                abandons.Add(StockCommand.Abandon(due.Id));
            }

            if (abandons.Count == 0)
            {
                break;
            }

            var results = await engine.ExecuteAsync(abandons, both.Token).ConfigureAwait(false);
            var releasedHere = results.Count(result => result.Original == StockStatus.Expired);
            released += releasedHere;

            // A short page was the last; a page of which nothing could be released (overload) waits for the next round.
            if (abandons.Count < _options.PageSize || releasedHere == 0)
            {
                break;
            }
        }

        return released;
    }
}
