using System.Text.Json;
using Holdfast.Cli;

namespace Holdfast.Tests.Cli;

/// <summary>One run of the command, in this process: what it wrote and how it ended.</summary>
internal sealed record CommandRun(int ExitCode, string Output, string Error)
{
    /// <summary>The real orders that come with the repository.</summary>
    public static string Sample { get; } = Path.Combine(Repository.Root, "samples", "online-retail-2010-12.csv.gz");

    /// <summary>The one JSON object of <c>--json</c>; anything else on the output is an error.</summary>
    public JsonElement Json
    {
        get
        {
            using var document = JsonDocument.Parse(Output);
            return document.RootElement.Clone();
        }
    }

    public static async Task<CommandRun> RunAsync(params string[] args)
    {
        var output = new StringWriter();
        var error = new StringWriter();
        var code = await CommandLineApp.RunAsync(args, new Terminal(output, error, isInteractive: false), TestContext.Current.CancellationToken);
        return new(code, output.ToString(), error.ToString());
    }
}

/// <summary>A folder for one test's files.</summary>
internal sealed class TestFolder : IDisposable
{
    private readonly string _path = Directory.CreateTempSubdirectory("holdfast-cli-test-").FullName;

    public string File(string name) => Path.Combine(_path, name);

    /// <summary>Writes a CSV of invoices: rows as <c>InvoiceNo,StockCode,Quantity,CustomerID</c>.</summary>
    public string Csv(params string[] rows) => Text("orders.csv", $"InvoiceNo,StockCode,Quantity,CustomerID\n{string.Join('\n', rows)}\n");

    public string Text(string name, string content)
    {
        System.IO.File.WriteAllText(File(name), content);
        return File(name);
    }

    public void Dispose() => Directory.Delete(_path, recursive: true);
}
