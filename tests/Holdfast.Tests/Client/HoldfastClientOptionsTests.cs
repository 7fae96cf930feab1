using Holdfast.Client;

namespace Holdfast.Tests.Client;

/// <summary>A mistake in the options is found when the client is made, and named.</summary>
public sealed class HoldfastClientOptionsTests
{
    public static TheoryData<string, Action<HoldfastClientOptions>> Mistakes => new()
    {
        { "Addresses", options => options.Addresses.Clear() },
        { "Addresses", options => options.Addresses.Add(new("stock", UriKind.Relative)) },
        { "Addresses", options => options.Addresses.Add(new("ftp://stock")) },
        { "Addresses", options => options.Addresses.Add(new("http://stock/?a=b")) },
        { "Addresses", options => options.Addresses.Add(new("http://127.0.0.1:5080")) },
        { "ApiKey", options => options.ApiKey = "" },
        { "ApiKey", options => options.ApiKey = "two words" },
        { "Deadline", options => options.Deadline = TimeSpan.Zero },
        { "AttemptTimeout", options => options.AttemptTimeout = Timeout.InfiniteTimeSpan },
        { "ConnectTimeout", options => options.ConnectTimeout = TimeSpan.FromDays(1) },
        { "RetryDelay", options => options.RetryDelay = TimeSpan.Zero },
        { "MaxRetryDelay", options => options.MaxRetryDelay = TimeSpan.FromMilliseconds(1) },
        { "RestAfterFailure", options => options.RestAfterFailure = TimeSpan.Zero },
        { "DrainTimeout", options => options.DrainTimeout = TimeSpan.Zero },
        { "MaxBatchCommands", options => options.MaxBatchCommands = 0 },
        { "MaxConcurrentBatches", options => options.MaxConcurrentBatches = 65 },
        { "MaxQueuedCommands", options => options.MaxQueuedCommands = 0 },
        { "PageSize", options => options.PageSize = 1_001 },
        { "TimeProvider", options => options.TimeProvider = null! },
    };

    [Theory]
    [MemberData(nameof(Mistakes), DisableDiscoveryEnumeration = true)]
    public void A_mistake_is_named(string option, Action<HoldfastClientOptions> mistake)
    {
        var options = new HoldfastClientOptions { Addresses = { new("http://127.0.0.1:5080") } };
        Should.NotThrow(options.Validate);
        mistake(options);
        Should.Throw<ArgumentException>(() => new HoldfastClient(options)).Message.ShouldContain(nameof(HoldfastClientOptions) + "." + option);
    }
}
