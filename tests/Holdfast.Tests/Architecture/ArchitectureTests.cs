using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace Holdfast.Tests.Architecture;

/// <summary>The house's rules about who may know whom, and about what must not be left lying around.</summary>
public sealed partial class ArchitectureTests
{
    /// <summary>Which packages are drivers, and the one project that each may be referenced by.</summary>
    private static readonly (string PackagePrefix, string Project)[] Drivers =
    [
        ("Microsoft.Data.Sqlite", "Holdfast.Sqlite"),
        ("SQLitePCLRaw", "Holdfast.Sqlite"),
        ("Npgsql", "Holdfast.PostgreSql"),
        ("StackExchange.Redis", "Holdfast.Redis"),
        ("RabbitMQ", "Holdfast.RabbitMQ"),
    ];

    /// <summary>Starts servers and asks them how they are; it has no part in an engine.</summary>
    private const string ServerStarter = "Holdfast.TestServers";

    public static TheoryData<string> SourceProjects => [.. Files(".csproj", "src").Select(Name).Order(StringComparer.Ordinal)];

    [Fact]
    public void The_core_never_names_a_driver()
    {
        var named = Files(".cs", "src/Holdfast").Where(file => DriverName().IsMatch(File.ReadAllText(file))).Select(Name);
        named.ShouldBeEmpty("the rules and layers of src/Holdfast work over any store; what needs a driver belongs to its provider project");
    }

    [Fact]
    public void The_core_depends_on_abstractions_of_Microsoft_Extensions_at_most()
    {
        Packages("src/Holdfast/Holdfast.csproj").ShouldAllBe(package => package.StartsWith("Microsoft.Extensions.", StringComparison.Ordinal) && (package.EndsWith(".Abstractions", StringComparison.Ordinal) || package == "Microsoft.Extensions.Options"));
        Projects("src/Holdfast/Holdfast.csproj").ShouldBeEmpty();
        typeof(MemoryEngine).Assembly.GetReferencedAssemblies().Select(assembly => assembly.Name!)
            .ShouldAllBe(name => name == "netstandard" || name.StartsWith("System.", StringComparison.Ordinal) || name.StartsWith("Microsoft.Extensions.", StringComparison.Ordinal));
    }

    [Theory]
    [MemberData(nameof(SourceProjects))]
    public void A_driver_is_referenced_by_its_own_project_only(string project)
    {
        var name = Path.GetFileNameWithoutExtension(project);
        foreach (var package in Packages(project))
        {
            var driver = Drivers.FirstOrDefault(driver => package.StartsWith(driver.PackagePrefix, StringComparison.Ordinal));
            (driver.Project is null || driver.Project == name || name == ServerStarter).ShouldBeTrue($"{project} references {package}, which belongs to {driver.Project}");
        }

        if (Drivers.Any(driver => driver.Project == name))
        {
            Projects(project).ShouldBe(["Holdfast"], $"{project} is a provider: one driver, the core, nothing else");
        }
    }

    [Fact]
    public void The_test_kit_knows_no_test_framework_and_no_store()
    {
        Packages("src/Holdfast.Testing/Holdfast.Testing.csproj").ShouldBeEmpty();
        Projects("src/Holdfast.Testing/Holdfast.Testing.csproj").ShouldBe(["Holdfast"]);
    }

    [Fact]
    public void Every_project_is_in_the_solution()
    {
        var listed = XDocument.Load(Path.Combine(Repository.Root, "Holdfast.slnx")).Descendants("Project").Select(project => project.Attribute("Path")!.Value);
        Files(".csproj", "src", "tests", "bench", "samples").Select(Name).Order(StringComparer.Ordinal).ShouldBe(listed.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Nothing_is_left_undone()
    {
        // Written in two halves, so that this file does not find itself.
        string[] words = ["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Exception", "Skip " + "= \"", "Skip" + "=\"", "Debugger" + ".Launch"];
        var found = from file in Files(".cs", "src", "tests", "bench")
                    from line in File.ReadLines(file).Select((text, i) => (Text: text, Number: i + 1))
                    from word in words
                    where line.Text.Contains(word, StringComparison.Ordinal)
                    select $"{Name(file)}:{line.Number}: {word}";
        found.ShouldBeEmpty();
    }

    /// <summary>Files with an extension below some folders of the root, without what a build leaves behind.</summary>
    private static IEnumerable<string> Files(string extension, params string[] folders) => folders
        .Select(folder => Path.Combine(Repository.Root, folder))
        .Where(Directory.Exists)
        .SelectMany(folder => Directory.EnumerateFiles(folder, "*" + extension, SearchOption.AllDirectories))
        .Where(file => !Name(file).Split('/').Any(part => part is "obj" or "bin"));

    private static string Name(string file) => Path.GetRelativePath(Repository.Root, file).Replace('\\', '/');

    private static List<string> Packages(string project) => References(project, "PackageReference");

    private static List<string> Projects(string project) => [.. References(project, "ProjectReference").Select(path => Path.GetFileNameWithoutExtension(path.Replace('\\', '/')))];

    private static List<string> References(string project, string kind) =>
        [.. XDocument.Load(Path.Combine(Repository.Root, project)).Descendants(kind).Select(reference => reference.Attribute("Include")!.Value)];

    [GeneratedRegex(@"\b(Microsoft\.Data\.|SQLitePCL|Npgsql|StackExchange|RabbitMQ\.Client|Holdfast\.(Sqlite|PostgreSql|Redis|RabbitMQ))", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex DriverName();
}
