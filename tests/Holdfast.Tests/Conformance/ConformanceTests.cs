using Holdfast.Testing;

namespace Holdfast.Tests.Conformance;

/// <summary>Every scheme × every case, each on a store of its own; what is slow to open is in <see cref="SharedStoreTests"/> only.</summary>
public sealed class ConformanceTests(ITestOutputHelper output)
{
    [Theory]
    [MemberData(nameof(Schemes.TimesCases), MemberType = typeof(Schemes))]
    public async Task Conforms(string scheme, string name)
    {
        var each = ConformanceCases.All.Single(each => each.Name == name);
        await using var store = await Schemes.Find(scheme).OpenAsync();
        output.Judge(await each.RunAsync(new(store.Engine, "t-", store.Clock, TestContext.Current.CancellationToken)));
    }

    [Fact]
    public void Case_names_are_distinct() => ConformanceCases.All.Select(each => each.Name).ShouldBeUnique();
}

/// <summary>Every scheme × all cases one after the other; beside <see cref="ConformanceTests"/>, since each takes its time.</summary>
public sealed class SharedStoreTests(ITestOutputHelper output)
{
    /// <summary>The cases do not disturb each other on a store that is not empty, and the whole store adds up in the end.</summary>
    [Theory]
    [MemberData(nameof(Schemes.Names), MemberType = typeof(Schemes))]
    public async Task All_cases_pass_on_one_shared_store(string scheme)
    {
        await using var store = await Schemes.Find(scheme).OpenAsync();
        await foreach (var outcome in ConformanceCases.RunAsync(store.Engine, "shared", store.Clock, cancellationToken: TestContext.Current.CancellationToken))
        {
            output.Judge(outcome);
        }

        var audit = await LedgerAudit.RunAsync(store.Engine, cancellationToken: TestContext.Current.CancellationToken);
        audit.ToString().ShouldStartWith("audit passed");
        output.WriteLine(audit.ToString());
    }
}

internal static class ConformanceVerdicts
{
    /// <summary>Writes down how a case ended, and fails the test with it.</summary>
    public static void Judge(this ITestOutputHelper output, ConformanceOutcome outcome)
    {
        output.WriteLine($"{outcome.Case.Name}: {outcome.Verdict} in {outcome.Elapsed.TotalMilliseconds:F0} ms{(outcome.Reason is null ? "" : $" ({outcome.Reason})")}");
        if (outcome.Verdict == ConformanceVerdict.Failed)
        {
            throw new ConformanceException($"{outcome.Case.Name}: {outcome.Reason}", outcome.Exception!);
        }
    }
}
