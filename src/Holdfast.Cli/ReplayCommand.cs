using System.CommandLine;
using System.Security.Cryptography;
using System.Text;
using Holdfast.Cli.Replay;

namespace Holdfast.Cli;

/// <summary><c>holdfast replay</c>: a real shop's invoices, deducted, written off and refunded in the order they happened.</summary>
internal static class ReplayCommand
{
    private const int StockPage = 500;
    private const int ProblemsShown = 20;

    public static Command Create(Terminal terminal)
    {
        var file = new Argument<string>("FILE") { Description = "A CSV file of invoices, plain or packed by gzip. The header names at least InvoiceNo, StockCode, Quantity and CustomerID." };
        var deployment = new DeploymentOptions();
        var opening = new Option<Opening>("--opening")
        {
            Description = "Units that every SKU of the file is stocked with first: a number (the same for all), P% of what is ordered of it, or 'demand' for all that is ordered.",
            HelpName = "N|P%|demand",
            DefaultValueFactory = _ => Opening.Demand,
            CustomParser = result =>
            {
                if (!Opening.TryParse(result.Tokens[0].Value, out var parsed))
                {
                    result.AddError($"--opening '{result.Tokens[0].Value}' must be a number of units such as 50, a percentage such as 60%, or 'demand'.");
                }

                return parsed;
            },
        };
        var concurrency = DeploymentOptions.Number("--concurrency", "How many invoices run at once. The invoices of one customer still come one after another.", 1, 1, 100_000);
        var stockOut = new Option<string?>("--stock-out") { Description = "Writes what is left to a file: one line SKU,available each, LF, in byte order of the SKUs.", HelpName = "FILE" };
        var skipBad = new Option<bool>("--skip-bad") { Description = "Leaves out invoices with bad rows, and counts and shows the rows, instead of refusing the file." };
        var json = DeploymentOptions.Json();
        var command = new Command("replay", "Replays the orders, write-offs and cancellations of a CSV file, then audits the ledger.")
        {
            file, deployment.Scheme, deployment.Store, deployment.PreCheck, deployment.Gate, deployment.Acknowledge, deployment.ApiKey, opening, concurrency, stockOut, skipBad, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            An invoice with a line that is not negative is an order (Deduct, id = InvoiceNo). One whose lines are all
            negative is a write-off (Adjust) or, when its number begins with C, a cancellation: each row is refunded from
            that customer's applied orders of the SKU, the most recent first; what finds no order is counted as unmatched.

            Examples:
              holdfast replay samples/online-retail-2010-12.csv.gz
                  into a scratch SQLite file, stocked with exactly what is ordered
              holdfast replay orders.csv --opening 50 --stock-out left.csv --json
                  50 units of each SKU; what is left goes to left.csv, the figures to stdout as JSON
              holdfast replay orders.csv --opening 60% --concurrency 64 --scheme batched --store sqlite:shop.db
                  too little stock, 64 buyers at once, into a file that stays; running it again changes nothing
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(
            terminal,
            parsed.GetRequiredValue(file),
            deployment.Read(parsed),
            new(parsed.GetRequiredValue(opening), parsed.GetRequiredValue(concurrency), parsed.GetValue(stockOut), parsed.GetValue(skipBad), parsed.GetValue(json)),
            cancellationToken));
        return command;
    }

    private sealed record Options(Opening Opening, int Concurrency, string? StockOut, bool SkipBad, bool Json);

    private static async Task<int> RunAsync(Terminal terminal, string path, DeploymentChoice choice, Options options, CancellationToken cancellationToken)
    {
        // Whatever can't work is said before anything is applied.
        if (options.StockOut is not null && Path.GetDirectoryName(Path.GetFullPath(options.StockOut)) is { } folder && !Directory.Exists(folder))
        {
            throw new UsageException($"--stock-out {options.StockOut}: the folder {folder} does not exist");
        }

        var file = await OrderFile.ReadAsync(path, cancellationToken).ConfigureAwait(false);
        Complain(terminal, file, options.SkipBad);

        var deployment = await Deployment.OpenAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            terminal.Note($"replay: {file.Rows} rows, {file.Invoices.Count} invoices, {file.Skus.Count} SKUs into {deployment.Description}");
            var started = terminal.Time.GetTimestamp();
            var replayer = new Replayer(deployment.Engine, file, terminal.Time);
            var opened = await replayer.OpenAsync(options.Opening).ConfigureAwait(false);
            if (opened)
            {
                await terminal.WithProgressAsync("replay", file.Invoices.Count, async progress =>
                {
                    await replayer.RunAsync(options.Concurrency, progress, cancellationToken).ConfigureAwait(false);
                    return true;
                }).ConfigureAwait(false);
            }

            var seconds = terminal.Time.GetElapsedTime(started).TotalSeconds;
            var report = await ReportAsync(terminal, file, deployment, options, replayer.Tally, seconds, cancellationToken).ConfigureAwait(false);
            Write(terminal, report, options.Json);
            if (!opened)
            {
                terminal.Note("holdfast: the store could not be opened for this file. A store takes a file with one --opening only: use another --store, or the --opening it was given first.");
            }

            return report.IsGood ? ExitCode.Success : ExitCode.Failed;
        }
    }

    private static void Complain(Terminal terminal, OrderFile file, bool skipBad)
    {
        foreach (var problem in file.Problems.Take(ProblemsShown))
        {
            terminal.Note($"holdfast: {problem.Describe(file.Path)}");
        }

        if (file.ProblemCount > ProblemsShown)
        {
            terminal.Note($"holdfast: … and {file.ProblemCount - ProblemsShown} more");
        }

        if (file.ProblemCount > 0 && !skipBad)
        {
            throw new UsageException($"{file.Path} has {file.ProblemCount} {(file.ProblemCount == 1 ? "problem" : "problems")}; nothing was applied. Correct it, or leave those invoices out with --skip-bad.");
        }

        if (file.Invoices.Count == 0)
        {
            throw new UsageException($"{file.Path} has no invoice to replay");
        }
    }

    private static async Task<ReplayReport> ReportAsync(Terminal terminal, OrderFile file, Deployment deployment, Options options, ReplayTally tally, double seconds, CancellationToken cancellationToken)
    {
        // An interrupted replay still says what is left: reading takes a moment only. The audit may not, and is left out.
        var text = new StringBuilder();
        long unitsLeft = 0;
        foreach (var page in file.Skus.Chunk(StockPage))
        {
            foreach (var level in await deployment.Engine.GetStockAsync(page, default, CancellationToken.None).ConfigureAwait(false))
            {
                text.Append(level.Sku).Append(',').Append(level.Available).Append('\n');
                unitsLeft += level.Available;
            }
        }

        var bytes = Encoding.UTF8.GetBytes(text.ToString());
        if (options.StockOut is not null)
        {
            await File.WriteAllBytesAsync(options.StockOut, bytes, CancellationToken.None).ConfigureAwait(false);
        }

        var interrupted = cancellationToken.IsCancellationRequested;
        var (audit, detail) = interrupted ? ("not run", null) : await AuditAsync(terminal, file, deployment, tally, cancellationToken).ConfigureAwait(false);
        return new()
        {
            File = file.Path,
            Scheme = deployment.Scheme,
            Store = deployment.Store,
            Opening = options.Opening.Text,
            Concurrency = options.Concurrency,
            Complete = !interrupted && tally.Invoices == file.Invoices.Count,
            Rows = file.Rows,
            RowsLeftOut = file.RowsLeftOut,
            Invoices = tally.Invoices,
            OrdersApplied = tally.OrdersApplied,
            OrdersRefused = tally.OrdersRefused,
            AdjustmentsApplied = tally.AdjustmentsApplied,
            AdjustmentsRefused = tally.AdjustmentsRefused,
            Refunds = tally.Refunds,
            Replayed = tally.Replayed,
            UnitsDeducted = tally.UnitsDeducted,
            UnitsRefunded = tally.UnitsRefunded,
            UnitsUnmatched = tally.UnitsUnmatched,
            UnitsWrittenOff = tally.UnitsWrittenOff,
            UnitsOpened = tally.UnitsOpened,
            UnitsLeft = unitsLeft,
            Skus = file.Skus.Count,
            StockSha256 = Convert.ToHexStringLower(SHA256.HashData(bytes)),
            Unknown = tally.Unknown,
            Failed = tally.Failed,
            Failures = tally.Failures,
            Seconds = Math.Round(seconds, 3),
            Audit = audit,
            AuditDetail = detail,
        };
    }

    private static async Task<(string Audit, string? Detail)> AuditAsync(Terminal terminal, OrderFile file, Deployment deployment, ReplayTally tally, CancellationToken cancellationToken)
    {
        var broken = await WholeOrders.FindBrokenAsync(deployment.Engine, file, tally.AppliedOrders, cancellationToken).ConfigureAwait(false);
        if (broken is not null)
        {
            return ("fail", broken);
        }

        var report = await AuditCommand.AuditAsync(terminal, deployment.Engine, cancellationToken).ConfigureAwait(false);
        return (report.Passed ? "pass" : "fail", report.FirstDifference);
    }

    private static void Write(Terminal terminal, ReplayReport report, bool json)
    {
        if (json)
        {
            terminal.Json(report);
            return;
        }

        terminal.Line($"{report.File} into {report.Store}, scheme {report.Scheme}, opening {report.Opening}{(report.Concurrency > 1 ? $", {report.Concurrency} at once" : "")}");
        terminal.Line();
        Row("orders applied", report.OrdersApplied, "units deducted", report.UnitsDeducted);
        Row("orders refused (short)", report.OrdersRefused, "", null);
        Row("write-offs applied", report.AdjustmentsApplied, "units written off", report.UnitsWrittenOff);
        Row("write-offs refused (short)", report.AdjustmentsRefused, "", null);
        Row("refunds", report.Refunds, "units refunded", report.UnitsRefunded);
        Row("", null, "units unmatched", report.UnitsUnmatched);
        Row("SKUs", report.Skus, "units opened", report.UnitsOpened);
        Row("", null, "units left", report.UnitsLeft);
        if (report.Replayed > 0)
        {
            Row("known from before", report.Replayed, "", null);
        }

        if (report.RowsLeftOut > 0)
        {
            Row("rows left out", report.RowsLeftOut, "", null);
        }

        if (report.Unknown + report.Failed > 0)
        {
            Row("without verdict", report.Unknown, "failed", report.Failed);
        }

        terminal.Line();
        terminal.Line($"stock sha256  {report.StockSha256}");
        terminal.Line($"time          {report.Seconds:0.000} s{(report.Complete ? "" : $" (not complete: {report.Invoices} invoices)")}");
        terminal.Line($"audit         {report.Audit}{(report.AuditDetail is null ? "" : $": {report.AuditDetail}")}");
        foreach (var failure in report.Failures)
        {
            terminal.Line($"failed        {failure}");
        }

        void Row(string left, long? count, string right, long? units) =>
            terminal.Line($"{left,-27}{count,9}   {right,-18}{units,12}".TrimEnd());
    }
}
