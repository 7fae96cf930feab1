-- Lists stock in the order of the SKUs' bytes. Arguments 5 and 6: the bounds, as ZRANGEBYLEX writes them; 7: most rows.
-- Answers: now(6) end(6) count(2), then for each SKU its name(1+) and its level as in stock.lua.

return run(function()
  local now, stop = begin()
  local anyDue = isAnyDue(now)
  local skus = ask('ZRANGEBYLEX', SKUS, ARGV[5], ARGV[6], 'LIMIT', 0, ARGV[7])
  local out = { pack('<I6I6I2', now, stop, #skus) }
  if #skus > 0 then
    local values = ask('HMGET', STOCK, unpack(skus))
    for i = 1, #skus do
      out[#out + 1] = pack('<Bc0', #skus[i], skus[i]) .. level(skus[i], values[i], now, anyDue)
    end
  end
  return concat(out)
end)
