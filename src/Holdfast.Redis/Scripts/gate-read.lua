-- Reads copies for pages.
--
-- Arguments: SKUs.
-- Answer: for each SKU {version, available, reserved, restocked, adjusted, age in ms}, or {} where the copy can't be
-- relied on at all: not loaded, not whole, older than a row that was passed over, or with reservations of which it is not known when they were last counted out. What a gate
-- that acknowledges by itself has taken counts as sold.

local gate = open('fresh', 'ack')
local answers = {}
local time = now()
for i, sku in ipairs(ARGV) do
  local answer = {}
  if gate and gate[3] ~= '0' then
    local copy = fields(SKU .. sku, 'e', 'v', 'a', 'r', 't', 'd', 'l', 'p')
    local taken = gate[4] == 'gate' and redis.pcall('HGET', GATE .. ':taken', sku)
    if copy and copy[1] == gate[2] and copy[5] and (copy[4] == '0' or copy[7]) and (taken or not copy[8]) then
      -- Reservations that came due since the row was read still count as reserved in it.
      local since = copy[4] == '0' and tonumber(gate[3]) or math.min(tonumber(gate[3]), tonumber(copy[7]))
      if since <= time then
        if gate[4] == 'gate' then
          copy[3] = text(math.max(0, tonumber(copy[3]) - (tonumber(type(taken) == 'string' and taken or '0') or 0)))
        end
        answer = { copy[2], copy[3], copy[4], copy[5], copy[6], text(time - since) }
      end
    end
  end
  answers[i] = answer
end
return answers
