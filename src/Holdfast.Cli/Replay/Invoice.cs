namespace Holdfast.Cli.Replay;

/// <summary>What an invoice of the file stands for.</summary>
internal enum InvoiceKind
{
    /// <summary>Lines that are not all negative: a customer's order, one Deduct.</summary>
    Order,

    /// <summary>All lines negative, and the number does not begin with C: units written off, one Adjust.</summary>
    WriteOff,

    /// <summary>All lines negative, and the number begins with C: a cancellation, which becomes refunds of earlier orders.</summary>
    Cancellation,
}

/// <summary>One row of an invoice.</summary>
/// <param name="Line">The line of the file that it begins on, the first being 1.</param>
/// <param name="Sku">The StockCode.</param>
/// <param name="Quantity">Units; negative for what goes back or is written off.</param>
/// <param name="Customer">The CustomerID, empty where the shop noted none.</param>
internal readonly record struct InvoiceRow(long Line, string Sku, long Quantity, string Customer);

/// <summary>The rows of one InvoiceNo, in file order.</summary>
internal sealed class Invoice
{
    private Invoice(string number, InvoiceKind kind, IReadOnlyList<InvoiceRow> rows, StockCommand? command)
    {
        Number = number;
        Kind = kind;
        Rows = rows;
        Command = command;
    }

    /// <summary>The InvoiceNo; the operation id of an order or a write-off.</summary>
    public string Number { get; }

    /// <summary>What it stands for.</summary>
    public InvoiceKind Kind { get; }

    /// <summary>Its rows, in file order.</summary>
    public IReadOnlyList<InvoiceRow> Rows { get; }

    /// <summary>The Deduct or Adjust; <see langword="null"/> for a cancellation, whose refunds depend on what was applied before.</summary>
    public StockCommand? Command { get; }

    /// <summary>Tells what the rows of an invoice mean and makes the command.</summary>
    /// <exception cref="InvalidCommandException">The rows make no valid command; the field <c>lines[i]</c> speaks of row i.</exception>
    public static Invoice Of(string number, IReadOnlyList<InvoiceRow> rows)
    {
        var lines = rows.Select(row => new StockLine(row.Sku, row.Quantity)).ToArray();
        if (!rows.All(row => row.Quantity < 0))
        {
            return new(number, InvoiceKind.Order, rows, StockCommand.Deduct(number, lines));
        }

        return number.StartsWith('C')
            ? new(number, InvoiceKind.Cancellation, rows, command: null)
            : new(number, InvoiceKind.WriteOff, rows, StockCommand.Adjust(number, lines));
    }
}
