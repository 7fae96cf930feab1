namespace Holdfast;

/// <summary>A list that grows without moving what it holds, so that a ledger of millions is never copied. Not thread-safe.</summary>
internal sealed class ChunkedList<T>
{
    private const int ChunkBits = 13;
    private const int ChunkSize = 1 << ChunkBits;

    private T[][] _chunks = [[]];
    private int _chunkCount = 1;

    public int Count { get; private set; }

    public ref T this[int index] => ref _chunks[index >> ChunkBits][index & (ChunkSize - 1)];

    public void Add(in T item)
    {
        var chunk = Count >> ChunkBits;
        if (chunk == _chunkCount)
        {
            if (chunk == _chunks.Length)
            {
                Array.Resize(ref _chunks, chunk * 2);
            }

            _chunks[_chunkCount++] = new T[ChunkSize];
        }
        else if (chunk == 0 && Count == _chunks[0].Length)
        {
            // A short list (one SKU's ledger, of which there may be many) begins small.
            Array.Resize(ref _chunks[0], Math.Clamp(Count * 4, 4, ChunkSize));
        }

        _chunks[chunk][Count & (ChunkSize - 1)] = item;
        Count++;
    }
}
