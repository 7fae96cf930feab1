using Holdfast.Client;
using Microsoft.Extensions.DependencyInjection.Extensions;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Registers a <see cref="HoldfastClient"/>.</summary>
public static class HoldfastClientServiceCollectionExtensions
{
    /// <summary>
    /// Registers one <see cref="HoldfastClient"/> for the whole application, also as <see cref="Holdfast.IStockEngine"/>
    /// unless one is registered already. It keeps its own connections and renews them, so it needs no client factory.
    /// </summary>
    /// <param name="services">The services.</param>
    /// <param name="configure">Sets the options; checked at once, so that a mistake stops the application at its start.</param>
    /// <exception cref="ArgumentException">An option is out of its range; the message names it.</exception>
    public static IServiceCollection AddHoldfastClient(this IServiceCollection services, Action<HoldfastClientOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(configure);
        var options = new HoldfastClientOptions();
        configure(options);
        options.Validate();
        services.TryAddSingleton(_ => new HoldfastClient(options));
        services.TryAddSingleton<Holdfast.IStockEngine>(provider => provider.GetRequiredService<HoldfastClient>());
        return services;
    }
}
