using System.Globalization;
using System.Runtime.InteropServices;

namespace Holdfast.Cli.Compare;

/// <summary>What machine a figure comes from.</summary>
internal static class MachineText
{
    public static string Describe()
    {
        var memory = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (1024.0 * 1024 * 1024);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{Environment.ProcessorCount} cores ({RuntimeInformation.ProcessArchitecture}), {memory:0} GiB, {RuntimeInformation.OSDescription}, {RuntimeInformation.FrameworkDescription}; servers and load on the same machine");
    }
}
