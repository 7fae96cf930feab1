namespace Holdfast.Testing;

/// <summary>
/// What the audits of a ledger can't see from outside: that every part of a command over several shards ended like every
/// other, that each command's ledger entries are those of all its lines, and that nothing is held for nobody.
/// </summary>
internal sealed class CartAudit(IReadOnlyList<IStockEngine> shards, IStockEngine whole, History history, IReadOnlyList<string> skus)
{
    public async ValueTask<string?> FindProblemAsync() =>
        await FindTornAsync().ConfigureAwait(false) ?? await FindPartialAsync().ConfigureAwait(false) ?? await FindHeldAsync().ConfigureAwait(false);

    /// <summary>An operation whose parts do not stand alike.</summary>
    private async ValueTask<string?> FindTornAsync()
    {
        for (var shard = 0; shard < shards.Count; shard++)
        {
            await foreach (var view in shards[shard].ListOperationsAsync(new()).ConfigureAwait(false))
            {
                if (view.Cart is not { } cart)
                {
                    continue;
                }

                foreach (var other in cart.Shards)
                {
                    var part = await shards[other].GetOperationAsync(view.Id).ConfigureAwait(false);
                    if (!cart.Equals(part?.Cart) || !StandAlike(part!.State, view.State))
                    {
                        return $"{view.Verb} {view.Id} is {view.State} on shard {shard} ({cart}), but {(part is null ? "unknown" : $"{part.State} ({part.Cart})")} on shard {other}.";
                    }
                }
            }
        }

        return null;
    }

    /// <summary>Each part expires by itself, a moment sooner or later than the others.</summary>
    private static bool StandAlike(OperationState one, OperationState other) =>
        one == other || (one is OperationState.Reserved or OperationState.Expired && other is OperationState.Reserved or OperationState.Expired);

    /// <summary>An operation that wrote to some of its command's SKUs and not to others.</summary>
    private async ValueTask<string?> FindPartialAsync()
    {
        var asked = history.Events.Where(sent => !sent.Command.IsTransition).ToLookup(sent => sent.Command.Id, sent => sent.Command, StringComparer.Ordinal);
        var written = new Dictionary<(string Id, FlowKind Kind), HashSet<string>>();
        foreach (var sku in skus)
        {
            await foreach (var entry in whole.ReadFlowAsync(new() { Sku = sku }).ConfigureAwait(false))
            {
                if (!written.TryGetValue((entry.OperationId, entry.Kind), out var its))
                {
                    written.Add((entry.OperationId, entry.Kind), its = new(StringComparer.Ordinal));
                }

                its.Add(sku);
            }
        }

        foreach (var ((id, kind), its) in written)
        {
            // What a refund left nothing of is not given back a second time.
            var isWhole = asked[id].Any(command => command.Lines.All(line => its.Contains(line.Sku)) || kind is FlowKind.Cancel or FlowKind.Expire);
            if (!isWhole)
            {
                return $"{id}: its {kind} is in the ledgers of {string.Join(", ", its)} only.";
            }
        }

        return null;
    }

    /// <summary>Units that are shown as available and can't be had.</summary>
    private async ValueTask<string?> FindHeldAsync()
    {
        foreach (var level in await whole.GetStockAsync(skus).ConfigureAwait(false))
        {
            if (level.Available == 0)
            {
                continue;
            }

            var probe = StockCommand.Deduct($"probe {level.Sku}", [new(level.Sku, level.Available)]);
            var taken = await whole.ExecuteAsync(probe).ConfigureAwait(false);
            history.Add(new() { Command = probe, SentAt = long.MaxValue - 1, AnsweredAt = long.MaxValue, Result = taken });
            if (taken.Status != StockStatus.Done)
            {
                return $"{level.Sku}: {level.Available} are available, but can't be had: {taken}.";
            }
        }

        return null;
    }
}
