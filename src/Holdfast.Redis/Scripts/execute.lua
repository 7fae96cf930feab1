-- Decides commands in order and writes what they change. Argument 5: the commands, all in one array (MessagePack); each is
--   verb, id, time to live, target, note, lines, then SKU and units of each line (a branch adds ten times its phase to the
--   verb, and puts its cart and a line break before the note); or, for a deduction of one line without
--   a note, as nearly all are: 9, id, SKU, units.
-- Answers: now(6) end(6) decided(2), then one result for each command that was decided: those after them are to be sent
-- again, since the bound of work for one call was reached. A result is status(1) original(1) form(1), then
--   form 0 nothing; form 1 lines(2) left(7)...; form 2 line(2) available(7); form 3 lines(2) [SKU(1+) left(7)]...; form 4 one line, left(7)
--   and 13 bytes that don't matter
--
-- Scripts are not rolled back: so all is decided in this script's memory first, then every key that will be written is
-- checked, then the parts that nothing points at yet are written, then, in a zone that can't fail, the rest.

local PLAIN = 9
local MAX_ARGUMENTS = 4000 -- of one command: Lua's stack is bounded

local function preload(key, names, into)
  for first = 1, #names, MAX_ARGUMENTS do
    local last = min(first + MAX_ARGUMENTS - 1, #names)
    local values = ask('HMGET', key, unpack(names, first, last))
    for i = first, last do
      local value = values[i - first + 1]
      if value then
        into[names[i]] = value
      end
    end
  end
end

-- Reads the operations and rows of all commands at once.
local function readAhead(input)
  local ids, skus, n, m, p = {}, {}, 0, 0, 1
  while input[p] do
    local id, lines, from = input[p + 1], 1, p + 2
    if ops[id] == nil then
      n = n + 1
      ids[n] = id
      ops[id] = false
    end
    if input[p] ~= PLAIN then
      local target = input[p + 3]
      if target ~= '' and ops[target] == nil then
        n = n + 1
        ids[n] = target
        ops[target] = false
      end
      lines, from = input[p + 5], p + 6
    end
    p = from + 2 * lines
    for j = from, p - 2, 2 do
      local sku = input[j]
      if rows[sku] == nil then
        m = m + 1
        skus[m] = sku
        rows[sku] = false
      end
    end
  end
  preload(OPS, ids, ops)
  if anyUndecided then
    preload(UNDECIDED, ids, undecided)
    for i = 1, n do
      local value = undecided[ids[i]]
      undecided[ids[i]] = value and cmsgpack.unpack(value) or false
    end
  end
  preload(STOCK, skus, rows)
end

-- Decides the commands in order; the results, their number, and how many commands they answer.
local function decideAll(input)
  local results, n, decided, p = {}, 0, 0, 1
  while input[p] and work < MAX_WORK do
    local id, next = input[p + 1], p + 4
    local result, tail
    if input[p] ~= PLAIN then
      next = p + 6 + 2 * input[p + 5]
      local command = { input[p], id, input[p + 2], input[p + 3], input[p + 4] }
      for j = p + 6, next - 1 do
        command[j - p] = input[j]
      end
      if command[1] > PLAIN then
        unbranch(command)
        anyUndecided, anyCart = true, true
      end
      result = decide(command)
    elseif ops[id] or anyUndecided then
      result = decide({ DEDUCT, id, 0, '', '', input[p + 2], input[p + 3] })
    else
      result, tail = deductPlain(id, input[p + 2], input[p + 3])
    end
    if not result then
      break
    end
    n = n + 1
    results[n] = result
    if tail then
      n = n + 1
      results[n] = tail
    end
    decided = decided + 1
    p = next
  end
  return results, n, decided
end

return run(function()
  local stop
  now, stop = begin()
  anyDue = isAnyDue(now)
  part, offset = floor(stop / PART), stop % PART
  pieces[1] = { part = part, offset = offset, n = 0 }
  local input = cmsgpack.unpack(ARGV[5])
  anyUndecided = ask('HLEN', UNDECIDED) > 0
  anyCart = ask('HLEN', CARTS) > 0
  readAhead(input)
  local results, resultCount, decided = decideAll(input)

  local finalEnd = part * PART + offset
  if #changedOps > 0 or plainCount > 0 or #undecidedIds > 0 then
    -- Keys that will be written and were not read: their types. (Reading has told those of the others.)
    if #newSkus > 0 then
      ask('ZCARD', SKUS)
    end
    for i = 1, #held do
      local c = held[i]
      for j = 6, #c, 2 do
        ask('ZCARD', holdsKey(c[j]))
      end
    end
    for sku in pairs(ended) do
      ask('ZCARD', holdsKey(sku))
    end
    ask('HLEN', ASIDE)
    for i = 1, #pieces do
      ask('STRLEN', partKey(pieces[i].part))
    end

    -- Nothing points at these yet: where one fails (no memory left, a disk that can't be written), nothing has happened.
    for i = 1, #touched do
      local row = touched[i]
      local entries, at, first = row.index, row.v0, 1
      while first <= row.m do
        local room = INDEXED - at % INDEXED
        local last = min(first + room - 1, row.m)
        ask('SETRANGE', indexKey(row.sku, floor(at / INDEXED)), (at % INDEXED) * 6, concat(entries, '', first, last))
        at = at + last - first + 1
        first = last + 1
      end
    end
    for i = 1, #pieces do
      local piece = pieces[i]
      local bytes = concat(piece, '', 1, piece.n)
      local key = partKey(piece.part)
      if piece.offset == 0 and #bytes < PART_SIZE then
        -- At its full size from the beginning: growing would leave up to as much room unused again.
        ask('SETRANGE', key, PART_SIZE - 1, '\0')
      end
      ask('SETRANGE', key, piece.offset, bytes)
    end

    -- No-fail zone: one change that is seen whole or, after a crash, not at all.
    local put = redis.call
    local values, n = {}, 0
    local function flush(key)
      if n > 0 then
        put('HSET', key, unpack(values, 1, n))
        n = 0
      end
    end
    for first = 1, 2 * plainCount, MAX_ARGUMENTS do
      put('HSET', OPS, unpack(plainStored, first, min(first + MAX_ARGUMENTS - 1, 2 * plainCount)))
    end
    for i = 1, #changedOps do
      local op = changedOps[i]
      local value = pack('<BI6', op.state, op.position)
      if op.endedAt or op.refunded then
        local more, endLeft, refunds = { value, pack('<I6I2', op.endedAt or 0, #(op.endLeft or {})) }, op.endLeft or {}, op.refunded or {}
        for j = 1, #endLeft do
          more[#more + 1] = pack('<I7', endLeft[j])
        end
        more[#more + 1] = pack('<I2', #refunds)
        for j = 1, #refunds do
          more[#more + 1] = pack('<I6', refunds[j])
        end
        value = concat(more)
      end
      values[n + 1], values[n + 2] = op.id, value
      n = n + 2
      if n >= MAX_ARGUMENTS then
        flush(OPS)
      end
    end
    flush(OPS)
    for i = 1, #touched do
      local row = touched[i]
      values[n + 1], values[n + 2] = row.sku, pack('<dddddd', row.a, row.r, row.restocked, row.adjusted, row.supplied, row.v)
      n = n + 2
      if n >= MAX_ARGUMENTS then
        flush(STOCK)
      end
    end
    flush(STOCK)
    for i = 1, #newSkus do
      put('ZADD', SKUS, 0, newSkus[i])
    end
    for i = 1, #held do
      local c = held[i]
      if ops[c[2]].state == RESERVED then
        local expiry = string.format('%.0f', now + c[3])
        put('ZADD', DUE, expiry, c[2])
        for j = 6, #c, 2 do
          put('ZADD', holdsKey(c[j]), expiry, pack('<I6', c[j + 1]) .. c[2])
        end
      end
    end
    for first = 1, #endedIds, MAX_ARGUMENTS do
      put('ZREM', DUE, unpack(endedIds, first, min(first + MAX_ARGUMENTS - 1, #endedIds)))
    end
    for sku, members in pairs(ended) do
      for first = 1, #members, MAX_ARGUMENTS do
        put('ZREM', holdsKey(sku), unpack(members, first, min(first + MAX_ARGUMENTS - 1, #members)))
      end
    end
    for i = 1, #undecidedIds do
      local id = undecidedIds[i]
      if undecided[id] then
        put('HSET', UNDECIDED, id, cmsgpack.pack(undecided[id]))
      else
        put('HDEL', UNDECIDED, id)
      end
    end
    for i = 1, #asideRows do
      local row = asideRows[i]
      if row.aside > 0 then
        put('HSET', ASIDE, row.sku, string.format('%.0f', row.aside))
      else
        put('HDEL', ASIDE, row.sku)
      end
    end
    for i = 1, #cartIds do
      put('HSET', CARTS, cartIds[i], carts[cartIds[i]])
    end
    put('HSET', META, 't', string.format('%.0f', now), 'end', string.format('%.0f', finalEnd))
  end

  return pack('<I6I6I2', now, finalEnd, decided) .. concat(results, '', 1, resultCount)
end)
