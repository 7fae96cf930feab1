-- Takes over copies of stock rows, newer ones only, so that order and repetition do not matter.
--
-- Arguments: 1 epoch; 2 cursor from which the ledger was read, 3 cursor after it (both empty: not from a pass); 4 time
-- before which the pass was begun, when this is its end (0: it is not); 5 number of rows; 6 time before which whole
-- rows were read; 7 operation of the last entry that was read and 8 its time (empty: none); for each row: SKU, version, available, reserved, restocked, adjusted (the last two empty where only
-- the ledger's entry is known); then the places of ids that are in the ledger.
-- Answer: 1; 0 when the gate is closed; -1 when the epoch is another.

local gate = open('cursor', 'fresh', 'since', 'ack')
if not gate then
  return 0
end
if gate[2] ~= ARGV[1] then
  return -1
end

local at = takeOver(ARGV[1], 9, tonumber(ARGV[5]), ARGV[6], gate[6] == 'gate' and GATE .. ':taken')
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
