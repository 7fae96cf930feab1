namespace Holdfast;

/// <summary>How a <see cref="RabbitMqTransport"/> reaches and treats its broker. Checked when it opens.</summary>
public sealed record RabbitMqOptions
{
    /// <summary>The broker, for example <c>amqp://user:password@host:5672/vhost</c>; <c>amqps</c> for TLS.</summary>
    public required string Uri { get; init; }

    /// <summary>What the names of exchanges and queues begin with: letters, digits, <c>-</c> and <c>_</c>, 1 to 48. One name is one set of queues.</summary>
    public string Name { get; init; } = "holdfast";

    /// <summary>How many queues, 1 to 256: the same in every process, and not to be changed while commands wait in them.</summary>
    public int Queues { get; init; } = 4;

    /// <summary>Most messages in all queues; past it they are full. (RabbitMQ refuses a little late: some more may be taken.)</summary>
    public long MaxMessages { get; init; } = 1_000_000;

    /// <summary>Most dead letters that are kept; past it what should become one is put aside and comes again until there is room.</summary>
    public long MaxDeadLetters { get; init; } = 100_000;

    /// <summary>For how long what is put aside stays away, 1 millisecond to 1 hour. The queues are made with it.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Most messages that the broker hands to a consumer ahead of its settling them, 1 to 65,535.</summary>
    public int Prefetch { get; init; } = 2_000;

    /// <summary>Longest wait for a connection, and for an answer of the broker to anything but a publish, 1 second to 5 minutes.</summary>
    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Longest wait for the confirmation of a publish, 100 milliseconds to 5 minutes; past it its fate is unknown.</summary>
    public TimeSpan ConfirmTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Checks every option.</summary>
    /// <exception cref="ArgumentException">An option is out of its bounds; the message names it, never the password.</exception>
    public void Validate()
    {
        Parse();
        Check(nameof(Name), Name is { Length: >= 1 and <= 48 } && Name.All(static c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'), $"is '{Name}'; it must be 1 to 48 letters, digits, '-' and '_'");
        Check(nameof(Queues), Queues is >= 1 and <= 256, $"is {Queues}; it must be from 1 to 256");
        Check(nameof(MaxMessages), MaxMessages >= Queues, $"is {MaxMessages}; it must be at least one a queue");
        Check(nameof(MaxDeadLetters), MaxDeadLetters >= 1, $"is {MaxDeadLetters}; it must be at least 1");
        Check(nameof(RetryDelay), RetryDelay >= TimeSpan.FromMilliseconds(1) && RetryDelay <= TimeSpan.FromHours(1), $"is {RetryDelay:c}; it must be from 1 millisecond to 1 hour");
        Check(nameof(Prefetch), Prefetch is >= 1 and <= 65_535, $"is {Prefetch}; it must be from 1 to 65535");
        Check(nameof(ConnectTimeout), ConnectTimeout >= TimeSpan.FromSeconds(1) && ConnectTimeout <= TimeSpan.FromMinutes(5), $"is {ConnectTimeout:c}; it must be from 1 second to 5 minutes");
        Check(nameof(ConfirmTimeout), ConfirmTimeout >= TimeSpan.FromMilliseconds(100) && ConfirmTimeout <= TimeSpan.FromMinutes(5), $"is {ConfirmTimeout:c}; it must be from 100 milliseconds to 5 minutes");
    }

    /// <summary>The broker's address.</summary>
    internal Uri Parse()
    {
        // Never the text itself: it may hold a password.
        var isValid = System.Uri.TryCreate(Uri, UriKind.Absolute, out var uri) && uri.Scheme is "amqp" or "amqps" && uri.Host.Length > 0;
        Check(nameof(Uri), isValid, "is no address of a broker; write amqp://user:password@host:5672/vhost");
        return uri!;
    }

    private static void Check(string option, bool isValid, string problem)
    {
        if (!isValid)
        {
            throw new ArgumentException($"RabbitMqOptions.{option} {problem}.", option);
        }
    }
}
