// A second process for the tests of the SQLite store.
//   hold PATH    opens the file for writing, says "open", and closes it when its input ends
//   load PATH    the same, and deducts one unit of HOT from many callers at once, saying each id that was acknowledged,
//                until it is killed
//   limit PATH   the same one command at a time, saying each outcome, until one is not Done
// A file that can't be opened: says "refused: " and why, and exits with 1.
using Holdfast;

if (args is not [("hold" or "load" or "limit") and var verb, var path])
{
    await Console.Error.WriteLineAsync("usage: hold|load|limit PATH").ConfigureAwait(false);
    return 2;
}

SqliteEngine store;
try
{
    store = SqliteEngine.Open(new() { Path = path });
}
catch (SqliteStoreException e)
{
    Console.WriteLine($"refused: {e.Message}");
    return 1;
}

// The lines go out before the next command begins: what was said was acknowledged, whatever happens then.
var output = Console.Out;
output.WriteLine("open");
switch (verb)
{
    case "hold":
        await Console.In.ReadToEndAsync().ConfigureAwait(false);
        break;

    case "load":
        await using (var batched = new GroupCommit(store))
        {
            await Task.WhenAll(Enumerable.Range(0, 64).Select(caller => LoadAsync(batched, caller))).ConfigureAwait(false);
        }

        break;

    default:
        for (var i = 0; ; i++)
        {
            var result = await store.DeductAsync($"limit-{i}", [("HOT", 1)]).ConfigureAwait(false);
            output.WriteLine(result.ToString());
            if (result.Status != StockStatus.Done)
            {
                break;
            }
        }

        break;
}

await store.DisposeAsync().ConfigureAwait(false);
return 0;

async Task LoadAsync(GroupCommit batched, int caller)
{
    await Task.Yield();
    for (var i = 0; ; i++)
    {
        var id = $"{Environment.ProcessId}-{caller}-{i}";
        var result = await batched.DeductAsync(id, [("HOT", 1)]).ConfigureAwait(false);
        if (result.IsApplied)
        {
            output.WriteLine(id);
        }
    }
}
