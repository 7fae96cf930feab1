using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Holdfast.TestServers;

namespace Holdfast.Cli.Bench;

/// <summary>
/// The article's transaction without any Holdfast, put on by PostgreSQL's own load generator: take units where enough are
/// there, write a ledger row, commit. It keeps no ids, so it finds no duplicates; its columns are numbers and short texts.
/// </summary>
internal static partial class PgBench
{
    public const string Transaction =
        """
        BEGIN;
        UPDATE article.stock SET available = available - 1 WHERE sku = '85123A' AND available >= 1;
        INSERT INTO article.flow(order_id, sku, quantity) VALUES ('order-' || nextval('article.orders'), '85123A', 1);
        END;
        """;

    private const long Opening = 1_000_000_000;

    /// <summary>The program's version, as it says it.</summary>
    public static async Task<string> VersionAsync() => (await RunAsync(CancellationToken.None, "--version").ConfigureAwait(false)).Trim();

    /// <summary>Runs it on one hot SKU for whole seconds; afterwards the units and the ledger rows are counted against what it says it did.</summary>
    public static async Task<Measured> RunAsync(PostgreSqlServer server, int clients, int seconds, CancellationToken cancellationToken)
    {
        await server.RunSqlAsync(
            $"""
            DROP SCHEMA IF EXISTS article CASCADE;
            CREATE SCHEMA article;
            CREATE SEQUENCE article.orders CACHE 100;
            CREATE TABLE article.stock(sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0)) WITH (fillfactor = 50);
            CREATE TABLE article.flow(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id text NOT NULL, sku text NOT NULL, quantity bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
            INSERT INTO article.stock VALUES ('85123A', {Opening})
            """).ConfigureAwait(false);
        await server.RunSqlAsync("CHECKPOINT").ConfigureAwait(false);
        var script = Path.GetTempFileName();
        string said;
        try
        {
            await File.WriteAllTextAsync(script, Transaction, cancellationToken).ConfigureAwait(false);
            said = await RunAsync(
                cancellationToken,
                "-h", "127.0.0.1", "-p", Text(server.Port), "-U", "postgres", "-n", "-M", "prepared", "-f", script, "-c", Text(clients), "-j", Text(Math.Min(clients, 2)), "-T", Text(seconds), "postgres").ConfigureAwait(false);
        }
        finally
        {
            File.Delete(script);
        }

        var done = long.Parse(Find(Processed(), said), CultureInfo.InvariantCulture);

        // Where it got nothing done, it says nothing of how fast.
        var (perSecond, latency) = done == 0 ? (0, "no") : (double.Parse(Find(Rate(), said), CultureInfo.InvariantCulture), Find(Latency(), said));
        var sold = Opening - (long)(await server.RunSqlAsync("SELECT available FROM article.stock").ConfigureAwait(false))!;
        var rows = (long)(await server.RunSqlAsync("SELECT count(*) FROM article.flow").ConfigureAwait(false))!;
        await server.RunSqlAsync("DROP SCHEMA article CASCADE").ConfigureAwait(false);
        return new(perSecond, $"{done:#,##0} transactions in {seconds} s, {latency} ms on average", sold == rows && rows == done ? "pass" : $"fail: {done} transactions, {sold} units sold, {rows} ledger rows");
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Find(Regex pattern, string said) => pattern.Match(said) is { Success: true } match
        ? match.Groups["value"].Value
        : throw new InvalidOperationException($"pgbench said nothing that matches {pattern}: {said}");

    private static async Task<string> RunAsync(CancellationToken cancellationToken, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(PostgreSqlServer.Binary("pgbench"), arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        var errors = process.StandardError.ReadToEndAsync(cancellationToken);
        var said = await process.StandardOutput.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
        await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        return process.ExitCode == 0 ? said : throw new InvalidOperationException($"pgbench ended with {process.ExitCode}: {await errors.ConfigureAwait(false)}");
    }

    [GeneratedRegex(@"actually processed: (?<value>\d+)", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1_000)]
    private static partial Regex Processed();

    [GeneratedRegex(@"tps = (?<value>[\d.]+) \(without initial", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1_000)]
    private static partial Regex Rate();

    [GeneratedRegex(@"latency average = (?<value>[\d.]+) ms", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1_000)]
    private static partial Regex Latency();
}
