using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using CsvHelper;

namespace Holdfast.Cli.Replay;

/// <summary>What is wrong with a row, and where.</summary>
/// <param name="Line">The line of the file, the first being 1.</param>
/// <param name="Column">The column's name, or <see langword="null"/> when it is about the row or the whole file.</param>
/// <param name="Problem">What is wrong, as the end of a sentence.</param>
internal readonly record struct FileProblem(long Line, string? Column, string Problem)
{
    /// <summary>The complaint as a person wants to read it.</summary>
    public string Describe(string path) => Column is null ? $"{path}, line {Line}: {Problem}" : $"{path}, line {Line}, column {Column}: {Problem}";
}

/// <summary>
/// A CSV file of invoices, read as a whole and checked before anything is applied. An invoice with a bad row is not
/// among <see cref="Invoices"/>: half a cart is no cart. The caller decides whether problems end the matter.
/// </summary>
internal sealed class OrderFile
{
    // A quote that is never closed would otherwise swallow the rest of the file into memory.
    private const int MaxRecordLength = 65_536;

    private const int MaxProblemsKept = 1_000;

    private readonly List<FileProblem> _problems = [];
    private readonly Dictionary<string, List<InvoiceRow>> _rowsByInvoice = new(StringComparer.Ordinal);
    private readonly List<string> _numbers = [];
    private readonly HashSet<string> _spoiled = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _texts = new(StringComparer.Ordinal);

    private OrderFile(string path) => Path = path;

    /// <summary>Where it was read from.</summary>
    public string Path { get; }

    /// <summary>Rows read, bad ones included, the header not.</summary>
    public int Rows { get; private set; }

    /// <summary>Rows that are in no invoice, because they or their neighbours are bad.</summary>
    public int RowsLeftOut { get; private set; }

    /// <summary>The invoices, in the order of their first rows.</summary>
    public IReadOnlyList<Invoice> Invoices { get; private set; } = [];

    /// <summary>Every SKU of the invoices, in byte order.</summary>
    public IReadOnlyList<string> Skus { get; private set; } = [];

    /// <summary>How many problems there are, of which <see cref="Problems"/> has the first thousand.</summary>
    public int ProblemCount { get; private set; }

    /// <summary>The problems in file order.</summary>
    public IReadOnlyList<FileProblem> Problems => _problems;

    /// <summary>SHA-256 of the text (unpacked), in lower-case hexadecimal: the file's identity, whatever it is called.</summary>
    public string Sha256 { get; private set; } = "";

    /// <summary>Reads a file, plain or packed by gzip.</summary>
    /// <exception cref="UsageException">The file is missing, can't be read, or is no CSV with the columns needed.</exception>
    public static async Task<OrderFile> ReadAsync(string path, CancellationToken cancellationToken)
    {
        var file = new OrderFile(path);
        try
        {
            var raw = new FileStream(path, new FileStreamOptions { Options = FileOptions.Asynchronous | FileOptions.SequentialScan });
            await using (raw.ConfigureAwait(false))
            {
                var packedLength = await ReadPackedLengthAsync(raw, cancellationToken).ConfigureAwait(false);
                using var hash = new CountingHash();
                var unpacked = packedLength is not null ? new GZipStream(raw, CompressionMode.Decompress) : (Stream)raw;
                var hashed = new CryptoStream(unpacked, hash, CryptoStreamMode.Read);
                await using (hashed.ConfigureAwait(false))
                {
                    using var text = new StreamReader(hashed, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true));
                    await file.ReadRowsAsync(text, cancellationToken).ConfigureAwait(false);
                    file.Sha256 = Convert.ToHexStringLower(hash.Hash!);

                    // GZipStream takes the end of a file that was cut off for the end of the data.
                    if (packedLength is { } expected && unchecked((uint)hash.Length) != expected)
                    {
                        throw new UsageException($"{path}: was cut off after line {file.LastLine} (or is several gzip files in one: unpack it then); fetch or pack it again");
                    }
                }
            }
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new UsageException($"{path}: no such file");
        }
        catch (InvalidDataException)
        {
            throw new UsageException($"{path}: is not valid gzip data after line {file.LastLine}; fetch or pack it again");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UsageException($"{path}: can't be read: {e.Message}");
        }

        return file;
    }

    private long LastLine { get; set; }

    /// <summary>The length of the data in a gzip file modulo 2^32, as the file's last four bytes say it; <see langword="null"/> for any other file.</summary>
    private static async Task<uint?> ReadPackedLengthAsync(FileStream stream, CancellationToken cancellationToken)
    {
        var bytes = new byte[4];
        var length = await stream.ReadAtLeastAsync(bytes, bytes.Length, throwOnEndOfStream: false, cancellationToken).ConfigureAwait(false);
        uint? packed = null;
        if (length == bytes.Length && bytes[0] == 0x1f && bytes[1] == 0x8b)
        {
            stream.Position = stream.Length - bytes.Length;
            await stream.ReadExactlyAsync(bytes, cancellationToken).ConfigureAwait(false);
            packed = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        }

        stream.Position = 0;
        return packed;
    }

    private async Task ReadRowsAsync(TextReader text, CancellationToken cancellationToken)
    {
        CsvMalformedRecord? malformed = null;
        var reader = CsvReader.Create(
            text,
            new CsvReaderOptions
            {
                Separator = ',',
                TrackLineNumbers = true,
                MaxRecordSize = MaxRecordLength,
                OnMalformedRecord = record => malformed = record,
            },
            leaveOpen: true);
        await using (reader.ConfigureAwait(false))
        {
            try
            {
                await reader.ReadHeaderAsync(cancellationToken).ConfigureAwait(false);
                var columns = Columns.Of(Path, reader.Headers);
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    LastLine = reader.LineNumber;
                    Rows++;
                    if (malformed is not null)
                    {
                        if (malformed.Value.Reason != CsvMalformedReason.StrayQuote)
                        {
                            // Such a row may have swallowed others, so it can't be left out as one row either.
                            throw new UsageException($"{Path}, line {reader.LineNumber}: has a quotation mark that is not closed, or text after the closing one; nothing was applied");
                        }

                        malformed = null;
                        Add(reader.LineNumber, null, "has a quotation mark inside a field that is not quoted");
                        Spoil(columns.Number < reader.FieldCount ? reader.GetString(columns.Number) : "");
                    }
                    else if (reader.FieldCount != columns.Count)
                    {
                        Add(reader.LineNumber, null, $"has {reader.FieldCount} {(reader.FieldCount == 1 ? "field" : "fields")}; the header names {columns.Count}");
                        Spoil(columns.Number < reader.FieldCount ? reader.GetString(columns.Number) : "");
                    }
                    else
                    {
                        ReadRow(reader.LineNumber, reader.GetString(columns.Number), reader.GetString(columns.Sku), reader.GetString(columns.Quantity), reader.GetString(columns.Customer));
                    }
                }
            }
            catch (CsvFormatException e)
            {
                throw new UsageException($"{Path}, line {Math.Max(e.LineNumber, LastLine + 1)}: {e.Message} A quotation mark may be missing.");
            }
            catch (DecoderFallbackException)
            {
                throw new UsageException($"{Path}: is not UTF-8 text after line {LastLine}; convert it first, for example with iconv");
            }
        }

        MakeInvoices();
    }

    private void ReadRow(long line, string number, string sku, string quantityText, string customer)
    {
        var good = Check(line, "InvoiceNo", StockKey.Problem(number), number) & Check(line, "StockCode", StockKey.Problem(sku), sku);
        if (!long.TryParse(quantityText, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var quantity)
            || quantity == 0 || Math.Abs((decimal)quantity) > StockLimits.MaxQuantity)
        {
            good = Check(line, "Quantity", $"must be a whole number of at most {StockLimits.MaxQuantity} units either way, and not 0", quantityText);
        }

        if (!good)
        {
            Spoil(number);
            return;
        }

        number = Shared(number);
        if (!_rowsByInvoice.TryGetValue(number, out var rows))
        {
            _rowsByInvoice.Add(number, rows = []);
            _numbers.Add(number);
        }

        rows.Add(new(line, Shared(sku), quantity, Shared(customer.Trim())));
    }

    private void MakeInvoices()
    {
        var invoices = new List<Invoice>(_numbers.Count);
        var skus = new HashSet<string>(StringComparer.Ordinal);
        foreach (var number in _numbers)
        {
            var rows = _rowsByInvoice[number];
            if (_spoiled.Contains(number))
            {
                RowsLeftOut += rows.Count;
                continue;
            }

            try
            {
                invoices.Add(Invoice.Of(number, rows));
                skus.UnionWith(rows.Select(row => row.Sku));
            }
            catch (InvalidCommandException e)
            {
                Complain(number, rows, e);
                RowsLeftOut += rows.Count;
            }
        }

        Invoices = invoices;
        Skus = [.. skus.Order(StockKey.ByteOrder)];
        _rowsByInvoice.Clear();
        _texts.Clear();
        _problems.Sort((a, b) => a.Line.CompareTo(b.Line));
    }

    private void Complain(string number, List<InvoiceRow> rows, InvalidCommandException e)
    {
        // The one thing that can be wrong with a single row by now is its sign among rows of the other sign.
        var index = rows.FindIndex(row => row.Quantity < 0);
        if (index >= 0 && e.Field.EndsWith(".quantity", StringComparison.Ordinal))
        {
            Add(rows[index].Line, "Quantity", $"is {rows[index].Quantity}, but other rows of invoice {number} are positive; an invoice sells or takes back, not both");
        }
        else
        {
            Add(rows[0].Line, null, $"invoice {number}: {e.Message}");
        }
    }

    /// <summary>Notes that the invoice of a bad row can't be used. The row itself is in no invoice.</summary>
    private void Spoil(string number)
    {
        RowsLeftOut++;
        _spoiled.Add(number);
    }

    private bool Check(long line, string column, string? problem, string value)
    {
        if (problem is not null)
        {
            Add(line, column, $"{problem}: {Shorten(value)}");
        }

        return problem is null;
    }

    private void Add(long line, string? column, string problem)
    {
        ProblemCount++;
        if (_problems.Count < MaxProblemsKept)
        {
            _problems.Add(new(line, column, problem));
        }
    }

    /// <summary>One string object for equal texts: a file repeats its SKUs and customers many times.</summary>
    private string Shared(string text)
    {
        if (_texts.TryGetValue(text, out var known))
        {
            return known;
        }

        _texts.Add(text, text);
        return text;
    }

    private static string Shorten(string text)
    {
        var visible = string.Concat(text.Take(60).Select(c => char.IsControl(c) ? '\ufffd' : c));
        return $"'{visible}{(text.Length > 60 ? "…" : "")}'";
    }

    /// <summary>Where the columns that matter stand.</summary>
    private sealed record Columns(int Number, int Sku, int Quantity, int Customer, int Count)
    {
        public static readonly string[] Names = ["InvoiceNo", "StockCode", "Quantity", "CustomerID"];

        public static Columns Of(string path, IReadOnlyList<string> header)
        {
            if (header.Count == 0)
            {
                throw new UsageException($"{path}: is empty; its first line must name the columns {string.Join(", ", Names)}");
            }

            var titles = header.Select(title => title.Trim()).ToList();
            var places = Names.Select(name => titles.FindIndex(title => string.Equals(title, name, StringComparison.OrdinalIgnoreCase))).ToArray();
            var missing = Names.Where((_, i) => places[i] < 0).ToArray();
            return missing.Length == 0
                ? new(places[0], places[1], places[2], places[3], header.Count)
                : throw new UsageException($"{path}, line 1: the header has no column {string.Join(", ", missing)}; it must name {string.Join(", ", Names)}");
        }
    }

    /// <summary>SHA-256 of what passes, and how much it was.</summary>
    private sealed class CountingHash : HashAlgorithm
    {
        private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

        public long Length { get; private set; }

        public override void Initialize()
        {
            // Called once the hash is complete: by then it has begun anew by itself, and the length is still wanted.
        }

        protected override void HashCore(byte[] array, int ibStart, int cbSize)
        {
            Length += cbSize;
            _hash.AppendData(array, ibStart, cbSize);
        }

        protected override byte[] HashFinal() => _hash.GetHashAndReset();

        protected override void Dispose(bool disposing)
        {
            _hash.Dispose();
            base.Dispose(disposing);
        }
    }
}
