using Holdfast.Server.Http;

namespace Holdfast.Server.Security;

/// <summary>Puts the check of API keys in front of an endpoint; with no key configured nothing is put there.</summary>
internal static class Guard
{
    private const Roles Everything = Roles.Read | Roles.Sell | Roles.Stock;

    /// <summary>Only keys with a role; any valid key where the role is <see cref="Roles.None"/>.</summary>
    public static RequestDelegate With(ApiKeys keys, Roles needed, RequestDelegate endpoint) =>
        !keys.AreRequired ? endpoint : context => keys.Identify(context.Request) switch
        {
            null => UnauthorizedAsync(context),
            { } roles when (roles & needed) != needed => ForbiddenAsync(context, needed),
            _ => endpoint(context),
        };

    /// <summary>Any valid key; the endpoint checks its roles by itself.</summary>
    public static RequestDelegate WithRoles(ApiKeys keys, Func<HttpContext, Roles, Task> endpoint) =>
        !keys.AreRequired ? context => endpoint(context, Everything) : context => keys.Identify(context.Request) switch
        {
            null => UnauthorizedAsync(context),
            { } roles => endpoint(context, roles),
        };

    private static Task UnauthorizedAsync(HttpContext context)
    {
        context.Response.Headers.WWWAuthenticate = "Bearer";
        return Problem.OtherAsync(context, StatusCodes.Status401Unauthorized, "Unauthorized", "A valid API key is needed",
            "Send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'.").AsTask();
    }

    private static Task ForbiddenAsync(HttpContext context, Roles needed) =>
        Problem.OtherAsync(context, StatusCodes.Status403Forbidden, "Forbidden", "The API key has not the role that this needs",
            $"This needs a key with the role {needed.ToString().ToLowerInvariant()}.").AsTask();
}
