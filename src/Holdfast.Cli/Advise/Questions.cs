using Spectre.Console;

namespace Holdfast.Cli.Advise;

/// <summary>Asks for what was not given, where somebody can answer; otherwise assumes it, and keeps what was assumed.</summary>
internal sealed class Questions(Terminal terminal)
{
    private readonly List<string> _assumed = [];

    /// <summary>What was assumed, as options.</summary>
    public IReadOnlyList<string> Assumed => _assumed;

    /// <param name="question">What to ask.</param>
    /// <param name="option">The option that it stands for.</param>
    /// <param name="fallback">What is assumed; <see langword="null"/> where nothing can be.</param>
    /// <param name="least">The smallest answer.</param>
    /// <param name="most">The largest.</param>
    /// <exception cref="UsageException">Nobody answers, and nothing can be assumed.</exception>
    public double Number(string question, string option, double? fallback, double least, double most)
    {
        if (terminal.Console is not { } console)
        {
            var value = fallback ?? throw new UsageException($"{option} is missing: {question}");
            _assumed.Add($"{option} {AdviseCommand.Number(value)}");
            return value;
        }

        var prompt = new TextPrompt<double>(question).Validate(value => value >= least && value <= most
            ? ValidationResult.Success()
            : ValidationResult.Error($"from {AdviseCommand.Number(least)} to {AdviseCommand.Number(most)}"));
        return console.Prompt(fallback is { } preset ? prompt.DefaultValue(preset) : prompt);
    }

    /// <summary>One of several; the first is assumed.</summary>
    public string Choice(string question, string option, (string Name, string Meaning)[] choices)
    {
        if (terminal.Console is not { } console)
        {
            _assumed.Add($"{option} {choices[0].Name}");
            return choices[0].Name;
        }

        return console.Prompt(new SelectionPrompt<(string Name, string Meaning)>().Title(question).AddChoices(choices).UseConverter(choice => $"{choice.Name}: {choice.Meaning}")).Name;
    }

    /// <summary>Any of several; none is assumed.</summary>
    public IReadOnlyList<string> Choices(string question, string option, string[] choices)
    {
        if (terminal.Console is not { } console)
        {
            _assumed.Add($"{option} none");
            return [];
        }

        return console.Prompt(new MultiSelectionPrompt<string>().Title(question).NotRequired().AddChoices(choices));
    }

    /// <summary>Yes or no; no is assumed.</summary>
    public bool YesNo(string question, string option)
    {
        if (terminal.Console is not { } console)
        {
            _assumed.Add($"{option} false");
            return false;
        }

        return console.Prompt(new ConfirmationPrompt(question) { DefaultValue = false });
    }
}
