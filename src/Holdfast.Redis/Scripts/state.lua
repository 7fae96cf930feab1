-- What the rules see and change (rules.lua), in this script's memory: stock rows and operations, read when asked for, and
-- the changes of this call. Nothing here writes.

local EXPIRE, TOMBSTONE = 5, 10
local PART_SIZE = 524288 -- of one journal key
local MAX_WORK = 12000 -- lines read or changed before the rest of the commands is left to the next call

local now, anyDue, part, offset
local work = 0
local rows, ops = {}, {}

-- Plain deductions (one line, no note) applied by this call: nearly all commands of a flash sale, so they get no tables of
-- their own. ops has their number k; here are their ids and what is stored of them, and what answers a repetition.
local plainCount = 0
local plainStored, plainRow, plainUnits, plainLeft = {}, {}, {}, {}
local touched, changedOps, newSkus, held, ended, endedIds, pieces = {}, {}, {}, {}, {}, {}, {}

local function findRow(sku)
  local row = rows[sku]
  if row == nil then
    row = ask('HGET', STOCK, sku)
  end
  if type(row) == 'string' then
    local value = row
    row = { sku = sku }
    row.a, row.r, row.restocked, row.adjusted, row.supplied, row.v = unstruct('<dddddd', value)
  end
  rows[sku] = row
  return row
end

local function heldRow(sku)
  local row = findRow(sku)
  if not row then
    fail('DAMAGED an operation holds units of ' .. sku .. ', which has no stock row (key ' .. STOCK .. ')')
  end
  return row
end

local function findOp(id)
  local op = ops[id]
  if op == nil then
    op = ask('HGET', OPS, id)
  end
  if type(op) == 'string' then
    local value = op
    op = { id = id, stored = value }
    op.state, op.position = unstruct('<BI6', value)
  elseif type(op) == 'number' then
    local k = op
    local sku, units, left = plainRow[k].sku, plainUnits[k], plainLeft[k]
    local _, position = unstruct('<BI6', plainStored[2 * k])
    op = { id = id, state = APPLIED, position = position, verb = 1, ttl = 0, target = '', skus = { sku }, units = { units }, left = { left }, n = 1 }
  end
  ops[id] = op
  return op
end

-- Reads an operation's record, and what happened to it later.
local function whole(op)
  if op.skus then
    return op
  end
  local skus, units, left, n = {}, {}, {}, 0
  if op.command then
    -- Applied by this very call.
    local c = op.command
    for j = 6, #c, 2 do
      n = n + 1
      skus[n], units[n] = c[j], c[j + 1]
    end
    op.verb, op.ttl, op.target, left = c[1], c[3], c[4], op.left
  else
    local record = readRecord(op.position)
    local _, kind, _, time, id, ttl, target, next = readHeader(record, 1)
    if id ~= op.id then
      fail('DAMAGED the journal has another record where ' .. op.id .. ' should be (key ' .. OPS .. ')')
    end
    op.verb, op.ttl, op.target, op.created = kind, ttl, target, time
    n, next = unstruct('<I2', record, next)
    local _, back, reserved, version
    for i = 1, n do
      back, skus[i], units[i], left[i], reserved, version, next = unstruct('<I3Bc0i6I7I7I6', record, next)
    end
    local stored = op.stored
    if #stored > 7 then
      local count
      op.endedAt, count, next = unstruct('<I6I2', stored, 8)
      op.endLeft = {}
      for i = 1, count do
        op.endLeft[i], next = unstruct('<I7', stored, next)
      end
      count, next = unstruct('<I2', stored, next)
      if count > 0 then
        op.refunded = {}
        for i = 1, count do
          op.refunded[i], next = unstruct('<I6', stored, next)
        end
      end
    end
  end
  work = work + n
  op.skus, op.units, op.left, op.n = skus, units, left, n
  return op
end


-- Where the next record goes, in this part of the journal or the next.
local function roomFor(size)
  local piece = pieces[#pieces]
  if offset > 0 and offset + size > PART_SIZE then
    if offset + 4 <= PART_SIZE then
      piece.n = piece.n + 1
      piece[piece.n] = '\0\0\0\0' -- no record: here the part ends
    end
    part, offset = part + 1, 0
    piece = { part = part, offset = 0, n = 0 }
    pieces[#pieces + 1] = piece
  end
  return piece
end

-- Puts a record at the journal's end, and the positions of its lines into the rows' indexes.
local function append(kind, flags, id, ttl, target, note, changed, skus, n, lines)
  local head = pack('<BBI6Bc0', kind, flags, now, #id, id)
  if ttl > 0 then head = head .. pack('<I5', ttl) end
  if target ~= '' then head = head .. pack('<Bc0', #target, target) end
  if note ~= '' then head = head .. pack('<I2c0', #note, note) end
  local first = 4 + #head + 2
  local size = first
  for i = 1, n do
    size = size + 30 + #skus[i]
  end
  local piece = roomFor(size)
  local position = part * PART + offset
  piece.n = piece.n + 1
  piece[piece.n] = pack('<I4', size) .. head .. pack('<I2', n)
  local at = first
  for i = 1, n do
    piece.n = piece.n + 1
    piece[piece.n] = pack('<I3', at) .. lines[i]
    local row = changed[i]
    row.m = row.m + 1
    row.index[row.m] = pack('<I6', position + at)
    at = at + 30 + #skus[i]
  end
  offset = offset + size
  work = work + n
  return position
end

-- Notes that a row changes: the positions of its new entries go into its index.
local function touch(row)
  if not row.index then
    row.index, row.m, row.v0 = {}, 0, row.v
    touched[#touched + 1] = row
  end
end

-- Changes a row; the line that says so.
local function change(row, amount, available, reserved)
  row.a = row.a + available
  row.r = row.r + reserved
  touch(row)
  row.v = row.v + 1
  local sku = row.sku
  return pack('<Bc0i6I7I7I6', #sku, sku, amount, row.a, row.r, row.v)
end

local function changedOp(op)
  if not op.changed then
    op.changed = true
    changedOps[#changedOps + 1] = op
  end
end

-- A reservation that ends holds nothing any more.
local function release(op)
  for i = 1, op.n do
    local sku = op.skus[i]
    local list = ended[sku]
    if not list then
      list = {}
      ended[sku] = list
    end
    list[#list + 1] = pack('<I6', op.units[i]) .. op.id
  end
  endedIds[#endedIds + 1] = op.id
end

local function expire(op)
  whole(op)
  local changed, lines = {}, {}
  for i = 1, op.n do
    local row = heldRow(op.skus[i])
    changed[i] = row
    lines[i] = change(row, op.units[i], op.units[i], -op.units[i])
  end
  append(EXPIRE, HELD, op.id, 0, '', '', changed, op.skus, op.n, lines)
  op.state, op.endedAt, op.endLeft = EXPIRED, now, {}
  release(op)
  changedOp(op)
end

local function isDue(op)
  return op.state == RESERVED and not op.command and not isPending(op.id) and now >= whole(op).created + op.ttl
end

-- Releases what is due on these rows. False when the bound of work was reached first: the command must wait.
local function releaseDue(changed, n)
  if not anyDue then
    return true
  end
  for i = 1, n do
    local row = changed[i]
    while row.r > 0 and not row.released do
      local due = ask('ZRANGEBYSCORE', holdsKey(row.sku), '-inf', string.format('%.0f', now), 'LIMIT', 0, 257)
      local met, isOurs = 0, false
      for j = 1, min(#due, 256) do
        local op = findOp(sub(due[j], 7))
        if not op then
          fail('DAMAGED ' .. sub(due[j], 7) .. ' holds units and is not known (key ' .. holdsKey(row.sku) .. ')')
        end
        if op.state == RESERVED and not isPending(op.id) then
          if work >= MAX_WORK then
            return false
          end
          expire(op)
          met = met + 1
        end
        isOurs = isOurs or op.changed
      end
      if #due <= 256 then
        row.released = true
      elseif met > 0 or isOurs then
        -- More of them than one look shows, and those shown are still there until the script writes.
        return false
      else
        fail('DAMAGED reservations that have ended still hold units (key ' .. holdsKey(row.sku) .. ')')
      end
    end
  end
  return true
end
