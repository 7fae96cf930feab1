using System.Text;
using Holdfast.Testing;

namespace Holdfast.Tests.Conformance;

/// <summary>docs/conformance.md says what every scheme is held to; it is written from the cases and schemes themselves.</summary>
public sealed class ConformanceDocumentTests
{
    private const string UpdateVariable = "HOLDFAST_UPDATE_DOCS";

    [Fact]
    public async Task The_document_is_up_to_date()
    {
        var file = Path.Combine(Repository.Root, "docs", "conformance.md");
        var now = await WriteAsync();
        if (Environment.GetEnvironmentVariable(UpdateVariable) == "1")
        {
            await File.WriteAllTextAsync(file, now, TestContext.Current.CancellationToken);
            return;
        }

        var written = File.Exists(file) ? (await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken)).ReplaceLineEndings("\n") : "";
        now.ShouldBe(written, $"A case or a scheme has changed: run the tests once with {UpdateVariable}=1 and commit docs/conformance.md with your change.");
    }

    private static async Task<string> WriteAsync()
    {
        var schemes = new List<(string Name, StockTraits Traits, bool HasClock)>();
        foreach (var scheme in Schemes.All)
        {
            await using var store = await scheme.OpenAsync();
            schemes.Add((scheme.Name, store.Engine.Traits, store.Clock is not null));
        }

        var text = new StringBuilder();
        text.Append("""
            # Conformance

            <!-- Written by ConformanceDocumentTests; run the tests with HOLDFAST_UPDATE_DOCS=1 to write it anew. -->

            Every scheme is held to the same cases (`tests/Holdfast.Tests/Conformance`): one after the other on one shared store, and, but for
            schemes whose stores are slow to open, each on a store of its own. Each case ends with an audit of what it touched. `holdfast verify` runs the same cases against a deployment. Where a scheme does not give a
            promise that a case needs, the case asserts the weaker promise instead, or says that it does not apply; nothing is skipped in silence.

            **full**: the whole case · **weaker**: what can be promised without the trait · **—**: does not apply.

            ## What the schemes promise

            As the tests open them: their PostgreSQL server does not flush to disk, and a store that asked its server so promises no
            `DurableAck`. On one that flushes it does; that is tested by killing servers that do (`PostgreSqlFaultTests`).

            | scheme | traits | clock in the tests |
            |---|---|---|

            """);
        foreach (var (name, traits, hasClock) in schemes)
        {
            text.Append($"| {name} | {traits} | {(hasClock ? "set by the test" : "real")} |\n");
        }

        text.Append($"\n## The {ConformanceCases.All.Count} cases\n\n| case | what the engine must do | {string.Join(" | ", schemes.Select(scheme => scheme.Name))} |\n|---|---|{string.Concat(schemes.Select(_ => "---|"))}\n");
        foreach (var each in ConformanceCases.All)
        {
            var held = schemes.Select(scheme => each.HeldTo(scheme.Traits, scheme.HasClock) switch
            {
                ConformanceScope.Full => "full",
                ConformanceScope.Weaker => "weaker",
                _ => "—",
            });
            text.Append($"| {each.Name} | {each.Description} | {string.Join(" | ", held)} |\n");
        }

        return text.ToString();
    }
}
