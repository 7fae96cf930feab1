using System.Buffers;
using System.Collections.Immutable;
using System.Runtime.InteropServices;

namespace Holdfast.Rules;

/// <summary>
/// The pure decision: a state, a command and an instant give an outcome and changes. No clock, no I/O, no randomness;
/// the same for every store, which is why they agree. Each verb first checks and then changes: nothing after the comment
/// "no-fail zone" can refuse. The one change that may precede a refusal is the release of reservations that are due,
/// a fact of time and not of the command.
/// </summary>
public static partial class StockRules
{
    /// <summary>Decides one command and changes the state accordingly.</summary>
    /// <param name="state">What the decision sees and changes.</param>
    /// <param name="command">The command.</param>
    /// <param name="now">The store's time in milliseconds since 1970-01-01 UTC; never lower than in an earlier decision on this state.</param>
    public static StockResult Decide(IStockState state, StockCommand command, long now)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(command);
        var known = state.FindOperation(command.Id);
        if (known is not null && known.IsDue(now))
        {
            Expire(state, known, now);
        }

        if (command.Branch is { Phase: BranchPhase.Commit or BranchPhase.Abort })
        {
            return Resolve(state, command, known, now);
        }

        if (known is not null && MeetUndecided(command, known) is { } undecided)
        {
            return undecided;
        }

        return command.Verb switch
        {
            StockVerb.Confirm => Confirm(state, command, known, now),
            StockVerb.Cancel => Cancel(state, command, known, now),
            StockVerb.Abandon => Abandon(state, command, known, now),

            // The duplicate check comes first, before any look at stock: a retry of a success is a success.
            _ when known is not null => Repeat(command, known),
            _ => Apply(state, command, now),
        };
    }

    /// <summary>Decides a command whose id is not known.</summary>
    private static StockResult Apply(IStockState state, StockCommand command, long now) =>
        command.Verb switch
        {
            StockVerb.Deduct or StockVerb.Reserve => Take(state, command, now),
            StockVerb.Refund => Refund(state, command, now),
            StockVerb.Restock => Restock(state, command, now),
            StockVerb.Adjust => Adjust(state, command, now),
            _ => throw new ArgumentOutOfRangeException(nameof(command), command.Verb, "The rules do not know this verb."),
        };

    /// <summary>The answer to a command whose id is taken.</summary>
    private static StockResult Repeat(StockCommand command, Operation known)
    {
        // A tombstone has no content that could differ. Of a command over several shards the shards are content as well.
        var isTombstone = known.Verb is StockVerb.Cancel or StockVerb.Abandon;
        if (!isTombstone
            && (!command.HasContent(known.Verb, known.Target, known.Lines.AsSpan(), known.TimeToLive)
                || (known.Cart is null ? command.Branch is not null : command.Branch?.Cart.HasShardsOf(known.Cart) != true)))
        {
            return StockResult.Of(StockStatus.KeyConflict);
        }

        return known.State switch
        {
            OperationState.Cancelled or OperationState.Abandoned => StockResult.Of(StockStatus.Cancelled),
            OperationState.Expired => StockResult.Of(StockStatus.Expired),
            _ => Replayed(StockStatus.Done, known.Left),
        };
    }

    private static StockResult Take(IStockState state, StockCommand command, long now)
    {
        var lines = command.Lines;
        var rows = ArrayPool<StockRow>.Shared.Rent(lines.Length);
        try
        {
            if (FindRows(state, lines, rows) is { } unknown)
            {
                return StockResult.Refused(StockStatus.UnknownSku, unknown);
            }

            ReleaseDue(state, rows.AsSpan(0, lines.Length), now);
            for (var i = 0; i < lines.Length; i++)
            {
                if (rows[i].Available < lines[i].Quantity)
                {
                    return StockResult.Refused(StockStatus.Insufficient, lines[i].Sku, rows[i].Available);
                }
            }

            for (var i = 0; i < lines.Length; i++)
            {
                if (rows[i].Available - rows[i].Held < lines[i].Quantity)
                {
                    return Undecided(lines[i].Sku);
                }
            }

            if (IsHeld(state, command, rows, null, now))
            {
                return StockResult.Of(StockStatus.Done);
            }

            // No-fail zone.
            var reserves = command.Verb == StockVerb.Reserve;
            var kind = reserves ? FlowKind.Reserve : FlowKind.Deduct;
            var left = new LineBalance[lines.Length];
            for (var i = 0; i < lines.Length; i++)
            {
                var quantity = lines[i].Quantity;
                Change(state, rows[i], command.Id, kind, -quantity, reserves ? quantity : 0, now);
                left[i] = new(rows[i].Sku, rows[i].Available);
            }

            return Remember(state, command, reserves ? OperationState.Reserved : OperationState.Applied, left, now);
        }
        finally
        {
            ArrayPool<StockRow>.Shared.Return(rows, clearArray: true);
        }
    }

    private static StockResult Confirm(IStockState state, StockCommand command, Operation? target, long now)
    {
        switch (target)
        {
            case null:
                return StockResult.Of(StockStatus.UnknownTarget);
            case { State: OperationState.Expired }:
                return StockResult.Of(StockStatus.Expired);
            case { State: OperationState.Confirmed }:
                return Replayed(StockStatus.Done, target.EndLeft);
            case { State: not OperationState.Reserved }:
                return StockResult.Of(StockStatus.InvalidTargetState);
        }

        if (IsHeld(state, command, [], target, now))
        {
            return StockResult.Of(StockStatus.Done);
        }

        // No-fail zone.
        var left = new LineBalance[target.Lines.Length];
        for (var i = 0; i < left.Length; i++)
        {
            var (sku, quantity) = target.Lines[i];
            var row = HeldRow(state, sku);
            ReleaseDue(state, new Span<StockRow>(ref row), now);
            Change(state, row, target.Id, FlowKind.Confirm, 0, -quantity, now);
            left[i] = new(sku, row.Available);
        }

        return End(state, target, OperationState.Confirmed, left, now);
    }

    private static StockResult Cancel(IStockState state, StockCommand command, Operation? target, long now)
    {
        switch (target)
        {
            case null when command.Branch is not null:
                return StockResult.Of(StockStatus.UnknownTarget);
            case null:
                return LeaveTombstone(state, command, OperationState.Cancelled, now);
            case { State: OperationState.Expired }:
                // Nothing left to give back: the state stays Expired.
                return Replayed(StockStatus.Expired, []);
            case { State: OperationState.Cancelled or OperationState.Abandoned }:
                return Replayed(StockStatus.Cancelled, target.EndLeft);
            case { Verb: not (StockVerb.Deduct or StockVerb.Reserve) }:
                return StockResult.Of(StockStatus.InvalidTargetState);
        }

        if (IsHeld(state, command, [], target, now))
        {
            return StockResult.Of(StockStatus.Done);
        }

        // No-fail zone.
        var held = target.State == OperationState.Reserved;
        var left = new LineBalance[target.Lines.Length];
        for (var i = 0; i < left.Length; i++)
        {
            var (sku, quantity) = target.Lines[i];
            var row = HeldRow(state, sku);
            var units = quantity - (target.Refunded?[i] ?? 0);
            ReleaseDue(state, new Span<StockRow>(ref row), now);
            if (units > 0)
            {
                Change(state, row, target.Id, FlowKind.Cancel, units, held ? -units : 0, now);
            }

            left[i] = new(sku, row.Available);
        }

        return End(state, target, OperationState.Cancelled, left, now);
    }

    private static StockResult Abandon(IStockState state, StockCommand command, Operation? target, long now) => target switch
    {
        null => LeaveTombstone(state, command, OperationState.Abandoned, now),
        { State: OperationState.Cancelled or OperationState.Abandoned } => Replayed(StockStatus.Cancelled, []),
        { State: OperationState.Expired } => Replayed(StockStatus.Expired, []),
        _ => Replayed(StockStatus.Done, target.Left),
    };

    private static StockResult Refund(IStockState state, StockCommand command, long now)
    {
        var target = state.FindOperation(command.Target!);
        if (target is null)
        {
            return StockResult.Of(StockStatus.UnknownTarget);
        }

        if (target.IsDue(now))
        {
            Expire(state, target, now);
        }

        if (target.State == OperationState.Undecided || target.Pending is not null)
        {
            return Undecided();
        }

        if (target is not ({ Verb: StockVerb.Deduct, State: OperationState.Applied } or { Verb: StockVerb.Reserve, State: OperationState.Confirmed }))
        {
            return StockResult.Of(StockStatus.InvalidTargetState);
        }

        var lines = command.Lines;
        var rows = ArrayPool<StockRow>.Shared.Rent(lines.Length);
        var places = ArrayPool<int>.Shared.Rent(lines.Length);
        try
        {
            if (FindRows(state, lines, rows) is { } unknown)
            {
                return StockResult.Refused(StockStatus.UnknownSku, unknown);
            }

            for (var i = 0; i < lines.Length; i++)
            {
                var place = places[i] = FindLine(target.Lines, lines[i].Sku);
                var refundable = place < 0 ? 0 : target.Lines[place].Quantity - (target.Refunded?[place] ?? 0);
                if (lines[i].Quantity > refundable)
                {
                    return StockResult.Refused(StockStatus.ExceedsDeducted, lines[i].Sku, refundable);
                }
            }

            if (IsHeld(state, command, rows, target, now))
            {
                return StockResult.Of(StockStatus.Done);
            }

            // No-fail zone.
            var refunded = target.Refunded ??= new long[target.Lines.Length];
            var left = new LineBalance[lines.Length];
            ReleaseDue(state, rows.AsSpan(0, lines.Length), now);
            for (var i = 0; i < lines.Length; i++)
            {
                refunded[places[i]] += lines[i].Quantity;
                Change(state, rows[i], command.Id, FlowKind.Refund, lines[i].Quantity, 0, now);
                left[i] = new(rows[i].Sku, rows[i].Available);
            }

            state.OperationChanged(target);
            return Remember(state, command, OperationState.Applied, left, now);
        }
        finally
        {
            ArrayPool<int>.Shared.Return(places);
            ArrayPool<StockRow>.Shared.Return(rows, clearArray: true);
        }
    }

    private static StockResult Restock(IStockState state, StockCommand command, long now)
    {
        var lines = command.Lines;
        var isCommit = command.Branch is { Phase: BranchPhase.Commit };
        foreach (var (sku, quantity) in lines)
        {
            // A commit was let in when it was prepared.
            if (!isCommit && state.FindRow(sku) is { } row && row.Supplied > StockLimits.MaxSupplied - quantity)
            {
                return StockResult.Refused(StockStatus.ExceedsLimit, sku);
            }
        }

        if (command.Branch is not null && !isCommit)
        {
            StockRow?[] known = [.. lines.Select(line => state.FindRow(line.Sku))];
            IsHeld(state, command, known, null, now);
            return StockResult.Of(StockStatus.Done);
        }

        // No-fail zone.
        var left = new LineBalance[lines.Length];
        for (var i = 0; i < lines.Length; i++)
        {
            var (sku, quantity) = lines[i];
            var row = state.FindRow(sku);
            if (row is null)
            {
                row = state.AddRow(sku);
            }
            else
            {
                ReleaseDue(state, new Span<StockRow>(ref row), now);
            }

            row.Restocked += quantity;
            row.Supplied += quantity;
            Change(state, row, command.Id, FlowKind.Restock, quantity, 0, now);
            left[i] = new(sku, row.Available);
        }

        return Remember(state, command, OperationState.Applied, left, now);
    }

    private static StockResult Adjust(IStockState state, StockCommand command, long now)
    {
        var lines = command.Lines;
        var rows = ArrayPool<StockRow>.Shared.Rent(lines.Length);
        try
        {
            if (FindRows(state, lines, rows) is { } unknown)
            {
                return StockResult.Refused(StockStatus.UnknownSku, unknown);
            }

            for (var i = 0; i < lines.Length; i++)
            {
                if (lines[i].Quantity > 0 && rows[i].Supplied > StockLimits.MaxSupplied - lines[i].Quantity)
                {
                    return StockResult.Refused(StockStatus.ExceedsLimit, lines[i].Sku);
                }
            }

            ReleaseDue(state, rows.AsSpan(0, lines.Length), now);
            for (var i = 0; i < lines.Length; i++)
            {
                if (rows[i].Available + lines[i].Quantity < 0)
                {
                    return StockResult.Refused(StockStatus.Insufficient, lines[i].Sku, rows[i].Available);
                }
            }

            for (var i = 0; i < lines.Length; i++)
            {
                if (lines[i].Quantity < 0 && rows[i].Available - rows[i].Held + lines[i].Quantity < 0)
                {
                    return Undecided(lines[i].Sku);
                }
            }

            if (IsHeld(state, command, rows, null, now))
            {
                return StockResult.Of(StockStatus.Done);
            }

            // No-fail zone.
            var left = new LineBalance[lines.Length];
            for (var i = 0; i < lines.Length; i++)
            {
                var change = lines[i].Quantity;
                rows[i].Adjusted += change;
                rows[i].Supplied += Math.Max(change, 0);
                Change(state, rows[i], command.Id, FlowKind.Adjust, change, 0, now);
                left[i] = new(rows[i].Sku, rows[i].Available);
            }

            return Remember(state, command, OperationState.Applied, left, now);
        }
        finally
        {
            ArrayPool<StockRow>.Shared.Return(rows, clearArray: true);
        }
    }

    /// <summary>Fills <paramref name="rows"/> in line order; the first SKU that is not known, if any.</summary>
    private static string? FindRows(IStockState state, ImmutableArray<StockLine> lines, StockRow[] rows)
    {
        for (var i = 0; i < lines.Length; i++)
        {
            if (state.FindRow(lines[i].Sku) is not { } row)
            {
                return lines[i].Sku;
            }

            rows[i] = row;
        }

        return null;
    }

    /// <summary>Releases every reservation on these rows whose time has passed, so that answers and refusals count its units.</summary>
    private static void ReleaseDue(IStockState state, Span<StockRow> rows, long now)
    {
        foreach (var row in rows)
        {
            while (row.Reserved > 0 && state.FindDue(row, now) is { } due)
            {
                Expire(state, due, now);
            }
        }
    }

    private static void Expire(IStockState state, Operation reservation, long now)
    {
        foreach (var (sku, quantity) in reservation.Lines)
        {
            Change(state, HeldRow(state, sku), reservation.Id, FlowKind.Expire, quantity, -quantity, now);
        }

        reservation.State = OperationState.Expired;
        reservation.EndedAt = now;
        state.OperationChanged(reservation);
    }

    private static void Change(IStockState state, StockRow row, string operationId, FlowKind kind, long availableChange, long reservedChange, long now)
    {
        row.Available += availableChange;
        row.Reserved += reservedChange;
        row.Version++;
        state.AddFlow(row, new()
        {
            Sku = row.Sku,
            Version = row.Version,
            OperationId = operationId,
            Kind = kind,
            AvailableChange = availableChange,
            ReservedChange = reservedChange,
            Available = row.Available,
            Reserved = row.Reserved,
            At = DateTimeOffset.FromUnixTimeMilliseconds(now),
        });
    }

    private static StockResult Remember(IStockState state, StockCommand command, OperationState applied, LineBalance[] left, long now)
    {
        var balances = ImmutableCollectionsMarshal.AsImmutableArray(left);
        state.AddOperation(new()
        {
            Id = command.Id,
            Verb = command.Verb,
            Target = command.Target,
            Lines = command.Lines,
            TimeToLive = command.TimeToLiveMilliseconds,
            Note = command.Note,
            CreatedAt = now,
            State = applied,
            Cart = command.Branch?.Cart,
            Left = balances,
        });
        return new() { Status = StockStatus.Done, Left = balances };
    }

    private static StockResult LeaveTombstone(IStockState state, StockCommand command, OperationState closed, long now)
    {
        state.AddOperation(new() { Id = command.Id, Verb = command.Verb, Note = command.Note, CreatedAt = now, State = closed });
        return StockResult.Of(StockStatus.Done);
    }

    private static StockResult End(IStockState state, Operation target, OperationState end, LineBalance[] left, long now)
    {
        target.State = end;
        target.Pending = null;
        target.EndedAt = now;
        target.EndLeft = ImmutableCollectionsMarshal.AsImmutableArray(left);
        state.OperationChanged(target);
        return new() { Status = StockStatus.Done, Left = target.EndLeft };
    }

    private static StockResult Replayed(StockStatus original, ImmutableArray<LineBalance> left) =>
        new() { Status = StockStatus.Replayed, Original = original, Left = left };

    /// <summary>The row of a line that an operation holds or took: it exists, because rows are never removed.</summary>
    private static StockRow HeldRow(IStockState state, string sku) =>
        state.FindRow(sku) ?? throw new InvalidOperationException($"The store has an operation on SKU '{sku}' but no stock row for it; run the audit.");

    /// <summary>The place of a SKU among sorted lines, or a negative number.</summary>
    private static int FindLine(ImmutableArray<StockLine> lines, string sku)
    {
        int low = 0, high = lines.Length - 1;
        while (low <= high)
        {
            var middle = (low + high) >>> 1;
            var order = StockKey.ByteOrder.Compare(lines[middle].Sku, sku);
            if (order == 0)
            {
                return middle;
            }

            (low, high) = order < 0 ? (middle + 1, high) : (low, middle - 1);
        }

        return -1;
    }
}
