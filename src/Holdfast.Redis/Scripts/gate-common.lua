-- What every script of the gate begins with (put in front of it by GateScripts.cs).
--
-- Keys, all in the hash slot of {NAME}, none with a time to live:
--   {NAME}:gate      hash: the gate's state
--       run      the run_id of the server on which this epoch was begun: another server, or this one after a restart,
--                may have lost something, so its gate is closed until a new epoch is begun
--       epoch    number of the epoch; grows
--       born     when it was begun
--       sure     until when every process that is known to write through the gate is sure to be heard; 0: one is not
--       fresh    a pass over the store's ledger that was begun at this time has been taken over whole; 0: none yet
--       since    only a pass that was begun after this counts
--       cursor   where the next pass goes on
--       lastId, lastAt  the last entry that was followed: by it a store is known again
--       ids      1: {NAME}:gate:ids knows every id that the store knows, or is about to know
--       last     the place of that last bit
--       listing  number of the listing of ids that may say so
--       lead, leadUntil   the process that follows the ledger
--   {NAME}:gate:nodes  hash: process -> until, epoch of its oldest command under way
--   {NAME}:gate:ids    bits: four for each id that was let through, or is in the ledger. A set of four means "perhaps",
--                      a clear one "certainly not". 2^IDBITS bits, never fewer set than were, and one behind them that
--                      is always set: without it the key was lost, and nothing is certain
--   {NAME}:gate:s:SKU  hash: the copy of a stock row: e epoch, v version, a available, r reserved,
--                      and where the whole row was read: t restocked, d adjusted, l when; p version of a newer row that was passed over
--
-- Times are Redis's own, in milliseconds. A missing copy means "not loaded", never zero and never unlimited.

local GATE = KEYS[1]
local NODES, IDS, SKU = GATE .. ':nodes', GATE .. ':ids', GATE .. ':s:'

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local function run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Fields of a hash; nil where the key is not what it should be: that is as good as lost.
local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if found.err then
    return nil
  end
  return found
end

-- The gate's state, or nil when it is closed.
local function open(...)
  local gate = fields(GATE, 'run', 'epoch', ...)
  if gate and gate[1] and gate[1] == run() then
    return gate
  end
  return nil
end

-- The places of an id's four bits, given as four little-endian numbers.
local function places(id)
  return struct.unpack('<I4I4I4I4', id)
end

-- Whether an id may be known. Bit by bit: with most unknown ids the first is clear already. A key of the wrong type
-- answers errors, which count as set.
local function isMarked(id)
  local a, b, c, d = places(id)
  return redis.pcall('GETBIT', IDS, a) ~= 0 and redis.pcall('GETBIT', IDS, b) ~= 0
    and redis.pcall('GETBIT', IDS, c) ~= 0 and redis.pcall('GETBIT', IDS, d) ~= 0
end

local function mark(id)
  local a, b, c, d = places(id)
  redis.call('BITFIELD', IDS, 'SET', 'u1', a, 1, 'SET', 'u1', b, 1, 'SET', 'u1', c, 1, 'SET', 'u1', d, 1)
end

-- Takes over rows that stand in the arguments from a place on, newer ones only: SKU, version, available, reserved, restocked,
-- adjusted (the last two empty where only the ledger's entry is known). Returns the place behind them.
-- taken: the hash of units that are taken here and may be gone from the row already; a SKU that is in it is passed over, since it
-- would be short of them twice until they are settled, which shows a newer row. As a rule, that is: the row was perhaps read already, and something
-- else has written since. So that a newer one is known is noted, and until it is shown nothing is refused by the copy.
local function takeOver(epoch, at, count, readAt, taken)
  for _ = 1, count do
    local key, version = SKU .. ARGV[at], tonumber(ARGV[at + 1])
    local isWhole = ARGV[at + 4] ~= ''
    local copy = fields(key, 'e', 'v', 'p')
    if not copy then
      redis.call('DEL', key)
      copy = {}
    end
    local isOurs = copy[1] == epoch
    if not isOurs then
      redis.call('DEL', key)
    end
    local known = isOurs and tonumber(copy[2]) or 0
    local isNewer = version > known or (isWhole and version == known)
    if isNewer and taken and known > 0 and redis.call('HEXISTS', taken, ARGV[at]) == 1 then
      if version > known then
        redis.call('HSET', key, 'p', text(math.max(version, tonumber(copy[3] or '0') or 0)))
      end
    elseif isNewer then
      if isOurs and copy[3] and version >= (tonumber(copy[3]) or 0) then
        redis.call('HDEL', key, 'p')
      end
      redis.call('HSET', key, 'e', epoch, 'v', ARGV[at + 1], 'a', ARGV[at + 2], 'r', ARGV[at + 3])
      if isWhole then
        redis.call('HSET', key, 't', ARGV[at + 4], 'd', ARGV[at + 5], 'l', readAt)
      else
        redis.call('HDEL', key, 'l')
      end
    end
    at = at + 6
  end
  return at
end
