-- Takes over copies of stock rows, newer ones only, so that order and repetition do not matter.
--
-- Arguments: 1 epoch; 2 cursor from which the ledger was read, 3 cursor after it (both empty: not from a pass); 4 time
-- before which the pass was begun, when this is its end (0: it is not); 5 number of rows; 6 time before which whole
-- rows were read; 7 operation of the last entry that was read and 8 its time (empty: none); for each row: SKU, version, available, reserved, restocked, adjusted (the last two empty where only
-- the ledger's entry is known); then the places of ids that are in the ledger.
-- Answer: 1; 0 when the gate is closed; -1 when the epoch is another.

local gate = open('cursor', 'fresh', 'since')
if not gate then
  return 0
end
if gate[2] ~= ARGV[1] then
  return -1
end

local at = 9
for _ = 1, tonumber(ARGV[5]) do
  local key, version = SKU .. ARGV[at], tonumber(ARGV[at + 1])
  local isWhole = ARGV[at + 4] ~= ''
  local copy = fields(key, 'e', 'v')
  if not copy then
    redis.call('DEL', key)
    copy = {}
  end
  local isOurs = copy[1] == ARGV[1]
  if not isOurs then
    redis.call('DEL', key)
  end
  local known = isOurs and tonumber(copy[2]) or 0
  if version > known or (isWhole and version == known) then
    redis.call('HSET', key, 'e', ARGV[1], 'v', ARGV[at + 1], 'a', ARGV[at + 2], 'r', ARGV[at + 3])
    if isWhole then
      redis.call('HSET', key, 't', ARGV[at + 4], 'd', ARGV[at + 5], 'l', ARGV[6])
    else
      redis.call('HDEL', key, 'l')
    end
  end
  at = at + 6
end
while at <= #ARGV do
  mark(ARGV[at])
  at = at + 1
end

if ARGV[3] ~= '' and gate[3] == ARGV[2] then
  redis.call('HSET', GATE, 'cursor', ARGV[3])
  if ARGV[7] ~= '' then
    redis.call('HSET', GATE, 'lastId', ARGV[7], 'lastAt', ARGV[8])
  end
end
if tonumber(ARGV[4]) > tonumber(gate[4]) and tonumber(ARGV[4]) > tonumber(gate[5] or '0') then
  redis.call('HSET', GATE, 'fresh', ARGV[4])
end
return 1
