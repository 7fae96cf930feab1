-- Reads entries from the head of the stream, for the process whose turn it is to take them to the store.
--
-- Arguments: 1 epoch; 2 how many; 3 the turn.
-- Answer: nothing when the gate does not sell; {'turn'} when a later turn has begun; otherwise the last settled entry, and the entries.

local gate = selling(ARGV[1], 'done', 'turn')
if not gate then
  return {}
end
if tonumber(ARGV[3]) < tonumber(gate[7]) then
  return { 'turn' }
end
if ARGV[3] ~= gate[7] then
  redis.call('HSET', GATE, 'turn', ARGV[3])
end
return { gate[6], redis.call('XRANGE', STREAM, '-', '+', 'COUNT', ARGV[2]) }
