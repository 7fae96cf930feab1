-- A process hands over what it had acknowledged, to an epoch that is being begun.
--
-- Arguments: 1 the epoch; 2 the process that begins it, for which it is opened on this server; '' for the others; then place and command by turns.
-- Answer: 1; 0 when that epoch, or a later one, has begun already; -1 when it is not being begun here: another server may be the one by now,
-- and what were left here would be seen by nobody.

local gate = fields(GATE, 'run', 'epoch', 'ack')
if gate and gate[1] and gate[1] == run() and gate[3] == 'gate' and tonumber(gate[2] or '0') >= tonumber(ARGV[1]) then
  return 0
end
local opened = redis.pcall('HGET', CARRY, '')
if ARGV[2] ~= '' then
  if redis.pcall('GET', GATE .. ':begins') ~= ARGV[2] then
    return -1
  end
  if type(opened) == 'table' then
    redis.call('DEL', CARRY)
  end
  redis.call('HSET', CARRY, '', ARGV[1] .. ':' .. run())
elseif opened ~= ARGV[1] .. ':' .. run() then
  return -1
end
for i = 3, #ARGV, 2 do
  redis.call('HSET', CARRY, ARGV[i], ARGV[i + 1])
end
return 1
