-- Takes commands: what is certain is decided here, everything else goes into the stream for the store to decide. One entry for all of them,
-- in the order given.
--
-- Arguments: 1 epoch; 2 most commands in the stream; 3 1: what has to wait for the store may, 0: it is not taken; 4 longest age
-- of the ledger's copy in ms, by which may be refused; then for each command: number of its call; its id's places; 't' (a deduction or
-- reservation) or 'w' (the store decides in any case); the command; the number of its takings; SKU and units of each.
-- Answer: nothing when the gate does not sell; otherwise the last settled entry, this entry ('' when there is none), and a text for each command:
--   'a5,7'   taken and done; so much is left of each line's SKU
--   's5,SKU' short for certain: 5 are available, whatever becomes of the commands in the stream
--   'w'      waits in the stream
--   'b'      not taken, since the store does not answer
--   'f'      not taken, since the stream is full

local gate = selling(ARGV[1], 'backlog', 'done', 'fresh', 'ids')
if not gate then
  return {}
end

local epoch, backlog, most, mayWait = gate[2], tonumber(gate[6]), tonumber(ARGV[2]), ARGV[3] == '1'
local age = now() - tonumber(gate[8])
local mayRefuse, knowsIds = age >= 0 and age <= tonumber(ARGV[4]), gate[9] == '1'

-- Which ids may be known: all bits with few calls.
local commands, at = {}, 5
while at <= #ARGV do
  local lines = tonumber(ARGV[at + 4])
  commands[#commands + 1] = at
  at = at + 5 + 2 * lines
end
local known = {}
for first = 1, #commands, 256 do
  local bits = { IDS }
  local last = math.min(first + 255, #commands)
  for i = first, last do
    local a, b, c, d = places(ARGV[commands[i] + 1])
    local n = #bits
    bits[n + 1], bits[n + 2], bits[n + 3] = 'GET', 'u1', a
    bits[n + 4], bits[n + 5], bits[n + 6] = 'GET', 'u1', b
    bits[n + 7], bits[n + 8], bits[n + 9] = 'GET', 'u1', c
    bits[n + 10], bits[n + 11], bits[n + 12] = 'GET', 'u1', d
  end
  local found = redis.call('BITFIELD', unpack(bits))
  for i = first, last do
    local n = 4 * (i - first)
    known[i] = found[n + 1] + found[n + 2] + found[n + 3] + found[n + 4] == 4
  end
end

-- A SKU's copy: what is available by it, whether that can be all there is, and what is taken of it; false where no copy of this epoch is loaded.
local rows = {}
local function row(sku)
  local found = rows[sku]
  if found == nil then
    local copy = fields(SKU .. sku, 'e', 'a', 'r', 'p')
    found = copy and copy[1] == epoch and { tonumber(copy[2]), copy[3] == '0' and not copy[4], tonumber(redis.call('HGET', TAKEN, sku) or '0') } or false
    rows[sku] = found
  end
  return found
end

-- Decides; writes nothing yet.
local answers, entry, wanted, seen, marks = {}, {}, {}, {}, {}
local call, callWaits, waiting
for i, place in ipairs(commands) do
  local id, kind, lines = ARGV[place + 1], ARGV[place + 2], tonumber(ARGV[place + 4])
  if ARGV[place] ~= call then
    -- Commands of one call see the effects of those before them: behind what waits, nothing is decided that hangs on it.
    call, callWaits, waiting = ARGV[place], false, {}
  end
  local mustWait, short = kind == 'w' or known[i] or seen[id] or callWaits or not knowsIds, nil
  if not mustWait then
    for line = 0, lines - 1 do
      local sku, units = ARGV[place + 5 + 2 * line], tonumber(ARGV[place + 6 + 2 * line])
      local copy = row(sku)
      if not copy or waiting[sku] then
        mustWait, short = true, nil
        break
      end
      if copy[1] < units and copy[2] and mayRefuse then
        short = short or ('s' .. text(copy[1]) .. ',' .. sku)
      elseif copy[1] - copy[3] < units then
        mustWait = true
      end
    end
  end
  local answer
  if short then
    answer = short
  elseif mustWait and not mayWait then
    answer = 'b'
  elseif backlog + #entry / 2 >= most then
    answer = 'f'
  else
    local left = {}
    for line = 0, lines - 1 do
      local sku, units = ARGV[place + 5 + 2 * line], tonumber(ARGV[place + 6 + 2 * line])
      local copy = row(sku)
      wanted[sku] = (wanted[sku] or 0) + units
      if copy then
        copy[3] = copy[3] + units
        left[line + 1] = text(copy[1] - copy[3])
      end
      waiting[sku] = waiting[sku] or mustWait
    end
    callWaits = callWaits or kind == 'w'
    answer = mustWait and 'w' or ('a' .. table.concat(left, ','))
    entry[#entry + 1] = mustWait and 'w' or 'a'
    entry[#entry + 1] = ARGV[place + 3]
    if not known[i] and not seen[id] then
      marks[#marks + 1] = id
    end
    seen[id] = true
  end
  answers[i] = answer
end
if #entry == 0 then
  return { gate[7], '', unpack(answers) }
end

-- Only now the writes; none of them can fail but the first, for want of memory.
local number = redis.call('XADD', STREAM, '*', unpack(entry))
for sku, units in pairs(wanted) do
  redis.call('HINCRBY', TAKEN, sku, text(units))
end
redis.call('HSET', GATE, 'entries', text(tonumber(gate[4]) + 1), 'backlog', text(backlog + #entry / 2))
for first = 1, #marks, 256 do
  local bits = { IDS }
  for i = first, math.min(first + 255, #marks) do
    local a, b, c, d = places(marks[i])
    for _, bit in ipairs({ a, b, c, d }) do
      local n = #bits
      bits[n + 1], bits[n + 2], bits[n + 3], bits[n + 4] = 'SET', 'u1', bit, 1
    end
  end
  redis.call('BITFIELD', unpack(bits))
end
return { gate[7], number, unpack(answers) }
