using Holdfast.Redis;

namespace Holdfast;

/// <summary>What a <see cref="RedisEngine"/> does when Redis comes back without operations that it had acknowledged.</summary>
public enum RedisLossPolicy
{
    /// <summary>Reports what was lost, by id where it is known, and goes on with what is there. The lost units are for sale again.</summary>
    Report = 0,

    /// <summary>Reports it, and answers Busy until the engine is opened anew: until somebody has looked.</summary>
    Stop = 1,
}

/// <summary>How a <see cref="RedisEngine"/> reaches and treats its server. Checked when it opens.</summary>
public sealed record RedisOptions
{
    /// <summary>
    /// <c>HOST:PORT</c> of a server, or of some of a cluster's with commas between, and then the driver's options, for
    /// example <c>redis:6379,password=…,ssl=true</c>. What it says about time-outs gives way to <see cref="CallTimeout"/>.
    /// </summary>
    public required string Configuration { get; init; }

    /// <summary>The store's name, and the hash tag of all its keys: 1 to 48 lower-case letters, digits, underscores and hyphens. One name is one store, and lies on one node of a cluster.</summary>
    public string Name { get; init; } = "holdfast";

    /// <summary>Opens for readers only: nothing is made or written, and commands are refused with an exception. May be a replica.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Longest wait for one answer of the server, 50 milliseconds to 5 minutes; past it what was sent is in doubt.</summary>
    public TimeSpan CallTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Most calls under way, 1 to 1,000,000; the next is answered Busy at once.</summary>
    public int MaxInFlight { get; init; } = 4_096;

    /// <summary>What happens when Redis has lost operations that were acknowledged. (A store that is gone altogether always stops it.)</summary>
    public RedisLossPolicy OnLoss { get; init; }

    /// <summary>How many of the latest acknowledged operations are remembered, so that those that Redis loses can be reported by id: 0 to 1,000,000.</summary>
    public int RememberedOperations { get; init; } = 131_072;

    /// <summary>Takes the place of Redis's clock: for tests and rehearsals only, since two processes would not agree on it.</summary>
    public TimeProvider? TestClock { get; init; }

    /// <summary>Checks every option.</summary>
    /// <exception cref="ArgumentException">An option is out of its bounds; the message names it, never the password.</exception>
    public void Validate()
    {
        Check(nameof(Configuration), RedisConnection.Problem(Configuration) is null, RedisConnection.Problem(Configuration) ?? "");
        Check(nameof(Name), Name is { Length: >= 1 and <= 48 } && Name.All(c => c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '_' or '-'),
            $"is '{Name}'; it must be 1 to 48 lower-case letters, digits, underscores and hyphens");
        Check(nameof(CallTimeout), CallTimeout >= TimeSpan.FromMilliseconds(50) && CallTimeout <= TimeSpan.FromMinutes(5), $"is {CallTimeout:c}; it must be from 50 milliseconds to 5 minutes");
        Check(nameof(MaxInFlight), MaxInFlight is >= 1 and <= 1_000_000, $"is {MaxInFlight}; it must be from 1 to 1000000");
        Check(nameof(OnLoss), Enum.IsDefined(OnLoss), $"is {(int)OnLoss}; it must be Report or Stop");
        Check(nameof(RememberedOperations), RememberedOperations is >= 0 and <= 1_000_000, $"is {RememberedOperations}; it must be from 0 to 1000000");
    }

    private static void Check(string option, bool isValid, string problem)
    {
        if (!isValid)
        {
            throw new ArgumentException($"RedisOptions.{option} {problem}.", option);
        }
    }
}
