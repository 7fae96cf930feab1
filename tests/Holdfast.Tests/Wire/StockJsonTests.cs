using System.Text;
using Holdfast.Wire;

namespace Holdfast.Tests.Wire;

/// <summary>Commands and results as JSON: what must not slip through.</summary>
public sealed class StockJsonTests
{
    [Theory]
    [InlineData("""{"\ud800":1}""")]
    [InlineData("""{"\ud83dverb":"deduct"}""")]
    [InlineData("""{"verb":"\ud800deduct"}""")]
    [InlineData("""{"verb":"deduct","id":"o1","lines":[{"\udc00u":"a"}]}""")]
    public void Half_a_surrogate_pair_in_a_name_is_invalid_input_and_no_other_error(string text) =>
        Should.Throw<InvalidCommandException>(() => StockJson.ReadCommand(Encoding.UTF8.GetBytes(text)));

    [Fact]
    public void A_replay_of_an_outcome_that_this_version_does_not_know_is_not_taken_for_applied()
    {
        // A newer store that remembers refusals may replay one that is not known here: no units were taken.
        var result = StockJson.ReadResult("""{"outcome":"Replayed","retry":false,"original":"NotOnSale"}"""u8);
        result.IsApplied.ShouldBeFalse();
        result.Status.ShouldBe(StockStatus.InDoubt);
        result.Detail.ShouldNotBeNull().ShouldContain("NotOnSale");
    }
}
