namespace Holdfast.Testing;

public static partial class ConformanceCases
{
    /// <summary>Restock and Adjust: where units come from, and the bounds of the count.</summary>
    private static IEnumerable<ConformanceCase> SupplyCases() =>
    [
        new("restock-makes-a-sku-known", "A restock creates the SKU, also with 0 units; sold out is then not unknown.", """
            deduct o1: A 1                  => UnknownSku: A
            restock r1: A 0                 => Done: A 0
            stock A                         => 0 available, 0 reserved, 0 sold
            deduct o2: A 1                  => Insufficient: A has 0
            restock r2: A 0, B 2            => Done: A 0, B 2
            restock r3: A 2                 => Done: A 2
            deduct o3: A 1                  => Done: A 1
            flow A                          => Restock r1 0 0; Restock r2 0 0; Restock r3 +2 0; Deduct o3 -1 0
            """),

        new("restock-merges-lines-of-one-sku", "Lines of one SKU in a restock count as one.", """
            restock r1: A 2, A 0, A 3       => Done: A 5
            restock r1: A 5                 => Replayed: A 5
            restock r1: A 4                 => KeyConflict
            operation r1                    => Restock Applied: A 5
            """),

        new("adjust-corrects-the-count", "An adjustment moves available up or down, all lines or none, never below zero.", """
            restock r1: A 5, B 5            => Done: A 5, B 5
            adjust a1: A -2, B 3            => Done: A 3, B 8
            adjust a2: A -4, B 1            => Insufficient: A has 3
            adjust a3: A -3                 => Done: A 0
            adjust a4: A -1                 => Insufficient: A has 0
            adjust a5: A 2, A -1            => Done: A 1
            adjust a5: A 1                  => Replayed: A 1
            stock A                         => 1 available, 0 reserved, 0 sold
            stock B                         => 8 available, 0 reserved, 0 sold
            operation a1                    => Adjust Applied: A -2, B 3
            flow B                          => Restock r1 +5 0; Adjust a1 +3 0
            """),

        new("adjust-of-an-unknown-sku", "An adjustment creates no SKU.", """
            restock r1: A 5                 => Done: A 5
            adjust a1: Z 1                  => UnknownSku: Z
            adjust a2: A 1, Z 1             => UnknownSku: Z
            stock A                         => 5 available, 0 reserved, 0 sold
            stock Z                         => unknown
            """),

        new("a-level-adds-up", "available + reserved + sold = restocked + adjusted, and the version is the number of ledger entries.", async context =>
        {
            await context.PlayAsync("""
                restock r1: A 20                => Done: A 20
                deduct o1: A 4                  => Done: A 16
                reserve h1 for 600s: A 3        => Done: A 13
                reserve h2 for 600s: A 2        => Done: A 11
                confirm h2                      => Done: A 11
                refund f1 of o1: A 1            => Done: A 12
                adjust a1: A -5                 => Done: A 7
                restock r2: A 1                 => Done: A 8
                stock A                         => 8 available, 3 reserved, 5 sold
                """);
            var level = await context.StockAsync("A");
            Check.Equal((level.Restocked, level.Adjusted), (21L, -5L), "restocked and adjusted");
            Check.Equal(level.Version, (await context.FlowAsync("A")).Count, "the version");
        }),

        new("supply-is-bounded", "Restocked plus positive adjustments of one SKU never exceed 2^53 - 1, over its whole life; ExceedsLimit comes after UnknownSku and before Insufficient.", async context =>
        {
            // A line carries 10^12 at most, so it takes 9,008 commands to get there.
            const long Full = StockLimits.MaxSupplied / StockLimits.MaxQuantity;
            const long Rest = StockLimits.MaxSupplied % StockLimits.MaxQuantity;
            var commands = new List<StockCommand>();
            for (var i = 0; i < Full; i++)
            {
                commands.Add(StockCommand.Restock(context.Id("r", i), [context.Line("A", StockLimits.MaxQuantity)]));
            }

            commands.Add(StockCommand.Restock(context.Id("last"), [context.Line("A", Rest - 5)]));
            foreach (var result in await context.ExecuteAsync(commands))
            {
                Check.Equal(result.Status, StockStatus.Done, "a restock under the limit");
            }

            await context.PlayAsync("""
                restock x1: A 6                 => ExceedsLimit: A
                restock x2: A 6, B 1            => ExceedsLimit: A
                stock B                         => unknown
                adjust a1: A 6                  => ExceedsLimit: A
                restock s1: B 1                 => Done: B 1
                adjust p1: A 6, Z 1             => UnknownSku: Z
                adjust p2: A 6, B -2            => ExceedsLimit: A
                adjust p3: A 1, B -2            => Insufficient: B has 1
                adjust a2: A 4                  => Done: A 9007199254740990
                adjust a3: A -1000              => Done: A 9007199254739990
                restock x3: A 2                 => ExceedsLimit: A    # what was adjusted down is not supplied again
                restock x4: A 1                 => Done: A 9007199254739991
                restock x5: A 1                 => ExceedsLimit: A
                restock x6: A 0                 => Done: A 9007199254739991
                deduct o1: A 1000000000000      => Done: A 9006199254739991
                refund f1 of o1: A 1000000000000 => Done: A 9007199254739991
                """);
        }),
    ];
}
