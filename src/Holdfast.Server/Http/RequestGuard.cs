using Microsoft.AspNetCore.Connections;

namespace Holdfast.Server.Http;

/// <summary>The one middleware: bounds the requests at work, and gives every failure a problem document.</summary>
internal sealed class RequestGuard(int maxConcurrentRequests, ILogger<HoldfastServerOptions> logger)
{
    private int _active;

    public async Task InvokeAsync(HttpContext context, RequestDelegate next)
    {
        try
        {
            if (Interlocked.Increment(ref _active) > maxConcurrentRequests && !context.Request.Path.StartsWithSegments("/health", StringComparison.Ordinal))
            {
                await Problem.RefusalAsync(context, StockResult.Of(StockStatus.Busy, $"{maxConcurrentRequests} requests are at work already; send the same request again."));
                return;
            }

            await next(context);
            if (context.Response is { StatusCode: >= 400, HasStarted: false, ContentLength: null })
            {
                await StatusAsync(context, context.Response.StatusCode);
            }
        }
        catch (BadHttpRequestException e) when (!context.Response.HasStarted)
        {
            await (e.StatusCode switch
            {
                StatusCodes.Status413PayloadTooLarge => Problem.InvalidAsync(context, "body", "body is larger than this server takes", e.StatusCode),
                StatusCodes.Status408RequestTimeout => Problem.InvalidAsync(context, "body", "body arrived too slowly", e.StatusCode),
                _ => Problem.InvalidAsync(context, "body", $"body could not be read: {e.Message}", e.StatusCode),
            });
        }
        catch (Exception e) when (context.RequestAborted.IsCancellationRequested || e is BadHttpRequestException or ConnectionResetException or ConnectionAbortedException)
        {
            // The caller went away, or sent nonsense in the middle of a stream: nobody is left to answer. What was accepted stays decided.
            logger.LogDebug(e, "{Method} {Path}: the caller went away.", context.Request.Method, context.Request.Path);
            context.Abort();
        }
        catch (Exception e)
        {
            logger.LogError(e, "{Method} {Path} failed.", context.Request.Method, context.Request.Path);
            if (context.Response.HasStarted)
            {
                // A cut connection can't be mistaken for a complete answer.
                context.Abort();
                return;
            }

            context.Response.Clear();
            await Problem.OtherAsync(context, StatusCodes.Status500InternalServerError, "InternalError", "The server failed", "The failure is in the server's log. A command may have applied: ask for its id before giving up.");
        }
        finally
        {
            Interlocked.Decrement(ref _active);
        }
    }

    private static ValueTask StatusAsync(HttpContext context, int status) => status switch
    {
        StatusCodes.Status404NotFound => Problem.OtherAsync(context, status, "NotFound", "There is nothing here",
            $"{context.Request.Method} {context.Request.Path} does not exist; GET /openapi/v1.json lists what does."),
        StatusCodes.Status405MethodNotAllowed => Problem.OtherAsync(context, status, "MethodNotAllowed", "The path does not take this method",
            $"{context.Request.Path} takes {context.Response.Headers.Allow}."),
        _ => Problem.OtherAsync(context, status, "Error", "The request failed", $"HTTP status {status}."),
    };
}
