using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Holdfast;

/// <summary>Adds the layers of this package to a <see cref="StockEngineBuilder"/>; clocks and loggers come from its services.</summary>
public static class LayerExtensions
{
    /// <summary>Adds a <see cref="GroupCommit"/> layer.</summary>
    /// <param name="builder">The composition.</param>
    /// <param name="options">Bounds; the defaults when <see langword="null"/>.</param>
    /// <exception cref="ArgumentException">An option is out of its range.</exception>
    public static StockEngineBuilder UseGroupCommit(this StockEngineBuilder builder, GroupCommitOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(builder);
        options ??= new();
        options.Validate();
        return builder.Use((inner, services) =>
            new GroupCommit(inner, options, services.GetService<TimeProvider>(), services.GetService<ILogger<GroupCommit>>()));
    }

    /// <summary>Adds a <see cref="Telemetry"/> layer; usually the first, so that it sees what callers see.</summary>
    /// <param name="builder">The composition.</param>
    public static StockEngineBuilder UseTelemetry(this StockEngineBuilder builder)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.Use(inner => new Telemetry(inner));
    }
}
