using Holdfast;
using Holdfast.Hosting;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Adds a Holdfast engine to a host.</summary>
public static class HoldfastServiceCollectionExtensions
{
    /// <summary>The tag of the health check that asks the store.</summary>
    public const string ReadyTag = "ready";

    /// <summary>
    /// Adds <see cref="IStockEngine"/> as a singleton that runs the scheme of the configuration section <c>Holdfast</c>,
    /// opened when the host starts and disposed after it has stopped, with a health check of the store and the sweeper
    /// for reservations whose time has passed.
    /// </summary>
    /// <param name="services">The host's services.</param>
    /// <param name="configuration">The application's configuration; its section <c>Holdfast</c> is bound.</param>
    public static IServiceCollection AddHoldfast(this IServiceCollection services, IConfiguration configuration)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(configuration);
        services.AddOptions<HoldfastOptions>().Bind(configuration.GetSection(HoldfastOptions.SectionName));
        return AddEngine(services);
    }

    /// <summary>Adds <see cref="IStockEngine"/> with options set in code; otherwise as with configuration.</summary>
    /// <param name="services">The host's services.</param>
    /// <param name="configure">Sets the options; the defaults when <see langword="null"/>.</param>
    public static IServiceCollection AddHoldfast(this IServiceCollection services, Action<HoldfastOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(services);
        services.AddOptions<HoldfastOptions>().Configure(configure ?? (_ => { }));
        return AddEngine(services);
    }

    private static IServiceCollection AddEngine(IServiceCollection services)
    {
        services.AddOptions<HoldfastOptions>().ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<HoldfastOptions>, OptionsCheck>());
        services.TryAddSingleton<StockEngineFactory>(static (provider, cancellationToken) =>
        {
            var options = provider.GetRequiredService<IOptions<HoldfastOptions>>().Value;
            return SchemeCatalog.OpenAsync(options.Scheme, options.AllStores, options, provider, readOnly: false, cancellationToken);
        });
        services.TryAddSingleton<HostedStockEngine>();
        services.TryAddSingleton<IStockEngine>(static provider => provider.GetRequiredService<HostedStockEngine>());
        services.TryAddSingleton(static provider => new OpenedSchemeAccessor(provider.GetRequiredService<HostedStockEngine>()));
        services.AddSingleton<IHostedService>(static provider => provider.GetRequiredService<HostedStockEngine>());
        services.AddHostedService<ReservationSweeper>();
        services.TryAddSingleton<GateReconciliation>();
        services.AddSingleton<IHostedService>(static provider => provider.GetRequiredService<GateReconciliation>());
        services.AddHealthChecks().AddCheck<StoreHealthCheck>("store", tags: [ReadyTag]);
        return services;
    }

    private sealed class OptionsCheck : IValidateOptions<HoldfastOptions>
    {
        public ValidateOptionsResult Validate(string? name, HoldfastOptions options)
        {
            var problems = options.Problems();
            return problems.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(problems);
        }
    }
}
