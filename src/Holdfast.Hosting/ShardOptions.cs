namespace Holdfast.Hosting;

/// <summary>One store of the scheme <c>sharded</c>.</summary>
public sealed class ShardOptions
{
    /// <summary>The store, for example <c>postgres:CONNECTION STRING</c>.</summary>
    public string Store { get; set; } = "";
}
