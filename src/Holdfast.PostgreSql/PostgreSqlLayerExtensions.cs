using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <summary>Adds what this package has to a <see cref="StockEngineBuilder"/>; clocks and loggers come from its services.</summary>
public static class PostgreSqlLayerExtensions
{
    /// <summary>
    /// Adds a <see cref="StandbyPreCheck"/> layer; usually outside group commit. The store at the bottom must be
    /// a <see cref="PostgreSqlEngine"/>.
    /// </summary>
    /// <param name="builder">The composition.</param>
    /// <param name="options">
    /// How to reach and trust the standby; <see langword="null"/> takes the store's own connection string, which must
    /// then name several hosts, the standby among them.
    /// </param>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public static StockEngineBuilder UseStandbyPreCheck(this StockEngineBuilder builder, StandbyOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(builder);
        options?.Validate();
        return builder.Use((inner, services) =>
        {
            var store = inner;
            while (store is DelegatingStockEngine layer)
            {
                store = layer.Inner;
            }

            if (store is not PostgreSqlEngine primary)
            {
                throw new InvalidOperationException($"A pre-check on a standby needs a PostgreSqlEngine at the bottom, not a {store.GetType().Name}.");
            }

            return new StandbyPreCheck(inner, primary, options ?? primary.OwnStandby(), services.GetService<TimeProvider>(), services.GetService<ILogger<StandbyPreCheck>>());
        });
    }
}
