-- How stock is read: for stock.lua and list_stock.lua.

local function dueUnits(sku, now)
  local units, first = 0, 0
  repeat
    local members = ask('ZRANGEBYSCORE', holdsKey(sku), '-inf', string.format('%.0f', now), 'LIMIT', first, 1000)
    for i = 1, #members do
      units = units + unstruct('<I6', members[i])
    end
    first = first + 1000
  until #members < 1000
  return units
end

-- A row as the answer carries it.
local function level(sku, value, now, anyDue)
  if not value then
    return '\0'
  end
  if anyDue then
    local _, reserved = unstruct('<dd', value)
    if reserved > 0 then
      return '\2' .. value .. pack('<d', dueUnits(sku, now))
    end
  end
  return '\1' .. value
end
