using System.Net;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;

namespace Holdfast.Server;

/// <summary>Says loudly that others can reach a server which asks nobody for a key.</summary>
internal static class ExposureWarning
{
    public static void Add(WebApplication app, HoldfastServerOptions options)
    {
        if (options.ApiKeys.Count > 0)
        {
            return;
        }

        app.Lifetime.ApplicationStarted.Register(() =>
        {
            var addresses = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()?.Addresses ?? [];
            var exposed = addresses.Where(address => !IsLocal(address)).ToArray();
            if (exposed.Length > 0)
            {
                app.Logger.LogWarning(
                    "ANYBODY WHO REACHES {Addresses} CAN SELL AND RESTOCK: no API key is configured and the server listens beyond loopback. Configure Holdfast:ApiKeys, or listen on 127.0.0.1.",
                    string.Join(", ", exposed));
            }
        });
    }

    /// <summary>Whether only this machine can reach an address.</summary>
    internal static bool IsLocal(string address)
    {
        var binding = BindingAddress.Parse(address);
        return binding.IsUnixPipe || binding.IsNamedPipe || binding.Host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
            || (IPAddress.TryParse(binding.Host.Trim('[', ']'), out var ip) && IPAddress.IsLoopback(ip));
    }
}
