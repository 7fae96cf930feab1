using System.Runtime.InteropServices;

namespace Holdfast;

/// <summary>What a gate has done in one process.</summary>
/// <param name="Passed">Commands that it let through to the store.</param>
/// <param name="Refused">Commands that it refused by itself, of which the store saw nothing.</param>
/// <param name="Confirmed">Commands that it refused after one question about the stock, shared by all that waited.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct RedisGateCounts(long Passed, long Refused, long Confirmed)
{
    /// <summary>Commands that it acknowledged by itself.</summary>
    public long Acknowledged { get; init; }

    /// <summary>Commands that it had acknowledged and the store refused, as far as this process brought them there.</summary>
    public long Incidents { get; init; }
}
