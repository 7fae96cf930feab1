-- Lists what commands over several shards have prepared and not decided. Answers: now(6) end(6), then for each an operation
-- as operation.lua answers it, its first byte included.

return run(function()
  local now, stop = begin()
  local all = ask('HGETALL', UNDECIDED)
  local out = { pack('<I6I6', now, stop) }
  for i = 1, #all, 2 do
    out[#out + 1] = operation(all[i], all[i + 1])
  end
  return concat(out)
end)
