using Holdfast.Redis;

namespace Holdfast;

/// <summary>What a <see cref="RedisGate"/> does with commands while it can't reach Redis.</summary>
public enum GateDownPolicy
{
    /// <summary>Goes around the gate, straight to the store: everything is as exact, and the store sees the whole crowd.</summary>
    Store = 0,

    /// <summary>Answers Busy until Redis is back: the store is spared what it could not bear.</summary>
    Busy = 1,
}

/// <summary>Who tells the buyer that it is done.</summary>
public enum GateAcknowledgement
{
    /// <summary>The store: nothing that was acknowledged hangs on Redis.</summary>
    Store = 0,

    /// <summary>
    /// The gate, as soon as Redis has the command in its stream; the store takes it over from there. What was acknowledged is lost only when
    /// Redis loses it and the process that acknowledged it ends before the store has it.
    /// </summary>
    Gate = 1,
}

/// <summary>How a <see cref="RedisGate"/> works. Checked when it opens. All processes of one gate should be given the same.</summary>
public sealed class RedisGateOptions
{
    /// <summary>
    /// <c>HOST:PORT</c> of the Redis server, or of some of a cluster's with commas between, and then the driver's options, for
    /// example <c>redis:6379,password=…,ssl=true</c>. What it says about time-outs gives way to <see cref="CallTimeout"/>.
    /// </summary>
    public string Redis { get; set; } = "localhost:6379";

    /// <summary>The gate's name, and the hash tag of all its keys: 1 to 48 lower-case letters, digits, underscores and hyphens. One name is one gate, before one store.</summary>
    public string Name { get; set; } = "holdfast";

    /// <summary>Who acknowledges deductions and reservations.</summary>
    public GateAcknowledgement Acknowledge { get; set; }

    /// <summary>What happens while Redis can't be reached. Where the gate acknowledges it is always <see cref="GateDownPolicy.Busy"/>: what it has promised must reach the store first.</summary>
    public GateDownPolicy WhenDown { get; set; }

    /// <summary>Where the gate acknowledges: most commands that wait in Redis for the store, 1 to 10,000,000; past it Busy. It bounds what a process remembers, too.</summary>
    public int MaxBacklog { get; set; } = 100_000;

    /// <summary>
    /// Where the gate acknowledges: for how long a process goes on selling when it can't hear the store, 100 milliseconds to 1 hour. When Redis has
    /// lost something, a new epoch waits so long for a process that is not heard any more, and no longer than a moment for the others.
    /// </summary>
    public TimeSpan StoreLease { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>Where the gate acknowledges: how long a command that only the store can decide waits for it, 10 milliseconds to 5 minutes; past it InDoubt.</summary>
    public TimeSpan DecisionTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Whether commands go around the gate while Redis can't be reached.</summary>
    internal bool GoesAround => WhenDown == GateDownPolicy.Store && Acknowledge == GateAcknowledgement.Store;

    /// <summary>
    /// How old the copies of the stock may be by which the gate refuses, 10 milliseconds to 1 minute. Units that are given back through a
    /// gate are never overlooked; this bounds the time for which those may be that something else wrote into the store.
    /// Past it, everything goes to the store.
    /// </summary>
    public TimeSpan MaxLag { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>How often the store's ledger is followed, 1 millisecond to 10 seconds, and less than <see cref="MaxLag"/>. One process of all does it.</summary>
    public TimeSpan FollowInterval { get; set; } = TimeSpan.FromMilliseconds(100);

    /// <summary>
    /// For how long a process is relied upon after it was last heard, 50 milliseconds to 1 minute. While one is missing the gate refuses
    /// nothing, since that one may have gone around it; and a process that can't reach Redis goes around no sooner.
    /// </summary>
    public TimeSpan Lease { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>
    /// After which time a missing process is given up and the gate refuses again, 1 second to 1 day and more than twice <see cref="Lease"/>. A
    /// process that is cut off from Redis for longer, while others are not, may have taken orders whose repetitions the others refuse as
    /// sold out, for at most <see cref="MaxLag"/> after it took them.
    /// </summary>
    public TimeSpan ForgetAfter { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>Longest wait for one answer of Redis, 10 milliseconds to 1 minute; past it the process counts as cut off.</summary>
    public TimeSpan CallTimeout { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>Most calls of Redis under way, 1 to 1,000,000.</summary>
    public int MaxInFlight { get; set; } = 4_096;

    /// <summary>
    /// The filter of known ids has two to the power of so many bits, 10 to 31. The default of 27 takes 16 MiB, and takes one unknown id in a hundred
    /// for a known one at 13 million ids (which then costs a question to the store).
    /// </summary>
    public int IdBits { get; set; } = 27;

    /// <summary>Checks every bound.</summary>
    /// <exception cref="ArgumentException">A value is out of its range; the message names it, never the password.</exception>
    public void Validate()
    {
        Check(nameof(Redis), RedisConnection.Problem(Redis) is null, RedisConnection.Problem(Redis) ?? "");
        Check(nameof(Name), Name is { Length: >= 1 and <= 48 } && Name.All(c => c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '_' or '-'),
            $"is '{Name}'; it must be 1 to 48 lower-case letters, digits, underscores and hyphens");
        Check(nameof(WhenDown), Enum.IsDefined(WhenDown), $"is {(int)WhenDown}; it must be Store or Busy");
        Check(nameof(Acknowledge), Enum.IsDefined(Acknowledge), $"is {(int)Acknowledge}; it must be Store or Gate");
        Check(nameof(MaxBacklog), MaxBacklog is >= 1 and <= 10_000_000, $"is {MaxBacklog}; it must be from 1 to 10000000");
        CheckTime(nameof(StoreLease), StoreLease, 0.1, 3_600);
        CheckTime(nameof(DecisionTimeout), DecisionTimeout, 0.01, 300);
        CheckTime(nameof(MaxLag), MaxLag, 0.01, 60);
        CheckTime(nameof(FollowInterval), FollowInterval, 0.001, 10);
        Check(nameof(FollowInterval), FollowInterval < MaxLag, $"is {FollowInterval:c}; it must be less than MaxLag ({MaxLag:c})");
        CheckTime(nameof(Lease), Lease, 0.05, 60);
        CheckTime(nameof(ForgetAfter), ForgetAfter, 1, 86_400);
        Check(nameof(ForgetAfter), ForgetAfter > Lease + Lease, $"is {ForgetAfter:c}; it must be more than twice Lease ({Lease:c})");
        CheckTime(nameof(CallTimeout), CallTimeout, 0.01, 60);
        Check(nameof(MaxInFlight), MaxInFlight is >= 1 and <= 1_000_000, $"is {MaxInFlight}; it must be from 1 to 1000000");
        Check(nameof(IdBits), IdBits is >= 10 and <= 31, $"is {IdBits}; it must be from 10 to 31");
    }

    private static void CheckTime(string option, TimeSpan value, double least, double most) =>
        Check(option, value.TotalSeconds >= least && value.TotalSeconds <= most, $"is {value:c}; it must be from {least} to {most} seconds");

    private static void Check(string option, bool isValid, string problem)
    {
        if (!isValid)
        {
            throw new ArgumentException($"Gate.{option} {problem}.", option);
        }
    }
}
