-- Lets commands through to the store, and refuses deductions and reservations that are certainly short. What is let
-- through leaves its id here first, so that no retry of it can be refused for want of the units that it took itself.
--
-- Arguments: 1 longest age of the copies in ms; then for each command: its id's places, the number of its lines
-- (0: is not to be judged), and SKU and quantity of each line.
-- Answer: 0 when the gate is closed (nothing was looked at and nothing written), otherwise the time to which the copies
-- are fresh, a list with a number for each command, and then SKU and units of each SKU that is short. The numbers:
--   0       let through
--   1       let through, and a copy was missing
--   2 N     short of the N-th of those SKUs: so many are available, whatever happens next
--   2 N + 1 the same, but for units that are reserved and may be due: the store has to be asked

local gate = open('sure', 'fresh', 'ids', 'last')
if not gate then
  return { 0 }
end

local time = now()
local age = time - tonumber(gate[4])
local isSure = gate[5] == '1' and time < tonumber(gate[3]) and age >= 0 and age <= tonumber(ARGV[1])
isSure = isSure and redis.pcall('GETBIT', IDS, gate[6]) == 1
local epoch = gate[2]

-- A crowd asks for the same few SKUs: each copy is read once.
local copies = {}
local function find(sku)
  local copy = copies[sku]
  if copy == nil then
    local found = fields(SKU .. sku, 'e', 'a', 'r')
    local available = found and found[1] == epoch and tonumber(found[2] or '')
    copy = available and { available = available, text = found[2], isFree = found[3] == '0' } or false
    copies[sku] = copy
  end
  return copy
end

local LET_THROUGH, NOT_LOADED = 0, 1
local answers, shortages, passed = {}, {}, {}
local at = 2
while at <= #ARGV do
  local id, lines = ARGV[at], tonumber(ARGV[at + 1])
  local answer = LET_THROUGH
  if lines > 0 and isSure then
    local short
    local isCertain = true
    for line = at + 2, at + 2 * lines, 2 do
      local copy = find(ARGV[line])
      if not copy then
        answer = NOT_LOADED
        short = nil
        break
      end
      if copy.available < tonumber(ARGV[line + 1]) then
        short = short or ARGV[line]
        isCertain = isCertain and copy.isFree
      end
    end
    if short and not isMarked(id) then
      local copy = copies[short]
      if not copy.place then
        copy.place = #shortages / 2 + 1
        shortages[#shortages + 1] = short
        shortages[#shortages + 1] = copy.text
      end
      answer = 2 * copy.place + (isCertain and 0 or 1)
    end
  end
  answers[#answers + 1] = answer
  if answer <= NOT_LOADED then
    passed[#passed + 1] = id
  end
  at = at + 2 + 2 * lines
end

-- Only now the writes.
for _, id in ipairs(passed) do
  mark(id)
end
return { gate[4], answers, unpack(shortages) }
