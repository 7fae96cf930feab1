-- Lets commands through to the store, and refuses deductions and reservations that are certainly short. What is let
-- through leaves its id here first, so that no retry of it can be refused for want of the units that it took itself.
--
-- Arguments: 1 longest age of the copies in ms; then for each command: its id's places, the number of its lines
-- (0: is not to be judged), and SKU and quantity of each line.
-- Answer: 0 when the gate is closed (nothing was looked at and nothing written), otherwise the time to which the copies
-- are fresh, and for each command
--   {}               let through
--   {'-'}            let through, and a copy was missing
--   {SKU, units}     short: so many are available, whatever happens next
--   {SKU, units, '-'}  short, but for units that are reserved and may be due: the store has to be asked

local gate = open('sure', 'fresh', 'ids', 'last')
if not gate then
  return { 0 }
end

local time = now()
local age = time - tonumber(gate[4])
local isSure = gate[5] == '1' and time < tonumber(gate[3]) and age >= 0 and age <= tonumber(ARGV[1])
isSure = isSure and redis.pcall('GETBIT', IDS, gate[6]) == 1
local epoch = gate[2]
local answers, passed = { gate[4] }, {}
local at = 2
while at <= #ARGV do
  local id, lines = ARGV[at], tonumber(ARGV[at + 1])
  local answer = {}
  if lines > 0 and isSure and not isMarked(id) then
    local short
    local isCertain = true
    for line = 0, lines - 1 do
      local sku, quantity = ARGV[at + 2 + 2 * line], tonumber(ARGV[at + 3 + 2 * line])
      local copy = fields(SKU .. sku, 'e', 'a', 'r')
      if not copy or copy[1] ~= epoch then
        answer = { '-' }
        short = nil
        break
      end
      if tonumber(copy[2]) < quantity then
        short = short or { sku, copy[2] }
        isCertain = isCertain and copy[3] == '0'
      end
    end
    if short then
      answer = isCertain and short or { short[1], short[2], '-' }
    end
  end
  answers[#answers + 1] = answer
  if #answer < 2 then
    passed[#passed + 1] = id
  end
  at = at + 2 + 2 * lines
end

-- Only now the writes.
for _, id in ipairs(passed) do
  mark(id)
end
return answers
