-- Reads one operation. Argument 5: its id. Answers: now(6) end(6) known(1), then, where it is known, what the operations'
-- hash holds of it (4+) and its record.

return run(function()
  local now, stop = begin()
  local value = ask('HGET', OPS, ARGV[5])
  if not value then
    return pack('<I6I6B', now, stop, 0)
  end
  local _, position = unstruct('<BI6', value)
  return pack('<I6I6BI4c0', now, stop, 1, #value, value) .. readRecord(position)
end)
