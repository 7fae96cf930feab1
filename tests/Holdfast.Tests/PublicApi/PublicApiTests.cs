using System.Reflection;
using Holdfast.Client;
using Holdfast.Testing;

namespace Holdfast.Tests.PublicApi;

/// <summary>What others may build on changes on purpose only: each library's public API is kept as text beside this file.</summary>
public sealed class PublicApiTests
{
    private const string UpdateVariable = "HOLDFAST_UPDATE_API";

    private static readonly Assembly[] Libraries = [typeof(IStockEngine).Assembly, typeof(SqliteEngine).Assembly, typeof(PostgreSqlEngine).Assembly, typeof(RedisEngine).Assembly, typeof(RabbitMqTransport).Assembly, typeof(HoldfastClientOptions).Assembly, typeof(ConformanceCase).Assembly];

    public static TheoryData<string> Names => [.. Libraries.Select(library => library.GetName().Name!)];

    [Theory]
    [MemberData(nameof(Names))]
    public void The_public_API_is_the_one_that_was_agreed_on(string name)
    {
        var file = Path.Combine(Repository.Root, "tests", "Holdfast.Tests", "PublicApi", name + ".txt");
        var now = PublicApiText.Of(Libraries.Single(library => library.GetName().Name == name));
        if (Environment.GetEnvironmentVariable(UpdateVariable) == "1")
        {
            File.WriteAllText(file, now);
            return;
        }

        var agreed = File.Exists(file) ? File.ReadAllText(file).ReplaceLineEndings("\n") : "";
        var added = now.Split('\n').Except(agreed.Split('\n'));
        var removed = agreed.Split('\n').Except(now.Split('\n'));
        now.ShouldBe(agreed, $"""
            The public API of {name} has changed. If you meant it, run `{UpdateVariable}=1 ./test.sh PublicApi` once, look at the difference of
            tests/Holdfast.Tests/PublicApi/{name}.txt, and commit it with your change.
            Added:   {string.Join("\n         ", added)}
            Removed: {string.Join("\n         ", removed)}
            """);
    }
}
