using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Spectre.Console;

namespace Holdfast.Cli;

/// <summary>
/// Where the command writes. The report, and with <c>--json</c> nothing but one JSON object, goes to the output;
/// progress and complaints go to the error stream: bars where a person looks on, plain lines otherwise.
/// </summary>
internal sealed class Terminal(TextWriter output, TextWriter error, bool isInteractive, TimeProvider? time = null)
{
    private static readonly TimeSpan LineEvery = TimeSpan.FromSeconds(5);

    private static readonly JsonSerializerOptions JsonOptions = new(JsonSerializerDefaults.Web)
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        DefaultIgnoreCondition = JsonIgnoreCondition.Never,
    };

    private readonly Lock _lock = new();

    /// <summary>The report's place.</summary>
    public TextWriter Output => output;

    /// <summary>The place of progress and complaints.</summary>
    public TextWriter Error => error;

    /// <summary>Where somebody can be asked; <see langword="null"/> where nobody looks on.</summary>
    public IAnsiConsole? Console => isInteractive ? AnsiConsole.Create(new() { Out = new AnsiConsoleOutput(error) }) : null;

    /// <summary>The clock of progress, patience and measurements.</summary>
    public TimeProvider Time { get; } = time ?? TimeProvider.System;

    /// <summary>Writes a line of the report.</summary>
    public void Line(string text = "") => output.WriteLine(text);

    /// <summary>Writes a line about what is going on.</summary>
    public void Note(string text)
    {
        lock (_lock)
        {
            error.WriteLine(text);
        }
    }

    /// <summary>Writes the one JSON object of <c>--json</c>.</summary>
    public void Json<T>(T report) => output.WriteLine(JsonSerializer.Serialize(report, JsonOptions));

    /// <summary>Runs a piece of work that says how far it is.</summary>
    /// <param name="what">What is being done, as a short phrase.</param>
    /// <param name="total">How much there is to do; 0 when nobody knows.</param>
    /// <param name="work">The work; it calls what it is given with the amount done so far.</param>
    public async Task<T> WithProgressAsync<T>(string what, long total, Func<Action<long>, Task<T>> work)
    {
        if (!isInteractive)
        {
            return await work(PlainLines(what, total)).ConfigureAwait(false);
        }

        var console = AnsiConsole.Create(new() { Out = new AnsiConsoleOutput(error) });
        var columns = total > 0
            ? (ProgressColumn[])[new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new RemainingTimeColumn()]
            : [new TaskDescriptionColumn(), new SpinnerColumn(), new ElapsedTimeColumn()];
        return await console.Progress().AutoClear(true).Columns(columns).StartAsync(async context =>
        {
            var task = context.AddTask(Markup.Escape(what), maxValue: Math.Max(total, 1));
            task.IsIndeterminate = total == 0;
            return await work(done => task.Value = total > 0 ? done : 0).ConfigureAwait(false);
        }).ConfigureAwait(false);
    }

    private Action<long> PlainLines(string what, long total)
    {
        var started = Time.GetTimestamp();
        var lines = 0L;
        return done =>
        {
            var due = Time.GetElapsedTime(started).Ticks / LineEvery.Ticks;
            var written = Interlocked.Read(ref lines);
            if (due > written && Interlocked.CompareExchange(ref lines, due, written) == written)
            {
                Note(total > 0 ? $"{what}: {done} of {total}" : $"{what}: {done}");
            }
        };
    }
}
