using Holdfast.Redis;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast;

/// <content>A server that comes back may have lost something: what was acknowledged is looked for before anything else is sent.</content>
public sealed partial class RedisEngine
{
    private const int ShownIds = 20;

    private readonly SemaphoreSlim _verifying = new(1, 1);
    private readonly List<RedisLoss> _losses = [];
    private readonly Remembered _remembered;
    private long _verifiedReconnects;
    private string? _stopped;
    private bool _isGone;

    /// <summary>Where the journal ends, as far as this engine has seen.</summary>
    private long _journalEnd;

    /// <summary>What was lost, as far as this engine noticed: the latest 100 incidents.</summary>
    public IReadOnlyList<RedisLoss> Losses
    {
        get
        {
            lock (_losses)
            {
                return [.. _losses];
            }
        }
    }

    /// <summary>Asks Redis for what it had acknowledged, and reports what is gone.</summary>
    /// <param name="cancellationToken">Stops it.</param>
    /// <param name="noticed">Whether a script has said that the journal ends earlier than it did.</param>
    private async Task VerifyAsync(CancellationToken cancellationToken, bool noticed = false)
    {
        if (!await _verifying.WaitAsync(_options.CallTimeout, cancellationToken).ConfigureAwait(false))
        {
            throw new RedisStoreException($"{Server} came back and is still being asked for what it had acknowledged; try again later.", CallFailure.NotSent);
        }

        try
        {
            var reconnects = _connection.Reconnects;
            if (reconnects == Interlocked.Read(ref _verifiedReconnects) && !noticed)
            {
                return;
            }

            if (_options.ReadOnly)
            {
                // A reader has no acknowledgements; it goes on with what is there.
                Interlocked.Exchange(ref _journalEnd, 0);
                Interlocked.Exchange(ref _verifiedReconnects, reconnects);
                return;
            }

            var before = Interlocked.Read(ref _journalEnd);
            var meta = (RedisResult[])(await _connection.CallAsync(["HMGET", _meta[0], "identity", "end"], cancellationToken).ConfigureAwait(false))!;
            if ((string?)meta[0] != _identity)
            {
                // Each script finds that out by itself, and says so.
                Interlocked.Exchange(ref _verifiedReconnects, reconnects);
                return;
            }

            var after = (long)meta[1];
            var lost = await FindLostAsync(cancellationToken).ConfigureAwait(false);
            if (lost.Count > 0 || after < before)
            {
                Report(new() { NoticedAt = _clock.GetUtcNow(), Operations = lost, JournalEndBefore = before, JournalEndAfter = after });
            }

            Interlocked.Exchange(ref _verifiedReconnects, reconnects);
        }
        catch (RedisStoreException e) when (e.Failure == CallFailure.InDoubt)
        {
            // Only questions were sent: for the caller's commands that is as good as nothing.
            throw new RedisStoreException(e.Message, CallFailure.NotSent, e);
        }
        finally
        {
            _verifying.Release();
        }
    }

    private async Task<List<string>> FindLostAsync(CancellationToken cancellationToken)
    {
        var lost = new List<string>();
        foreach (var some in _remembered.All().Chunk(Tuning.IdsPerCall))
        {
            object[] command = ["HMGET", (RedisKey)$"{{{_options.Name}}}:op", .. some.Select(each => (object)each.Id)];
            var values = (RedisResult[])(await _connection.CallAsync(command, cancellationToken).ConfigureAwait(false))!;
            for (var i = 0; i < some.Length; i++)
            {
                var state = (byte[]?)values[i] is [var first, ..] ? (OperationState)first : OperationState.None;
                if (!Remembered.Stands(some[i].Verb, state))
                {
                    lost.Add(some[i].Id);
                }
            }
        }

        // An operation that was answered more than once stands there more than once.
        return [.. lost.Distinct(StringComparer.Ordinal)];
    }

    private void Report(RedisLoss loss)
    {
        lock (_losses)
        {
            if (_losses.Count == 100)
            {
                _losses.RemoveAt(0);
            }

            _losses.Add(loss);
        }

        _remembered.Clear();
        Interlocked.Exchange(ref _journalEnd, loss.JournalEndAfter);
        _logger.LogCritical(
            "{Server} has lost operations that it had acknowledged: {Count} known by id ({Ids}{More}); its journal ended at {Before} and ends at {After} now.{Consequence}",
            Server, loss.Operations.Count, string.Join(", ", loss.Operations.Take(ShownIds)), loss.Operations.Count > ShownIds ? ", …" : "",
            loss.JournalEndBefore, loss.JournalEndAfter, _options.OnLoss == RedisLossPolicy.Stop ? " Nothing is executed until the store is opened anew." : "");
        if (_options.OnLoss == RedisLossPolicy.Stop)
        {
            Volatile.Write(ref _stopped, $"{Server} has lost {loss.Operations.Count} operations that it had acknowledged; look at the log, repair what must be repaired, and open the store anew.");
        }
    }

    private void ThrowIfStopped()
    {
        if (Volatile.Read(ref _stopped) is { } reason)
        {
            throw new RedisStoreException(reason, CallFailure.Refused);
        }
    }

    /// <summary>Says so once, until an answer shows that the store is back; the next call finds out by itself.</summary>
    private RedisStoreException Gone(RedisStoreException e)
    {
        var message = $"{Server}: the store is gone (FLUSHALL, or a server without its files): restore its files, or open it anew to begin with an empty one.";
        if (!Interlocked.Exchange(ref _isGone, true))
        {
            _logger.LogCritical("{Message} Until then everything is answered Busy.", message);
        }

        return new(message, CallFailure.Refused, e);
    }
}
