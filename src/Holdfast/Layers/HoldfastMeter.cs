using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Holdfast;

/// <summary>The instruments of the <c>Holdfast</c> meter and activity source; named in docs/operating.md.</summary>
internal static class HoldfastMeter
{
    public const string Name = "Holdfast";

    private static readonly Meter s_meter = new(Name, typeof(HoldfastMeter).Assembly.GetName().Version?.ToString());

    public static ActivitySource Activities { get; } = new(Name, s_meter.Version);

    public static Counter<long> Commands { get; } =
        s_meter.CreateCounter<long>("holdfast.commands", "{command}", "Commands answered, by verb and outcome.");

    public static Counter<long> Units { get; } =
        s_meter.CreateCounter<long>("holdfast.units", "{unit}", "Units moved by commands that applied now, by verb.");

    public static Histogram<double> CallDuration { get; } =
        s_meter.CreateHistogram<double>("holdfast.call.duration", "s", "Time from a call of the engine to its answer.");

    public static Histogram<int> BatchCommands { get; } =
        s_meter.CreateHistogram<int>("holdfast.batch.commands", "{command}", "Commands that one group commit took.");

    public static UpDownCounter<long> QueuedCommands { get; } =
        s_meter.CreateUpDownCounter<long>("holdfast.queue.commands", "{command}", "Commands that wait for a group commit.");

    public static Counter<long> Attempts { get; } =
        s_meter.CreateCounter<long>("holdfast.sharding.attempts", "{attempt}", "Attempts at commands over several shards.");

    public static Counter<long> Aborts { get; } =
        s_meter.CreateCounter<long>("holdfast.sharding.aborts", "{attempt}", "Attempts at commands over several shards that let go of what they had prepared.");

    public static Counter<long> Retries { get; } =
        s_meter.CreateCounter<long>("holdfast.retries", "{command}", "Commands in doubt that were sent again with the same id.");
}
