-- Reads copies as they are, for a comparison with the store.
--
-- Arguments: SKUs.
-- Answer: {time, epoch, fresh, place behind the bits of ids} ('0' for the last three when the gate is closed), then for
-- each SKU {version, available, reserved, restocked, adjusted} as they stand there, damaged or not, with '' for what is
-- missing; {} where no copy of this epoch is loaded.

local gate = open('fresh', 'last')
local answers = { { text(now()), gate and gate[2] or '0', gate and gate[3] or '0', gate and gate[4] or '0' } }
for i = 1, #ARGV do
  local answer = {}
  local copy = gate and fields(SKU .. ARGV[i], 'e', 'v', 'a', 'r', 't', 'd')
  if copy and copy[1] == gate[2] then
    answer = { copy[2] or '', copy[3] or '', copy[4] or '', copy[5] or '', copy[6] or '' }
  end
  answers[i + 1] = answer
end
return answers
