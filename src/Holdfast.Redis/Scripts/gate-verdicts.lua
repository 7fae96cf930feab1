-- What the store answered to commands that waited.
--
-- Arguments: 1 epoch; then entries.
-- Answer: nothing when the gate does not sell; otherwise the last settled entry, and for each entry numbers and answers by turns.

local gate = selling(ARGV[1], 'done')
if not gate then
  return {}
end
local answers = { gate[6] }
for i = 2, #ARGV do
  local found = redis.pcall('HGETALL', GATE .. ':v:' .. ARGV[i])
  answers[i] = found.err and {} or found
end
return answers
