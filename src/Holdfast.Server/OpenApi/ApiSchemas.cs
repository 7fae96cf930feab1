using System.Text.Json.Nodes;
using Holdfast.Wire;
using Microsoft.OpenApi;

namespace Holdfast.Server.OpenApi;

/// <summary>The JSON shapes of bodies and answers, with the bounds of the contract.</summary>
internal static class ApiSchemas
{
    public const string Problem = "Problem";
    public const string Result = "Result";
    public const string BatchLine = "BatchLine";
    public const string BatchAnswer = "BatchAnswer";
    public const string Level = "StockLevel";
    public const string LevelPage = "StockPage";
    public const string Operation = "Operation";
    public const string OperationPage = "OperationPage";
    public const string Flow = "FlowEntry";
    public const string FlowPage = "FlowPage";
    public const string Info = "ServerInfo";
    public const string Health = "Health";
    public const string Reconciliation = "Reconciliation";
    private const string Answer_ = "Answer";
    public const string Pending = "Pending";
    public const string Verdict = "Verdict";
    public const string QueueState = "QueueState";
    public const string DeadLetters = "DeadLetters";
    public const string Dropped = "Dropped";
    public const string Wait = "Wait";
    public const string Key = "Key";
    public const string Cursor = "Cursor";
    public const string Limit = "Limit";
    public const string Staleness = "Staleness";
    public const string Text = "Text";
    public const string Time = "Time";
    public const string Flag = "Flag";
    public const string State = "OperationState";

    /// <summary>The schema of the body of a command: <c>DeductBody</c> and so on.</summary>
    public static string Body(StockVerb verb) => $"{verb}Body";

    public static Dictionary<string, IOpenApiSchema> All(OpenApiDocument document)
    {
        IOpenApiSchema Ref(string name) => new OpenApiSchemaReference(name, document);
        var line = Object(("sku", Ref(Key)), ("quantity", Integer(1, StockLimits.MaxQuantity)));
        var restockLine = Object(("sku", Ref(Key)), ("quantity", Integer(0, StockLimits.MaxQuantity)));
        var adjustLine = Object(("sku", Ref(Key)), ("quantity", Integer(-StockLimits.MaxQuantity, StockLimits.MaxQuantity, "The change; not 0 after merging.")));
        var note = new OpenApiSchema { Type = JsonSchemaType.String | JsonSchemaType.Null, MaxLength = StockLimits.MaxNoteLength, Description = "Kept with the operation." };
        var ttl = new OpenApiSchema { Type = JsonSchemaType.Number, Minimum = "1", Maximum = "2592000", Description = "How long the reservation lives, in seconds." };
        return new()
        {
            [Key] = new OpenApiSchema
            {
                Type = JsonSchemaType.String,
                MinLength = 1,
                MaxLength = StockLimits.MaxKeyLength,
                Description = "A SKU or an id: case counts, inner spaces are allowed, no control characters, no leading or trailing white space.",
            },
            [Text] = new OpenApiSchema { Type = JsonSchemaType.String },
            [Cursor] = new OpenApiSchema { Type = JsonSchemaType.String, Description = "The `next` of the page before; opaque." },
            [Limit] = new OpenApiSchema { Type = JsonSchemaType.Integer, Minimum = "1", Maximum = "1000", Default = 100, Description = "Most items of the page." },
            [Staleness] = new OpenApiSchema { Type = JsonSchemaType.Number, Minimum = "0", Maximum = "2592000", Description = "How old an answer may be, in seconds." },
            [Wait] = new OpenApiSchema { Type = JsonSchemaType.Number, Minimum = "0", Maximum = "60", Default = 0, Description = "How long to wait, in seconds." },
            [Time] = new OpenApiSchema { Type = JsonSchemaType.String, Format = "date-time" },
            [Flag] = new OpenApiSchema { Type = JsonSchemaType.Boolean, Default = false },
            [State] = OneOf(Enum.GetValues<OperationState>().Where(state => state != OperationState.None).Select(StockViewJson.StateName)),
            ["Outcome"] = OneOf(Enum.GetValues<StockStatus>().Where(status => status != StockStatus.None).Select(StockJson.StatusName), "More may come; `retry` says what to do with an unknown one."),
            ["Verb"] = OneOf(Enum.GetValues<StockVerb>().Where(verb => verb != StockVerb.None).Select(StockJson.VerbName)),
            ["FlowKind"] = OneOf(Enum.GetValues<FlowKind>().Where(kind => kind != FlowKind.None).Select(StockViewJson.KindName)),
            ["Balance"] = Object(("sku", Ref(Key)), ("available", Integer(0, StockLimits.MaxSupplied))),
            ["Line"] = line,
            ["RestockLine"] = restockLine,
            ["AdjustLine"] = adjustLine,
            [Body(StockVerb.Deduct)] = Strict(Object(("orderId", Ref(Key)), ("lines", Lines(Ref("Line"))), ("note?", note))),
            [Body(StockVerb.Reserve)] = Strict(Object(("orderId", Ref(Key)), ("lines", Lines(Ref("Line"))), ("ttlSeconds", ttl), ("note?", note))),
            [Body(StockVerb.Refund)] = Strict(Object(("refundId", Ref(Key)), ("orderId", Ref(Key)), ("lines", Lines(Ref("Line"))), ("note?", note))),
            [Body(StockVerb.Restock)] = Strict(Object(("restockId", Ref(Key)), ("lines", Lines(Ref("RestockLine"))), ("note?", note))),
            [Body(StockVerb.Adjust)] = Strict(Object(("adjustmentId", Ref(Key)), ("lines", Lines(Ref("AdjustLine"))), ("note?", note))),
            [BatchLine] = Strict(Object(
                "One line of the request. Which fields it has hangs on the verb: id and lines for deduct, reserve, refund, restock and adjust; target for confirm, cancel, abandon and refund; ttlSeconds for reserve.",
                ("v?", new OpenApiSchema { Type = JsonSchemaType.Integer, Const = StockJson.FormatVersion.ToString() }),
                ("verb", Ref("Verb")), ("id?", Ref(Key)), ("target?", Ref(Key)), ("lines?", Lines(Ref("AdjustLine"))), ("ttlSeconds?", ttl), ("note?", note))),
            [BatchAnswer] = Object(
                "One line of the answer, for the line of the request in the same place: a result; or Invalid or Forbidden with the field, for a line that was not attempted.",
                ("outcome", OneOf(Enum.GetValues<StockStatus>().Where(status => status != StockStatus.None).Select(StockJson.StatusName).Concat(["Invalid", "Forbidden"]))),
                ("retry", Boolean()), ("original?", Ref("Outcome")), ("acknowledgedBy?", Text_()), ("sku?", Ref(Key)), ("available?", Integer(0, StockLimits.MaxSupplied)),
                ("left?", Array(Ref("Balance"))), ("field?", Text_()), ("detail?", Text_())),
            [Result] = Object(
                "What became of a command that stands.",
                ("outcome", Ref("Outcome")),
                ("retry", Boolean()),
                ("original?", Ref("Outcome")),
                ("acknowledgedBy?", OneOf(Enum.GetNames<Acknowledgement>().Where(name => name != nameof(Acknowledgement.None)), "Who vouches for the answer.")),
                ("left?", Array(Ref("Balance"), "What is left of each line's SKU."))),
            [Problem] = Object(
                "An error (RFC 9457).",
                ("type", new OpenApiSchema { Type = JsonSchemaType.String, Format = "uri", Description = "urn:holdfast:outcome:NAME for an outcome of a command, urn:holdfast:problem:NAME for anything else; stable." }),
                ("title", Text_()), ("status", Integer(400, 599)),
                ("outcome", new OpenApiSchema { Type = JsonSchemaType.String, Description = "The NAME of the type." }),
                ("retry", new OpenApiSchema { Type = JsonSchemaType.Boolean, Description = "Whether the same request may be sent again." }),
                ("original?", Ref("Outcome")),
                ("field?", new OpenApiSchema { Type = JsonSchemaType.String, Description = "Where the input is wrong, for example lines[3].quantity." }),
                ("sku?", Ref(Key)),
                ("available?", Integer(0, StockLimits.MaxSupplied, "Units available, or still refundable.")),
                ("detail?", Text_())),
            [Level] = Object(
                "Always available + reserved + sold = restocked + adjusted.",
                ("sku", Ref(Key)), ("available", Units()), ("reserved", Units()), ("sold", Units()), ("restocked", Units()),
                ("adjusted", Integer(-StockLimits.MaxSupplied, StockLimits.MaxSupplied)),
                ("version", new OpenApiSchema { Type = JsonSchemaType.Integer, Format = "int64", Minimum = "0", Description = "The number of the latest ledger entry; 0 for a SKU that was never stocked." })),
            [LevelPage] = Page(Ref(Level)),
            [Operation] = Object(
                ("id", Ref(Key)), ("verb", Ref("Verb")), ("state", Ref(State)), ("outcome", Ref("Outcome")), ("target?", Ref(Key)),
                ("lines?", Array(Object(("sku", Ref(Key)), ("quantity", Integer(-StockLimits.MaxQuantity, StockLimits.MaxQuantity)), ("refunded", Units())))),
                ("left?", Array(Ref("Balance"))), ("note?", Text_()), ("createdAt", Ref(Time)), ("expiresAt?", Ref(Time)), ("endedAt?", Ref(Time)), ("cursor?", Text_()),
                ("verdict?", Ref(Answer_))),
            [Answer_] = Object(
                "What a queued command was answered: a result, or a refusal.",
                ("outcome", Ref("Outcome")), ("retry", Boolean()), ("original?", Ref("Outcome")), ("acknowledgedBy?", Text_()), ("sku?", Ref(Key)),
                ("available?", Integer(0, StockLimits.MaxSupplied)), ("left?", Array(Ref("Balance"))), ("detail?", Text_())),
            [Pending] = Object(("id", Ref(Key)), ("outcome", OneOf(["Pending"])), ("retry", Boolean()), ("acknowledgedBy", OneOf(["Queue"]))),
            [Verdict] = Object(("id", Ref(Key)), ("verb", Ref("Verb")), ("operationId", Ref(Key)), ("at", Ref(Time)), ("verdict", Ref(Answer_))),
            [QueueState] = Object(
                ("location", Text_()), ("queues", Integer(1, 1_024)), ("waiting", Units()), ("deferred", Units()), ("inFlight", Units()),
                ("oldestSeconds", Seconds("For how long the oldest command has been waiting, as far as is known.")), ("consuming", Boolean()),
                ("retries", Units()), ("dead", Units()), ("deadHere", Units()), ("webhook", Object(("waiting", Units()), ("givenUp", Units())))),
            [DeadLetters] = Object(("items", Array(Object(
                ("letter", Text_()), ("queue", Integer(0, 1_024)), ("at", Ref(Time)), ("reason", Text_()), ("bytes", Units()), ("body", Text_()))))),
            [Dropped] = Object(("dropped", Boolean())),
            [OperationPage] = Page(Ref(Operation)),
            [Flow] = Object(
                ("sku", Ref(Key)), ("partition?", Integer(0, int.MaxValue)), ("version", Units()), ("operationId", Ref(Key)), ("kind", Ref("FlowKind")),
                ("availableChange", Integer(-StockLimits.MaxSupplied, StockLimits.MaxSupplied)), ("reservedChange", Integer(-StockLimits.MaxSupplied, StockLimits.MaxSupplied)),
                ("available", Units()), ("reserved", Units()), ("at", Ref(Time)),
                ("opening?", Object(
                    ("restocked", Units()), ("adjusted", Integer(-StockLimits.MaxSupplied, StockLimits.MaxSupplied)), ("supplied", Units()),
                    ("holds?", Array(Object(("operationId", Ref(Key)), ("units", Units())))))),
                ("cursor?", Text_())),
            [FlowPage] = Page(Ref(Flow)),
            [Info] = Object(
                ("name", Text_()), ("version", Text_()), ("scheme", Text_()), ("store", Text_()), ("durability", Text_()),
                ("traits", Array(OneOf(Enum.GetValues<StockTraits>().Where(trait => int.PopCount((int)trait) == 1).Select(trait => trait.ToString()))))),
            [Reconciliation] = Object(
                ("at", Ref(Time)), ("seconds", Seconds("How long it took.")), ("lastFailed", Boolean()), ("clean", Boolean()), ("open", Boolean()),
                ("skus", Units()), ("same", Units()), ("lagging", Units()), ("unloaded", Units()), ("differing", Units()), ("units", Units()),
                ("oldestSeconds?", Seconds("For how long the oldest difference has been known.")),
                ("backlog", Units()), ("backlogSeconds", Seconds("How long the oldest command in the gate's stream has waited; 0 without one.")), ("openIncidents", Units()),
                ("incidents", Array(Object(("command", new OpenApiSchema { Type = JsonSchemaType.Object }), ("outcome", Ref("Outcome")), ("at", Ref(Time))))),
                ("differences", Array(Object(
                    ("sku", Ref(Key)),
                    ("kind", OneOf(Enum.GetValues<GateDifferenceKind>().Where(kind => kind != GateDifferenceKind.None).Select(Endpoints.ReconciliationEndpoint.KindName))),
                    ("units", Units()), ("since", Ref(Time)), ("stored", Side()), ("copy", Side()))))),
            [Health] = Object(("status", OneOf(["Healthy", "Degraded", "Unhealthy"])), ("checks?", new OpenApiSchema { Type = JsonSchemaType.Object, AdditionalProperties = Text_() })),
        };
    }

    private static OpenApiSchema Units() => Integer(0, StockLimits.MaxSupplied);

    private static OpenApiSchema Seconds(string description) => new() { Type = JsonSchemaType.Number, Minimum = "0", Description = description };

    /// <summary>One side of a comparison; a number that can't be read is null.</summary>
    private static OpenApiSchema Side()
    {
        static OpenApiSchema Number() => new() { Type = JsonSchemaType.Integer | JsonSchemaType.Null, Format = "int64" };
        return Object(("version", Number()), ("available", Number()), ("reserved", Number()));
    }

    private static OpenApiSchema Text_() => new() { Type = JsonSchemaType.String };

    private static OpenApiSchema Boolean() => new() { Type = JsonSchemaType.Boolean };

    private static OpenApiSchema Integer(long least, long most, string? description = null) =>
        new() { Type = JsonSchemaType.Integer, Format = "int64", Minimum = least.ToString(), Maximum = most.ToString(), Description = description };

    private static OpenApiSchema Array(IOpenApiSchema items, string? description = null) =>
        new() { Type = JsonSchemaType.Array, Items = items, Description = description };

    private static OpenApiSchema Lines(IOpenApiSchema line) => new()
    {
        Type = JsonSchemaType.Array,
        Items = line,
        MinItems = 1,
        Description = $"At most {StockLimits.MaxLines} after lines of the same SKU were merged by adding.",
    };

    private static OpenApiSchema OneOf(IEnumerable<string> names, string? description = null) =>
        new() { Type = JsonSchemaType.String, Enum = [.. names.Select(name => (JsonNode)name)], Description = description };

    private static OpenApiSchema Page(IOpenApiSchema item) =>
        Object(("items", Array(item)), ("next?", new OpenApiSchema { Type = JsonSchemaType.String, Description = "Send it as `after` for the next page; absent on the last." }));

    private static OpenApiSchema Strict(OpenApiSchema schema)
    {
        schema.AdditionalPropertiesAllowed = false;
        return schema;
    }

    private static OpenApiSchema Object(params ReadOnlySpan<(string Name, IOpenApiSchema Schema)> fields) => Object(null, fields);

    /// <summary>An object; a name that ends in a question mark is optional.</summary>
    private static OpenApiSchema Object(string? description, params ReadOnlySpan<(string Name, IOpenApiSchema Schema)> fields)
    {
        var schema = new OpenApiSchema
        {
            Type = JsonSchemaType.Object,
            Description = description,
            Properties = new Dictionary<string, IOpenApiSchema>(),
            Required = new HashSet<string>(),
        };
        foreach (var (name, field) in fields)
        {
            schema.Properties.Add(name.TrimEnd('?'), field);
            if (!name.EndsWith('?'))
            {
                schema.Required.Add(name);
            }
        }

        return schema;
    }
}
