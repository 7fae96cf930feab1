using System.Buffers;
using System.Globalization;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Holdfast.Queueing;
using Microsoft.Extensions.Logging;

namespace Holdfast.Hosting;

/// <summary>
/// Posts verdicts to a receiver, each until it answers with a status of 200 to 299 or the tries are used up. At least once:
/// a receiver may get one twice and tells them apart by id. What is still to be told is in the store, so a restart loses
/// nothing, and several processes share the work.
/// </summary>
/// <remarks>
/// Each request carries <c>Holdfast-Signature: t=SECONDS,v1=HEX</c>, the HMAC-SHA256 by the secret of <c>SECONDS.BODY</c>; a
/// receiver refuses what is not signed, or is old.
/// </remarks>
internal sealed class WebhookSender : IDisposable
{
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromHours(1);

    private readonly IVerdictStore _verdicts;
    private readonly WebhookOptions _options;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly HttpClient _http;
    private readonly byte[] _secret;

    public WebhookSender(IVerdictStore verdicts, WebhookOptions options, TimeProvider clock, ILogger logger)
    {
        _verdicts = verdicts;
        _options = options;
        _clock = clock;
        _logger = logger;
        _secret = Encoding.UTF8.GetBytes(options.Secret!);

        // A receiver that sends us elsewhere is set up wrongly; the name may change its address.
        _http = new(new SocketsHttpHandler { AllowAutoRedirect = false, PooledConnectionLifetime = TimeSpan.FromMinutes(2) }) { Timeout = options.Timeout };
    }

    /// <summary>Sends what is due, again and again.</summary>
    public async Task RunAsync(CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                // Longer than all of them can take: nobody else sends them meanwhile.
                var due = await _verdicts.TakeAnnouncementsAsync(_options.AtOnce, (2 * _options.Timeout) + TimeSpan.FromSeconds(30), stoppingToken).ConfigureAwait(false);
                await Task.WhenAll(due.Select(announcement => SendAsync(announcement, stoppingToken))).ConfigureAwait(false);
                if (due.Count == 0)
                {
                    await Task.Delay(_options.Interval, _clock, stoppingToken).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                _logger.LogWarning(e, "Verdicts could not be told: the store did not answer; the next round tries again.");
                await Task.Delay(TimeSpan.FromSeconds(1), _clock, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    public void Dispose() => _http.Dispose();

    /// <summary>The signature of a body at an instant.</summary>
    internal static string Sign(byte[] secret, long seconds, ReadOnlySpan<byte> body)
    {
        var stamp = seconds.ToString(CultureInfo.InvariantCulture);
        byte[] signed = [.. Encoding.ASCII.GetBytes(stamp), (byte)'.', .. body];
        return $"t={stamp},v1={Convert.ToHexStringLower(HMACSHA256.HashData(secret, signed))}";
    }

    private async Task SendAsync(Announcement announcement, CancellationToken stoppingToken)
    {
        var failure = await TryAsync(announcement, stoppingToken).ConfigureAwait(false);
        if (failure is null)
        {
            await _verdicts.SettleAnnouncementAsync(announcement.Verdict.Id, isDelivered: true, cancellationToken: CancellationToken.None).ConfigureAwait(false);
            return;
        }

        if (announcement.Attempts >= _options.MaxAttempts)
        {
            _logger.LogError("The verdict on {Id} was not taken by the webhook in {Attempts} tries and is given up: {Failure}", announcement.Verdict.Id, announcement.Attempts, failure);
            await _verdicts.SettleAnnouncementAsync(announcement.Verdict.Id, isDelivered: false, cancellationToken: CancellationToken.None).ConfigureAwait(false);
            return;
        }

        var delay = _options.RetryDelay * Math.Pow(2, Math.Min(announcement.Attempts - 1, 20));
        _logger.LogDebug("The verdict on {Id} was not taken by the webhook, try {Attempts}: {Failure}", announcement.Verdict.Id, announcement.Attempts, failure);
        await _verdicts.SettleAnnouncementAsync(announcement.Verdict.Id, isDelivered: false, _clock.GetUtcNow() + (delay < s_longestDelay ? delay : s_longestDelay), CancellationToken.None).ConfigureAwait(false);
    }

    /// <returns>Why it was not taken; <see langword="null"/> when it was.</returns>
    private async Task<string?> TryAsync(Announcement announcement, CancellationToken stoppingToken)
    {
        var bytes = new ArrayBufferWriter<byte>(512);
        using (var json = new Utf8JsonWriter(bytes))
        {
            announcement.Verdict.Write(json);
        }

        var body = bytes.WrittenSpan.ToArray();
        using var request = new HttpRequestMessage(HttpMethod.Post, _options.Url)
        {
            Content = new ByteArrayContent(body) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } },
        };
        request.Headers.Add("Holdfast-Signature", Sign(_secret, _clock.GetUtcNow().ToUnixTimeSeconds(), body));
        request.Headers.Add("Holdfast-Attempt", announcement.Attempts.ToString(CultureInfo.InvariantCulture));
        try
        {
            using var response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stoppingToken).ConfigureAwait(false);
            return response.IsSuccessStatusCode ? null : $"it answered {(int)response.StatusCode}";
        }
        catch (Exception e) when (e is HttpRequestException or IOException || (e is OperationCanceledException && !stoppingToken.IsCancellationRequested))
        {
            return e is OperationCanceledException ? $"it did not answer within {_options.Timeout}" : e.Message;
        }
    }
}
