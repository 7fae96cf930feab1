namespace Holdfast;

/// <summary>How a <see cref="StandbyPreCheck"/> reaches and trusts a streaming standby. Checked when it is made.</summary>
public sealed record StandbyOptions
{
    /// <summary>An Npgsql connection string of the standby.</summary>
    public required string ConnectionString { get; init; }

    /// <summary>
    /// How old the standby's state may be, 10 milliseconds to 1 minute. Past it the pre-check stands aside. It is the
    /// window of a false sold-out: units that another process stocked or gave back less than this ago may be overlooked.
    /// </summary>
    public TimeSpan MaxLag { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How often the primary gets a heartbeat, by which the lag is known; 5 milliseconds to 10 seconds, and less than <see cref="MaxLag"/>.</summary>
    public TimeSpan HeartbeatInterval { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>How far the standby's clock may be behind the primary's. A SKU with holds that may have expired by then is not judged.</summary>
    public TimeSpan ClockTolerance { get; init; } = TimeSpan.FromSeconds(2);

    internal void Validate()
    {
        Check(nameof(MaxLag), MaxLag >= TimeSpan.FromMilliseconds(10) && MaxLag <= TimeSpan.FromMinutes(1), $"is {MaxLag:c}; it must be from 10 milliseconds to 1 minute");
        Check(nameof(HeartbeatInterval), HeartbeatInterval >= TimeSpan.FromMilliseconds(5) && HeartbeatInterval <= TimeSpan.FromSeconds(10) && HeartbeatInterval < MaxLag,
            $"is {HeartbeatInterval:c}; it must be from 5 milliseconds to 10 seconds, and less than MaxLag ({MaxLag:c})");
        Check(nameof(ClockTolerance), ClockTolerance >= TimeSpan.Zero && ClockTolerance <= TimeSpan.FromHours(1), $"is {ClockTolerance:c}; it must be from 0 to 1 hour");

        static void Check(string option, bool isValid, string problem)
        {
            if (!isValid)
            {
                throw new ArgumentException($"StandbyOptions.{option} {problem}.", option);
            }
        }
    }
}
