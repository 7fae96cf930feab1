using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Server.Http;
using Holdfast.Wire;

namespace Holdfast.Server.Endpoints;

/// <summary><c>/v1/reconciliation</c>: what the last comparison of the gate with the store found. Asking starts none.</summary>
internal sealed class ReconciliationEndpoint(GateReconciliation reconciliation, TimeProvider clock)
{
    public async Task ReadAsync(HttpContext context)
    {
        if (context.Request.QueryString.HasValue)
        {
            await Problem.InvalidAsync(context, "query", "takes no parameters");
            return;
        }

        if (!reconciliation.HasGate || !reconciliation.IsEnabled)
        {
            await Problem.OtherAsync(context, StatusCodes.Status404NotFound, "NothingToReconcile", "Nothing is compared here", reconciliation.HasGate
                ? "This server has Holdfast:Reconciliation:Enabled set to false; ask one that compares."
                : "The scheme of this server keeps nothing twice. 'holdfast audit' replays its ledger against its stock.");
            return;
        }

        if (reconciliation.Latest is not { } latest)
        {
            context.Response.Headers.RetryAfter = "1";
            await Problem.OtherAsync(context, StatusCodes.Status503ServiceUnavailable, "NotReconciledYet", "No comparison has come to its end yet",
                reconciliation.Failure is null ? "The first one since the start of the server is under way." : "The last one failed; the reason is in the server's log.", retry: true);
            return;
        }

        var buffer = JsonBuffer.Rent();
        Write(buffer.Writer, latest);
        context.Response.Headers.CacheControl = "no-store";
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    }

    private void Write(Utf8JsonWriter json, GateComparison latest)
    {
        json.WriteStartObject();
        json.WriteString("at"u8, latest.At);
        json.WriteNumber("seconds"u8, Math.Round(latest.Duration.TotalSeconds, 3));
        json.WriteBoolean("lastFailed"u8, reconciliation.Failure is not null);
        json.WriteBoolean("clean"u8, latest.IsClean);
        json.WriteBoolean("open"u8, latest.IsOpen);
        json.WriteNumber("skus"u8, latest.Skus);
        json.WriteNumber("same"u8, latest.Same);
        json.WriteNumber("lagging"u8, latest.Lagging);
        json.WriteNumber("unloaded"u8, latest.Unloaded);
        json.WriteNumber("differing"u8, latest.Differing);
        json.WriteNumber("units"u8, latest.Units);
        if (latest.OldestAge is { } oldest)
        {
            // As of now: the difference has stood since the comparison, too.
            json.WriteNumber("oldestSeconds"u8, Math.Round((oldest + (clock.GetUtcNow() - latest.At - latest.Duration)).TotalSeconds, 3));
        }

        json.WriteNumber("backlog"u8, latest.Backlog);
        json.WriteNumber("backlogSeconds"u8, Math.Round(latest.BacklogAge?.TotalSeconds ?? 0, 3));
        json.WriteNumber("openIncidents"u8, latest.OpenIncidents);
        json.WriteStartArray("incidents"u8);
        foreach (var incident in latest.Incidents)
        {
            json.WriteStartObject();
            json.WritePropertyName("command"u8);
            StockJson.WriteCommand(json, incident.Command);
            json.WriteString("outcome"u8, StockJson.StatusName(incident.Outcome));
            json.WriteString("at"u8, incident.At);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("differences"u8);
        foreach (var difference in latest.Differences)
        {
            json.WriteStartObject();
            json.WriteString("sku"u8, difference.Sku);
            json.WriteString("kind"u8, KindName(difference.Kind));
            json.WriteNumber("units"u8, difference.Units);
            json.WriteString("since"u8, difference.Since);
            WriteSide(json, "stored", difference.Stored.Version, difference.Stored.Available, difference.Stored.Reserved);
            WriteSide(json, "copy", difference.Version, difference.Available, difference.Reserved);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>The name of a kind on the wire.</summary>
    public static string KindName(GateDifferenceKind kind) => kind.ToString().ToLowerInvariant();

    private static void WriteSide(Utf8JsonWriter json, string name, long? version, long? available, long? reserved)
    {
        json.WriteStartObject(name);
        WriteNumber(json, "version", version);
        WriteNumber(json, "available", available);
        WriteNumber(json, "reserved", reserved);
        json.WriteEndObject();
    }

    private static void WriteNumber(Utf8JsonWriter json, string name, long? number)
    {
        if (number is { } known)
        {
            json.WriteNumber(name, known);
        }
        else
        {
            json.WriteNull(name);
        }
    }
}
