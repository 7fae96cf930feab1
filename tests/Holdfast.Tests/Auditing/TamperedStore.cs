using Holdfast.Testing;

namespace Holdfast.Tests.Auditing;

/// <summary>What a healthy store said, in lists that a test may spoil before it is audited.</summary>
internal sealed class TamperedStore : DelegatingStockEngine
{
    private TamperedStore(IStockEngine inner)
        : base(inner)
    {
    }

    public List<StockLevel> Rows { get; } = [];

    public List<FlowEntry> Flow { get; } = [];

    public List<OperationView> Operations { get; } = [];

    /// <summary>Plays a script on a healthy store, and copies everything that can be read from it.</summary>
    public static async Task<TamperedStore> AfterAsync(string script)
    {
        var clock = new ManualTimeProvider();
        var engine = new MemoryEngine(clock);
        await new ConformanceContext(engine, "-", clock).PlayAsync(script);
        var store = new TamperedStore(engine);
        await foreach (var row in engine.ListStockAsync())
        {
            store.Rows.Add(row);
        }

        await foreach (var entry in engine.ReadFlowAsync(new()))
        {
            store.Flow.Add(entry);
        }

        await foreach (var view in engine.ListOperationsAsync(new()))
        {
            store.Operations.Add(view);
        }

        return store;
    }

    public void Change(string sku, Func<StockLevel, StockLevel> change)
    {
        var i = Rows.FindIndex(row => row.Sku == "-" + sku);
        Rows[i] = change(Rows[i]);
    }

    public void Change(string sku, long version, Func<FlowEntry, FlowEntry> change)
    {
        var i = Flow.FindIndex(entry => entry.Sku == "-" + sku && entry.Version == version);
        Flow[i] = change(Flow[i]);
    }

    public void Change(string id, Func<OperationView, OperationView> change)
    {
        var i = Operations.FindIndex(view => view.Id == "-" + id);
        Operations[i] = change(Operations[i]);
    }

    /// <summary>Adds an entry after the latest of its SKU, balances included, and moves the stock row along.</summary>
    public void Append(string sku, FlowKind kind, string id, long available, long reserved)
    {
        var last = Flow.FindLast(entry => entry.Sku == "-" + sku);
        Flow.Add(last with
        {
            Version = last.Version + 1,
            Kind = kind,
            OperationId = "-" + id,
            AvailableChange = available,
            ReservedChange = reserved,
            Available = last.Available + available,
            Reserved = last.Reserved + reserved,
        });
        Change(sku, row => row with { Available = row.Available + available, Reserved = row.Reserved + reserved, Version = row.Version + 1 });
    }

    /// <summary>Takes the latest entry of a SKU away, and moves the stock row back with it.</summary>
    public void RemoveLast(string sku)
    {
        var last = Flow.FindLast(entry => entry.Sku == "-" + sku);
        Flow.Remove(last);
        Change(sku, row => row with { Available = row.Available - last.AvailableChange, Reserved = row.Reserved - last.ReservedChange, Version = row.Version - 1 });
    }

    public override ValueTask<IReadOnlyList<StockLevel>> GetStockAsync(IReadOnlyList<string> skus, ReadOptions options = default, CancellationToken cancellationToken = default) =>
        new([.. skus.Select(sku => Rows.FindIndex(row => row.Sku == sku) is >= 0 and var i ? Rows[i] : new StockLevel { Sku = sku })]);

    public override ValueTask<OperationView?> GetOperationAsync(string id, CancellationToken cancellationToken = default) => new(Operations.Find(view => view.Id == id));

    public override IAsyncEnumerable<StockLevel> ListStockAsync(string? prefix = null, string? after = null, CancellationToken cancellationToken = default) => Rows.ToAsyncEnumerable();

    public override IAsyncEnumerable<OperationView> ListOperationsAsync(OperationQuery query, CancellationToken cancellationToken = default) =>
        Operations.Where(view => query.Target is null || view.Target == query.Target).ToAsyncEnumerable();

    public override IAsyncEnumerable<FlowEntry> ReadFlowAsync(FlowQuery query, CancellationToken cancellationToken = default) =>
        Flow.Select((entry, i) => entry with { Cursor = $"{i + 1}" })
            .Skip(query.After is null ? 0 : int.Parse(query.After))
            .Where(entry => query.Sku is null || entry.Sku == query.Sku)
            .ToAsyncEnumerable();
}
