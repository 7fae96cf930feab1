namespace Holdfast.Ladder.Faults;

/// <summary>A number that a command may be given.</summary>
internal sealed record Setting(string Name, string Description, int Default);
