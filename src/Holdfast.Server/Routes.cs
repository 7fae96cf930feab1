using Holdfast.Hosting;
using Holdfast.Server.Endpoints;
using Holdfast.Server.Http;
using Holdfast.Server.OpenApi;
using Holdfast.Server.Security;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using static Holdfast.StockStatus;

namespace Holdfast.Server;

/// <summary>The table of all endpoints: where they are, who may call them, what they take and answer.</summary>
internal static class Routes
{
    private const string Selling = "Selling";
    private const string Stocking = "Stocking";
    private const string Reading = "Reading";
    private const string Operating = "Operating";
    private const string Queueing = "Queueing";

    private static readonly EndpointDoc.Parameter s_sku = new("sku", InPath: true, ApiSchemas.Key, "The SKU, percent-encoded (a slash is %2F). A SKU of dots alone can't stand in a path: use the query.");
    private static readonly EndpointDoc.Parameter s_id = new("id", InPath: true, ApiSchemas.Key, "The operation's id, percent-encoded (a slash is %2F).");
    private static readonly EndpointDoc.Parameter s_after = new("after", InPath: false, ApiSchemas.Cursor, "Goes on after the page whose `next` this is.");
    private static readonly EndpointDoc.Parameter s_limit = new("limit", InPath: false, ApiSchemas.Limit, "Most items of the page.");
    private static readonly EndpointDoc.Parameter s_maxStaleness = new(Query.MaxStalenessName, InPath: false, ApiSchemas.Staleness, "How old the answer may be, in seconds: more than 0 lets a standby answer, where there is one. What it does not show yet is missing.");
    private static readonly (int, string) s_invalid = (StatusCodes.Status400BadRequest, "Invalid: the input breaks the contract; `field` says where. Nothing was applied.");

    private static readonly (int, string) s_unavailable = (StatusCodes.Status503ServiceUnavailable, "StoreUnavailable: the store could not be read; ask again.");

    public static void Map(WebApplication app, HoldfastServerOptions options)
    {
        var services = app.Services;
        var engine = services.GetRequiredService<IStockEngine>();
        var bounds = new TimeBounds(options.Http.RequestTimeout);
        var commands = new CommandEndpoints(engine, bounds);
        var reads = new ReadEndpoints(engine, services.GetRequiredService<OpenedSchemeAccessor>(), bounds);
        var batch = new BatchEndpoint(engine, options.Http, app.Lifetime, services.GetRequiredService<ILogger<BatchEndpoint>>());
        var reconciliation = new ReconciliationEndpoint(services.GetRequiredService<GateReconciliation>(), services.GetService<TimeProvider>() ?? TimeProvider.System);
        var queue = new QueueEndpoints(services.GetRequiredService<OpenedSchemeAccessor>(), reads, engine, bounds, services.GetService<TimeProvider>() ?? TimeProvider.System, app.Lifetime);
        var health = new HealthEndpoints(services.GetRequiredService<HealthCheckService>(), services.GetService<TimeProvider>() ?? TimeProvider.System);
        var keys = new ApiKeys(options.ApiKeys);

        Body(StockVerb.Deduct, "/v1/deductions", commands.FromBody(StockVerb.Deduct, "orderId"),
            new("deduct", Selling, "Sells: takes units of every line, all or none.")
            {
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done, or Replayed: the same order was deducted before. `left` says what is left of each SKU.",
                RequestExample = """{"orderId":"order-1","lines":[{"sku":"85123A","quantity":6}]}""",
                Outcomes = [KeyConflict, Cancelled, UnknownSku, Insufficient],
            });
        Body(StockVerb.Reserve, "/v1/reservations", commands.FromBody(StockVerb.Reserve, "orderId"),
            new("reserve", Selling, "Holds units of every line for a time, all or none.")
            {
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done or Replayed.",
                RequestExample = """{"orderId":"order-2","ttlSeconds":900,"lines":[{"sku":"85123A","quantity":1}]}""",
                Outcomes = [KeyConflict, Cancelled, Expired, UnknownSku, Insufficient],
            });
        Transition("/v1/reservations/{id}/confirm", commands.FromPath(StockCommand.Confirm),
            new("confirm", Selling, "Turns a live reservation into a sale.")
            {
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done, or Replayed: it was confirmed before.",
                Outcomes = [Expired, UnknownTarget, InvalidTargetState],
            });
        Transition("/v1/operations/{id}/cancel", commands.FromPath(StockCommand.Cancel),
            new("cancel", Selling, "Undoes an order or a reservation as if it had never happened.")
            {
                Description = "Safe in any order: an id that was not seen yet is closed for good, so that a late command with it is refused.",
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done; or Replayed: it was cancelled before, or has expired.",
                Outcomes = [InvalidTargetState],
            });
        Transition("/v1/operations/{id}/abandon", commands.FromPath(static id => StockCommand.Abandon(id)),
            new("abandon", Selling, "Closes an id that was never applied; changes nothing about one that was.")
            {
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done: the id is closed. Replayed: it was applied or closed before, and `original` says how it stands.",
            });
        Body(StockVerb.Refund, "/v1/refunds", commands.FromBody(StockVerb.Refund, "refundId", "orderId"),
            new("refund", Selling, "Gives units of an order back, never more than it took.")
            {
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done or Replayed.",
                RequestExample = """{"refundId":"refund-1","orderId":"order-1","lines":[{"sku":"85123A","quantity":2}]}""",
                Outcomes = [KeyConflict, Cancelled, UnknownTarget, InvalidTargetState, UnknownSku, ExceedsDeducted],
            });
        Body(StockVerb.Restock, "/v1/restocks", commands.FromBody(StockVerb.Restock, "restockId"),
            new("restock", Stocking, "Adds units, and makes the SKU known (0 is allowed for that).")
            {
                Role = Roles.Stock,
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done or Replayed.",
                RequestExample = """{"restockId":"delivery-1","lines":[{"sku":"85123A","quantity":100}]}""",
                Outcomes = [KeyConflict, Cancelled, ExceedsLimit],
            });
        Body(StockVerb.Adjust, "/v1/adjustments", commands.FromBody(StockVerb.Adjust, "adjustmentId"),
            new("adjust", Stocking, "Corrects the count up or down, never below zero, all lines or none.")
            {
                Role = Roles.Stock,
                Answer = ApiSchemas.Result,
                AnswerDescription = "Done or Replayed.",
                RequestExample = """{"adjustmentId":"count-1","lines":[{"sku":"85123A","quantity":-2}],"note":"broken in the store room"}""",
                Outcomes = [KeyConflict, Cancelled, UnknownSku, ExceedsLimit, Insufficient],
            });
        app.MapPost("/v1/batch", Guard.WithRoles(keys, batch.ExecuteAsync)).WithMetadata(
            new EndpointDoc("batch", Selling, "Many commands: one a line in, one answer a line out, in order, streamed.")
            {
                Description = "Newline-delimited JSON. The n-th line of the answer belongs to the n-th line of the request; a line that is no valid command, "
                    + "or that the key's roles do not allow, is answered in its place and its neighbours go on. Answers are sent while lines still arrive: "
                    + "read them at once, or keep a request below some 10,000 lines.",
                Request = ApiSchemas.BatchLine,
                RequestType = "application/x-ndjson",
                RequestExample = """
                    {"verb":"deduct","id":"order-1","lines":[{"sku":"85123A","quantity":6}]}
                    {"verb":"cancel","target":"order-0"}

                    """,
                Answer = ApiSchemas.BatchAnswer,
                AnswerType = "application/x-ndjson",
                AnswerDescription = "One answer a line.",
                Problems = [(StatusCodes.Status415UnsupportedMediaType, "Invalid: the content type is not application/x-ndjson.")],
                Outcomes = [Busy],
            });

        Get("/v1/stock", reads.StockAsync, new("listStock", Reading, "The stock of the SKUs named, or a page of all with a prefix.")
        {
            Description = "With sku: those, in the order asked, version 0 where a SKU was never stocked. Otherwise known SKUs in the order of their UTF-8 bytes.",
            Parameters =
            [
                new("sku", InPath: false, ApiSchemas.Key, "A SKU; up to 1,000 times.", Repeats: true),
                new("prefix", InPath: false, ApiSchemas.Text, "Only SKUs that begin with it."),
                s_after with { Schema = ApiSchemas.Key },
                s_limit,
                s_maxStaleness with { Description = "With sku: how old the answer may be, in seconds; more than 0 lets a standby answer, where there is one. A page is never old." },
            ],
            Answer = ApiSchemas.LevelPage,
            AnswerDescription = "A page.",
        });
        Get("/v1/stock/{sku}", reads.StockOfOneAsync, new("getStock", Reading, "The stock of one SKU.")
        {
            Parameters = [s_sku, s_maxStaleness],
            Answer = ApiSchemas.Level,
            AnswerDescription = "The stock level.",
            Outcomes = [UnknownSku],
        });
        Get("/v1/stock/{sku}/flow", reads.FlowOfOneAsync, new("getFlow", Reading, "The ledger of one SKU, in order of version. Where older entries were archived, an entry of kind opening stands for them.")
        {
            Parameters = [s_sku, s_after, s_limit, s_maxStaleness],
            Answer = ApiSchemas.FlowPage,
            AnswerDescription = "A page.",
            Outcomes = [UnknownSku],
        });
        Get("/v1/flow", reads.FlowAsync, new("listFlow", Reading, "The ledger of the whole store, in an order that agrees with every SKU's versions. Where older entries were archived, entries of kind opening stand for them.")
        {
            Parameters = [new("sku", InPath: false, ApiSchemas.Key, "Only this SKU; no entries when it was never stocked."), s_after, s_limit, s_maxStaleness],
            Answer = ApiSchemas.FlowPage,
            AnswerDescription = "A page.",
        });
        Get("/v1/operations", reads.OperationsAsync, new("listOperations", Reading, "Operations, in the store's own stable order.")
        {
            Parameters =
            [
                new("id", InPath: false, ApiSchemas.Key, "Only the operation with this id; no items when there is none."),
                new("state", InPath: false, ApiSchemas.State, "Only those in this state."),
                new("due", InPath: false, ApiSchemas.Flag, "Only reservations whose time has passed and whose units the ledger has not released yet."),
                new("createdBefore", InPath: false, ApiSchemas.Time, "Only those created before this instant."),
                new("target", InPath: false, ApiSchemas.Key, "Only those that speak of this one (the refunds of an order)."),
                s_after,
                s_limit,
            ],
            Answer = ApiSchemas.OperationPage,
            AnswerDescription = "A page.",
        });
        Get("/v1/operations/{id}", queue.OperationAsync, new("getOperation", Reading, "One operation: how it stands, and what was refunded of it.")
        {
            Description = "In a scheme with a queue: with the verdict on the queued command, 202 while there is none, and the verdict alone for a request id.",
            Parameters = [s_id, new("wait", InPath: false, ApiSchemas.Wait, "In a scheme with a queue: for how long to wait for the verdict, in seconds.")],
            MayBePending = true,
            Answer = ApiSchemas.Operation,
            AnswerDescription = "The operation.",
            Problems = [(StatusCodes.Status404NotFound, "UnknownOperation: nothing was applied under this id. That is no verdict: it may still arrive; only cancel or abandon closes it.")],
        });
        QueueRoutes(app, keys, queue, options);
        app.MapGet("/v1/reconciliation", Guard.With(keys, Roles.Read, reconciliation.ReadAsync)).WithMetadata(
            new EndpointDoc("reconciliation", Operating, "How the gate of the scheme cached compares with its store.")
            {
                Description = "What the last comparison found; asking starts none. Copies that lag behind the traffic, or are not loaded, are no differences.",
                Role = Roles.Read,
                Answer = ApiSchemas.Reconciliation,
                AnswerDescription = "The last comparison that came to its end.",
                Problems =
                [
                    s_invalid,
                    (StatusCodes.Status404NotFound, "NothingToReconcile: the scheme keeps nothing twice, or this server does not compare."),
                    (StatusCodes.Status503ServiceUnavailable, "NotReconciledYet: none has come to its end since the start; ask again."),
                ],
            });
        app.MapGet("/v1/info", Guard.With(keys, Roles.None, reads.InfoAsync)).WithMetadata(
            new EndpointDoc("info", Operating, "What runs here: scheme, store, guarantees.") { Answer = ApiSchemas.Info, AnswerDescription = "About this server." });
        app.MapGet("/health/live", HealthEndpoints.LiveAsync).WithMetadata(
            new EndpointDoc("live", Operating, "Whether the process answers.") { Role = null, Answer = ApiSchemas.Health, AnswerDescription = "It does." });
        app.MapGet("/health/ready", health.ReadyAsync).WithMetadata(
            new EndpointDoc("ready", Operating, "Whether the store answers; asked at most once a second.")
            {
                Role = null,
                Answer = ApiSchemas.Health,
                AnswerDescription = "It does. With status 503 the same body says why not.",
            });
        app.MapOpenApi("/openapi/{documentName}.json");

        void Body(StockVerb verb, string path, RequestDelegate handler, EndpointDoc doc)
        {
            doc = WithCommandAnswers(doc) with { Request = ApiSchemas.Body(verb) };
            app.MapPost(path, Guard.With(keys, doc.Role!.Value, handler)).WithMetadata(doc with
            {
                Problems =
                [
                    s_invalid,
                    (StatusCodes.Status413PayloadTooLarge, $"Invalid: the body is larger than {options.Http.MaxBodyBytes} bytes."),
                    (StatusCodes.Status415UnsupportedMediaType, "Invalid: the content type is not application/json."),
                ],
            });
        }

        void Transition(string path, RequestDelegate handler, EndpointDoc doc)
        {
            doc = WithCommandAnswers(doc);
            app.MapPost(path, Guard.With(keys, doc.Role!.Value, handler)).WithMetadata(doc with { Parameters = [s_id], Problems = [s_invalid] });
        }

        void Get(string path, RequestDelegate handler, EndpointDoc doc) =>
            app.MapGet(path, Guard.With(keys, Roles.Read, handler))
                .WithMetadata(doc with { Role = Roles.Read, Problems = [.. doc.Problems, s_invalid, s_unavailable], Outcomes = [.. doc.Outcomes, Busy] });

        static EndpointDoc WithCommandAnswers(EndpointDoc doc) => doc with
        {
            Role = doc.Role == Roles.None ? Roles.Sell : doc.Role,
            MayBePending = true,
            Outcomes = [.. doc.Outcomes, Busy, InDoubt],
        };
    }

    /// <summary>What a scheme with a queue has beside the others; elsewhere they answer 404 NoQueue.</summary>
    private static void QueueRoutes(WebApplication app, ApiKeys keys, QueueEndpoints queue, HoldfastServerOptions options)
    {
        EndpointDoc.Parameter deadline = new("deadlineSeconds", InPath: false, ApiSchemas.Staleness, "From now to the deadline, at least 1: past it the command is abandoned. The server's default otherwise.");
        EndpointDoc.Parameter request = new("requestId", InPath: false, ApiSchemas.Key, "What the verdict is asked for by, instead of the command's id.");
        EndpointDoc.Parameter letter = new("letter", InPath: true, ApiSchemas.Text, "The dead letter.");
        (int, string) noQueue = (StatusCodes.Status404NotFound, "NoQueue: the scheme of this server has no queue.");
        (int, string)[] unavailable = [noQueue, s_invalid, (StatusCodes.Status503ServiceUnavailable, "QueueUnavailable: the queue can't be reached; ask again.")];
        (int, string)[] offered =
        [
            .. unavailable,
            (StatusCodes.Status413PayloadTooLarge, $"Invalid: the body is larger than {options.Http.MaxBodyBytes} bytes."),
            (StatusCodes.Status415UnsupportedMediaType, "Invalid: the content type is not application/json."),
        ];
        app.MapPost("/v1/orders", Guard.With(keys, Roles.Sell, queue.OrderAsync)).WithMetadata(
            new EndpointDoc("order", Queueing, "Accepts an order at once; it is decided in its turn.")
            {
                Description = "Answered 202 when the queue holds it durably, with the Location where the verdict is asked for; 429 when the queue is full. The verdict, a refusal included, is final for this id on every way.",
                Role = Roles.Sell,
                Parameters = [deadline, request],
                Request = ApiSchemas.Body(StockVerb.Deduct),
                RequestExample = """{"orderId":"order-1","lines":[{"sku":"85123A","quantity":6}]}""",
                Answer = ApiSchemas.Pending,
                AnswerStatus = StatusCodes.Status202Accepted,
                AnswerDescription = "Pending: the queue accepted it. Ask for the operation, with `wait`.",
                Problems = offered,
                Outcomes = [Busy, InDoubt],
            });
        app.MapPost("/v1/queue", Guard.WithRoles(keys, queue.CommandAsync)).WithMetadata(
            new EndpointDoc("enqueue", Queueing, "Accepts any command, in the form of batches; it is decided in its turn.")
            {
                Description = "Commands that speak of one order stay in their order. Without an id of its own (confirm, cancel, abandon) a command gets a request id, which the Location names.",
                Role = Roles.Sell,
                Parameters = [deadline, request],
                Request = ApiSchemas.BatchLine,
                RequestExample = """{"verb":"cancel","target":"order-1"}""",
                Answer = ApiSchemas.Pending,
                AnswerStatus = StatusCodes.Status202Accepted,
                AnswerDescription = "Pending: the queue accepted it.",
                Problems = offered,
                Outcomes = [Busy, InDoubt],
            });
        app.MapGet("/v1/operations/{id}/events", Guard.With(keys, Roles.Read, queue.EventsAsync)).WithMetadata(
            new EndpointDoc("operationEvents", Queueing, "The verdict as a server-sent event, once it is there.")
            {
                Role = Roles.Read,
                Parameters = [s_id],
                Answer = ApiSchemas.Verdict,
                AnswerType = "text/event-stream",
                AnswerDescription = "One event named verdict, and the end; comments while there is none.",
                Problems = unavailable,
            });
        app.MapGet("/v1/queue", Guard.With(keys, Roles.Read, queue.StateAsync)).WithMetadata(
            new EndpointDoc("queue", Queueing, "Depth, age, dead letters and the webhook's arrears.")
            {
                Role = Roles.Read,
                Answer = ApiSchemas.QueueState,
                AnswerDescription = "The state of the queue.",
                Problems = unavailable,
            });
        app.MapGet("/v1/queue/dead", Guard.With(keys, Roles.Read, queue.PeekAsync)).WithMetadata(
            new EndpointDoc("deadLetters", Queueing, "Messages that were given up, the oldest first.")
            {
                Role = Roles.Read,
                Parameters = [s_limit],
                Answer = ApiSchemas.DeadLetters,
                AnswerDescription = "They stay where they are.",
                Problems = unavailable,
            });
        app.MapPost("/v1/queue/dead/{letter}/requeue", Guard.With(keys, Roles.Stock, queue.RequeueAsync)).WithMetadata(
            new EndpointDoc("requeueDeadLetter", Queueing, "Sends a dead letter again under a new id.")
            {
                Role = Roles.Stock,
                Parameters = [letter, new("id", InPath: false, ApiSchemas.Key, "The new id: the old one is closed. For a command without an id of its own it is the request id.")],
                Answer = ApiSchemas.Pending,
                AnswerStatus = StatusCodes.Status202Accepted,
                AnswerDescription = "Pending: the queue accepted it.",
                Problems = [.. unavailable, (StatusCodes.Status404NotFound, "UnknownLetter: there is no such letter.")],
                Outcomes = [Busy, InDoubt],
            });
        app.MapDelete("/v1/queue/dead/{letter}", Guard.With(keys, Roles.Stock, queue.DropAsync)).WithMetadata(
            new EndpointDoc("dropDeadLetter", Queueing, "Removes a dead letter.")
            {
                Role = Roles.Stock,
                Parameters = [letter],
                Answer = ApiSchemas.Dropped,
                AnswerDescription = "It is gone.",
                Problems = [.. unavailable, (StatusCodes.Status404NotFound, "UnknownLetter: there is no such letter.")],
            });
    }
}
