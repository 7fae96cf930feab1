using System.CommandLine;
using System.Text.Json;
using Holdfast;
using Holdfast.Cli;
using Holdfast.Cli.Bench;
using Holdfast.Ladder;
using Holdfast.Ladder.Faults;
using Holdfast.Ladder.Queueing;
using Holdfast.Ladder.Rungs;
using Holdfast.TestServers;

// A rung a command. Every figure that the documentation quotes comes from one of these.
var json = DeploymentOptions.Json();
var file = new Option<string?>("--out") { Description = "Writes the report to this file as well.", HelpName = "FILE" };
var terminal = new Terminal(Console.Out, TextWriter.Null, isInteractive: false);

var root = new RootCommand("The benchmark ladder: each rung against the one below it, in alternated pairs, every store audited. Exit code 0 when every audit passed and the bound was reached.");
AddRung("memory", "MemoryEngine under GroupCommit against a bare channel's request and answer.", MemoryRung.Bare, callers: 1_024);
AddRung("memory-commands", "The same against a channel that carries the same commands.", MemoryRung.WithCommands, callers: 1_024);
AddRung("sqlite", "Group commit against one transaction a command, on SQLite.", SqliteRungs.Batched, callers: 1_024);
AddRung("sqlite-rows", "Group commit against a bare loop that writes the same rows, on SQLite.", SqliteRungs.Rows, callers: 1_024);
AddPostgreSqlRung("postgres", "Group commit against one transaction a command, on PostgreSQL.", PostgreSqlRungs.Batched, callers: 1_024);
AddPostgreSqlRung("postgres-rows", "Group commit against a bare loop of the same inserts, on PostgreSQL.", PostgreSqlRungs.Rows, callers: 1_024);
AddPostgreSqlRung("postgres-zipf", "Carts over 10,000 SKUs, on PostgreSQL.", PostgreSqlRungs.Zipf, callers: 1_024);
AddRungCommand("postgres-open", "Latency at half of the capacity measured in the same run, open loop, on PostgreSQL.", 1_024, PostgreSqlOpenLoop.RunAsync);
AddPostgreSqlRung("postgres-processes", "Three processes on one PostgreSQL and one hot SKU against one process.", PostgreSqlProcesses.Hot, callers: 1_024);
AddPostgreSqlRung("postgres-processes-carts", "The same with carts over 10,000 SKUs: no deadlock may reach a caller.", PostgreSqlProcesses.Carts, callers: 1_024);
AddPostgreSqlRung("gate-soldout", "Refusals of a sold-out SKU over HTTP: the scheme cached against batched, on PostgreSQL.", GateRungs.SoldOut, callers: 1_024);
AddPostgreSqlRung("gate-soldout-ceiling", "How much faster than batched any scheme could refuse over HTTP: a server that only looks into its memory.", GateRungs.SoldOutCeiling, callers: 1_024);
AddPostgreSqlRung("gate-ample", "Accepted deductions over HTTP, which a gate can only make slower: cached against batched, on PostgreSQL.", GateRungs.Ample, callers: 1_024);
AddPostgreSqlRung("gate-ample-gate", "The same with the gate acknowledging: cached after the gate against batched, on PostgreSQL.", GateRungs.AmpleAfterGate, callers: 1_024);
AddPostgreSqlRung("gate-reads", "Stock of one of 100,000 SKUs a call: through Redis against PostgreSQL.", GateRungs.Reads, callers: 1_024);
AddRung("shards-scale", "Single lines by zipf over 4 engines that do 5,000 commands/s each, against one of them.", ShardRungs.Scale, callers: 4_096);
AddRung("shards-carts", "Carts of 5 lines over 4 shards against the same carts in one store, in memory; with the rate of aborts.", ShardRungs.Carts, callers: 256);
AddRung("shards-contention", "The same over 8 SKUs that run short: how many attempts are let go.", ShardRungs.Contention, callers: 256);
AddRungCommand("shards-postgres", "Single lines by zipf over 4 PostgreSQL servers against one: the true figure on this machine.", 1_024, (options, output, token) => ShardRungs.PostgreSqlAsync("zipf", options, output, token));
AddRungCommand("shards-postgres-carts", "Carts of 5 lines over 4 PostgreSQL servers against one.", 1_024, (options, output, token) => ShardRungs.PostgreSqlAsync("carts", options, output, token));
AddRung("redis", "Redis under group commit against a one-deduction script a call that writes the same.", RedisRungs.Same, callers: 1_024);
AddRung("redis-minimal", "The same against a script of duplicate marker and counter only; reported.", RedisRungs.Minimal, callers: 1_024);
AddRung("redis-reads", "GetStock of one SKU a call, 100,000 SKUs.", RedisRungs.Reads, callers: 1_024);
AddRung("http", "Single POST /v1/deductions against an endpoint that does nothing.", HttpRungs.Deductions, callers: 256);
AddRung("http-read", "GET /v1/stock/{sku} against an endpoint that does nothing.", HttpRungs.Reads, callers: 256);
AddRung("http-client", "Holdfast.Client against single requests.", HttpRungs.ThroughClient, callers: 256);
AddRungCommand("queue-intake", "Orders accepted into RabbitMQ against a loop of bare confirmed publishes.", 1_024, async (options, output, token) =>
{
    var server = await RabbitMqServer.StartAsync().ConfigureAwait(false);
    await using (server.ConfigureAwait(false))
    {
        return await Pairs.RunAsync(QueueRungs.Intake(options, server), options.Pairs, output, token).ConfigureAwait(false);
    }
});
AddRungCommand("queue-verdicts", "From the order to its verdict through RabbitMQ and PostgreSQL against a loop of bare publish, consume and acknowledge.", 1_024, async (options, output, token) =>
{
    var server = await RabbitMqServer.StartAsync().ConfigureAwait(false);
    await using var serverDisposing = server.ConfigureAwait(false);
    var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
    await using (database.ConfigureAwait(false))
    {
        return await Pairs.RunAsync(QueueRungs.Verdicts(options, server, database), options.Pairs, output, token).ConfigureAwait(false);
    }
});
var transport = new Option<string>("--transport") { Description = "Where the orders wait: rabbitmq (with PostgreSQL behind it), postgres or sqlite.", DefaultValueFactory = _ => "rabbitmq" };
transport.AcceptOnlyFromAmong("rabbitmq", "postgres", "sqlite");
AddFault(
    "queue-burst",
    "Many orders at once for few units through a queue: each is answered in the end, exactly the units are sold.",
    [new("--orders", "How many orders.", 100_000), new("--units", "How many units there are.", 1_000), new("--callers", "How many offer orders at once.", 256)],
    (values, parsed, output, token) => QueueBurstRun.RunAsync(values[0], values[1], values[2], parsed.GetRequiredValue(transport), output, token),
    transport);
AddFault(
    "queue-crash",
    "Kills RabbitMQ, the consumer (at every step) and PostgreSQL (kill -9) under load: what was accepted is resolved, with one effect each.",
    [new("--kills", "How often each is killed.", 10), new("--callers", "How many order at once.", 32), new("--seed", "What moments and commands hang on.", 1)],
    (values, _, output, token) => QueueCrashRun.RunAsync(values[0], values[1], values[2], output, token));
AddFault(
    "queue-poison",
    "Poison of four kinds, one message in a hundred: it is in the dead letters with its reason, and its neighbours are unharmed.",
    [new("--messages", "How many messages.", 10_000)],
    (values, _, output, token) => QueuePoisonRun.RunAsync(values[0], output, token));
AddFault(
    "queue-stopped",
    "The consumer is stopped while orders go on: they are accepted up to the bound, then 429; when it is back all are decided, in order.",
    [new("--seconds", "For how long it is stopped.", 60), new("--bound", "How many messages the queue takes.", 20_000), new("--callers", "How many order at once.", 32)],
    (values, _, output, token) => QueueStoppedRun.RunAsync(values[0], values[1], values[2], output, token));
var crashStore = new Option<string>("--store") { Description = "sqlite: one file, the server is killed. sharded: four files, the same. postgres: PostgreSQL is killed, and then the server.", DefaultValueFactory = _ => "sqlite" };
crashStore.AcceptOnlyFromAmong("sqlite", "sharded", "postgres");
AddSideBySide();
AddFault(
    "crash",
    "Kills the server (kill -9) again and again under load; every acknowledged operation must be in the ledger once.",
    [new("--kills", "How often each is killed.", 20), new("--callers", "How many ask at once.", 32), new("--seed", "What moments and commands hang on.", 1)],
    (values, parsed, output, token) => parsed.GetRequiredValue(crashStore) == "postgres"
        ? PostgreSqlCrashRun.RunAsync(values[0], values[1], values[2], output, token)
        : CrashRun.RunAsync(parsed.GetRequiredValue(crashStore) == "sharded", values[0], values[1], values[2], CrashRun.RestartBound, output, token),
    crashStore);
AddFault(
    "failover",
    "Kills PostgreSQL's primary (kill -9) under load and promotes its standby: what was acknowledged and is lost, and how long it takes.",
    [new("--kills", "How often, with a synchronous and with an asynchronous standby each.", 5), new("--callers", "How many ask at once.", 32), new("--seed", "What moments and commands hang on.", 1)],
    (values, _, output, token) => FailoverRun.RunAsync(values[0], values[1], values[2], output, token));
AddFault(
    "replica",
    "The scheme replica while its standby lags, stands still and is down: false sold-outs only inside the stated lag bound.",
    [new("--seconds", "How long each state of the standby lasts.", 8), new("--callers", "How many buyers.", 24), new("--seed", "What commands hang on.", 1)],
    (values, _, output, token) => ReplicaRun.RunAsync(values[0], values[1], values[2], output, token));
AddFault(
    "nodes",
    "Three server processes on one PostgreSQL and one hot SKU: together they sell exactly what there is.",
    [new("--units", "How many units there are.", 5_000), new("--callers", "How many buy at once.", 48), new("--seed", "What commands hang on.", 1)],
    (values, _, output, token) => NodesRun.RunAsync(values[0], values[1], values[2], output, token));
AddFault(
    "gate-rebuild",
    "FLUSHALL under a gate with a full catalogue while the sale goes on: the longest pause of the sale, and how long the store refuses instead.",
    [new("--skus", "How many SKUs.", 100_000), new("--callers", "How many buy at once.", 64), new("--seed", "What commands hang on.", 1)],
    (values, _, output, token) => GateRebuildRun.RunAsync(values[0], values[1], values[2], output, token));
var sample = new Option<string>("--file") { Description = "The orders.", DefaultValueFactory = _ => "samples/online-retail-2010-12.csv.gz" };
var schemes = new Option<string?>("--only") { Description = "Only places whose name contains this, and memory.", HelpName = "NAME" };
AddFault(
    "replays",
    "The sample of real orders through every scheme, sequentially: the same figures and the same stock everywhere.",
    [],
    (_, parsed, output, token) => ReplaysRun.RunAsync(parsed.GetRequiredValue(sample), parsed.GetValue(schemes), output, token),
    sample,
    schemes);
var acknowledge = new Option<GateAcknowledgement>("--ack") { Description = "Who acknowledges: store or gate.", DefaultValueFactory = _ => GateAcknowledgement.Store };
var fault = new Option<string>("--fault") { Description = $"all, or one of {string.Join(", ", GateFaultsRun.All)}.", DefaultValueFactory = _ => "all" };
fault.AcceptOnlyFromAmong(["all", .. GateFaultsRun.All]);
AddFault(
    "gate-faults",
    "Each fault of Redis, of a process and of PostgreSQL under the scheme cached: what was acknowledged and is lost, and how long until sales go on.",
    [new("--commands", "How many each of 32 callers sends.", 1_500), new("--outage", "Seconds that PostgreSQL, Redis or the persister stands still.", 10), new("--seed", "What commands hang on.", 1)],
    (values, parsed, output, token) => GateFaultsRun.RunAsync(
        parsed.GetRequiredValue(fault) is "all" ? GateFaultsRun.All : [parsed.GetRequiredValue(fault)], parsed.GetRequiredValue(acknowledge), values[0], values[1], values[2], output, token),
    acknowledge,
    fault);
AddFault(
    "durability",
    "Counts the server's flushes to disk (strace) against its commits.",
    [new("--orders", "Orders of each part.", 500)],
    (values, _, output, token) => DurabilityRun.RunAsync(values[0], output, token));
AddFault(
    "postgres-durability",
    "Counts PostgreSQL's flushes of its log (pg_stat_wal) against its commits.",
    [new("--orders", "Orders of each part.", 500)],
    (values, _, output, token) => PostgreSqlDurability.RunAsync(values[0], output, token));
AddFault(
    "sellout",
    "More buyers than units, all at once: exactly the units are sold, and nobody is refused while one is left.",
    [new("--buyers", "How many want one.", 2_000), new("--units", "How many there are.", 500), new("--rounds", "How often, on each engine.", 3)],
    (values, _, output, token) => SelloutRun.RunAsync(values[0], values[1], values[2], output, token));
AddEmptyServer();
AddConsumer();
AddSeller();
return await root.Parse(args).InvokeAsync().ConfigureAwait(false);

void AddRung(string name, string description, Func<RungOptions, Rung> create, int callers) => AddRungCommand(
    name, description, callers, (options, output, token) => Pairs.RunAsync(create(options), options.Pairs, output, token));

// A rung on a PostgreSQL server of its own.
void AddPostgreSqlRung(string name, string description, Func<RungOptions, BenchDatabase, Rung> create, int callers) => AddRungCommand(
    name,
    description,
    callers,
    async (options, output, token) =>
    {
        var database = await BenchDatabase.StartAsync().ConfigureAwait(false);
        await using (database.ConfigureAwait(false))
        {
            return await Pairs.RunAsync(create(options, database), options.Pairs, output, token).ConfigureAwait(false);
        }
    });

void AddRungCommand(string name, string description, int callers, Func<RungOptions, Output, CancellationToken, Task<bool>> run)
{
    var pairs = DeploymentOptions.Number("--pairs", "How many alternated pairs are measured.", 5, 1, 100);
    var seconds = DeploymentOptions.Number("--seconds", "How long each side of a pair is measured, after 2 s of warm-up.", 5, 1, 3_600);
    var count = DeploymentOptions.Number("--callers", "How many ask at once.", callers, 1, 100_000);
    var command = new Command(name, description) { pairs, seconds, count, json, file };
    command.SetAction(async (parsed, cancellationToken) =>
    {
        var length = TimeSpan.FromSeconds(parsed.GetRequiredValue(seconds));
        var options = new RungOptions(new Load(parsed.GetRequiredValue(count), TimeSpan.FromSeconds(2), length), parsed.GetRequiredValue(pairs), terminal);
        var output = new Output(Console.Out, Console.Error, parsed.GetValue(json), parsed.GetValue(file));
        return await run(options, output, cancellationToken).ConfigureAwait(false) ? 0 : 1;
    });
    root.Subcommands.Add(command);
}

void AddSideBySide()
{
    var rounds = DeploymentOptions.Number("--rounds", "How many rounds are measured, every other one backwards.", 5, 1, 100);
    var seconds = DeploymentOptions.Number("--seconds", "How long each is measured in a round.", 2, 1, 3_600);
    var command = new Command("side-by-side", "pgbench with the article's transaction next to the schemes, on one PostgreSQL.") { rounds, seconds, json, file };
    command.SetAction(async (parsed, cancellationToken) =>
    {
        var length = parsed.GetRequiredValue(seconds);
        var options = new RungOptions(new Load(1, TimeSpan.FromSeconds(0.5), TimeSpan.FromSeconds(length)), 1, terminal);
        var output = new Output(Console.Out, Console.Error, parsed.GetValue(json), parsed.GetValue(file), fileAsJsonToo: true);
        return await SideBySide.RunAsync(parsed.GetRequiredValue(rounds), length, options, output, cancellationToken).ConfigureAwait(false) ? 0 : 1;
    });
    root.Subcommands.Add(command);
}

void AddFault(string name, string description, Setting[] settings, Func<int[], ParseResult, Output, CancellationToken, Task<bool>> run, params Option[] others)
{
    var numbers = settings.Select(setting => DeploymentOptions.Number(setting.Name, setting.Description, setting.Default, 1, 1_000_000)).ToArray();
    var command = new Command(name, description) { json, file };
    foreach (var option in numbers.Concat(others))
    {
        command.Options.Add(option);
    }

    command.SetAction(async (parsed, cancellationToken) =>
    {
        var output = new Output(Console.Out, Console.Error, parsed.GetValue(json), parsed.GetValue(file));
        return await run([.. numbers.Select(parsed.GetRequiredValue)], parsed, output, cancellationToken).ConfigureAwait(false) ? 0 : 1;
    });
    root.Subcommands.Add(command);
}

// The other side of the HTTP rungs: this program again, as a process of its own.
void AddEmptyServer()
{
    var address = new Argument<string>("ADDRESS");
    var command = new Command("serve-empty") { address };
    command.Hidden = true;
    command.SetAction((parsed, _) => EmptyServer.RunAsync(new(parsed.GetRequiredValue(address))));
    root.Subcommands.Add(command);
}

// One of several processes on one database: this program again.
void AddSeller()
{
    var order = new Argument<string>("ORDER");
    var command = new Command(PostgreSqlProcesses.SellCommand) { order };
    command.Hidden = true;
    command.SetAction((parsed, cancellationToken) => PostgreSqlProcesses.SellAsync(JsonSerializer.Deserialize<SellOrder>(parsed.GetRequiredValue(order))!, cancellationToken));
    root.Subcommands.Add(command);
}

// The consumer of a queue, that ends itself at a step: this program again.
void AddConsumer()
{
    var order = new Argument<string>("ORDER");
    var command = new Command(QueueCrashRun.ConsumeCommand) { order };
    command.Hidden = true;
    command.SetAction((parsed, cancellationToken) => QueueCrashRun.ConsumeAsync(JsonSerializer.Deserialize<ConsumeOrder>(parsed.GetRequiredValue(order))!, cancellationToken));
    root.Subcommands.Add(command);
}
