using System.Collections;

namespace Holdfast.Testing;

/// <summary>
/// Finds ids that stand for more than one operation, which an engine without <see cref="StockTraits.GlobalIds"/> does not
/// notice by itself. In 16 MiB and a second listing, whatever the number of operations; the few whose hashes meet by
/// chance are told apart in the second.
/// </summary>
internal sealed class ReusedIds
{
    private const int Bits = 27;

    private readonly BitArray _seen = new(1 << Bits);
    private readonly Dictionary<string, int> _suspects = new(StringComparer.Ordinal);

    /// <summary>Notes an operation of the first listing.</summary>
    public void Add(string id, ulong hash)
    {
        var bit = (int)(hash >> (64 - Bits));
        if (_seen[bit])
        {
            _suspects.TryAdd(id, 0);
        }

        _seen[bit] = true;
    }

    /// <summary>Lists once more, where there are suspects.</summary>
    public async Task<IEnumerable<string>> FindAsync(IStockEngine engine, CancellationToken cancellationToken)
    {
        if (_suspects.Count > 0)
        {
            await foreach (var view in engine.ListOperationsAsync(new(), cancellationToken).ConfigureAwait(false))
            {
                if (_suspects.TryGetValue(view.Id, out var count))
                {
                    _suspects[view.Id] = count + 1;
                }
            }
        }

        return _suspects.Where(suspect => suspect.Value > 1).Select(suspect => $"{suspect.Key}: stands for {suspect.Value} operations: an id was used again for another cart.");
    }
}
