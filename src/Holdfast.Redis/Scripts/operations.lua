-- Lists operations in the order in which they were created. Arguments 5: the position to begin at; 6: the state asked
-- for, 0 for any (a due reservation counts as expired); 7: the target asked for, or ''; 8: only those created before this
-- time; 9: most of them; 10: about how many bytes of the journal to look at. Answers: now(6) end(6) next(6)
-- count(2), then for each: position after it(6), what the operations' hash holds of it(4+), its record, and cart(1+).

local CREATES = { [1] = true, [2] = true, [6] = true, [7] = true, [8] = true, [14] = true, [15] = true }
local RESERVE = 2

return run(function()
  local now, stop = begin()
  local position, state, target, before, most, bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  local out, count, met = {}, 0, 0
  local carts = BASE .. 'cart'
  local anyCart = ask('HLEN', carts) > 0
  while position < stop and count < most and bytes > 0 do
    -- One slice of a part: whole records of it.
    local part = floor(position / PART)
    local offset = position % PART
    local last = offset + 65535
    if part == floor(stop / PART) then
      last = min(last, stop % PART - 1)
    end
    local slice = ask('GETRANGE', partKey(part), offset, last)
    local at, found, ids = 1, {}, {}
    while at + 3 <= #slice do
      local size = unstruct('<I4', slice, at)
      if size == 0 or at + size - 1 > #slice then
        break
      end
      local _, kind, _, time, id, ttl, of = readHeader(slice, at)
      if CREATES[kind] and (target == '' or target == of) and time < before then
        found[#found + 1] = { at = at, size = size, expires = kind == RESERVE and time + ttl or nil }
        ids[#ids + 1] = id
      end
      at = at + size
    end
    local finished = true
    if at == 1 then
      local size = #slice >= 4 and unstruct('<I4', slice) or 0
      if size == 0 then
        position = (part + 1) * PART
        bytes = bytes - 1
      else
        -- A record that is longer than a slice: by itself.
        local record = readRecord(position)
        local _, kind, _, time, id, ttl, of = readHeader(record, 1)
        slice, at = record, size + 1
        if CREATES[kind] and (target == '' or target == of) and time < before then
          found[1] = { at = 1, size = size, expires = kind == RESERVE and time + ttl or nil }
          ids[1] = id
        end
      end
    end
    for first = 1, #ids, 2000 do
      local values = ask('HMGET', OPS, unpack(ids, first, min(first + 1999, #ids)))
      for i = 1, #values do
        local each, value = found[first + i - 1], values[i]
        if finished and value then
          local shown = unstruct('<B', value)
          if shown == RESERVED and each.expires and now >= each.expires then
            shown = EXPIRED
          end
          if state == 0 or shown == state then
            count = count + 1
            local cart = anyCart and ask('HGET', carts, ids[first + i - 1]) or ''
            out[count] = pack('<I6I4c0', position + each.at + each.size - 1, #value, value) .. sub(slice, each.at, each.at + each.size - 1) .. pack('<Bc0', #cart, cart)
            if count >= most then
              -- Begins after this one next time.
              finished = false
              met = position + each.at + each.size - 1
            end
          end
        end
      end
    end
    if not finished then
      position = met
    elseif at > 1 then
      bytes = bytes - at
      position = position + at - 1
    end
  end
  return pack('<I6I6I6I2', now, stop, position, count) .. concat(out)
end)
