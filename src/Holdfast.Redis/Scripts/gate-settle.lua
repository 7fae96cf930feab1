-- The store has decided entries: they leave the stream, what they had taken is free again, and the copies show the store's rows, in
-- one go. An entry that has left already changes nothing, so it does no harm to settle twice.
--
-- Arguments: 1 epoch; 2 the turn; 3 time before which the rows were read; 4 number of rows; SKU, version, available, reserved, restocked, adjusted of
-- each; then for each entry: its id, its commands, the number of its takings, SKU and units of each, the number of verdicts, number and answer of each.
-- Answer: the last settled entry; nothing when the gate does not sell, or a later turn has begun.

local gate = selling(ARGV[1], 'backlog', 'done', 'turn')
if not gate or gate[8] ~= ARGV[2] then
  return {}
end

-- Entries leave first: that needs no memory, and after it Redis refuses none to the rest of the script.
local at = 5 + 6 * tonumber(ARGV[4])
local entries, backlog, done, given, verdicts = tonumber(gate[4]), tonumber(gate[6]), gate[7], {}, {}
while at <= #ARGV do
  local entry, commands, lines = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local isNew = redis.call('XDEL', STREAM, entry) == 1
  if isNew then
    entries, backlog, done = entries - 1, backlog - commands, entry
  end
  at = at + 3
  for _ = 1, lines do
    if isNew then
      given[ARGV[at]] = (given[ARGV[at]] or 0) + tonumber(ARGV[at + 1])
    end
    at = at + 2
  end
  local answers = {}
  for i = 1, tonumber(ARGV[at]) do
    answers[2 * i - 1], answers[2 * i] = ARGV[at + 2 * i - 1], ARGV[at + 2 * i]
  end
  at = at + 1 + #answers
  if isNew and #answers > 0 then
    verdicts[entry] = answers
  end
end

for sku, units in pairs(given) do
  if redis.call('HINCRBY', TAKEN, sku, text(-units)) <= 0 then
    redis.call('HDEL', TAKEN, sku)
  end
end
for entry, answers in pairs(verdicts) do
  local key = GATE .. ':v:' .. entry
  redis.call('DEL', key)
  for first = 1, #answers, 1000 do
    redis.call('HSET', key, unpack(answers, first, math.min(first + 999, #answers)))
  end
  redis.call('PEXPIRE', key, 60000)
end
redis.call('HSET', GATE, 'entries', text(entries), 'backlog', text(backlog), 'done', done)
takeOver(ARGV[1], 5, tonumber(ARGV[4]), ARGV[3])
return { done }
