using Holdfast.Server;

return await HoldfastServer.RunAsync(args, Console.Out, Console.Error);
