-- Reads one operation. Argument 5: its id. Answers: now(6) end(6), then the operation as view.lua has it.

return run(function()
  local now, stop = begin()
  return pack('<I6I6', now, stop) .. operation(ARGV[5], ask('HGET', UNDECIDED, ARGV[5]))
end)
