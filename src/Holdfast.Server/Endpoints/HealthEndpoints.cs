using Holdfast.Server.Http;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace Holdfast.Server.Endpoints;

/// <summary>
/// <c>/health/live</c>: the process answers. <c>/health/ready</c>: the store answers too. Open to everybody, so the store is
/// asked at most once a second, by one probe at a time, whoever asks.
/// </summary>
internal sealed class HealthEndpoints(HealthCheckService checks, TimeProvider clock)
{
    private static readonly TimeSpan s_fresh = TimeSpan.FromSeconds(1);

    private readonly Lock _lock = new();
    private Task<HealthReport>? _probe;
    private long _probedAt;

    public static async Task LiveAsync(HttpContext context) => await WriteAsync(context, HealthStatus.Healthy, null);

    public async Task ReadyAsync(HttpContext context)
    {
        var report = await Probe().WaitAsync(context.RequestAborted);
        await WriteAsync(context, report.Status, report);
    }

    private Task<HealthReport> Probe()
    {
        lock (_lock)
        {
            if (_probe is null || (_probe.IsCompleted && clock.GetElapsedTime(_probedAt) >= s_fresh))
            {
                _probedAt = clock.GetTimestamp();
                _probe = checks.CheckHealthAsync(CancellationToken.None);
            }

            return _probe;
        }
    }

    private static ValueTask WriteAsync(HttpContext context, HealthStatus status, HealthReport? report)
    {
        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("status"u8, status.ToString());
        if (report is not null)
        {
            json.WriteStartObject("checks"u8);
            foreach (var (name, entry) in report.Entries)
            {
                json.WriteString(name, entry.Description ?? entry.Status.ToString());
            }

            json.WriteEndObject();
        }

        json.WriteEndObject();
        context.Response.Headers.CacheControl = "no-store";
        return buffer.SendAsync(context.Response, status == HealthStatus.Unhealthy ? StatusCodes.Status503ServiceUnavailable : StatusCodes.Status200OK, "application/json");
    }
}
