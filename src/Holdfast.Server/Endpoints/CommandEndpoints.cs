using Holdfast.Server.Http;
using Holdfast.Wire;

namespace Holdfast.Server.Endpoints;

/// <summary>The endpoints that send one command each.</summary>
internal sealed class CommandEndpoints(IStockEngine engine, TimeBounds bounds)
{
    /// <summary>A command whose content is the body.</summary>
    public RequestDelegate FromBody(StockVerb verb, string idField, string targetField = "target")
    {
        var form = new StockJson.CommandForm(verb, idField, targetField);
        return context => ExecuteAsync(context, form, null);
    }

    /// <summary>A command that the path alone describes; <c>{id}</c> is the path's third segment.</summary>
    public RequestDelegate FromPath(Func<string, StockCommand> make) => context => ExecuteAsync(context, null, make);

    private async Task ExecuteAsync(HttpContext context, StockJson.CommandForm? form, Func<string, StockCommand>? make)
    {
        if (form is not null && !RequestBody.IsOfType(context.Request, "application/json"))
        {
            await Problem.InvalidAsync(context, "Content-Type", "Content-Type must be application/json (curl -H 'Content-Type: application/json' or curl --json)", StatusCodes.Status415UnsupportedMediaType);
            return;
        }

        if (await RequestBody.RefusedAsPackedAsync(context))
        {
            return;
        }

        var bound = bounds.Rent();
        StockResult result;
        try
        {
            StockCommand command;
            try
            {
                command = form is not null
                    ? await RequestBody.ReadCommandAsync(context.Request, form, bound.Token)
                    : await ReadPathAsync(context, make!, bound.Token);
            }
            catch (InvalidCommandException e)
            {
                await Problem.InvalidAsync(context, e.Field, e.Message);
                return;
            }
            catch (OperationCanceledException) when (bound.IsCancellationRequested)
            {
                await Problem.InvalidAsync(context, "body", $"body did not arrive within {bounds.Limit}", StatusCodes.Status408RequestTimeout);
                return;
            }

            try
            {
                result = (await engine.ExecuteAsync([command], bound.Token))[0];
            }
            catch (OperationCanceledException) when (bound.IsCancellationRequested)
            {
                result = StockResult.Of(StockStatus.InDoubt, $"The store did not answer within {bounds.Limit}. Send the same command again with the same id, or ask, or close it with abandon or cancel.");
            }
        }
        finally
        {
            bounds.Return(bound);
        }

        await AnswerAsync(context, result);
    }

    private static async ValueTask<StockCommand> ReadPathAsync(HttpContext context, Func<string, StockCommand> make, CancellationToken cancellationToken)
    {
        await RequestBody.ReadNothingAsync(context.Request, cancellationToken);
        try
        {
            return make(PathSegment.Read(context, "id", 2));
        }
        catch (InvalidCommandException e)
        {
            throw new InvalidCommandException("id", e.Problem);
        }
    }

    private static ValueTask AnswerAsync(HttpContext context, in StockResult result)
    {
        if (!Problem.IsSuccess(result))
        {
            return Problem.RefusalAsync(context, result);
        }

        var buffer = JsonBuffer.Rent();
        StockJson.WriteResult(buffer.Writer, result);
        return buffer.SendAsync(context.Response, Problem.StatusOf(result.Status), "application/json");
    }
}
