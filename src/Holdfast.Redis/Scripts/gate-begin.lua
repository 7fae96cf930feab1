-- Begins an epoch of a gate that acknowledges by itself: everything that was taken before is in the store.
--
-- Arguments: 1 epoch; 2 the process that begins it; 3 how many commands it knows to have been handed over; 4 the last entry that it
-- knows to be in the stream ('' for none); 5 cursor of the ledger; 6 the place behind the bits of ids.
-- Answer: 1; 0 when there is more to be taken to the store first; -1 when it may not: another process begins one, a later one was begun, or
-- it was handed over to on another server, or before this one was restarted, which may have lost some of it.

local gate = fields(GATE, 'run', 'epoch', 'ack')
if redis.pcall('GET', GATE .. ':begins') ~= ARGV[2] or redis.pcall('HGET', CARRY, '') ~= ARGV[1] .. ':' .. run() then
  return -1
end
if gate and gate[1] == run() and tonumber(gate[2] or '0') >= tonumber(ARGV[1]) then
  return -1
end
if redis.call('HLEN', CARRY) - 1 ~= tonumber(ARGV[3]) then
  return 0
end
local last = redis.pcall('XREVRANGE', STREAM, '+', '-', 'COUNT', 1)
if not last.err and (last[1] and last[1][1] or '') ~= ARGV[4] then
  return 0
end

redis.call('DEL', GATE, STREAM, TAKEN, CARRY)
local kind = redis.call('TYPE', IDS).ok
if kind ~= 'string' and kind ~= 'none' then
  redis.call('DEL', IDS)
end
redis.call('HSET', GATE, 'run', run(), 'epoch', ARGV[1], 'born', text(now()), 'sure', 0, 'fresh', 0, 'cursor', ARGV[5], 'ids', 0, 'listing', 1, 'last', ARGV[6],
  'ack', 'gate', 'entries', 0, 'backlog', 0, 'done', '0-0', 'turn', 0)
redis.call('HSET', TAKEN, '', ARGV[1])
redis.call('SETBIT', IDS, ARGV[6], 1)
redis.call('DEL', GATE .. ':begins')
return 1
