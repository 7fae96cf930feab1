-- How an operation is read, for operation.lua and undecided.lua: known(1), then
--   1: what the operations' hash holds of it (4+), its record, cart(1+), and what is pending about it: verb(1) attempt(1+)
--   2, for one that is only prepared: verb(1) time(6) ttl(5) id(1+) target(1+) note(2+) cart(1+) lines(2) [SKU(1+) units(6)]...

local UNDECIDED, CARTS = BASE .. 'undecided', BASE .. 'cart'

local function operation(id, prepared)
  local u = prepared and cmsgpack.unpack(prepared)
  if u and u[1] == 'U' then
    local cart = u[2] .. ':' .. u[3]
    local out = { pack('<BBI6I5Bc0Bc0I2c0Bc0I2', 2, u[4], u[8], u[5], #id, id, #u[6], u[6], #u[7], u[7], #cart, cart, (#u - 8) / 3) }
    for j = 9, #u, 3 do
      out[#out + 1] = pack('<Bc0i6', #u[j], u[j], u[j + 1])
    end
    return concat(out)
  end
  local value = ask('HGET', OPS, id)
  if not value then
    return '\0'
  end
  local _, position = unstruct('<BI6', value)
  local cart, verb, attempt = ask('HGET', CARTS, id) or '', u and u[3] or 0, u and u[2] or ''
  return pack('<BI4c0', 1, #value, value) .. readRecord(position) .. pack('<Bc0BBc0', #cart, cart, verb, #attempt, attempt)
end
