using System.Buffers.Binary;
using System.Text;

namespace Holdfast.Redis;

/// <summary>Writes commands and SKUs as MessagePack, the form that Redis's Lua reads fastest. Not thread-safe.</summary>
internal sealed class PackWriter
{
    /// <summary>Stands for a deduction of one line without a note.</summary>
    private const int PlainDeduction = 9;

    private byte[] _bytes = new byte[1_024];
    private int _length;

    /// <summary>The commands, as execute.lua wants them.</summary>
    public static byte[] Write(ReadOnlySpan<StockCommand> commands)
    {
        var writer = new PackWriter();
        var values = 0;
        foreach (var command in commands)
        {
            values += IsPlain(command) ? 4 : 6 + (2 * command.Lines.Length);
        }

        writer.Array(values);
        foreach (var command in commands)
        {
            if (IsPlain(command))
            {
                writer.Number(PlainDeduction);
                writer.Text(command.Id);
            }
            else
            {
                writer.Number((int)command.Verb + (10 * (int)(command.Branch?.Phase ?? BranchPhase.None)));
                writer.Text(command.Id);
                writer.Number(command.TimeToLiveMilliseconds);
                writer.Text(command.IsTransition ? "" : command.Target ?? "");
                writer.Text(command.Branch is { } branch ? $"{branch.Cart}\n{command.Note}" : command.Note ?? "");
                writer.Number(command.Lines.Length);
            }

            foreach (var (sku, quantity) in command.Lines)
            {
                writer.Text(sku);
                writer.Number(quantity);
            }
        }

        return writer._bytes[..writer._length];
    }

    /// <summary>A list of SKUs.</summary>
    public static byte[] Write(IReadOnlyList<string> skus)
    {
        var writer = new PackWriter();
        writer.Array(skus.Count);
        for (var i = 0; i < skus.Count; i++)
        {
            writer.Text(skus[i]);
        }

        return writer._bytes[..writer._length];
    }

    private static bool IsPlain(StockCommand command) => command is { Verb: StockVerb.Deduct, Lines.Length: 1, Note: null, Branch: null };

    private void Array(int count)
    {
        var room = Room(5);
        if (count < 16)
        {
            room[0] = (byte)(0x90 | count);
            _length++;
        }
        else if (count <= ushort.MaxValue)
        {
            room[0] = 0xdc;
            BinaryPrimitives.WriteUInt16BigEndian(room[1..], (ushort)count);
            _length += 3;
        }
        else
        {
            room[0] = 0xdd;
            BinaryPrimitives.WriteUInt32BigEndian(room[1..], (uint)count);
            _length += 5;
        }
    }

    private void Number(long number)
    {
        var room = Room(9);
        if (number is >= 0 and < 128)
        {
            room[0] = (byte)number;
            _length++;
        }
        else
        {
            room[0] = 0xd3;
            BinaryPrimitives.WriteInt64BigEndian(room[1..], number);
            _length += 9;
        }
    }

    private void Text(string text)
    {
        var room = Room(3 + (3 * text.Length));
        var length = text.Length < 11 ? Encoding.UTF8.GetBytes(text, room[1..]) : Encoding.UTF8.GetByteCount(text);
        if (length < 32)
        {
            if (text.Length >= 11)
            {
                Encoding.UTF8.GetBytes(text, room[1..]);
            }

            room[0] = (byte)(0xa0 | length);
            _length += 1 + length;
        }
        else
        {
            room[0] = 0xda;
            BinaryPrimitives.WriteUInt16BigEndian(room[1..], (ushort)length);
            Encoding.UTF8.GetBytes(text, room[3..]);
            _length += 3 + length;
        }
    }

    private Span<byte> Room(int bytes)
    {
        if (_bytes.Length - _length < bytes)
        {
            System.Array.Resize(ref _bytes, Math.Max(_bytes.Length * 2, _length + bytes));
        }

        return _bytes.AsSpan(_length);
    }
}
