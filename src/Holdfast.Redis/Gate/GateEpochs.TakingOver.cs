using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Holdfast.Redis;

/// <summary>How an epoch is ended, what it left is taken over, and the next begins.</summary>
internal sealed partial class GateEpochs
{
    /// <summary>Begins an epoch, if no other process is about to.</summary>
    private async Task<long?> TryBeginAsync(CancellationToken cancellationToken)
    {
        var key = _node.KeyOf("begins");
        var patience = (long)(_options.CallTimeout.TotalMilliseconds * 5) + 5_000;
        if ((string?)await _redis.CallAsync(["SET", key, _node.Name, "NX", "PX", patience], cancellationToken).ConfigureAwait(false) is null
            && (string?)await _redis.CallAsync(["GET", key], cancellationToken).ConfigureAwait(false) != _node.Name)
        {
            return null;
        }

        var began = _clock.GetTimestamp();
        var epoch = await _store.AdvanceGateAsync(_options.Name, cancellationToken).ConfigureAwait(false);
        _logger.LogWarning("The gate {Name} in {Server} is closed or has lost something: epoch {Epoch} is being begun.", _options.Name, _redis.Server, epoch);
        var ended = _clock.GetTimestamp();
        RedisValue[] opening = [epoch, _node.Name];
        if ((long)await _redis.RunAsync(GateScripts.Carry, _node.Keys, opening, cancellationToken).ConfigureAwait(false) != 1
            || !await CarryAsync(epoch, cancellationToken).ConfigureAwait(false)
            || !await AwaitOthersAsync(epoch, ended, key, patience, cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        var cursor = await RedisGate.FindEndAsync(_engine, cancellationToken).ConfigureAwait(false);
        var (total, commands) = (0, 0);
        while (true)
        {
            var (handed, fields) = await ReadCarriedAsync(cancellationToken).ConfigureAwait(false);
            var (left, last) = await ReadStreamAsync(cancellationToken).ConfigureAwait(false);
            var all = new SortedDictionary<(StreamPlace, int), GateCommand>();

            // Whoever waited was told that it is in doubt, and may have been told more before Redis went back to an older state: what
            // was refused must not come to an effect now.
            foreach (var command in left.Concat(handed).Where(static command => command.IsAcknowledged))
            {
                all[(command.Place, command.Number)] = command;
            }

            if (!await TakeOverAsync(epoch, [.. all.Values], key, patience, cancellationToken).ConfigureAwait(false))
            {
                return null;
            }

            (total, commands) = (all.Count, handed.Count);
            RedisValue[] arguments = [epoch, _node.Name, fields, last?.ToString() ?? "", cursor, 1L << _options.IdBits];
            var answer = (long)await _redis.RunAsync(GateScripts.Begin, _node.Keys, arguments, cancellationToken).ConfigureAwait(false);
            if (answer == 1)
            {
                break;
            }

            if (answer < 0)
            {
                return null;
            }
        }

        Begun++;
        _logger.LogWarning(
            "Epoch {Epoch} of the gate {Name} has begun after {Time:0.000} s: {Total} commands were taken to the store, {Handed} of them from what processes remembered.",
            epoch, _options.Name, _clock.GetElapsedTime(began).TotalSeconds, total, commands);
        return epoch;
    }

    /// <summary>Waits until each process has handed over what it had acknowledged, or can't acknowledge anything any more; <see langword="false"/> when the epoch is over before that.</summary>
    private async Task<bool> AwaitOthersAsync(long epoch, long ended, RedisKey key, long patience, CancellationToken cancellationToken)
    {
        while (true)
        {
            var members = await _store.GetGateMembersAsync(_options.Name, cancellationToken).ConfigureAwait(false);
            var missing = members.Where(member => member.Node != _node.Name && member.Carried < epoch).ToList();

            // One that does not reach Redis, or another Redis, may renew its lease for ever: but not in the epoch that has ended.
            if (!missing.Exists(static member => member.IsAlive) || _clock.GetElapsedTime(ended) > _options.StoreLease)
            {
                foreach (var member in missing)
                {
                    GivenUp++;
                    _logger.LogError(
                        "The process {Node} of the gate {Name} has not handed over what it had acknowledged, and may acknowledge nothing any more: what Redis has lost of that is lost, unless that process comes back.",
                        member.Node, _options.Name);
                    await _store.LeaveGateAsync(_options.Name, member.Node, cancellationToken).ConfigureAwait(false);
                }

                return true;
            }

            if (await KeepAsync(cancellationToken).ConfigureAwait(false) is { } current && current != epoch)
            {
                return false;
            }

            await _redis.CallAsync(["PEXPIRE", key, patience], cancellationToken).ConfigureAwait(false);
            await Task.Delay(s_look, _clock, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>What was handed over, also to epochs that were never begun, and how many fields that are.</summary>
    private async Task<(List<GateCommand> Commands, int Fields)> ReadCarriedAsync(CancellationToken cancellationToken)
    {
        var fields = (RedisResult[])await _redis.CallAsync(["HGETALL", _node.KeyOf("carry")], cancellationToken).ConfigureAwait(false);
        var commands = new List<GateCommand>(fields.Length / 2);
        var count = 0;
        for (var i = 0; i + 1 < fields.Length; i += 2)
        {
            var key = (string)fields[i];
            if (key.Length == 0)
            {
                // Which epoch it is handed over to.
                continue;
            }

            count++;
            if (GateCommand.TryReadCarried(key, (byte[])fields[i + 1], out var command))
            {
                commands.Add(command);
            }
            else
            {
                _logger.LogCritical("What stands as {Key} among the commands that were handed over can't be read, and was not written by a gate; it is left out.", key);
            }
        }

        return (commands, count);
    }

    /// <summary>What is left of the stream, and its last entry.</summary>
    private async Task<(List<GateCommand> Commands, StreamPlace? Last)> ReadStreamAsync(CancellationToken cancellationToken)
    {
        var stream = _node.KeyOf("stream");
        var commands = new List<GateCommand>();
        if ((string)await _redis.CallAsync(["TYPE", stream], cancellationToken).ConfigureAwait(false) != "stream")
        {
            return (commands, null);
        }

        StreamPlace? last = null;
        while (true)
        {
            var from = last is { } place ? $"({place}" : "-";
            var page = (RedisResult[])await _redis.CallAsync(["XRANGE", stream, from, "+", "COUNT", 50], cancellationToken).ConfigureAwait(false);
            foreach (var entry in page)
            {
                last = StreamPlace.Parse((string)((RedisResult[])entry)[0]);
                if (!GateCommand.TryReadEntry(entry, commands))
                {
                    _logger.LogCritical("Entry {Place} of the gate's stream can't be read, and was not written by a gate; it is left out.", last);
                }
            }

            if (page.Length == 0)
            {
                return (commands, last);
            }
        }
    }

    /// <summary>Takes commands to the store, in order; <see langword="false"/> when the epoch is over before that.</summary>
    private async Task<bool> TakeOverAsync(long epoch, GateCommand[] commands, RedisKey key, long patience, CancellationToken cancellationToken)
    {
        foreach (var chunk in commands.Chunk(CommandsACall))
        {
            while (true)
            {
                if (await _executor.ExecuteAsync(epoch, turn: 0, chunk, cancellationToken).ConfigureAwait(false) is not { } results)
                {
                    return false;
                }

                if (!results.Any(static result => result.IsRetryable))
                {
                    await _incidents.ReportAsync(epoch, chunk, results, cancellationToken).ConfigureAwait(false);
                    break;
                }

                await Task.Delay(s_look, _clock, cancellationToken).ConfigureAwait(false);
            }

            await _redis.CallAsync(["PEXPIRE", key, patience], cancellationToken).ConfigureAwait(false);
        }

        return true;
    }
}
