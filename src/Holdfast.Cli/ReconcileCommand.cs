using System.CommandLine;
using System.Globalization;
using Holdfast.Hosting;
using Holdfast.Wire;
using Microsoft.Extensions.Logging;

namespace Holdfast.Cli;

/// <summary><c>holdfast reconcile</c>: compares what is kept twice, a gate's copies with the store, or pure Redis's counters with its ledger.</summary>
internal static class ReconcileCommand
{
    private const string RedisPrefix = "redis:";

    public static Command Create(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var json = DeploymentOptions.Json();
        var name = new Option<string?>("--gate-name") { Description = "The gate's name (Holdfast:Gate:Name of the servers). Default holdfast.", HelpName = "NAME" };
        var fix = new Option<bool>("--fix") { Description = "Repairs copies that differ: each is read from the store again and handed to the gate by its version." };
        var patience = DeploymentOptions.Number("--patience", "Seconds that a copy which is behind may take to catch up.", 5, 0, 600);
        var command = new Command("reconcile", "Compares a gate's copies with the store behind it, or the counters of a pure Redis store with its ledger.")
        {
            deployment.Store, deployment.Gate, name, fix, patience, json,
        };
        CommandLineApp.AddExamples(
            command,
            """
            For the scheme cached: give the store behind the gate, and the gate's Redis. Servers may run and sell meanwhile: copies
            and rows are compared by version, so that traffic is no difference. A copy that is behind is one only when it stays
            behind although the gate was told what came later. Copies that are not loaded are counted apart; they mislead nobody.
            Without --fix nothing is written. The store is never written: it is the truth. Where a copy is ahead of the store (it was
            damaged, or the store was set back), --fix begins a new epoch, in which the servers load everything anew.
            Of a gate that acknowledges by itself it also tells what is on its way to the store, and the incidents: orders that the
            gate had acknowledged and the store refused. --fix leaves those alone: only the shop can tell whether the order is to
            be filled (send it again, same id, after a restock) or called off (Abandon); either closes the incident.
            For a store redis:… the ledger is replayed against the counters and operations, as 'holdfast audit' does.
            Exit code 0: nothing differs, or all of it was repaired. 1: something differs, and is named.

            Examples:
              holdfast reconcile --store "postgres:Host=db;Database=shop" --gate redis:6379
                  compares while the shop sells
              holdfast reconcile --store sqlite:holdfast-data/holdfast.db --gate localhost:6379 --fix
                  repairs what differs, and says what it was
              holdfast reconcile --store redis:localhost:6379 --json
                  pure Redis: its ledger against its counters
            """);
        CommandLineApp.SetAction(command, (parsed, cancellationToken) =>
        {
            var choice = deployment.Read(parsed);
            var wanted = new Wanted(parsed.GetValue(name), parsed.GetValue(fix), TimeSpan.FromSeconds(parsed.GetValue(patience)), parsed.GetValue(json));
            return choice.Store?.StartsWith(RedisPrefix, StringComparison.Ordinal) == true
                ? ReplayAsync(terminal, choice, wanted, cancellationToken)
                : CompareAsync(terminal, choice, wanted, cancellationToken);
        });
        return command;
    }

    private static async Task<int> CompareAsync(Terminal terminal, DeploymentChoice choice, Wanted wanted, CancellationToken cancellationToken)
    {
        if (choice.Store is { } store && !SchemeCatalog.Schemes.Single(scheme => scheme.Name == "cached").Stores.Any(kind => store.StartsWith(kind.Name + ":", StringComparison.Ordinal)))
        {
            throw new UsageException(
                store.StartsWith("http", StringComparison.OrdinalIgnoreCase)
                    ? "--store: a server compares by itself, see its /v1/reconciliation; give the store behind it"
                    : $"--store: '{store.Split(':')[0]}' has no gate and keeps nothing twice; give the store behind a gate, or redis:HOST:PORT");
        }

        var options = new RedisGateOptions();
        options.Redis = choice.Gate ?? options.Redis;
        options.Name = wanted.Name ?? options.Name;

        // A comparison that waits a little longer stops no sale.
        options.CallTimeout = TimeSpan.FromSeconds(10);
        try
        {
            options.Validate();
        }
        catch (ArgumentException e)
        {
            throw new UsageException($"{(e.ParamName == nameof(RedisGateOptions.Name) ? "--gate-name" : "--gate")}: {e.Message}");
        }

        var deployment = await Deployment.OpenToReadAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            var reconciler = await RedisGateReconciler.OpenAsync(
                deployment.Engine, options, new() { Patience = wanted.Patience }, terminal.Time, new Notes(terminal), cancellationToken).ConfigureAwait(false);
            await using (reconciler.ConfigureAwait(false))
            {
                terminal.Note($"reconcile: {deployment.Store} with the gate {options.Name} in {reconciler.Server}");
                var comparison = await terminal.WithProgressAsync(
                    "reconcile", 0, progress => reconciler.RunAsync(wanted.Fix, new Forward(progress), cancellationToken)).ConfigureAwait(false);
                Report(terminal, comparison, deployment.Store, $"{options.Name} in {reconciler.Server}", wanted.Json);
                return comparison.IsClean ? ExitCode.Success : ExitCode.Failed;
            }
        }
    }

    private static void Report(Terminal terminal, GateComparison result, string store, string gate, bool json)
    {
        if (json)
        {
            terminal.Json(new
            {
                store,
                gate,
                reconcile = result.IsClean ? "same" : result.Differing == result.Repaired ? "incidents" : "differs",
                open = result.IsOpen,
                skus = result.Skus,
                same = result.Same,
                lagging = result.Lagging,
                unloaded = result.Unloaded,
                differing = result.Differing,
                repaired = result.Repaired,
                newEpoch = result.HasBegunEpoch,
                units = result.Units,
                oldestSeconds = result.OldestAge is { } age ? Math.Round(age.TotalSeconds, 3) : (double?)null,
                differences = result.Differences.Select(difference => new
                {
                    sku = difference.Sku,
                    kind = KindName(difference.Kind),
                    units = difference.Units,
                    stored = new { version = difference.Stored.Version, available = difference.Stored.Available, reserved = difference.Stored.Reserved },
                    copy = new { version = difference.Version, available = difference.Available, reserved = difference.Reserved },
                    repaired = difference.IsRepaired,
                }),
                backlog = result.Backlog,
                backlogSeconds = result.BacklogAge is { } waited ? Math.Round(waited.TotalSeconds, 3) : (double?)null,
                pending = result.Pending.Select(line => new { sku = line.Sku, units = line.Quantity }),
                openIncidents = result.OpenIncidents,
                incidents = result.Incidents.Select(incident => new { id = incident.Command.Id, verb = StockJson.VerbName(incident.Command.Verb), outcome = incident.Outcome.ToString(), at = incident.At, lines = incident.Command.Lines.Select(line => new { sku = line.Sku, quantity = line.Quantity }) }),
                seconds = Math.Round(result.Duration.TotalSeconds, 3),
            });
            return;
        }

        var verdict = result switch
        {
            { Differing: var differing, Repaired: var repaired } when differing != repaired => "DIFFERS",
            { IsClean: false } => "INCIDENTS",
            { Differing: > 0 } => "repaired",
            { IsOpen: false } => "closed: no epoch stands in this Redis, so the gate refuses nothing",
            _ => "same",
        };
        terminal.Line(string.Create(
            CultureInfo.InvariantCulture,
            $"reconcile {verdict}: {result.Skus} SKUs, {result.Same} same, {result.Lagging} lagging, {result.Unloaded} not loaded, {result.Differing} differ by {result.Units} units{(result.Repaired > 0 ? $", {result.Repaired} repaired{(result.HasBegunEpoch ? " by a new epoch" : "")}" : "")} in {result.Duration.TotalSeconds:0.0} s"));
        foreach (var difference in result.Differences)
        {
            terminal.Line(
                $"  {difference.Sku}: {KindName(difference.Kind)}; the store has version {difference.Stored.Version} with {difference.Stored.Available} available and {difference.Stored.Reserved} reserved, "
                + $"the copy version {Shown(difference.Version)} with {Shown(difference.Available)} and {Shown(difference.Reserved)}{(difference.IsRepaired ? "; repaired" : "")}");
        }

        if (result.Differing > result.Differences.Length)
        {
            terminal.Line($"  … {result.Differing} differences in all");
        }

        if (result.Backlog > 0)
        {
            terminal.Line(string.Create(
                CultureInfo.InvariantCulture,
                $"  {result.Backlog} commands with {result.Pending.Sum(static line => line.Quantity)} units are on their way to the store, the oldest for {result.BacklogAge?.TotalSeconds ?? 0:0.0} s"));
        }

        foreach (var incident in result.Incidents)
        {
            terminal.Line($"  incident: {incident.Command} was acknowledged by the gate and refused by the store ({incident.Outcome}) at {incident.At:u}; send it again with the same id when there is stock, or Abandon it and tell the buyer");
        }
    }

    private static async Task<int> ReplayAsync(Terminal terminal, DeploymentChoice choice, Wanted wanted, CancellationToken cancellationToken)
    {
        if (choice.Gate is not null || wanted.Name is not null)
        {
            throw new UsageException("--gate: a store redis:… has no gate; it is compared with its own ledger");
        }

        if (wanted.Fix)
        {
            throw new UsageException("--fix: a store redis:… has no second copy to repair from. Count the SKU that is named, and correct it with an adjustment, which stands in the ledger");
        }

        var deployment = await Deployment.OpenToReadAsync(choice, cancellationToken).ConfigureAwait(false);
        await using (deployment.ConfigureAwait(false))
        {
            terminal.Note($"reconcile: {deployment.Store} with its own ledger");
            var started = terminal.Time.GetTimestamp();
            var report = await AuditCommand.AuditAsync(terminal, deployment.Engine, cancellationToken).ConfigureAwait(false);
            var seconds = terminal.Time.GetElapsedTime(started).TotalSeconds;
            if (wanted.Json)
            {
                terminal.Json(new
                {
                    store = deployment.Store,
                    reconcile = report.Passed ? "same" : "differs",
                    skus = report.Skus,
                    entries = report.Entries,
                    operations = report.Operations,
                    differenceCount = report.DifferenceCount,
                    differences = report.Differences,
                    seconds = Math.Round(seconds, 3),
                });
            }
            else
            {
                terminal.Line(string.Create(CultureInfo.InvariantCulture, $"reconcile {(report.Passed ? "same" : "DIFFERS")}: {report.Skus} SKUs, {report.Entries} ledger entries, {report.Operations} operations in {seconds:0.0} s"));
                foreach (var difference in report.Differences)
                {
                    terminal.Line($"  {difference}");
                }
            }

            return report.Passed ? ExitCode.Success : ExitCode.Failed;
        }
    }

    private static string KindName(GateDifferenceKind kind) => kind.ToString().ToLowerInvariant();

    private static string Shown(long? number) => number?.ToString(CultureInfo.InvariantCulture) ?? "(unreadable)";

    private sealed record Wanted(string? Name, bool Fix, TimeSpan Patience, bool Json);

    /// <summary>Progress without a detour over the thread pool, so that it never comes after the end.</summary>
    private sealed class Forward(Action<long> progress) : IProgress<long>
    {
        public void Report(long value) => progress(value);
    }

    /// <summary>What the reconciler logs, as notes.</summary>
    private sealed class Notes(Terminal terminal) : ILogger<RedisGateReconciler>
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel))
            {
                terminal.Note(formatter(state, exception));
            }
        }
    }
}
