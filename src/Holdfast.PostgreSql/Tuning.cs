namespace Holdfast.PostgreSql;

/// <summary>Numbers that trade memory and round trips for speed; none of them changes what an answer is worth.</summary>
internal static class Tuning
{
    /// <summary>Most commands of one transaction; a longer call is split.</summary>
    public const int CommandsPerTransaction = 4_096;

    /// <summary>Most lines of one transaction, unless a single command has more.</summary>
    public const int LinesPerTransaction = 16_384;

    /// <summary>Most rows of one page of a listing: a page is one short read.</summary>
    public const int PageRows = 1_024;

    /// <summary>Connections that an engine keeps at most, unless the connection string says otherwise: more would only queue up on the server.</summary>
    public const int PoolSize = 20;

    /// <summary>How long the driver goes by what it knows of the hosts of a connection string, while no connection is lost.</summary>
    public const int HostRecheckSeconds = 60;

    /// <summary>Statements that a connection keeps prepared: more than the store has, so that none makes room for another.</summary>
    public const int PreparedStatements = 128;

    /// <summary>The room for entries in one block of the ledger's positions, as a power of two.</summary>
    public const int BlockBits = 20;
}
