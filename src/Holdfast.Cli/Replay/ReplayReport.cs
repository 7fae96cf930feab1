using System.Text.Json.Serialization;

namespace Holdfast.Cli.Replay;

/// <summary>What <c>holdfast replay</c> reports; with <c>--json</c> in exactly this shape.</summary>
internal sealed record ReplayReport
{
    public required string File { get; init; }

    public required string Scheme { get; init; }

    public required string Store { get; init; }

    public required string Opening { get; init; }

    public required int Concurrency { get; init; }

    /// <summary>False when it was interrupted or could not go on.</summary>
    public required bool Complete { get; init; }

    public required int Rows { get; init; }

    public required int RowsLeftOut { get; init; }

    public required int Invoices { get; init; }

    public required int OrdersApplied { get; init; }

    public required int OrdersRefused { get; init; }

    public required int AdjustmentsApplied { get; init; }

    public required int AdjustmentsRefused { get; init; }

    public required int Refunds { get; init; }

    public required int Replayed { get; init; }

    public required long UnitsDeducted { get; init; }

    public required long UnitsRefunded { get; init; }

    public required long UnitsUnmatched { get; init; }

    public required long UnitsWrittenOff { get; init; }

    public required long UnitsOpened { get; init; }

    public required long UnitsLeft { get; init; }

    public required int Skus { get; init; }

    public required string StockSha256 { get; init; }

    public required int Unknown { get; init; }

    public required int Failed { get; init; }

    public required IReadOnlyList<string> Failures { get; init; }

    public required double Seconds { get; init; }

    /// <summary><c>pass</c>, <c>fail</c>, or <c>not run</c> after an interruption.</summary>
    public required string Audit { get; init; }

    /// <summary>The first difference that the audit found.</summary>
    public required string? AuditDetail { get; init; }

    /// <summary>Whether nothing was left undone or unexplained.</summary>
    [JsonIgnore]
    public bool IsGood => Complete && Unknown == 0 && Failed == 0 && Audit == "pass";
}
