using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Server.Http;
using Holdfast.Wire;
using Microsoft.AspNetCore.Connections;

namespace Holdfast.Server.Endpoints;

/// <summary>The endpoints that read.</summary>
internal sealed class ReadEndpoints(IStockEngine engine, OpenedSchemeAccessor opened, TimeBounds bounds)
{
    private const int MaxSkus = 1_000;
    private const int FlushBytes = 64 * 1024;

    /// <summary>The stock of one SKU, or a problem when it was never stocked.</summary>
    public Task StockOfOneAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        var query = new Query(context.Request, Query.MaxStalenessName);
        var sku = Checked("sku", PathSegment.Read(context, "sku", 2));
        var level = (await engine.GetStockAsync([sku], new() { MaxStaleness = query.MaxStaleness() }, cancellationToken))[0];
        if (!level.IsKnown)
        {
            await Problem.RefusalAsync(context, StockResult.Refused(StockStatus.UnknownSku, sku));
            return;
        }

        var buffer = JsonBuffer.Rent();
        StockViewJson.WriteLevel(buffer.Writer, level);
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    /// <summary>The stock of the SKUs named, in the order asked; or a page of those with a prefix.</summary>
    public Task StockAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        var query = new Query(context.Request, "sku", "prefix", "after", "limit", Query.MaxStalenessName);
        var maxStaleness = query.MaxStaleness();
        if (!query.Has("sku"))
        {
            var prefix = query.Text("prefix");
            var after = query.Key("after");
            await PageAsync(context, engine.ListStockAsync(string.IsNullOrEmpty(prefix) ? null : prefix, after, cancellationToken),
                query.Limit(), after: null, static (json, level) => StockViewJson.WriteLevel(json, level), level => level.Sku);
            return;
        }

        if (query.Has("prefix") || query.Has("after") || query.Has("limit"))
        {
            throw new InvalidCommandException("sku", "can't be combined with prefix, after or limit");
        }

        var skus = query.All("sku");
        if (skus.Count > MaxSkus)
        {
            throw new InvalidCommandException("sku", $"is given {skus.Count} times; at most {MaxSkus} are read at once");
        }

        var levels = await engine.GetStockAsync([.. skus.Select(sku => Checked("sku", sku))], new() { MaxStaleness = maxStaleness }, cancellationToken);
        var buffer = JsonBuffer.Rent();
        buffer.Writer.WriteStartObject();
        buffer.Writer.WriteStartArray("items"u8);
        foreach (var level in levels)
        {
            StockViewJson.WriteLevel(buffer.Writer, level);
        }

        buffer.Writer.WriteEndArray();
        buffer.Writer.WriteEndObject();
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    /// <summary>The ledger of one SKU.</summary>
    public Task FlowOfOneAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        var query = new Query(context.Request, "after", "limit", Query.MaxStalenessName);
        var sku = Checked("sku", PathSegment.Read(context, "sku", 2));
        if (!(await engine.GetStockAsync([sku], new() { MaxStaleness = query.MaxStaleness() }, cancellationToken))[0].IsKnown)
        {
            await Problem.RefusalAsync(context, StockResult.Refused(StockStatus.UnknownSku, sku));
            return;
        }

        await FlowPageAsync(context, sku, query, cancellationToken);
    });

    /// <summary>The ledger of the whole store, or of the SKU named.</summary>
    public Task FlowAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        var query = new Query(context.Request, "sku", "after", "limit", Query.MaxStalenessName);
        await FlowPageAsync(context, query.Key("sku"), query, cancellationToken);
    });

    /// <summary>One operation.</summary>
    public Task OperationAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        RefuseQuery(context);
        var id = Checked("id", PathSegment.Read(context, "id", 2));
        var operation = await engine.GetOperationAsync(id, cancellationToken);
        if (operation is null)
        {
            await Problem.OtherAsync(context, StatusCodes.Status404NotFound, "UnknownOperation", "No such operation yet",
                $"Nothing was applied under the id '{id}'. That is no verdict: the command may still arrive. Cancel or abandon closes the id for good.");
            return;
        }

        var buffer = JsonBuffer.Rent();
        StockViewJson.WriteOperation(buffer.Writer, operation);
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    });

    /// <summary>A page of operations, or the one with the id named (no item when there is none).</summary>
    public Task OperationsAsync(HttpContext context) => ReadAsync(context, async cancellationToken =>
    {
        var query = new Query(context.Request, "id", "state", "due", "createdBefore", "target", "after", "limit");
        if (query.Key("id") is { } id)
        {
            await PageAsync(context, One(await engine.GetOperationAsync(id, cancellationToken)), 1, after: null, StockViewJson.WriteOperation, operation => operation.Cursor);
            return;
        }

        var state = query.Text("state");
        OperationState? wanted = state is null ? null
            : StockViewJson.TryParseState(state, out var known) ? known
            : throw new InvalidCommandException("state", "must be one of applied, reserved, confirmed, cancelled, abandoned, expired");
        var limit = query.Limit();
        var after = query.Text("after");
        var operations = engine.ListOperationsAsync(
            new()
            {
                State = wanted,
                DueOnly = query.Flag("due"),
                CreatedBefore = query.Time("createdBefore"),
                Target = query.Key("target"),
                After = after,
                Limit = limit + 1,
            },
            cancellationToken);
        await PageAsync(context, operations, limit, after, StockViewJson.WriteOperation, operation => operation.Cursor);
    });

    /// <summary>What runs here.</summary>
    public async Task InfoAsync(HttpContext context)
    {
        var scheme = opened.Scheme;
        var buffer = JsonBuffer.Rent();
        var json = buffer.Writer;
        json.WriteStartObject();
        json.WriteString("name"u8, "Holdfast"u8);
        json.WriteString("version"u8, HoldfastServer.Version);
        json.WriteString("scheme"u8, scheme.Scheme);
        json.WriteString("store"u8, scheme.Store);
        json.WriteString("durability"u8, scheme.Durability);
        json.WriteStartArray("traits"u8);
        foreach (var trait in Enum.GetValues<StockTraits>())
        {
            if (System.Numerics.BitOperations.IsPow2((int)trait) && engine.Traits.HasFlag(trait))
            {
                json.WriteStringValue(trait.ToString());
            }
        }

        json.WriteEndArray();
        json.WriteEndObject();
        await buffer.SendAsync(context.Response, StatusCodes.Status200OK, "application/json");
    }

    private ValueTask FlowPageAsync(HttpContext context, string? sku, Query query, CancellationToken cancellationToken)
    {
        var limit = query.Limit();
        var after = query.Text("after");
        var entries = engine.ReadFlowAsync(new() { Sku = sku, After = after, Limit = limit + 1, MaxStaleness = query.MaxStaleness() }, cancellationToken);
        return PageAsync(context, entries, limit, after, static (json, entry) => StockViewJson.WriteFlow(json, entry), entry => entry.Cursor);
    }

    /// <summary>Runs a read within the time bound and turns invalid input into its problem.</summary>
    private async Task ReadAsync(HttpContext context, Func<CancellationToken, Task> read)
    {
        var bound = bounds.Rent();
        try
        {
            await read(bound.Token);
        }
        catch (InvalidCommandException e) when (!context.Response.HasStarted)
        {
            await Problem.InvalidAsync(context, e.Field, e.Message);
        }
        catch (OperationCanceledException) when (bound.IsCancellationRequested && !context.Response.HasStarted)
        {
            await Problem.RefusalAsync(context, StockResult.Of(StockStatus.Busy, $"The store did not answer within {bounds.Limit}; ask again."));
        }
        catch (IOException e) when (e is not BadHttpRequestException and not ConnectionResetException && !context.Response.HasStarted)
        {
            // The store's trouble (a lock held by somebody else, a disk), which may pass. Unlike a command, a read can always be repeated.
            context.RequestServices.GetRequiredService<ILogger<ReadEndpoints>>().LogError(e, "{Method} {Path}: the store could not be read.", context.Request.Method, context.Request.Path);
            context.Response.Headers.RetryAfter = "1";
            await Problem.OtherAsync(context, StatusCodes.Status503ServiceUnavailable, "StoreUnavailable", "The store could not be read", "The reason is in the server's log. Ask again.", retry: true);
        }
        finally
        {
            bounds.Return(bound);
        }
    }

    /// <summary>
    /// Writes <c>{"items":[…],"next":"…"}</c>. One item more than the limit is asked for, so that <c>next</c> is there exactly
    /// when there is more. Large pages are sent in parts.
    /// </summary>
    private static async ValueTask PageAsync<T>(HttpContext context, IAsyncEnumerable<T> items, int limit, string? after, ItemWriter<T> write, Func<T, string?> cursorOf)
    {
        await using var item = items.GetAsyncEnumerator(context.RequestAborted);
        bool isThere;
        try
        {
            isThere = await item.MoveNextAsync();
        }
        catch (ArgumentException e) when (after is not null && e is not InvalidCommandException)
        {
            throw new InvalidCommandException("after", "is not a cursor that this listing gave out");
        }

        var body = context.Response.BodyWriter;
        context.Response.ContentType = "application/json";
        await using var json = new Utf8JsonWriter(body, JsonBuffer.WriterOptions);
        json.WriteStartObject();
        json.WriteStartArray("items"u8);
        string? next = null;
        long sent = 0;
        for (var count = 0; isThere && count < limit; count++)
        {
            write(json, item.Current);
            next = cursorOf(item.Current);
            if (json.BytesCommitted + json.BytesPending - sent > FlushBytes)
            {
                json.Flush();
                sent = json.BytesCommitted;
                await body.FlushAsync(context.RequestAborted);
            }

            isThere = await item.MoveNextAsync();
        }

        json.WriteEndArray();
        if (isThere && next is not null)
        {
            json.WriteString("next"u8, next);
        }

        json.WriteEndObject();
    }

    private static async IAsyncEnumerable<OperationView> One(OperationView? operation)
    {
        await ValueTask.CompletedTask;
        if (operation is not null)
        {
            yield return operation;
        }
    }

    private static void RefuseQuery(HttpContext context)
    {
        if (context.Request.QueryString.HasValue)
        {
            _ = new Query(context.Request);
        }
    }

    private static string Checked(string field, string? key) =>
        StockKey.Problem(key) is { } problem ? throw new InvalidCommandException(field, problem) : key!;

    private delegate void ItemWriter<T>(Utf8JsonWriter json, T item);
}
