using Holdfast.Server.Http;
using Holdfast.Server.Security;

namespace Holdfast.Server.OpenApi;

/// <summary>
/// What the OpenAPI document says about one endpoint. It stands beside the endpoint in the table of routes, since bodies
/// are read and written by hand and no reflection could know them.
/// </summary>
internal sealed record EndpointDoc(string OperationId, string Tag, string Summary)
{
    public string? Description { get; init; }

    /// <summary>The role that a key needs; <see langword="null"/> where no key is asked for.</summary>
    public Roles? Role { get; init; } = Roles.None;

    public Parameter[] Parameters { get; init; } = [];

    /// <summary>The schema of the request body; none when <see langword="null"/>.</summary>
    public string? Request { get; init; }

    public string RequestType { get; init; } = "application/json";

    public string? RequestExample { get; init; }

    /// <summary>The schema of the answer with status 200.</summary>
    public required string Answer { get; init; }

    public string AnswerType { get; init; } = "application/json";

    public int AnswerStatus { get; init; } = StatusCodes.Status200OK;

    public string AnswerDescription { get; init; } = "The answer.";

    /// <summary>The refusals that this endpoint can answer, beside those that every endpoint can.</summary>
    public StockStatus[] Outcomes { get; init; } = [];

    /// <summary>Other statuses with a problem document.</summary>
    public (int Status, string Description)[] Problems { get; init; } = [];

    /// <summary>Whether a command may be answered 202: a queue accepted it.</summary>
    public bool MayBePending { get; init; }

    /// <summary>The problem statuses with the outcomes behind each.</summary>
    public IEnumerable<(int Status, string Description)> AllProblems()
    {
        var all = new List<(int Status, string Description)>(Problems);
        all.AddRange(Outcomes.Select(outcome => (Problem.StatusOf(outcome), $"{outcome}: {Problem.TitleOf(outcome)}.")));
        return all.GroupBy(problem => problem.Status).OrderBy(group => group.Key)
            .Select(group => (group.Key, string.Join(" ", group.Select(problem => problem.Description))));
    }

    public sealed record Parameter(string Name, bool InPath, string Schema, string Description, bool Repeats = false);
}
