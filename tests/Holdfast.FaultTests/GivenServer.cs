namespace Holdfast.FaultTests;

/// <summary>With HOLDFAST_TEST_POSTGRES tests use a given server: those that kill, pause and promote servers of their own are left out then, and say so.</summary>
internal static class GivenServer
{
    public static void SkipWhereGiven()
    {
        if (Environment.GetEnvironmentVariable("HOLDFAST_TEST_POSTGRES") is { Length: > 0 })
        {
            Assert.Skip("It needs PostgreSQL servers of its own, to kill, to pause and to promote, which the one that HOLDFAST_TEST_POSTGRES gives is not asked for: unset it to run this too.");
        }
    }
}
