using System.IO.Compression;
using System.Text;

namespace Holdfast.Tests.Cli;

public class BadFileTests
{
    private const string Header = "InvoiceNo,StockCode,Quantity,CustomerID\n";

    [Theory]
    [InlineData("", "is empty")]
    [InlineData("InvoiceNo,StockCode,CustomerID\n1,a,anna\n", "line 1: the header has no column Quantity")]
    [InlineData(Header, "has no invoice to replay")]
    [InlineData(Header + "1,a,5,anna\n2,a,x,anna\n", "line 3, column Quantity: must be a whole number")]
    [InlineData(Header + "1,a,5.0,anna\n", "line 2, column Quantity")]
    [InlineData(Header + "1,a,0,anna\n", "line 2, column Quantity")]
    [InlineData(Header + "1,a,,anna\n", "line 2, column Quantity")]
    [InlineData(Header + "1,a,99999999999999999999,anna\n", "line 2, column Quantity")]
    [InlineData(Header + "1,a,-9223372036854775808,anna\n", "line 2, column Quantity")]
    [InlineData(Header + "1,,5,anna\n", "line 2, column StockCode: is missing or empty")]
    [InlineData(Header + ",a,5,anna\n", "line 2, column InvoiceNo: is missing or empty")]
    [InlineData(Header + "1, a,5,anna\n", "line 2, column StockCode: begins or ends with white space: ' a'")]
    [InlineData(Header + "12345678901234567890123456789012345678901234567890123456789012345,a,5,anna\n", "line 2, column InvoiceNo: is 65 characters long")]
    [InlineData(Header + "1,a,5\n", "line 2: has 3 fields; the header names 4")]
    [InlineData(Header + "1,a,5,anna,x\n", "line 2: has 5 fields")]
    [InlineData(Header + "1,a,5,anna\n1,a,-2,anna\n", "line 3, column Quantity: is -2, but other rows of invoice 1 are positive")]
    [InlineData(Header + "1,a\"b,5,anna\n", "line 2: has a quotation mark inside a field that is not quoted")]
    [InlineData(Header + "\n\n1,\"line\nbreak\",5,anna\n2,a,x,\n", "line 6, column Quantity")]
    [InlineData(Header + "1,\"a,5,anna\n2,a,5,anna\n", "line 2: has a quotation mark that is not closed")]
    public async Task A_bad_file_is_refused_with_its_line_and_column_before_anything_is_applied(string content, string complaint)
    {
        using var folder = new TestFolder();
        var file = folder.Text("orders.csv", content);

        var run = await CommandRun.RunAsync("replay", file, "--store", $"sqlite:{folder.File("stock.db")}");

        run.ExitCode.ShouldBe(2, run.Error);
        run.Error.ShouldContain(file);
        run.Error.ShouldContain(complaint);
        File.Exists(folder.File("stock.db")).ShouldBeFalse("the store is not even opened");
    }

    [Fact]
    public async Task A_field_that_never_ends_does_not_fill_the_memory()
    {
        using var folder = new TestFolder();
        var file = folder.Text("orders.csv", Header + "1,\"" + new string('x', 1_000_000) + "\n2,a,5,anna\n");

        var run = await CommandRun.RunAsync("replay", file, "--scheme", "memory");

        run.ExitCode.ShouldBe(2);
        run.Error.ShouldContain("line 2:");
    }

    [Fact]
    public async Task Text_that_is_not_UTF8_is_refused()
    {
        using var folder = new TestFolder();
        await File.WriteAllBytesAsync(folder.File("latin1.csv"), Encoding.Latin1.GetBytes(Header + "1,caf\u00e9,5,anna\n"), TestContext.Current.CancellationToken);

        var run = await CommandRun.RunAsync("replay", folder.File("latin1.csv"), "--scheme", "memory");

        run.ExitCode.ShouldBe(2, run.Error);
        run.Error.ShouldContain("is not UTF-8 text");
    }

    [Fact]
    public async Task A_packed_file_that_breaks_off_is_refused()
    {
        using var folder = new TestFolder();
        var packed = new MemoryStream();
        await using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            await gzip.WriteAsync(Encoding.UTF8.GetBytes(Header + string.Concat(Enumerable.Range(0, 5_000).Select(i => $"{i},sku-{i * 7919 % 997},{i % 9 + 1},\n"))), TestContext.Current.CancellationToken);
        }

        await File.WriteAllBytesAsync(folder.File("half.csv.gz"), packed.ToArray()[..(int)(packed.Length / 2)], TestContext.Current.CancellationToken);

        var run = await CommandRun.RunAsync("replay", folder.File("half.csv.gz"), "--scheme", "memory");

        run.ExitCode.ShouldBe(2, run.Error);
        run.Error.ShouldContain("half.csv.gz");
    }

    [Fact]
    public async Task A_packed_file_that_breaks_off_between_two_rows_is_refused_and_not_taken_for_a_short_one()
    {
        using var folder = new TestFolder();
        const string whole = Header + "1,apple,5,anna\n";
        var packed = new MemoryStream();
        await using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            // Flushed after a row: up to here the packed bytes unpack to whole rows.
            await gzip.WriteAsync(Encoding.UTF8.GetBytes(whole), TestContext.Current.CancellationToken);
            await gzip.FlushAsync(TestContext.Current.CancellationToken);
            await File.WriteAllBytesAsync(folder.File("cut.csv.gz"), packed.ToArray(), TestContext.Current.CancellationToken);
            await gzip.WriteAsync("2,apple,1,bert\n"u8.ToArray(), TestContext.Current.CancellationToken);
        }

        await File.WriteAllBytesAsync(folder.File("whole.csv.gz"), packed.ToArray(), TestContext.Current.CancellationToken);

        (await CommandRun.RunAsync("replay", folder.File("whole.csv.gz"), "--scheme", "memory")).ExitCode.ShouldBe(0);
        var run = await CommandRun.RunAsync("replay", folder.File("cut.csv.gz"), "--scheme", "memory");

        run.ExitCode.ShouldBe(2, run.Error);
        run.Error.ShouldContain("was cut off after line 2");
    }

    [Fact]
    public async Task With_skip_bad_an_invoice_with_a_bad_row_is_left_out_whole_and_counted()
    {
        using var folder = new TestFolder();
        var file = folder.Csv("1,apple,5,anna", "2,apple,1,bert", "2,pear,x,bert", "3,apple,2,carl", "4,fig,1,dora,too,many");

        var run = await CommandRun.RunAsync("replay", file, "--scheme", "memory", "--skip-bad", "--json");

        run.ExitCode.ShouldBe(0, run.Error);
        run.Error.ShouldContain("line 4, column Quantity");
        run.Error.ShouldContain("line 6: has 6 fields");
        run.Json.GetProperty("rows").GetInt32().ShouldBe(5);
        run.Json.GetProperty("rowsLeftOut").GetInt32().ShouldBe(3);
        run.Json.GetProperty("ordersApplied").GetInt32().ShouldBe(2);
        run.Json.GetProperty("unitsOpened").GetInt64().ShouldBe(7, "invoices left out order nothing");
    }
}
