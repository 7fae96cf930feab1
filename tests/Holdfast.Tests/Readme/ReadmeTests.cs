using System.Net.Http.Headers;
using System.Text;
using System.Text.RegularExpressions;
using Holdfast.Cli;
using Holdfast.Server;
using Microsoft.Extensions.Logging;

namespace Holdfast.Tests.Readme;

/// <summary>The README can't rot: its requests are sent, its code is run, and its commands are looked up.</summary>
public sealed partial class ReadmeTests
{
    private static readonly CancellationToken Token = TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_curl_lines_answer_as_printed()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-readme-");
        try
        {
            await using var server = HoldfastServer.Build(
                ["--urls", "http://127.0.0.1:0", "--store", $"sqlite:{Path.Combine(folder.FullName, "holdfast.db")}"],
                setup =>
                {
                    setup.ReadsEnvironment = false;
                    setup.ConfigureLogging = logging => logging.ClearProviders();
                });
            await server.StartAsync(Token);
            using var http = new HttpClient { BaseAddress = new(server.Urls.Single()) };
            var requests = 0;
            foreach (var block in Blocks("console"))
            {
                var lines = block.Split('\n');
                for (var i = 0; i < lines.Length; i++)
                {
                    var curl = CurlLine().Match(lines[i]);
                    curl.Success.ShouldBeTrue($"The README's line '{lines[i]}' is no curl line that this test understands.");
                    var body = curl.Groups["body"];
                    using var request = new HttpRequestMessage(body.Success ? HttpMethod.Post : HttpMethod.Get, curl.Groups["path"].Value);
                    if (body.Success)
                    {
                        request.Content = new StringContent(body.Value, Encoding.UTF8, new MediaTypeHeaderValue("application/json"));
                    }

                    using var response = await http.SendAsync(request, Token);
                    (await response.Content.ReadAsStringAsync(Token)).ShouldBe(lines[++i], $"after {lines[i - 1]}");
                    requests++;
                }
            }

            requests.ShouldBeGreaterThan(3);
            await server.StopAsync(Token);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void The_code_is_the_code_that_the_tests_compile()
    {
        var source = File.ReadAllText(Path.Combine(Repository.Root, "tests/Holdfast.Tests/Readme/ReadmeSnippet.cs"));
        var region = SnippetRegion().Match(source).Groups["code"].Value;
        var compiled = string.Join('\n', region.Split('\n').Select(line => line.StartsWith("        ", StringComparison.Ordinal) ? line[8..] : line));
        var printed = Blocks("csharp").Single().Replace("\"shop.db\"", "path").Replace("Console.", "output.");
        printed.Trim().ShouldBe(compiled.Trim());
    }

    [Fact]
    public async Task The_code_prints_what_the_README_says()
    {
        var folder = Directory.CreateTempSubdirectory("holdfast-readme-");
        try
        {
            var output = new StringWriter { NewLine = "\n" };
            await ReadmeSnippet.RunAsync(Path.Combine(folder.FullName, "shop.db"), output);
            output.ToString().Trim().ShouldBe(Blocks("text").First().Trim());
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task The_commands_exist()
    {
        var commands = Blocks("bash").SelectMany(block => block.Split('\n')).Select(line => line.Split(" #")[0].Trim()).Where(line => line.Length > 0).ToList();
        commands.Count.ShouldBeGreaterThan(3);
        foreach (var command in commands)
        {
            var words = command.Split(' ');
            if (words[0].StartsWith("./", StringComparison.Ordinal))
            {
                File.Exists(Path.Combine(Repository.Root, words[0])).ShouldBeTrue(command);
                continue;
            }

            words[..2].ShouldBe(["dotnet", "run"]);
            var project = words[Array.IndexOf(words, "--project") + 1];
            Directory.Exists(Path.Combine(Repository.Root, project)).ShouldBeTrue(command);
            var arguments = Array.IndexOf(words, "--");
            if (project == "src/Holdfast.Cli")
            {
                var output = new StringWriter();
                var code = await CommandLineApp.RunAsync([.. words[(arguments + 1)..], "--help"], new Terminal(output, output, isInteractive: false), Token);
                code.ShouldBe(0, $"{command}: {output}");
            }
        }
    }

    private static IEnumerable<string> Blocks(string language)
    {
        var text = File.ReadAllText(Path.Combine(Repository.Root, "README.md")).ReplaceLineEndings("\n");
        return CodeBlock().Matches(text).Where(block => block.Groups["language"].Value == language).Select(block => block.Groups["code"].Value.TrimEnd('\n'));
    }


    [GeneratedRegex(@"^```(?<language>\w+)\n(?<code>.*?)^```", RegexOptions.Multiline | RegexOptions.Singleline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex CodeBlock();

    [GeneratedRegex(@"^\$ curl http://127\.0\.0\.1:5080(?<path>\S+)( --json '(?<body>[^']*)')?$", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex CurlLine();

    [GeneratedRegex(@"// <readme>\n(?<code>.*?)\n *// </readme>", RegexOptions.Singleline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex SnippetRegion();
}
