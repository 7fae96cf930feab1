-- Reads copies for pages.
--
-- Arguments: 1 how old they may be in ms; then SKUs.
-- Answer: a list with, for each SKU, {version, available, reserved, restocked, adjusted}, or {} where the copy can't be
-- relied on to be that young: not loaded, not whole, or with reservations that may have been due since.

local gate = open('fresh')
local answers = {}
local time = now()
local oldest = time - tonumber(ARGV[1])
local isFresh = gate and tonumber(gate[3]) >= oldest and tonumber(gate[3]) <= time
for i = 2, #ARGV do
  local answer = {}
  if isFresh then
    local copy = fields(SKU .. ARGV[i], 'e', 'v', 'a', 'r', 't', 'd', 'l')
    if copy and copy[1] == gate[2] and copy[5] and (copy[4] == '0' or (copy[7] and tonumber(copy[7]) >= oldest)) then
      answer = { copy[2], copy[3], copy[4], copy[5], copy[6] }
    end
  end
  answers[i - 1] = answer
end
return answers
