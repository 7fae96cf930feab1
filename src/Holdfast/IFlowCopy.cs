namespace Holdfast;

/// <summary>
/// A place outside the store to which a ledger is copied, part by part, and which remembers how far: a table that others query, and what is left
/// when a store that keeps everything in memory is gone. One at a time may copy a ledger; a second is told. Not thread-safe.
/// </summary>
public interface IFlowCopy : IAsyncDisposable
{
    /// <summary>Where it is, for people: no password.</summary>
    string Location { get; }

    /// <summary>The cursor up to which the ledger was copied; <see langword="null"/> when nothing was copied yet.</summary>
    /// <exception cref="IOException">It could not be read; the message says what to do.</exception>
    ValueTask<string?> GetCursorAsync(CancellationToken cancellationToken = default);

    /// <summary>Adds entries and moves the cursor to that of the last of them, both or neither.</summary>
    /// <param name="entries">Entries as they were read after the present cursor, each with its <see cref="FlowEntry.Cursor"/>; at least one.</param>
    /// <param name="cancellationToken">Stops the writing; nothing is added then, or all of them.</param>
    /// <exception cref="IOException">They could not be added, or somebody else has moved the cursor; the message says what to do.</exception>
    ValueTask AddAsync(IReadOnlyList<FlowEntry> entries, CancellationToken cancellationToken = default);
}
