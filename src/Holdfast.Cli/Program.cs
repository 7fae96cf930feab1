using Holdfast.Cli;

return await CommandLineApp.RunAsync(args, new Terminal(Console.Out, Console.Error, isInteractive: !Console.IsErrorRedirected)).ConfigureAwait(false);
