-- Reads stock. Argument 5: the SKUs (MessagePack). Answers: now(6) end(6), then for each SKU found(1): 0, or 1 and the
-- six doubles of its row, or 2 and those and a seventh: units of reservations that are due and not released yet.

return run(function()
  local now, stop = begin()
  local anyDue = isAnyDue(now)
  local skus = cmsgpack.unpack(ARGV[5])
  local out = { pack('<I6I6', now, stop) }
  for first = 1, #skus, 4000 do
    local last = min(first + 3999, #skus)
    local values = ask('HMGET', STOCK, unpack(skus, first, last))
    for i = first, last do
      out[i + 1] = level(skus[i], values[i - first + 1], now, anyDue)
    end
  end
  return concat(out)
end)
