using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Holdfast.Ladder;

/// <summary>Where a rung writes: its lines to the console, and to a file as well when one is asked for; or one JSON object at the end.</summary>
internal sealed class Output(TextWriter console, TextWriter progress, bool json, string? file, bool fileAsJsonToo = false)
{
    private static readonly JsonSerializerOptions JsonOptions = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
    };

    private readonly StringBuilder _text = new();

    /// <summary>Writes a line of the report.</summary>
    public void Line(string text = "")
    {
        _text.Append(text).Append('\n');
        (json ? progress : console).WriteLine(text);
    }

    /// <summary>Says what machine and runtime the figures come from.</summary>
    public void Heading(string title, params string[] settings)
    {
        Line(title);
        Line($"machine: {Environment.ProcessorCount} cores ({RuntimeInformation.ProcessArchitecture}), {RuntimeInformation.OSDescription}, {RuntimeInformation.FrameworkDescription}, {(System.Runtime.GCSettings.IsServerGC ? "server" : "workstation")} GC; the machine may be shared: compare within one run");
        foreach (var setting in settings)
        {
            Line(setting);
        }

        Line();
    }

    /// <summary>Writes the JSON object, and the file.</summary>
    public async Task FinishAsync(object report)
    {
        if (json)
        {
            await console.WriteLineAsync(JsonSerializer.Serialize(report, JsonOptions)).ConfigureAwait(false);
        }

        if (file is not null)
        {
            var folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
            Directory.CreateDirectory(folder);
            await File.WriteAllTextAsync(file, _text.ToString()).ConfigureAwait(false);
            if (fileAsJsonToo)
            {
                await File.WriteAllTextAsync(Path.ChangeExtension(file, ".json"), JsonSerializer.Serialize(report, JsonOptions) + "\n").ConfigureAwait(false);
            }
        }
    }

    /// <summary>A number as the reports show it.</summary>
    public static string Show(double value) => Math.Abs(value) >= 100
        ? value.ToString("#,##0", CultureInfo.InvariantCulture)
        : value.ToString("0.###", CultureInfo.InvariantCulture);
}
