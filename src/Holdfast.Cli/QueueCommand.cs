using System.CommandLine;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Holdfast.Hosting;
using Holdfast.Queueing;

namespace Holdfast.Cli;

/// <summary><c>holdfast queue peek|requeue|drop</c>: the dead letters of a queue, at a server, or in a store that is its own queue.</summary>
internal static class QueueCommand
{
    private const int ShownCharacters = 200;

    public static Command Create(Terminal terminal)
    {
        var command = new Command("queue", "Shows, sends again or removes the dead letters of a queue.") { Peek(terminal), Requeue(terminal), Drop(terminal) };
        CommandLineApp.AddExamples(
            command,
            """
            A message that is no command, or that made the engine fail again and again, is put aside as a dead letter; its id is
            closed. So it is sent again under a new id, or dropped. Ask a server of the scheme queued, whatever its queue is; or, when
            no server runs, the store itself where that is the queue.

            Examples:
              holdfast queue peek --store http://127.0.0.1:5080
                  shows what was given up, and why
              holdfast queue requeue 17 --as order-1-again --store http://127.0.0.1:5080
                  sends letter 17 again as order-1-again
              holdfast queue drop 18 --store sqlite:holdfast-data/holdfast.db
                  removes letter 18
            """);
        return command;
    }

    private static Command Peek(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var limit = DeploymentOptions.Number("--limit", "Most letters to show.", 100, 1, 1_000);
        var json = DeploymentOptions.Json();
        var command = new Command("peek", "Shows dead letters, the oldest first, and leaves them where they are.") { deployment.Store, deployment.ApiKey, limit, json };
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(deployment.Read(parsed), async letters =>
        {
            var found = await letters.PeekAsync(parsed.GetValue(limit), cancellationToken).ConfigureAwait(false);
            if (parsed.GetValue(json))
            {
                terminal.Json(new { letters = found.Select(letter => new { letter = letter.Letter, queue = letter.Queue, at = letter.At, reason = letter.Reason, body = Encoding.UTF8.GetString(letter.Body.Span) }) });
                return ExitCode.Success;
            }

            foreach (var letter in found)
            {
                var body = Encoding.UTF8.GetString(letter.Body.Span).ReplaceLineEndings(" ");
                terminal.Line(string.Create(CultureInfo.InvariantCulture, $"{letter.Letter}  {letter.At:yyyy-MM-dd HH:mm:ss}Z  queue {letter.Queue}  {letter.Reason}"));
                terminal.Line($"    {(body.Length <= ShownCharacters ? body : string.Concat(body.AsSpan(0, ShownCharacters), "…"))}");
            }

            terminal.Note($"queue: {found.Count} dead letters");
            return ExitCode.Success;
        }, cancellationToken));
        return command;
    }

    private static Command Requeue(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var letter = new Argument<string>("letter") { Description = "The dead letter, as peek shows it." };
        var id = new Option<string>("--as") { Description = "The new id; for a command without an id of its own, its request id.", HelpName = "ID", Required = true };
        var command = new Command("requeue", "Sends a dead letter again under a new id, since the old one is closed.") { letter, id, deployment.Store, deployment.ApiKey };
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(deployment.Read(parsed), async letters =>
        {
            var (name, newId) = (parsed.GetRequiredValue(letter), parsed.GetRequiredValue(id));
            var problem = StockKey.Problem(newId) is { } broken ? throw new UsageException($"--as {broken}") : await letters.RequeueAsync(name, newId, cancellationToken).ConfigureAwait(false);
            return Say(terminal, problem, $"queue: letter {name} was sent again as {newId}");
        }, cancellationToken));
        return command;
    }

    private static Command Drop(Terminal terminal)
    {
        var deployment = new DeploymentOptions();
        var letter = new Argument<string>("letter") { Description = "The dead letter, as peek shows it." };
        var command = new Command("drop", "Removes a dead letter.") { letter, deployment.Store, deployment.ApiKey };
        CommandLineApp.SetAction(command, (parsed, cancellationToken) => RunAsync(deployment.Read(parsed), async letters =>
        {
            var name = parsed.GetRequiredValue(letter);
            return Say(terminal, await letters.DropAsync(name, cancellationToken).ConfigureAwait(false), $"queue: letter {name} was dropped");
        }, cancellationToken));
        return command;
    }

    private static int Say(Terminal terminal, string? problem, string done)
    {
        terminal.Line(problem is null ? done : $"queue: {problem}");
        return problem is null ? ExitCode.Success : ExitCode.Failed;
    }

    private static async Task<int> RunAsync(DeploymentChoice choice, Func<IDeadLetters, Task<int>> work, CancellationToken cancellationToken)
    {
        if (choice.Store is not { } store)
        {
            throw new UsageException("--store is missing: give a server such as http://127.0.0.1:5080, or the store that is its own queue");
        }

        if (store.StartsWith("http://", StringComparison.OrdinalIgnoreCase) || store.StartsWith("https://", StringComparison.OrdinalIgnoreCase))
        {
            if (!Uri.TryCreate(store.TrimEnd('/') + "/", UriKind.Absolute, out var address))
            {
                throw new UsageException($"--store: '{store}' is no address of a server; it is written http://HOST:PORT");
            }

            using var server = new AtServer(address, choice.ApiKey);
            return await work(server).ConfigureAwait(false);
        }

        if (SchemeCatalog.Problem("queued", store) is { } problem)
        {
            throw new UsageException($"--store: {problem} A server is written http://HOST:PORT.");
        }

        var opened = await SchemeCatalog.OpenAsync("queued", store, cancellationToken: cancellationToken).ConfigureAwait(false);
        await using (opened.ConfigureAwait(false))
        {
            return await work(new InStore(opened.Queue!)).ConfigureAwait(false);
        }
    }

    private interface IDeadLetters
    {
        Task<IReadOnlyList<DeadLetter>> PeekAsync(int limit, CancellationToken cancellationToken);

        /// <returns>Why it could not be done, or <see langword="null"/>.</returns>
        Task<string?> RequeueAsync(string letter, string id, CancellationToken cancellationToken);

        /// <returns>Why it could not be done, or <see langword="null"/>.</returns>
        Task<string?> DropAsync(string letter, CancellationToken cancellationToken);
    }

    private sealed class InStore(CommandQueue queue) : IDeadLetters
    {
        public async Task<IReadOnlyList<DeadLetter>> PeekAsync(int limit, CancellationToken cancellationToken) => await queue.Transport.PeekDeadAsync(limit, cancellationToken).ConfigureAwait(false);

        public async Task<string?> RequeueAsync(string letter, string id, CancellationToken cancellationToken)
        {
            try
            {
                var result = await queue.RequeueDeadAsync(letter, id, cancellationToken).ConfigureAwait(false);
                return result.Status switch
                {
                    StockStatus.Pending => null,
                    StockStatus.UnknownTarget => $"there is no dead letter '{letter}'",
                    _ => $"letter {letter} stays: {result}",
                };
            }
            catch (InvalidCommandException e)
            {
                return $"letter {letter} is no command and can only be dropped: {e.Message}";
            }
        }

        public async Task<string?> DropAsync(string letter, CancellationToken cancellationToken) =>
            await queue.Transport.DropDeadAsync(letter, cancellationToken).ConfigureAwait(false) ? null : $"there is no dead letter '{letter}'";
    }

    private sealed class AtServer : IDeadLetters, IDisposable
    {
        private readonly HttpClient _http;

        public AtServer(Uri address, string? apiKey)
        {
            _http = new() { BaseAddress = address, Timeout = TimeSpan.FromSeconds(30) };
            _http.DefaultRequestHeaders.Authorization = apiKey is null ? null : new AuthenticationHeaderValue("Bearer", apiKey);
        }

        public async Task<IReadOnlyList<DeadLetter>> PeekAsync(int limit, CancellationToken cancellationToken)
        {
            using var response = await _http.GetAsync(string.Create(CultureInfo.InvariantCulture, $"v1/queue/dead?limit={limit}"), cancellationToken).ConfigureAwait(false);
            if (await ProblemAsync(response, cancellationToken).ConfigureAwait(false) is { } problem)
            {
                throw new InvalidOperationException(problem);
            }

            using var body = await JsonDocument.ParseAsync(await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false), cancellationToken: cancellationToken).ConfigureAwait(false);
            return [.. body.RootElement.GetProperty("items").EnumerateArray().Select(static item => new DeadLetter
            {
                Letter = item.GetProperty("letter").GetString()!,
                Queue = item.GetProperty("queue").GetInt32(),
                At = item.GetProperty("at").GetDateTimeOffset(),
                Reason = item.GetProperty("reason").GetString()!,
                Body = Encoding.UTF8.GetBytes(item.GetProperty("body").GetString()!),
            })];
        }

        public Task<string?> RequeueAsync(string letter, string id, CancellationToken cancellationToken) =>
            SendAsync(HttpMethod.Post, $"v1/queue/dead/{Uri.EscapeDataString(letter)}/requeue?id={Uri.EscapeDataString(id)}", cancellationToken);

        public Task<string?> DropAsync(string letter, CancellationToken cancellationToken) =>
            SendAsync(HttpMethod.Delete, $"v1/queue/dead/{Uri.EscapeDataString(letter)}", cancellationToken);

        public void Dispose() => _http.Dispose();

        private async Task<string?> SendAsync(HttpMethod method, string path, CancellationToken cancellationToken)
        {
            using var request = new HttpRequestMessage(method, path);
            using var response = await _http.SendAsync(request, cancellationToken).ConfigureAwait(false);
            return await ProblemAsync(response, cancellationToken).ConfigureAwait(false);
        }

        private static async Task<string?> ProblemAsync(HttpResponseMessage response, CancellationToken cancellationToken)
        {
            if (response.IsSuccessStatusCode)
            {
                return null;
            }

            var text = await response.Content.ReadAsStringAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                using var problem = JsonDocument.Parse(text);
                return $"{problem.RootElement.GetProperty("title").GetString()}: {problem.RootElement.GetProperty("detail").GetString()}";
            }
            catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
            {
                // Not our server's words.
                return response.StatusCode == HttpStatusCode.NotFound ? "the server has no queue, or is of another version" : $"the server answered {(int)response.StatusCode}";
            }
        }
    }
}
