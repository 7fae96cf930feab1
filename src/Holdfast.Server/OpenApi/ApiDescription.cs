using System.Text.Json.Nodes;
using Holdfast.Server.Security;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace Holdfast.Server.OpenApi;

/// <summary>Writes the OpenAPI document from the table of routes.</summary>
internal sealed class ApiDescription(EndpointDataSource endpoints, HoldfastServerOptions options) : IOpenApiDocumentTransformer
{
    private const string BearerScheme = "bearer";
    private const string HeaderScheme = "apiKey";

    public Task TransformAsync(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellationToken)
    {
        document.Info = new()
        {
            Title = "Holdfast",
            Version = "v1",
            License = new() { Name = "MIT", Identifier = "MIT" },
            Description = $"""
                Inventory deduction (server {HoldfastServer.Version}). Every command carries the caller's id and may be sent again:
                a repetition never applies twice and is answered Replayed. Refusals change nothing and are problem documents
                whose type is urn:holdfast:outcome:NAME; `retry` says whether the same request may be sent again.
                """,
        };
        document.Paths = [];
        document.Components = new() { Schemas = ApiSchemas.All(document), SecuritySchemes = SecuritySchemes() };
        document.RegisterComponents();
        foreach (var endpoint in endpoints.Endpoints.OfType<RouteEndpoint>())
        {
            if (endpoint.Metadata.GetMetadata<EndpointDoc>() is { } doc)
            {
                var path = endpoint.RoutePattern.RawText!;
                if (!document.Paths.TryGetValue(path, out var item))
                {
                    document.Paths[path] = item = new OpenApiPathItem { Operations = [] };
                }

                var method = endpoint.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods[0];
                item.Operations!.Add(new HttpMethod(method), Operation(document, doc));
            }
        }

        return Task.CompletedTask;
    }

    private OpenApiOperation Operation(OpenApiDocument document, EndpointDoc doc)
    {
        var operation = new OpenApiOperation
        {
            OperationId = doc.OperationId,
            Summary = doc.Summary,
            Description = doc.Description,
            Tags = new HashSet<OpenApiTagReference> { new(doc.Tag, document) },
            Parameters = [.. doc.Parameters.Select(parameter => Parameter(document, parameter))],
            Responses = new() { [doc.AnswerStatus.ToString()] = Answer(document, doc.AnswerDescription, doc.AnswerType, doc.Answer) },
        };
        if (doc.Request is not null)
        {
            operation.RequestBody = new OpenApiRequestBody
            {
                Required = true,
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    [doc.RequestType] = new OpenApiMediaType
                    {
                        Schema = new OpenApiSchemaReference(doc.Request, document),
                        Example = doc.RequestExample is null ? null
                            : doc.RequestType == "application/json" ? JsonNode.Parse(doc.RequestExample) : JsonValue.Create(doc.RequestExample),
                    },
                },
            };
        }

        if (doc.MayBePending)
        {
            operation.Responses["202"] = Answer(document, "Pending: a queue accepted the command; the verdict comes later. Ask for the operation.", doc.AnswerType, doc.Answer);
        }

        foreach (var (status, description) in doc.AllProblems())
        {
            operation.Responses[status.ToString()] = Answer(document, description, Http.Problem.ContentType, ApiSchemas.Problem, retryAfter: status is 429 or 503);
        }

        if (doc.Role is { } role && options.ApiKeys.Count > 0)
        {
            operation.Description = $"{operation.Description} {(role == Roles.None ? "Needs any valid API key." : $"Needs an API key with the role {role.ToString().ToLowerInvariant()}.")}".Trim();
            operation.Security =
            [
                new() { [new(BearerScheme, document)] = [] },
                new() { [new(HeaderScheme, document)] = [] },
            ];
            operation.Responses["401"] = Answer(document, "A valid API key is needed.", Http.Problem.ContentType, ApiSchemas.Problem);
            operation.Responses["403"] = Answer(document, "The API key has not the role that this needs.", Http.Problem.ContentType, ApiSchemas.Problem);
        }

        operation.Responses["500"] = Answer(document, "The server failed.", Http.Problem.ContentType, ApiSchemas.Problem);
        return operation;
    }

    private static OpenApiParameter Parameter(OpenApiDocument document, EndpointDoc.Parameter parameter)
    {
        IOpenApiSchema schema = new OpenApiSchemaReference(parameter.Schema, document);
        return new()
        {
            Name = parameter.Name,
            In = parameter.InPath ? ParameterLocation.Path : ParameterLocation.Query,
            Required = parameter.InPath,
            Description = parameter.Description,
            Schema = parameter.Repeats ? new OpenApiSchema { Type = JsonSchemaType.Array, Items = schema } : schema,
            Explode = parameter.Repeats,
        };
    }

    private static OpenApiResponse Answer(OpenApiDocument document, string description, string mediaType, string schema, bool retryAfter = false)
    {
        var response = new OpenApiResponse
        {
            Description = description,
            Content = new Dictionary<string, OpenApiMediaType> { [mediaType] = new OpenApiMediaType { Schema = new OpenApiSchemaReference(schema, document) } },
        };
        if (retryAfter)
        {
            response.Headers = new Dictionary<string, IOpenApiHeader>
            {
                ["Retry-After"] = new OpenApiHeader { Description = "Seconds to wait.", Schema = new OpenApiSchema { Type = JsonSchemaType.Integer } },
            };
        }

        return response;
    }

    private Dictionary<string, IOpenApiSecurityScheme>? SecuritySchemes() => options.ApiKeys.Count == 0 ? null : new()
    {
        [BearerScheme] = new OpenApiSecurityScheme { Type = SecuritySchemeType.Http, Scheme = "bearer", Description = "Authorization: Bearer KEY" },
        [HeaderScheme] = new OpenApiSecurityScheme { Type = SecuritySchemeType.ApiKey, In = ParameterLocation.Header, Name = "X-Api-Key", Description = "X-Api-Key: KEY" },
    };
}
