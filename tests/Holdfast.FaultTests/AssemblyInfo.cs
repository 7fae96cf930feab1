// Each test has servers and callers of its own, and the machine's cores for itself: what is measured is how they recover.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
