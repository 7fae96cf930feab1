using System.Globalization;
using System.Runtime.CompilerServices;
using Holdfast.Wire;

namespace Holdfast.Testing;

/// <summary>
/// A store with its archives in front of it: reads of the ledger begin in the archives and go on in the store, openings
/// included, so that an audit over it proves the whole history and every opening on the way. Everything else is the
/// store's. Archives are read from the beginning for each read that begins there; nothing is kept in memory. Thread-safe.
/// </summary>
public sealed class ArchivedLedger : DelegatingStockEngine
{
    private const string ArchivePrefix = "archive:";
    private const string StorePrefix = "store:";

    private readonly IReadOnlyList<string> _paths;

    private ArchivedLedger(IStockEngine store, IReadOnlyList<string> paths)
        : base(store) => _paths = paths;

    /// <summary>Puts archives in front of a store.</summary>
    /// <param name="store">The store; disposed with this engine.</param>
    /// <param name="paths">Files of <see cref="FlowArchiveFile"/>, in any order: each says itself when it begins.</param>
    /// <param name="cancellationToken">Stops the reading.</param>
    /// <exception cref="InvalidDataException">A file is no archive, or an empty one.</exception>
    public static async Task<ArchivedLedger> OpenAsync(IStockEngine store, IEnumerable<string> paths, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(store);
        ArgumentNullException.ThrowIfNull(paths);

        // An archive begins with the openings that earlier ones left: the latest of them was made by the one just before.
        var begins = new List<(DateTimeOffset At, string Path)>();
        foreach (var path in paths)
        {
            DateTimeOffset? begin = null;
            await foreach (var entry in FlowArchiveFile.ReadAsync(path, cancellationToken).ConfigureAwait(false))
            {
                if (entry.Kind != FlowKind.Opening)
                {
                    begin ??= entry.At;
                    break;
                }

                begin = begin is null || entry.At > begin ? entry.At : begin;
            }

            begins.Add((begin ?? throw new InvalidDataException($"'{path}' has no entries: it is no archive of a ledger."), path));
        }

        return new(store, [.. begins.OrderBy(begin => begin.At).Select(begin => begin.Path)]);
    }

    /// <inheritdoc/>
    public override async IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(query);
        var left = query.Limit ?? int.MaxValue;
        string? after = null;
        if (query.After is { } cursor && cursor.StartsWith(StorePrefix, StringComparison.Ordinal))
        {
            after = cursor[StorePrefix.Length..];
        }
        else
        {
            var read = query.After is null ? 0
                : query.After.StartsWith(ArchivePrefix, StringComparison.Ordinal) && long.TryParse(query.After.AsSpan(ArchivePrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number
                : throw new ArgumentException($"'{query.After}' is no cursor of this ledger.", nameof(query));
            var count = 0L;
            foreach (var path in _paths)
            {
                await foreach (var entry in FlowArchiveFile.ReadAsync(path, cancellationToken).ConfigureAwait(false))
                {
                    if (++count <= read || (query.Sku is not null && entry.Sku != query.Sku))
                    {
                        continue;
                    }

                    if (left-- <= 0)
                    {
                        yield break;
                    }

                    yield return entry with { Cursor = string.Create(CultureInfo.InvariantCulture, $"{ArchivePrefix}{count}") };
                }
            }
        }

        await foreach (var entry in Inner.ReadFlowAsync(query with { After = after, Limit = query.Limit is null ? null : left }, cancellationToken).ConfigureAwait(false))
        {
            yield return entry with { Cursor = StorePrefix + entry.Cursor };
        }
    }
}
