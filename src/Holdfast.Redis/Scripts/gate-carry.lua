-- A process hands over what it had acknowledged, to an epoch that is being begun.
--
-- Arguments: 1 the epoch; then place and command by turns.
-- Answer: 1; 0 when that epoch has begun already.

local gate = fields(GATE, 'run', 'epoch', 'ack')
if gate and gate[1] == run() and gate[3] == 'gate' and tonumber(gate[2] or '0') >= tonumber(ARGV[1]) then
  return 0
end
local key = GATE .. ':carry:' .. ARGV[1]
for i = 2, #ARGV, 2 do
  redis.call('HSET', key, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', key, 86400000)
return 1
