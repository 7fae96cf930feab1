namespace Holdfast.Tests.Readme;

/// <summary>The README's code, compiled. The test beside it compares the region with the README to the letter.</summary>
internal static class ReadmeSnippet
{
    public static async Task RunAsync(string path, TextWriter output)
    {
#pragma warning disable CA2007, CA1849, MA0042, VSTHRD103 // As a newcomer would write it.
        // <readme>
        await using var stock = new StockEngineBuilder(SqliteEngine.Open(new SqliteOptions { Path = path }))
            .UseTelemetry()
            .UseGroupCommit()
            .Build();

        await stock.RestockAsync("delivery-1", [("85123A", 10), ("71053", 5)]);
        var sold = await stock.DeductAsync("order-1", [("85123A", 6), ("71053", 1)]);
        output.WriteLine($"{sold.Status}: {string.Join(", ", sold.Left.Select(line => $"{line.Available} of {line.Sku} left"))}");

        var refused = await stock.DeductAsync("order-2", [("85123A", 6), ("71053", 1)]);
        output.WriteLine(refused);
        // </readme>
#pragma warning restore CA2007, CA1849, MA0042, VSTHRD103
    }
}
