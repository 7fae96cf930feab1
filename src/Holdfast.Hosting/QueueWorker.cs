using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Holdfast.Hosting;

/// <summary>Runs the consumers of a queue, and tells its verdicts, while the host runs.</summary>
internal sealed class QueueWorker(OpenedSchemeAccessor opened, IOptions<HoldfastOptions> options, ILogger<QueueWorker> logger, TimeProvider? clock = null) : IHostedService, IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private WebhookSender? _sender;
    private Task _sending = Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        if (opened.Scheme.Queue is not { } queue)
        {
            return Task.CompletedTask;
        }

        var settings = options.Value.Queue;
        if (settings.Consume)
        {
            queue.Start();
        }

        if (settings.Webhook.Url is not null)
        {
            _sender = new(queue.Verdicts, settings.Webhook, clock ?? TimeProvider.System, logger);
            _sending = _sender.RunAsync(_stop.Token);
        }

        logger.LogInformation("Queue: {Location}, {Queues} queues, {Consumes}.", queue.Transport.Location, queue.Transport.Queues, settings.Consume ? "decided here" : "decided elsewhere");
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        if (opened.Scheme.Queue is { } queue)
        {
            await queue.StopAsync().WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        await _sending.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public void Dispose()
    {
        _stop.Dispose();
        _sender?.Dispose();
    }
}
