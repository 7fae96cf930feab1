-- What commands over several shards have prepared here: Holdfast.Rules.StockRules.Branches once more. Set aside beside rows
-- and journal, in hashes of its own, so that nothing of it is in the ledger until it is committed:
--   {NAME}:undecided  operation id -> { 'U', attempt, shards, verb, time to live, target, note, time, SKU, units, counted, ... }
--                     for an operation that is prepared, or { 'P', attempt, verb } for what is pending about one
--   {NAME}:held       SKU -> units of it that are set aside
--   {NAME}:cart       operation id -> attempt:shards of the command that it is a part of
-- Nothing here writes.

local UNDECIDED, ASIDE, CARTS = BASE .. 'undecided', BASE .. 'held', BASE .. 'cart'
local CHECK, PREPARE, COMMIT, ABORT = 1, 2, 3, 4

-- Whether there is anything to look for; asked once a script.
local anyUndecided, anyCart = false, false
local undecided, undecidedIds, carts, cartIds, asideRows = {}, {}, {}, {}, {}
local isNoted = {}

local function findUndecided(id)
  local found = undecided[id]
  if found == nil then
    local value = anyUndecided and ask('HGET', UNDECIDED, id)
    found = value and cmsgpack.unpack(value) or false
    undecided[id] = found
  end
  return found
end

-- Puts something in hand, or, with false, lets go of it.
local function setUndecided(id, value)
  undecided[id] = value
  if not isNoted[id] then
    isNoted[id] = true
    undecidedIds[#undecidedIds + 1] = id
  end
end

local function isPending(id)
  local found = findUndecided(id)
  return found and found[1] == 'P'
end

local function cartOf(id)
  local cart = carts[id]
  if cart == nil then
    cart = anyCart and ask('HGET', CARTS, id) or false
    carts[id] = cart
  end
  return cart
end

-- Units of a row that are set aside.
local function asideOf(row)
  if not row.aside then
    row.aside = anyUndecided and tonumber(ask('HGET', ASIDE, row.sku) or 0) or 0
  end
  return row.aside
end

local function setAside(row, units)
  row.aside = asideOf(row) + units
  if not row.isAside then
    row.isAside = true
    asideRows[#asideRows + 1] = row
  end
end

-- Takes a branch's phase and cart out of a command's verb and note.
local function unbranch(c)
  c.phase, c[1] = floor(c[1] / 10), c[1] % 10
  local cut = string.find(c[5], '\n', 1, true)
  c.cart, c[5] = sub(c[5], 1, cut - 1), sub(c[5], cut + 1)
  local colon = string.find(c.cart, ':', 1, true)
  c.attempt, c.shards = sub(c.cart, 1, colon - 1), sub(c.cart, colon + 1)
end
