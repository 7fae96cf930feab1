-- What every script of the store begins with (put in front of it by RedisScripts.cs).
--
-- Keys, all in the hash slot of {NAME}:
--   {NAME}:meta       hash: identity, t (highest store time), end (where the journal ends)
--   {NAME}:stock      hash: SKU -> available, reserved, restocked, adjusted, supplied, version (six doubles)
--   {NAME}:skus       sorted set of SKUs, all of score 0: the order of their bytes
--   {NAME}:op         hash: operation id -> state (1), position of its record (6), and what happened to it later
--   {NAME}:due        sorted set of live reservations by expiry
--   {NAME}:h:SKU      sorted set by expiry of the live reservations that hold the SKU: units (6), id
--   {NAME}:f:N        string: part N of the journal
--   {NAME}:v:K:SKU    string: positions (6 each) of the SKU's ledger entries 8192*K+1 ...
-- The SKU always comes last in a key, so that no SKU can be mistaken for another's key.
--
-- The journal is a sequence of records, one a change of an operation; a record's lines are ledger entries:
--   size(4) kind(1) flags(1) time(6) id(1+) [time to live(5)] [target(1+)] [note(2+)] lines(2)
--   a line: distance from its record's beginning(3) SKU(1+) units(6) available(7) reserved(7) version(6)
-- All numbers are little endian. A position is part * 2^24 + offset; a record never spans two parts.
--
-- Keys given to every script: meta; and stock, skus, op and due, so that a node of a cluster to which the slot is moving runs none
-- before it has them all. A key that must be there and is not is never begun anew.
-- Arguments of every script: 1 the store's identity; 2 the end of the journal that the caller has seen; 3 the
-- highest store time that the caller has seen; 4 '1' when the time in 3 is to be taken instead of Redis's clock.

local pack, unstruct, sub, concat, floor, min = struct.pack, struct.unpack, string.sub, table.concat, math.floor, math.min
local META = KEYS[1]
local BASE = sub(META, 1, -5)
local STOCK, SKUS, OPS, DUE = BASE .. 'stock', BASE .. 'skus', BASE .. 'op', BASE .. 'due'
local PART = 16777216
local INDEXED = 8192
local APPLIED, RESERVED, CONFIRMED, CANCELLED, ABANDONED, EXPIRED = 1, 2, 3, 4, 5, 6
local HELD, HAS_TTL, HAS_TARGET, HAS_NOTE = 1, 2, 4, 8

-- Ends the script with an error. Only ever called before the first write.
local function fail(text)
  error({ err = text })
end

-- A command whose failure names the key.
local function ask(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    fail(answer.err .. ' (key ' .. key .. ')')
  end
  return answer
end

local function partKey(part)
  return BASE .. 'f:' .. string.format('%.0f', part)
end

local function indexKey(sku, part)
  return BASE .. 'v:' .. string.format('%.0f', part) .. ':' .. sku
end

local function holdsKey(sku)
  return BASE .. 'h:' .. sku
end

-- Checks that this is the store that the caller knows, and not older than it was: time and the journal's end.
local function begin()
  local meta = ask('HMGET', META, 'identity', 't', 'end')
  if meta[1] ~= ARGV[1] then
    fail('GONE the store that was opened is not there any more: its identity is ' .. (meta[1] or 'missing') .. ', expected ' .. ARGV[1])
  end
  local stop = tonumber(meta[3])
  if stop < tonumber(ARGV[2]) then
    fail('LOST ' .. string.format('%.0f', stop) .. ' is where the journal ends; it ended at ' .. ARGV[2])
  end
  local now = tonumber(ARGV[3])
  if ARGV[4] ~= '1' then
    local clock = redis.call('TIME')
    local ms = clock[1] * 1000 + floor(clock[2] / 1000)
    if ms > now then now = ms end
  end
  local stored = tonumber(meta[2])
  if stored > now then now = stored end
  return now, stop
end

-- Whether any reservation is due that nobody has released.
local function isAnyDue(now)
  local first = ask('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  return first[2] ~= nil and tonumber(first[2]) <= now
end

-- A record's bytes.
local function readRecord(position)
  local key, offset = partKey(floor(position / PART)), position % PART
  local head = ask('GETRANGE', key, offset, offset + 255)
  local size = #head >= 4 and unstruct('<I4', head) or 0
  if size == 0 then
    fail('DAMAGED the journal has no record at ' .. string.format('%.0f', position) .. ' (key ' .. key .. ')')
  end
  if size <= #head then
    return sub(head, 1, size)
  end
  local record = head .. redis.call('GETRANGE', key, offset + 256, offset + size - 1)
  if #record ~= size then
    fail('DAMAGED the record at ' .. string.format('%.0f', position) .. ' is cut off (key ' .. key .. ')')
  end
  return record
end

-- What stands before a record's lines.
local function readHeader(record, at)
  local size, kind, flags, time, id, next = unstruct('<I4BBI6Bc0', record, at)
  local ttl, target = 0, ''
  if flags % (2 * HAS_TTL) >= HAS_TTL then
    ttl, next = unstruct('<I5', record, next)
  end
  if flags % (2 * HAS_TARGET) >= HAS_TARGET then
    target, next = unstruct('<Bc0', record, next)
  end
  if flags % (2 * HAS_NOTE) >= HAS_NOTE then
    local note
    note, next = unstruct('<I2c0', record, next)
  end
  return size, kind, flags, time, id, ttl, target, next
end

-- Runs a script's body and turns what fails into an error reply; what fails, fails before the first write.
local function run(body)
  local ok, answer = pcall(body)
  if ok then
    return answer
  end
  return redis.error_reply(type(answer) == 'table' and answer.err or tostring(answer))
end
