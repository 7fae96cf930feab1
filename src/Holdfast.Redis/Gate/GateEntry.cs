using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Runtime.InteropServices;
using Holdfast.Wire;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>The place of an entry in the gate's stream: Redis's number for it. Grows within an epoch.</summary>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct StreamPlace(ulong Time, ulong Number) : IComparable<StreamPlace>
{
    public static StreamPlace Parse(string text)
    {
        var dash = text.IndexOf('-', StringComparison.Ordinal);
        return dash < 0 ? default : new(ulong.Parse(text.AsSpan(0, dash), CultureInfo.InvariantCulture), ulong.Parse(text.AsSpan(dash + 1), CultureInfo.InvariantCulture));
    }

    public int CompareTo(StreamPlace other) => Time != other.Time ? Time.CompareTo(other.Time) : Number.CompareTo(other.Number);

    public static bool operator <(StreamPlace one, StreamPlace other) => one.CompareTo(other) < 0;

    public static bool operator >(StreamPlace one, StreamPlace other) => one.CompareTo(other) > 0;

    public static bool operator <=(StreamPlace one, StreamPlace other) => one.CompareTo(other) <= 0;

    public static bool operator >=(StreamPlace one, StreamPlace other) => one.CompareTo(other) >= 0;

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Time}-{Number}");
}

/// <summary>A command in the stream.</summary>
/// <param name="Place">Its entry.</param>
/// <param name="Number">Its number in there, from 0.</param>
/// <param name="IsAcknowledged">Whether its caller was told that it is done; otherwise it waits.</param>
/// <param name="Command">The command.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct GateCommand(StreamPlace Place, int Number, bool IsAcknowledged, StockCommand Command)
{
    /// <summary>A name for it that nothing else in the stream has.</summary>
    public string Key => string.Create(CultureInfo.InvariantCulture, $"{Place}.{Number}");

    /// <summary>Its value where processes hand it over.</summary>
    public byte[] ToCarried() => [IsAcknowledged ? (byte)'a' : (byte)'w', .. StockJson.WriteCommand(Command)];

    /// <summary>Reads what <see cref="ToCarried"/> wrote under <see cref="Key"/>.</summary>
    public static bool TryReadCarried(string key, byte[] value, out GateCommand command)
    {
        command = default;
        var dot = key.IndexOf('.', StringComparison.Ordinal);
        if (dot < 0 || value.Length == 0 || !TryRead(value.AsSpan(1), out var read))
        {
            return false;
        }

        command = new(StreamPlace.Parse(key[..dot]), int.Parse(key.AsSpan(dot + 1), CultureInfo.InvariantCulture), value[0] == (byte)'a', read);
        return true;
    }

    /// <summary>Reads the commands of an entry as Redis lists it; <see langword="false"/> when one of them is none, and is left out.</summary>
    public static bool TryReadEntry(RedisResult entry, List<GateCommand> into)
    {
        var parts = (RedisResult[])entry;
        var place = StreamPlace.Parse((string)parts[0]);
        var values = (RedisResult[])parts[1];
        var isWhole = true;
        for (var i = 0; i < values.Length / 2; i++)
        {
            if (TryRead((byte[])values[(2 * i) + 1], out var command))
            {
                into.Add(new(place, i, (string)values[2 * i] == "a", command));
            }
            else
            {
                isWhole = false;
            }
        }

        return isWhole;
    }

    private static bool TryRead(ReadOnlySpan<byte> json, [NotNullWhen(true)] out StockCommand? command)
    {
        try
        {
            command = StockJson.ReadCommand(json);
            return true;
        }
        catch (InvalidCommandException)
        {
            // Somebody else wrote here.
            command = null;
            return false;
        }
    }
}

/// <summary>What commands want of the stock.</summary>
internal static class Takings
{
    /// <summary>Whether the gate may decide it where everything is certain.</summary>
    public static bool MayBeDecided(StockCommand command) => command.Verb is StockVerb.Deduct or StockVerb.Reserve;

    /// <summary>How many lines take units.</summary>
    public static int Count(StockCommand command) => command.Verb switch
    {
        StockVerb.Deduct or StockVerb.Reserve => command.Lines.Length,
        StockVerb.Adjust => command.Lines.Count(static line => line.Quantity < 0),
        _ => 0,
    };

    /// <summary>The units that a command takes, a SKU a line.</summary>
    public static IEnumerable<StockLine> Of(StockCommand command) => command.Verb switch
    {
        StockVerb.Deduct or StockVerb.Reserve => command.Lines,
        StockVerb.Adjust => command.Lines.Where(static line => line.Quantity < 0).Select(static line => line with { Quantity = -line.Quantity }),
        _ => [],
    };
}
