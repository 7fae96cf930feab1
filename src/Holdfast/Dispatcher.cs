namespace Holdfast;

/// <summary>
/// Who runs what a layer hands on to "another thread": the thread pool, or a simulation that owns every step taken on
/// its thread. A layer asks for <see cref="Current"/> once, when it is made.
/// </summary>
internal abstract class Dispatcher
{
    [ThreadStatic]
    private static Dispatcher? t_owner;

    /// <summary>The owner of this thread; the thread pool where there is none.</summary>
    public static Dispatcher Current => t_owner ?? PoolDispatcher.Instance;

    /// <summary>Whether it is the thread pool, where the runtime's own ways of handing on are the cheapest.</summary>
    public bool IsThreadPool => this is PoolDispatcher;

    /// <summary>
    /// How a promise is made whose awaiting code must not run inside the code that keeps it. An owner of all steps takes
    /// care of that itself, at the edges: it could not see what the runtime hands to the pool.
    /// </summary>
    public abstract TaskCreationOptions PromiseOptions { get; }

    /// <summary>Runs work soon, after what is running now.</summary>
    public abstract void Queue(IThreadPoolWorkItem work);

    /// <summary>Runs work soon, after what is running now.</summary>
    public abstract void Queue<T>(Action<T> work, T state);

    /// <summary>Lets others go first.</summary>
    public abstract ValueTask YieldAsync();

    /// <summary>Makes an owner, or nobody, own this thread; returns who did before.</summary>
    public static Dispatcher? Own(Dispatcher? owner)
    {
        var before = t_owner;
        t_owner = owner;
        return before;
    }

    private sealed class PoolDispatcher : Dispatcher
    {
        public static readonly PoolDispatcher Instance = new();

        public override TaskCreationOptions PromiseOptions => TaskCreationOptions.RunContinuationsAsynchronously;

        public override void Queue(IThreadPoolWorkItem work) => ThreadPool.UnsafeQueueUserWorkItem(work, preferLocal: false);

        public override void Queue<T>(Action<T> work, T state) => ThreadPool.UnsafeQueueUserWorkItem(work, state, preferLocal: false);

        public override async ValueTask YieldAsync() => await Task.Yield();
    }
}
