using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Holdfast.Rules;

namespace Holdfast.Redis;

/// <summary>Reads what the scripts answer, and what the journal holds; the forms are described in Scripts/common.lua and in each script.</summary>
internal ref struct ReplyReader(ReadOnlySpan<byte> bytes)
{
    private const int HasTimeToLive = 2;
    private const int HasTarget = 4;
    private const int HasNote = 8;

    /// <summary>What a tombstone's kind is above its verb.</summary>
    private const int Tombstone = 10;

    private ReadOnlySpan<byte> _rest = bytes;

    public readonly bool IsAtEnd => _rest.IsEmpty;

    public int Byte() => Take(1)[0];

    public int Short() => BinaryPrimitives.ReadUInt16LittleEndian(Take(2));

    public long Number(int size)
    {
        var taken = Take(size);
        long number = 0;
        for (var i = size - 1; i >= 0; i--)
        {
            number = (number << 8) | taken[i];
        }

        return number;
    }

    public string Text(int length) => Encoding.UTF8.GetString(Take(length));

    public ReadOnlySpan<byte> Take(int length)
    {
        var taken = _rest[..length];
        _rest = _rest[length..];
        return taken;
    }

    /// <summary>The result of a command (execute.lua).</summary>
    public StockResult Result(StockCommand command)
    {
        var status = (StockStatus)(Byte() * 100);
        var original = (StockStatus)(Byte() * 100);
        var form = Byte();
        switch (form)
        {
            case 2:
                var line = Short();
                var refused = StockResult.Refused(status, command.Lines[line].Sku, Number(7));
                return status == StockStatus.Busy ? Undecided() with { Sku = refused.Sku } : refused;
            case 4:
                var plain = new LineBalance[] { new(command.Lines[0].Sku, Number(7)) };
                Take(13);
                return Acknowledged(new() { Status = status, Left = ImmutableCollectionsMarshal.AsImmutableArray(plain) });
            case 1 or 3:
                var left = new LineBalance[Short()];
                for (var i = 0; i < left.Length; i++)
                {
                    left[i] = new(form == 3 ? Text(Byte()) : command.Lines[i].Sku, Number(7));
                }

                return Acknowledged(new() { Status = status, Original = original, Left = ImmutableCollectionsMarshal.AsImmutableArray(left) });
            default:
                return status == StockStatus.Busy ? Undecided() : Acknowledged(new() { Status = status, Original = original });
        }
    }

    /// <summary>A row as stock.lua answers it.</summary>
    public StockLevel Level(string sku)
    {
        var form = Byte();
        if (form == 0)
        {
            return new() { Sku = sku };
        }

        var row = new StockRow(sku)
        {
            Available = Units(),
            Reserved = Units(),
            Restocked = Units(),
            Adjusted = Units(),
            Supplied = Units(),
            Version = Units(),
        };
        return row.ToLevel(dueUnits: form == 2 ? Units() : 0);
    }

    /// <summary>An operation as view.lua answers it, and the command over several shards that has it in hand; <see langword="null"/> where it is not known.</summary>
    public Operation? FindOperation()
    {
        switch (Byte())
        {
            case 0:
                return null;
            case 2:
                return Prepared();
            default:
                var operation = Operation();
                var verb = (StockVerb)Byte();
                var attempt = Text(Byte());
                operation.Pending = verb == StockVerb.None ? null : new(verb, attempt);
                return operation;
        }
    }

    /// <summary>An operation: its value in the operations' hash, its record, and its cart.</summary>
    public Operation Operation()
    {
        var value = new ReplyReader(Take((int)Number(4)));
        var state = (OperationState)value.Byte();
        value.Take(6);
        var record = new ReplyReader(Take(RecordSize() - 4));
        var (kind, _, time, id) = record.Head(out var flags);
        var timeToLive = (flags & HasTimeToLive) != 0 ? record.Number(5) : 0;
        var target = (flags & HasTarget) != 0 ? record.Text(record.Byte()) : null;
        var note = (flags & HasNote) != 0 ? record.Text(record.Short()) : null;
        var count = record.Short();
        var lines = new StockLine[count];
        var left = new LineBalance[count];
        for (var i = 0; i < count; i++)
        {
            record.Take(3);
            var sku = record.Text(record.Byte());
            lines[i] = new(sku, record.Signed6());
            left[i] = new(sku, record.Number(7));
            record.Take(7 + 6);
        }

        long endedAt = 0;
        long[]? refunded = null;
        if (!value.IsAtEnd)
        {
            endedAt = value.Number(6);
            value.Take(7 * value.Short());
            if (value.Short() is > 0 and var lineCount)
            {
                refunded = new long[lineCount];
                for (var i = 0; i < lineCount; i++)
                {
                    refunded[i] = value.Number(6);
                }
            }
        }

        return new()
        {
            Id = id,
            Verb = (StockVerb)(kind > Tombstone ? kind - Tombstone : kind),
            State = state,
            Target = target,
            Lines = ImmutableCollectionsMarshal.AsImmutableArray(lines),
            Left = ImmutableCollectionsMarshal.AsImmutableArray(left),
            TimeToLive = timeToLive,
            Note = note,
            CreatedAt = time,
            EndedAt = endedAt,
            Refunded = refunded,
            Cart = Text(Byte()) is { Length: > 0 } cart ? ShardedCart.Parse(cart) : null,
        };
    }

    /// <summary>The ledger entries of one record of the journal.</summary>
    /// <param name="position">Where the record begins.</param>
    /// <param name="skip">So many of its lines were read before.</param>
    /// <param name="into">Where the entries go, each with its cursor.</param>
    /// <returns>The record's size.</returns>
    public int Entries(long position, int skip, List<FlowEntry> into)
    {
        var size = RecordSize();
        var record = new ReplyReader(Take(size - 4));
        var (kind, isHeld, time, id) = record.Head(out var flags);
        record.Take((flags & HasTimeToLive) != 0 ? 5 : 0);
        record.Take((flags & HasTarget) != 0 ? record.Byte() : 0);
        record.Take((flags & HasNote) != 0 ? record.Short() : 0);
        var count = record.Short();
        for (var i = 1; i <= count; i++)
        {
            record.Take(3);
            var entry = record.Entry(record.Text(record.Byte()), kind, isHeld, time, id);
            if (i > skip)
            {
                into.Add(entry with { Cursor = JournalCursor.Text(position, i) });
            }
        }

        return size;
    }

    /// <summary>One entry as flow_of_sku.lua answers it.</summary>
    public FlowEntry EntryOfSku(string sku)
    {
        var (kind, isHeld, time, id) = Head(out _);
        var entry = Entry(sku, kind, isHeld, time, id);
        return entry with { Cursor = JournalCursor.Text(entry.Version) };
    }

    private static StockResult Undecided() => StockResult.Of(StockStatus.Busy, "a command over several shards that is not decided yet has it in hand") with { IsUndecided = true };

    private Operation Prepared()
    {
        var (verb, time, timeToLive) = ((StockVerb)Byte(), Number(6), Number(5));
        var (id, target, note, cart) = (Text(Byte()), Text(Byte()), Text(Short()), Text(Byte()));
        var lines = new StockLine[Short()];
        for (var i = 0; i < lines.Length; i++)
        {
            lines[i] = new(Text(Byte()), Signed6());
        }

        return new()
        {
            Id = id,
            Verb = verb,
            Target = target.Length == 0 ? null : target,
            Lines = ImmutableCollectionsMarshal.AsImmutableArray(lines),
            TimeToLive = timeToLive,
            Note = note.Length == 0 ? null : note,
            CreatedAt = time,
            State = OperationState.Undecided,
            Cart = ShardedCart.Parse(cart),
        };
    }

    private static StockResult Acknowledged(in StockResult result) => result.IsApplied ? result with { AcknowledgedBy = Acknowledgement.Store } : result;

    private int RecordSize() => (int)Number(4);

    private (int Kind, bool IsHeld, long Time, string Id) Head(out int flags)
    {
        var kind = Byte();
        flags = Byte();
        return (kind, (flags & 1) != 0, Number(6), Text(Byte()));
    }

    private FlowEntry Entry(string sku, int kind, bool isHeld, long time, string id)
    {
        var units = Signed6();
        var (available, reserved) = (FlowKind)kind switch
        {
            FlowKind.Deduct => (-units, 0L),
            FlowKind.Reserve => (-units, units),
            FlowKind.Confirm => (0, -units),
            FlowKind.Cancel => (units, isHeld ? -units : 0),
            FlowKind.Expire => (units, -units),
            _ => (units, 0),
        };
        return new()
        {
            Sku = sku,
            OperationId = id,
            Kind = (FlowKind)kind,
            AvailableChange = available,
            ReservedChange = reserved,
            Available = Number(7),
            Reserved = Number(7),
            Version = Number(6),
            At = DateTimeOffset.FromUnixTimeMilliseconds(time),
        };
    }

    private long Signed6() => (Number(6) << 16) >> 16;

    /// <summary>Units are whole numbers up to 2^53 − 1, which a double holds exactly.</summary>
    private long Units() => (long)BinaryPrimitives.ReadDoubleLittleEndian(Take(8));
}
