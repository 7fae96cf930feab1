namespace Holdfast.Testing;

/// <summary>Plays steps on an engine and on the model, and says where they differ.</summary>
internal sealed class ModelComparison(IStockEngine engine, ReferenceModel model, ManualTimeProvider clock, CancellationToken cancellationToken)
{
    private readonly SortedSet<string> _skus = new(StockKey.ByteOrder);
    private readonly HashSet<string> _ids = new(StringComparer.Ordinal);

    public async Task<string?> PlayAsync(Step step, IDictionary<StockStatus, int>? outcomes)
    {
        var to = step.ToNextExpiry is { } gap && model.NextExpiry is { } expiry ? expiry + gap : clock.GetUtcNow() + step.Wait;
        clock.Jump(to);
        model.ClockShows(to);
        var results = await engine.ExecuteAsync(step.Commands, cancellationToken).ConfigureAwait(false);
        if (results.Count != step.Commands.Count)
        {
            return $"{step.Commands.Count} commands got {results.Count} answers.";
        }

        for (var i = 0; i < results.Count; i++)
        {
            var command = step.Commands[i];
            _ids.Add(command.Id);
            _ids.Add(command.Target ?? command.Id);
            _skus.UnionWith(command.Lines.Select(line => line.Sku));
            var expected = model.Execute(command);
            if (!expected.Allows(results[i]))
            {
                return $"{command} (number {i + 1} of its batch) was answered {Text(results[i])}; the model says {expected}.";
            }

            if (outcomes is not null)
            {
                outcomes[results[i].Status] = (outcomes.TryGetValue(results[i].Status, out var count) ? count : 0) + 1;
            }
        }

        return null;
    }

    public async Task<string?> CompareReadsAsync() =>
        await CompareStockAsync().ConfigureAwait(false)
        ?? await CompareOperationsAsync().ConfigureAwait(false)
        ?? await CompareListingsAsync().ConfigureAwait(false)
        ?? await CompareFlowAsync().ConfigureAwait(false);

    private static string Text(StockResult result) => $"{result}{(result.Left.IsEmpty ? "" : $", left {string.Join(", ", result.Left.Select(left => $"{left.Sku} {left.Available}"))}")}";

    private async Task<string?> CompareStockAsync()
    {
        foreach (var level in await engine.GetStockAsync([.. _skus], cancellationToken: cancellationToken).ConfigureAwait(false))
        {
            var expected = model.Stock(level.Sku);
            if (level with { Version = 0 } != expected || level.IsKnown != model.Skus.Contains(level.Sku))
            {
                return $"The stock of {level.Sku} is {level}; the model says {expected}.";
            }
        }

        var listed = new List<StockLevel>();
        await foreach (var level in engine.ListStockAsync(cancellationToken: cancellationToken).ConfigureAwait(false))
        {
            listed.Add(level with { Version = 0 });
        }

        var all = _skus.Where(model.Skus.Contains).Select(model.Stock).ToArray();
        return listed.SequenceEqual(all) ? null : $"The listing of stock is [{string.Join(", ", listed)}]; the model says [{string.Join<StockLevel>(", ", all)}].";
    }

    private async Task<string?> CompareOperationsAsync()
    {
        foreach (var id in _ids)
        {
            var view = await engine.GetOperationAsync(id, cancellationToken).ConfigureAwait(false);
            var expected = model.Operation(id);
            if (Difference(view, expected) is { } difference)
            {
                return $"Operation {id}: {difference}.";
            }
        }

        return null;
    }

    private async Task<string?> CompareListingsAsync()
    {
        var byState = model.Ids.ToLookup(id => model.Operation(id)!.State);
        foreach (var state in Enum.GetValues<OperationState>().Where(state => state != OperationState.None))
        {
            var listed = new SortedSet<string>(StringComparer.Ordinal);
            await foreach (var view in engine.ListOperationsAsync(new() { State = state }, cancellationToken).ConfigureAwait(false))
            {
                if (!listed.Add(view.Id))
                {
                    return $"Operation {view.Id} is listed twice as {state}.";
                }

                if (Difference(view, model.Operation(view.Id)) is { } difference)
                {
                    return $"Operation {view.Id} as listed: {difference}.";
                }
            }

            var expected = new SortedSet<string>(byState[state], StringComparer.Ordinal);
            if (!listed.SetEquals(expected))
            {
                return $"The operations that are {state} are listed as [{string.Join(", ", listed)}]; the model says [{string.Join(", ", expected)}].";
            }
        }

        return null;
    }

    private async Task<string?> CompareFlowAsync()
    {
        foreach (var sku in _skus)
        {
            var found = new List<(string, FlowKind, long, long)>();
            await foreach (var entry in engine.ReadFlowAsync(new() { Sku = sku }, cancellationToken).ConfigureAwait(false))
            {
                if (entry.Kind != FlowKind.Expire)
                {
                    found.Add((entry.OperationId, entry.Kind, entry.AvailableChange, entry.ReservedChange));
                }
                else if (model.Operation(entry.OperationId) is not { State: OperationState.Expired, ExpiresAt: { } expiresAt } || entry.At < expiresAt)
                {
                    return $"The ledger of {sku} has {entry.OperationId} expired at {entry.At:O}; the model does not.";
                }
            }

            var expected = model.Flow(sku).ToList();
            if (!found.SequenceEqual(expected))
            {
                return $"The ledger of {sku} without expiries is [{string.Join(", ", found)}]; the model says [{string.Join(", ", expected)}].";
            }
        }

        return null;
    }

    private static string? Difference(OperationView? view, OperationView? expected)
    {
        if (view is null || expected is null)
        {
            return view is null == expected is null ? null : view is null ? "the engine does not know it" : "the model does not know it";
        }

        return view.Verb != expected.Verb ? $"its verb is {view.Verb}; the model says {expected.Verb}"
            : view.State != expected.State ? $"its state is {view.State}; the model says {expected.State}"
            : view.Outcome != expected.Outcome ? $"its outcome is {view.Outcome}; the model says {expected.Outcome}"
            : view.Target != expected.Target ? $"its target is {view.Target}; the model says {expected.Target}"
            : view.Note != expected.Note && view.Verb != StockVerb.Abandon ? $"its note is {view.Note}; the model says {expected.Note}"
            : !view.Lines.SequenceEqual(expected.Lines) ? $"its lines are [{string.Join(", ", view.Lines)}]; the model says [{string.Join(", ", expected.Lines)}]"
            : !view.Left.SequenceEqual(expected.Left) ? $"it left [{string.Join(", ", view.Left)}]; the model says [{string.Join(", ", expected.Left)}]"
            : view.CreatedAt != expected.CreatedAt ? $"it was created at {view.CreatedAt:O}; the model says {expected.CreatedAt:O}"
            : view.ExpiresAt != expected.ExpiresAt ? $"it expires at {view.ExpiresAt:O}; the model says {expected.ExpiresAt:O}"
            : view.State != OperationState.Expired && view.EndedAt != expected.EndedAt ? $"it ended at {view.EndedAt:O}; the model says {expected.EndedAt:O}"
            : null;
    }
}
