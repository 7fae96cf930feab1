using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Logging;

namespace Holdfast.Ladder;

/// <summary>Kestrel with endpoints that do nothing: the most that HTTP can give on this machine.</summary>
internal static class EmptyServer
{
    public const string Path = "empty";

    public static async Task RunAsync(Uri address)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls(address.AbsoluteUri);
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.AddServerHeader = false);
        await using var app = builder.Build();
        app.MapPost($"/{Path}", static _ => Task.CompletedTask);
        app.MapGet($"/{Path}", static _ => Task.CompletedTask);
        await app.RunAsync().ConfigureAwait(false);
    }
}
