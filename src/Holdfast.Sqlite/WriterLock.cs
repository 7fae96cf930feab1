namespace Holdfast.Sqlite;

/// <summary>
/// Makes this process the file's one writer: an operating system lock on a file beside it, which the system releases
/// when the process ends, however it ends. The lock file stays behind; it means nothing unless it is locked.
/// </summary>
internal sealed class WriterLock : IDisposable
{
    private readonly FileStream _file;

    private WriterLock(FileStream file) => _file = file;

    /// <summary>Takes the lock; <see langword="null"/> when another engine has it.</summary>
    public static WriterLock? TryTake(string path)
    {
        var lockPath = path + ".lock";
        try
        {
            return new(new FileStream(lockPath, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0));
        }
        catch (UnauthorizedAccessException e)
        {
            throw new SqliteStoreException($"The stock file '{path}' can't be opened for writing, because this user may not write '{lockPath}': check the permissions of the folder.", innerException: e);
        }
        catch (IOException e) when (File.Exists(lockPath) && IsSharingViolation(e))
        {
            return null;
        }
        catch (IOException e)
        {
            throw new SqliteStoreException($"The stock file '{path}' can't be opened for writing, because '{lockPath}' can't be written ({e.Message}): check that the disk is there, writable and not full.", innerException: e);
        }
    }

    public void Dispose() => _file.Dispose();

    /// <summary>What the system answers to a second lock: EWOULDBLOCK on Linux (11) and macOS (35), a sharing violation on Windows.</summary>
    private static bool IsSharingViolation(IOException e) => e.HResult is 11 or 35 or unchecked((int)0x80070020);
}
