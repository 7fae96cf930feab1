using Holdfast.Wire;

namespace Holdfast.Server.Http;

/// <summary>
/// Error answers: <c>application/problem+json</c> (RFC 9457). An outcome of the contract has the type
/// <c>urn:holdfast:outcome:NAME</c> with the outcome's name as on the wire, anything else <c>urn:holdfast:problem:NAME</c>;
/// both are stable. Every problem says whether the same request may be sent again (<c>retry</c>).
/// </summary>
internal static class Problem
{
    public const string ContentType = "application/problem+json";

    /// <summary>Answers input that breaks the contract: nothing was applied.</summary>
    public static ValueTask InvalidAsync(HttpContext context, string field, string detail, int status = StatusCodes.Status400BadRequest)
    {
        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("type"u8, "urn:holdfast:problem:Invalid"u8);
        json.WriteString("title"u8, "The request is not valid; nothing was applied"u8);
        json.WriteNumber("status"u8, status);
        json.WriteString("outcome"u8, "Invalid"u8);
        json.WriteBoolean("retry"u8, false);
        json.WriteString("field"u8, field);
        json.WriteString("detail"u8, detail);
        json.WriteEndObject();
        return buffer.SendAsync(context.Response, status, ContentType);
    }

    /// <summary>Answers what is no outcome of a command: a path that does not exist, a missing key, a failure.</summary>
    public static ValueTask OtherAsync(HttpContext context, int status, string name, string title, string detail, bool retry = false)
    {
        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("type"u8, $"urn:holdfast:problem:{name}");
        json.WriteString("title"u8, title);
        json.WriteNumber("status"u8, status);
        json.WriteString("outcome"u8, name);
        json.WriteBoolean("retry"u8, retry);
        json.WriteString("detail"u8, detail);
        json.WriteEndObject();
        return buffer.SendAsync(context.Response, status, ContentType);
    }

    /// <summary>Answers a refusal.</summary>
    public static ValueTask RefusalAsync(HttpContext context, in StockResult result)
    {
        // A replay of a remembered refusal is answered as that refusal.
        var status = result.Status == StockStatus.Replayed ? result.Original : result.Status;
        var code = StatusOf(status);
        if (result.IsRetryable)
        {
            context.Response.Headers.RetryAfter = "1";
        }

        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("type"u8, $"urn:holdfast:outcome:{StockJson.StatusName(status)}");
        json.WriteString("title"u8, TitleOf(status));
        json.WriteNumber("status"u8, code);
        StockJson.WriteResultFields(json, result.Detail is null ? result with { Detail = DetailOf(status, result) } : result);
        json.WriteEndObject();
        return buffer.SendAsync(context.Response, code, ContentType);
    }

    /// <summary>The HTTP status of an outcome.</summary>
    public static int StatusOf(StockStatus status) => status switch
    {
        StockStatus.Done or StockStatus.Replayed => StatusCodes.Status200OK,
        StockStatus.Pending => StatusCodes.Status202Accepted,
        StockStatus.UnknownTarget or StockStatus.UnknownSku => StatusCodes.Status404NotFound,
        StockStatus.KeyConflict or StockStatus.InvalidTargetState or StockStatus.ExceedsDeducted or StockStatus.Insufficient => StatusCodes.Status409Conflict,
        StockStatus.Cancelled or StockStatus.Expired => StatusCodes.Status410Gone,
        StockStatus.ExceedsLimit => StatusCodes.Status422UnprocessableEntity,
        StockStatus.Busy => StatusCodes.Status429TooManyRequests,
        StockStatus.InDoubt => StatusCodes.Status503ServiceUnavailable,
        _ => StatusCodes.Status500InternalServerError,
    };

    /// <summary>Whether an outcome is answered as a plain result and not as a problem.</summary>
    public static bool IsSuccess(in StockResult result) => result.Status switch
    {
        StockStatus.Done or StockStatus.Pending => true,
        StockStatus.Replayed => result.Original is StockStatus.Done or StockStatus.None or StockStatus.Cancelled or StockStatus.Expired,
        _ => false,
    };

    public static string TitleOf(StockStatus status) => status switch
    {
        StockStatus.KeyConflict => "The id was used before with other content",
        StockStatus.Cancelled => "The id was cancelled or abandoned",
        StockStatus.Expired => "The reservation's time has passed",
        StockStatus.UnknownTarget => "The target is not known",
        StockStatus.InvalidTargetState => "The target is not in the state that this needs",
        StockStatus.UnknownSku => "The SKU was never stocked",
        StockStatus.ExceedsLimit => "The SKU's units would pass the limit",
        StockStatus.ExceedsDeducted => "The refund would return more than was deducted",
        StockStatus.Insufficient => "Not enough units are available",
        StockStatus.Busy => "Not attempted: the service is busy",
        StockStatus.InDoubt => "It may or may not have applied",
        _ => status.ToString(),
    };

    private static string DetailOf(StockStatus status, in StockResult result) => status switch
    {
        StockStatus.KeyConflict => "Another command was sent with this id before. Use a new id for a new command.",
        StockStatus.Cancelled => "This id is closed for good. Use a new id to try again.",
        StockStatus.Expired => "The reservation's units were released. Begin anew with a new id.",
        StockStatus.UnknownTarget => "Nothing with this id was applied here. It may still arrive: retry later, or stop.",
        StockStatus.InvalidTargetState => "Read the operation to see how it stands.",
        StockStatus.UnknownSku => $"SKU '{result.Sku}' was never stocked here; a restock (of 0 units, if need be) makes it known.",
        StockStatus.ExceedsLimit => $"Units ever supplied of SKU '{result.Sku}' may not pass {StockLimits.MaxSupplied}.",
        StockStatus.ExceedsDeducted => $"{result.Available} units of SKU '{result.Sku}' can still be refunded on this order.",
        StockStatus.Insufficient => $"{result.Available} units of SKU '{result.Sku}' are available.",
        StockStatus.Busy => "Send the same command again with the same id.",
        StockStatus.InDoubt => "Send the same command again with the same id, or read the operation, or close it with abandon or cancel.",
        _ => "",
    };
}
