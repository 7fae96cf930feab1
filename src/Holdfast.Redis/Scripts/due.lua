-- Lists reservations whose time has passed and that nobody has released, in order of expiry. Arguments 5 and 6: expiry and
-- id to go on after ('' to begin); 7: most of them. Answers: now(6) end(6) count(2), then for each what the operations'
-- hash holds of it (4+), its record, and cart(1+).

-- Whether text a comes before text b in the order of bytes; Lua's own < follows the server's locale.
local function isBefore(a, b)
  for i = 1, min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

return run(function()
  local now, stop = begin()
  local most = tonumber(ARGV[7])
  local rank = 0
  if ARGV[6] ~= '' then
    local own = redis.call('ZRANK', DUE, ARGV[6])
    if own and redis.call('ZSCORE', DUE, ARGV[6]) == ARGV[5] then
      rank = own + 1
    else
      -- It has ended since: after those that expire earlier, or with it and have a lower id.
      rank = redis.call('ZCOUNT', DUE, '-inf', '(' .. ARGV[5])
      while true do
        local next = redis.call('ZRANGE', DUE, rank, rank, 'WITHSCORES')
        if next[2] ~= ARGV[5] or isBefore(ARGV[6], next[1]) then
          break
        end
        rank = rank + 1
      end
    end
  end
  local ids = ask('ZRANGE', DUE, rank, rank + most - 1, 'WITHSCORES')
  local out = {}
  for i = 1, #ids, 2 do
    if tonumber(ids[i + 1]) > now then
      break
    end
    local value = ask('HGET', OPS, ids[i])
    if value then
      local _, position = unstruct('<BI6', value)
      local cart = ask('HGET', BASE .. 'cart', ids[i]) or ''
      out[#out + 1] = pack('<I4c0', #value, value) .. readRecord(position) .. pack('<Bc0', #cart, cart)
    end
  end
  return pack('<I6I6I2', now, stop, #out) .. concat(out)
end)
