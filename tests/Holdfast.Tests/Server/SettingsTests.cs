using Holdfast.Hosting;
using Holdfast.Tests.Gate;
using Holdfast.Server;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Holdfast.Tests.Server;

/// <summary>A wrong setting stops the start and is named.</summary>
public sealed class SettingsTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("Holdfast:Scheme", "betched", "Holdfast:Scheme", "batched")]
    [InlineData("Holdfast:Store", "mongo:x", "Holdfast:Store", "sqlite:PATH")]
    [InlineData("Holdfast:Store", "sqlite:", "Holdfast:Store", "names no file")]
    [InlineData("Holdfast:Store", "memory:x", "Holdfast:Store", "memory")]
    [InlineData("Holdfast:Schme", "batched", "Schme", "")]
    [InlineData("Holdfast:GroupCommit:MaxBatchCommands", "0", "GroupCommit.MaxBatchCommands", "65536")]
    [InlineData("Holdfast:Sweeper:Interval", "0", "Holdfast:Sweeper:Interval", "10 milliseconds")]
    [InlineData("Holdfast:Sweeper:Interval", "often", "Sweeper:Interval", "often")]
    [InlineData("Holdfast:Sweeper:PageSize", "0", "Holdfast:Sweeper:PageSize", "10000")]
    [InlineData("Holdfast:Sweeper:Timeout", "1.00:00:00", "Holdfast:Sweeper:Timeout", "10 minutes")]
    [InlineData("Holdfast:Reconciliation:Interval", "0", "Holdfast:Reconciliation:Interval", "10 milliseconds")]
    [InlineData("Holdfast:Reconciliation:PageSize", "0", "Holdfast:Reconciliation:PageSize", "5000")]
    [InlineData("Holdfast:Reconciliation:PagePause", "00:02:00", "Holdfast:Reconciliation:PagePause", "1 minute")]
    [InlineData("Holdfast:Reconciliation:Timeout", "0", "Holdfast:Reconciliation:Timeout", "1 second")]
    [InlineData("Holdfast:HealthTimeout", "0", "Holdfast:HealthTimeout", "1 minute")]
    [InlineData("Holdfast:Http:MaxBodyBytes", "12", "Holdfast:Http:MaxBodyBytes", "1024")]
    [InlineData("Holdfast:Http:RequestTimeout", "1:00:00", "Holdfast:Http:RequestTimeout", "00:10:00")]
    [InlineData("Holdfast:ApiKeys:0:Key", "short", "Holdfast:ApiKeys:0:Key", "16")]
    [InlineData("Holdfast:ApiKeys:0:KeySha256", "abc", "Holdfast:ApiKeys:0:KeySha256", "64")]
    [InlineData("Holdfast:ApiKeys:0:Roles:0", "admin", "Holdfast:ApiKeys:0:Roles:0", "read, sell, stock")]
    [InlineData("Holdfast:ApiKeys:0:Name", "shop", "Holdfast:ApiKeys:0 must have", "KeySha256")]
    [InlineData("urls", "somewhere", "urls: 'somewhere'", "http://127.0.0.1:5080")]
    [InlineData("urls", "http://127.0.0.1:99999", "urls", "65535")]
    [InlineData("urls", "ftp://127.0.0.1:21", "urls", "http")]
    [InlineData("urls", "http://127.0.0.1:5080/holdfast", "urls", "path")]
    public void Is_refused_by_name(string key, string value, string field, string advice)
    {
        var refused = Should.Throw<InvalidSettingsException>(() => HoldfastServer.Build([], setup =>
        {
            setup.ReadsEnvironment = false;
            setup.Configuration[key] = value;
        }));

        refused.Message.ShouldContain(field);
        refused.Message.ShouldContain(advice);
    }

    [Fact]
    public void The_key_that_the_command_line_sends_is_no_setting_of_the_server() => HoldfastServer
        .FromEnvironment(new Dictionary<string, string> { ["HOLDFAST_API_KEY"] = "a-key-of-the-command-line", ["HOLDFAST_SCHEME"] = "memory", ["HOLDFAST_URLS"] = "http://127.0.0.1:0" })
        .ShouldBe(new Dictionary<string, string?> { ["Holdfast:SCHEME"] = "memory", ["urls"] = "http://127.0.0.1:0" }, ignoreOrder: true);

    [Fact]
    public void A_settings_file_that_is_no_JSON_is_refused_by_its_name()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-settings-");
        try
        {
            File.WriteAllText(Path.Combine(folder.FullName, "appsettings.json"), "{bad");

            var refused = Should.Throw<InvalidSettingsException>(() => HoldfastServer.Build([], setup => setup.ContentRoot = folder.FullName));

            refused.Message.ShouldContain("appsettings.json");
            refused.Message.ShouldContain("LineNumber: 0");
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void Two_keys_of_one_name_or_one_text_are_refused()
    {
        var refused = Should.Throw<InvalidSettingsException>(() => HoldfastServer.Build([], setup =>
        {
            setup.ReadsEnvironment = false;
            for (var i = 0; i < 2; i++)
            {
                setup.Configuration[$"Holdfast:ApiKeys:{i}:Name"] = "shop";
                setup.Configuration[$"Holdfast:ApiKeys:{i}:Key"] = "one-and-the-same-key";
                setup.Configuration[$"Holdfast:ApiKeys:{i}:Roles:0"] = "sell";
            }
        }));

        refused.Problems.Count.ShouldBe(2);
        refused.Message.ShouldContain("'shop' appears twice");
        refused.Message.ShouldContain("same key");
        refused.Message.ShouldNotContain("one-and-the-same-key");
    }

    [Theory]
    [InlineData("--sheme=memory", "--sheme")]
    [InlineData("memory", "memory")]
    [InlineData("--store", "--store")]
    [InlineData("--scheme=nope", "nope")]
    public async Task A_wrong_argument_ends_with_2_and_is_named(string argument, string named)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();

        (await HoldfastServer.RunAsync([argument], output, error)).ShouldBe(2);
        error.ToString().ShouldContain(named);
        output.ToString().ShouldBeEmpty();
    }

    [Fact]
    public async Task The_help_teaches_every_scheme_and_store()
    {
        using var output = new StringWriter();
        (await HoldfastServer.RunAsync(["--help"], output, output)).ShouldBe(0);

        foreach (var scheme in SchemeCatalog.Schemes)
        {
            output.ToString().ShouldContain(scheme.Name);
            output.ToString().ShouldContain(scheme.Description);
        }

        foreach (var store in SchemeCatalog.Stores)
        {
            output.ToString().ShouldContain(store.Form);
        }

        output.ToString().ShouldContain("""'{"orderId":"o1","lines":[{"sku":"85123A","quantity":6}]}'""");
    }

    [Fact]
    public async Task A_port_that_is_taken_ends_with_1_and_is_named()
    {
        await using var server = await ServerUnderTest.StartAsync();
        using var output = new StringWriter();

        (await HoldfastServer.RunAsync(["--scheme", "memory", "--urls", server.App.Urls.First()], output, output)).ShouldBe(1);
        output.ToString().ShouldContain(server.App.Urls.First());
    }

    [Fact]
    public async Task An_address_that_is_none_is_a_wrong_setting_and_is_named()
    {
        using var output = new StringWriter();
        (await HoldfastServer.RunAsync(["--scheme", "memory", "--urls", "nonsense"], output, output)).ShouldBe(2);
        output.ToString().ShouldContain("nonsense");
        output.ToString().ShouldNotContain("   at ");
    }

    [Fact]
    public async Task In_a_host_of_ones_own_wrong_options_stop_the_start()
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection([new("Holdfast:Scheme", "memory"), new("Holdfast:Sweeper:PageSize", "-1")]);
        builder.Services.AddHoldfast(builder.Configuration);
        using var host = builder.Build();

        (await Should.ThrowAsync<OptionsValidationException>(() => host.StartAsync(Cancelled))).Message.ShouldContain("Holdfast:Sweeper:PageSize");
    }

    [Fact]
    public async Task In_a_host_of_ones_own_the_engine_is_open_from_start_to_stop()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-host-");
        try
        {
            var builder = Host.CreateEmptyApplicationBuilder(null);
            builder.Services.AddHoldfast(options => options.Store = $"sqlite:{Path.Combine(folder.FullName, "stock.db")}");
            builder.Services.AddHostedService<FirstDelivery>();
            using (var host = builder.Build())
            {
                var engine = host.Services.GetRequiredService<IStockEngine>();
                Should.Throw<InvalidOperationException>(() => engine.Traits).Message.ShouldContain("host starts");
                await host.StartAsync(Cancelled);
                (await engine.GetStockAsync("a", cancellationToken: Cancelled)).Available.ShouldBe(5);
                engine.Traits.ShouldBe(StockTraits.All);
                await host.StopAsync(Cancelled);
                await ((IAsyncDisposable)host).DisposeAsync();
            }

            // The file is free again: another process may write it.
            await using var again = await SchemeCatalog.OpenAsync("database", $"sqlite:{Path.Combine(folder.FullName, "stock.db")}", cancellationToken: Cancelled);
            (await again.Engine.GetStockAsync("a", cancellationToken: Cancelled)).Available.ShouldBe(5);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task Every_scheme_opens_on_each_of_its_stores()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-schemes-");
        try
        {
            var options = new HoldfastOptions { Gate = SharedGate.Quick(await SharedGate.ServerAsync()) };
            foreach (var scheme in SchemeCatalog.Schemes)
            {
                // PostgreSQL and Redis need a server: PostgreSqlHostingTests and RedisHostingTests open them.
                foreach (var kind in scheme.Stores.Where(kind => kind.Name is not ("postgres" or "redis")))
                {
                    var store = kind.Name == "memory" ? "memory" : $"{kind.Name}:{Path.Combine(folder.FullName, scheme.Name + ".db")}";
                    await using var opened = await SchemeCatalog.OpenAsync(scheme.Name, store, options, cancellationToken: Cancelled);
                    (await opened.Engine.RestockAsync("r1", [("a", 1)], cancellationToken: Cancelled)).Status.ShouldBe(StockStatus.Done);
                    opened.Scheme.ShouldBe(scheme.Name);
                    opened.Store.ShouldBe(kind.Name);
                    opened.Durability.ShouldNotBeEmpty();
                }
            }
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task The_first_log_lines_say_where_the_data_lies_and_what_survives()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-log-");
        try
        {
            var log = new LogLines();
            await using (var app = HoldfastServer.Build(["--urls", "http://127.0.0.1:0", "--store", $"sqlite:{folder.FullName}/stock.db"], setup =>
            {
                setup.ReadsEnvironment = false;
                setup.ConfigureLogging = logging => logging.AddProvider(log);
            }))
            {
                await app.StartAsync(Cancelled);
                await app.StopAsync(Cancelled);
            }

            var first = log.Lines.Where(line => line.Level >= LogLevel.Information).Take(4).Select(line => line.Text).ToList();
            first.ShouldContain(text => text.Contains($"{folder.FullName}/stock.db", StringComparison.Ordinal));
            first.ShouldContain(text => text.Contains("batched", StringComparison.Ordinal));
            first.ShouldContain(text => text.Contains("synchronous=FULL", StringComparison.Ordinal));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Theory]
    [InlineData("http://127.0.0.1:5080", true)]
    [InlineData("http://127.1.2.3:80", true)]
    [InlineData("http://localhost:5080", true)]
    [InlineData("http://[::1]:5080", true)]
    [InlineData("http://unix:/run/holdfast.sock", true)]
    [InlineData("http://0.0.0.0:5080", false)]
    [InlineData("http://[::]:5080", false)]
    [InlineData("http://*:5080", false)]
    [InlineData("http://192.168.1.7:5080", false)]
    [InlineData("http://stock.example:5080", false)]
    public void It_is_known_who_can_reach_an_address(string address, bool onlyThisMachine) =>
        ExposureWarning.IsLocal(address).ShouldBe(onlyThisMachine);

    [Theory]
    [InlineData("http://0.0.0.0:0", false, true)]
    [InlineData("http://0.0.0.0:0", true, false)]
    [InlineData("http://127.0.0.1:0", false, false)]
    public async Task Beyond_loopback_without_keys_the_server_warns(string url, bool hasKey, bool warns)
    {
        List<(string, string)> settings = [("urls", url)];
        if (hasKey)
        {
            settings.AddRange([("Holdfast:ApiKeys:0:Name", "shop"), ("Holdfast:ApiKeys:0:Key", "a-key-for-the-shop"), ("Holdfast:ApiKeys:0:Roles:0", "sell")]);
        }

        await using var server = await ServerUnderTest.StartAsync(settings: [.. settings]);

        server.Log.Lines.Any(line => line.Level == LogLevel.Warning && line.Text.Contains("no API key is configured", StringComparison.Ordinal)).ShouldBe(warns);
    }

    private sealed class FirstDelivery(IStockEngine engine) : IHostedService
    {
        public async Task StartAsync(CancellationToken cancellationToken) =>
            await engine.RestockAsync("r1", [("a", 5)], cancellationToken: cancellationToken);

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
