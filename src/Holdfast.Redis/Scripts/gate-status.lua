-- How a gate that acknowledges by itself stands.
--
-- Arguments: 1 1: tells what is taken, too.
-- Answer: its epoch (0: it does not sell), the last settled entry, the last entry in the stream ('' when it is empty), the first, commands in
-- the stream, the time, and SKUs and units that are taken, by turns, about 1,000 SKUs of them.

local gate = fields(GATE, 'epoch')
local open = gate and gate[1] and selling(gate[1], 'done', 'backlog')
if not open then
  return { '0', '', '', '', '0', text(now()), {} }
end
local first, last = redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1], redis.call('XREVRANGE', STREAM, '+', '-', 'COUNT', 1)[1]
local taken = {}
if ARGV[1] == '1' then
  for _, each in ipairs(redis.call('HSCAN', TAKEN, '0', 'COUNT', 1000)[2]) do
    taken[#taken + 1] = each
  end
end
return { gate[1], open[6], last and last[1] or '', first and first[1] or '', open[7], text(now()), taken }
