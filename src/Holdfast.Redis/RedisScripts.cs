namespace Holdfast.Redis;

/// <summary>The scripts of the store: files of the folder Scripts, put together from what they share.</summary>
internal static class RedisScripts
{
    /// <summary>The format of what the scripts keep; a store of another is not opened.</summary>
    public const string Format = "1";

    public static readonly RedisScript Open = Load("open");
    public static readonly RedisScript Execute = Load("common", "branches", "state", "rules", "execute");
    public static readonly RedisScript Stock = Load("common", "level", "stock");
    public static readonly RedisScript ListStock = Load("common", "level", "list_stock");
    public static readonly RedisScript Operation = Load("common", "view", "operation");
    public static readonly RedisScript Operations = Load("common", "operations");
    public static readonly RedisScript Undecided = Load("common", "view", "undecided");
    public static readonly RedisScript Due = Load("common", "due");
    public static readonly RedisScript Flow = Load("common", "flow");
    public static readonly RedisScript FlowOfSku = Load("common", "flow_of_sku");

    private static RedisScript Load(params string[] files) => new(files[^1], string.Join('\n', files.Select(Read)));

    private static string Read(string file)
    {
        using var stream = typeof(RedisScripts).Assembly.GetManifestResourceStream(file + ".lua") ?? throw new InvalidOperationException($"The script {file}.lua is not part of this build.");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
