-- What each verb does: the rules of Holdfast.Rules.StockRules once more, for the one store that can't run those. The
-- differential test holds both to the same reference model. Each verb answers a result (see execute.lua), or nothing when
-- the bound of work was reached before it could be decided; it then has changed nothing but the release of what was due.

local DEDUCT, RESERVE, CONFIRM, CANCEL, ABANDON, REFUND, RESTOCK, ADJUST = 1, 2, 3, 4, 5, 6, 7, 8
local UNDECIDED_NOW = 12 -- Busy, until what somebody has in hand is decided
local DONE, CONFLICT, WAS_CANCELLED, WAS_EXPIRED, REPLAYED, UNKNOWN_TARGET, INVALID_STATE, UNKNOWN_SKU, OVER_LIMIT, OVER_DEDUCTED, SHORT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local MAX_SUPPLIED = 9007199254740991

local function plain(status, original)
  return string.char(status, original or 0, 0)
end

local function refused(status, line, available)
  return pack('<BBBI2I7', status, 0, 2, line - 1, available or 0)
end

local function withLeft(status, original, left)
  local out = { pack('<BBBI2', status, original, 1, #left) }
  for i = 1, #left do
    out[i + 1] = pack('<I7', left[i])
  end
  return concat(out)
end

local function withNames(status, original, op, left)
  if #left == 0 then
    return plain(status, original)
  end
  local out = { pack('<BBBI2', status, original, 3, #left) }
  for i = 1, #left do
    out[i + 1] = pack('<Bc0I7', #op.skus[i], op.skus[i], left[i])
  end
  return concat(out)
end

-- Somebody has the operation, or units of this line, in hand.
local function busy(line)
  return line and refused(UNDECIDED_NOW, line) or plain(UNDECIDED_NOW)
end

-- After the checks: whether the command is only to be checked or prepared, which is done then.
local function isHeld(c, found, n, target)
  if c.phase ~= CHECK and c.phase ~= PREPARE then
    return false
  end
  if c.phase == CHECK then
    return true
  end
  if target then
    setUndecided(target.id, { 'P', c.attempt, c[1] })
  end
  if c[1] == CONFIRM or c[1] == CANCEL then
    return true
  end
  local u = { 'U', c.attempt, c.shards, c[1], c[3], c[4], c[5], now }
  for i = 1, n do
    local row, units, counted = found[i], c[4 + 2 * i + 1], 1
    if c[1] == DEDUCT or c[1] == RESERVE then
      setAside(row, units)
    elseif c[1] == ADJUST and units < 0 then
      setAside(row, -units)
    elseif (c[1] == ADJUST or c[1] == RESTOCK) and row then
      row.supplied = row.supplied + units
      touch(row)
    else
      -- A refund holds nothing of a row; a restock of a new SKU has none yet.
      counted = 0
    end
    u[#u + 1], u[#u + 2], u[#u + 3] = c[4 + 2 * i], units, counted
  end
  work = work + n
  setUndecided(c[2], u)
  return true
end

-- Takes back what a prepared operation has set aside.
local function letGo(id, u)
  for j = 9, #u, 3 do
    local units = u[j + 1]
    if u[j + 2] == 1 then
      local row = heldRow(u[j])
      if u[4] == DEDUCT or u[4] == RESERVE then
        setAside(row, -units)
      elseif u[4] == ADJUST and units < 0 then
        setAside(row, units)
      else
        row.supplied = row.supplied - units
        touch(row)
      end
    end
  end
  if u[4] == REFUND then
    setUndecided(u[6], false)
  end
  setUndecided(id, false)
end

-- The rows of a command's lines, or the line whose SKU is not known.
local function findRows(c)
  local found, n = {}, 0
  for j = 6, #c, 2 do
    local row = findRow(c[j])
    n = n + 1
    if not row then
      return nil, n
    end
    found[n] = row
  end
  return found, n
end

local function skusOf(c)
  local skus, n = {}, 0
  for j = 6, #c, 2 do
    n = n + 1
    skus[n] = c[j]
  end
  return skus
end

-- Writes the record of an operation that applies, and remembers it.
local function remember(c, state, changed, n, lines, left)
  local flags = 0
  if c[3] > 0 then flags = flags + HAS_TTL end
  if c[4] ~= '' then flags = flags + HAS_TARGET end
  if c[5] ~= '' then flags = flags + HAS_NOTE end
  local position = append(c[1], flags, c[2], c[3], c[4], c[5], changed, skusOf(c), n, lines)
  local op = { id = c[2], state = state, position = position, command = c, left = left, created = now }
  ops[c[2]] = op
  changedOp(op)
  if c.cart then
    carts[c[2]] = c.cart
    cartIds[#cartIds + 1] = c[2]
  end
  return withLeft(DONE, 0, left)
end

-- A deduction of one line without a note, whose id is not known. As take() does it, with as few new values as can be.
-- Answers a result, or its beginning and its end.
local PLAIN_DONE = string.char(DONE, 0, 4)
local function deductPlain(id, sku, units)
  local row = findRow(sku)
  if not row then
    return refused(UNKNOWN_SKU, 1)
  end
  if anyDue and not releaseDue({ row }, 1) then
    return nil
  end
  local available = row.a - units
  if available < 0 then
    return refused(SHORT, 1, row.a)
  end
  local length = #id
  if row.headOf ~= length or row.headUnits ~= units then
    -- The same for all deductions of so many units with an id of this length.
    row.headOf, row.headUnits = length, units
    row.size = 45 + length + #sku
    row.head = pack('<I4BBI6B', row.size, DEDUCT, 0, now, length)
    row.line = pack('<I2I3Bc0i6', 1, 15 + length, #sku, sku, units)
  end
  local piece = roomFor(row.size)
  local position = part * PART + offset
  if not row.index then
    touch(row)
  end
  local version, m, n, k = row.v + 1, row.m + 1, piece.n, plainCount + 1
  row.a, row.v, row.m = available, version, m
  local balances = pack('<I7I7I6', available, row.r, version)
  piece[n + 1], piece[n + 2], piece[n + 3], piece[n + 4] = row.head, id, row.line, balances
  piece.n = n + 4
  row.index[m] = pack('<I6', position + 15 + length)
  offset = offset + row.size
  work = work + 1
  ops[id], plainCount = k, k
  plainStored[2 * k - 1], plainStored[2 * k] = id, pack('<BI6', APPLIED, position)
  plainRow[k], plainUnits[k], plainLeft[k] = row, units, available
  return PLAIN_DONE, balances
end

local function take(c)
  local changed, n = findRows(c)
  if not changed then
    return refused(UNKNOWN_SKU, n)
  end
  if not releaseDue(changed, n) then
    return nil
  end
  for i = 1, n do
    if changed[i].a < c[4 + 2 * i + 1] then
      return refused(SHORT, i, changed[i].a)
    end
  end
  for i = 1, n do
    if changed[i].a - asideOf(changed[i]) < c[4 + 2 * i + 1] then
      return busy(i)
    end
  end
  if isHeld(c, changed, n) then
    return plain(DONE)
  end
  local reserves = c[1] == RESERVE
  local lines, left = {}, {}
  for i = 1, n do
    local units = c[4 + 2 * i + 1]
    lines[i] = change(changed[i], units, -units, reserves and units or 0)
    left[i] = changed[i].a
  end
  if reserves then
    held[#held + 1] = c
  end
  return remember(c, reserves and RESERVED or APPLIED, changed, n, lines, left)
end

local function finish(op, state, left)
  op.state, op.endedAt, op.endLeft = state, now, left
  changedOp(op)
  return withNames(DONE, 0, op, left)
end

local function heldRows(op)
  local changed = {}
  for i = 1, op.n do
    changed[i] = heldRow(op.skus[i])
  end
  return changed
end

local function confirm(c, op)
  if not op then
    return plain(UNKNOWN_TARGET)
  elseif op.state == EXPIRED then
    return plain(WAS_EXPIRED)
  elseif op.state == CONFIRMED then
    return withNames(REPLAYED, DONE, whole(op), op.endLeft)
  elseif op.state ~= RESERVED then
    return plain(INVALID_STATE)
  elseif isHeld(c, nil, 0, op) then
    return plain(DONE)
  end
  local changed = heldRows(whole(op))
  if not releaseDue(changed, op.n) then
    return nil
  end
  local lines, left = {}, {}
  for i = 1, op.n do
    lines[i] = change(changed[i], op.units[i], 0, -op.units[i])
    left[i] = changed[i].a
  end
  append(CONFIRM, HELD, op.id, 0, '', '', changed, op.skus, op.n, lines)
  release(op)
  return finish(op, CONFIRMED, left)
end

-- A tombstone is an operation without lines.
local function tombstone(c, state)
  local position = append(c[1] + TOMBSTONE, c[5] ~= '' and HAS_NOTE or 0, c[2], 0, '', c[5], {}, {}, 0, {})
  work = work + 1
  local op = { id = c[2], state = state, position = position, verb = c[1] + TOMBSTONE, skus = {}, units = {}, left = {}, n = 0, created = now }
  ops[c[2]] = op
  changedOp(op)
  return plain(DONE)
end

local function cancel(c, op)
  if not op then
    return c.phase and plain(UNKNOWN_TARGET) or tombstone(c, CANCELLED)
  elseif op.state == EXPIRED then
    return plain(REPLAYED, WAS_EXPIRED)
  elseif op.state == CANCELLED or op.state == ABANDONED then
    return withNames(REPLAYED, WAS_CANCELLED, whole(op), op.endLeft or {})
  end
  whole(op)
  if op.verb ~= DEDUCT and op.verb ~= RESERVE then
    return plain(INVALID_STATE)
  end
  if isHeld(c, nil, 0, op) then
    return plain(DONE)
  end
  local all = heldRows(op)
  if not releaseDue(all, op.n) then
    return nil
  end
  local wasHeld = op.state == RESERVED
  local changed, skus, lines, left, n = {}, {}, {}, {}, 0
  for i = 1, op.n do
    local units = op.units[i] - (op.refunded and op.refunded[i] or 0)
    if units > 0 then
      n = n + 1
      changed[n], skus[n] = all[i], op.skus[i]
      lines[n] = change(all[i], units, units, wasHeld and -units or 0)
    end
    left[i] = all[i].a
  end
  append(CANCEL, wasHeld and HELD or 0, op.id, 0, '', '', changed, skus, n, lines)
  if wasHeld then
    release(op)
  end
  return finish(op, CANCELLED, left)
end

local function abandon(c, op)
  if not op then
    return tombstone(c, ABANDONED)
  elseif op.state == CANCELLED or op.state == ABANDONED then
    return plain(REPLAYED, WAS_CANCELLED)
  elseif op.state == EXPIRED then
    return plain(REPLAYED, WAS_EXPIRED)
  end
  return withNames(REPLAYED, DONE, whole(op), op.left)
end

local function refund(c)
  if findUndecided(c[4]) then
    return busy()
  end
  local target = findOp(c[4])
  if not target then
    return plain(UNKNOWN_TARGET)
  end
  if isDue(target) then
    expire(target)
  end
  whole(target)
  if not ((target.verb == DEDUCT and target.state == APPLIED) or (target.verb == RESERVE and target.state == CONFIRMED)) then
    return plain(INVALID_STATE)
  end
  local changed, n = findRows(c)
  if not changed then
    return refused(UNKNOWN_SKU, n)
  end
  local place = target.place
  if not place then
    place = {}
    for i = 1, target.n do
      place[target.skus[i]] = i
    end
    target.place = place
  end
  for i = 1, n do
    local at = place[c[4 + 2 * i]]
    local refundable = at and target.units[at] - (target.refunded and target.refunded[at] or 0) or 0
    if c[4 + 2 * i + 1] > refundable then
      return refused(OVER_DEDUCTED, i, refundable)
    end
  end
  if not releaseDue(changed, n) then
    return nil
  end
  if isHeld(c, changed, n, target) then
    return plain(DONE)
  end
  if not target.refunded then
    target.refunded = {}
    for i = 1, target.n do
      target.refunded[i] = 0
    end
  end
  local lines, left = {}, {}
  for i = 1, n do
    local units = c[4 + 2 * i + 1]
    local at = place[c[4 + 2 * i]]
    target.refunded[at] = target.refunded[at] + units
    lines[i] = change(changed[i], units, units, 0)
    left[i] = changed[i].a
  end
  changedOp(target)
  return remember(c, APPLIED, changed, n, lines, left)
end

local function restock(c)
  local known, k, n, all = {}, 0, 0, {}
  for j = 6, #c, 2 do
    n = n + 1
    local row = findRow(c[j])
    if row then
      if c.phase ~= COMMIT and row.supplied > MAX_SUPPLIED - c[j + 1] then
        -- A commit was let in when it was prepared.
        return refused(OVER_LIMIT, n)
      end
      k = k + 1
      known[k] = row
    end
    all[n] = row or false
  end
  if isHeld(c, all, n) then
    return plain(DONE)
  end
  if not releaseDue(known, k) then
    return nil
  end
  local changed, lines, left = {}, {}, {}
  for i = 1, n do
    local sku, units = c[4 + 2 * i], c[4 + 2 * i + 1]
    local row = rows[sku]
    if not row then
      row = { sku = sku, a = 0, r = 0, restocked = 0, adjusted = 0, supplied = 0, v = 0 }
      rows[sku] = row
      newSkus[#newSkus + 1] = sku
    end
    row.restocked = row.restocked + units
    row.supplied = row.supplied + units
    changed[i] = row
    lines[i] = change(row, units, units, 0)
    left[i] = row.a
  end
  return remember(c, APPLIED, changed, n, lines, left)
end

local function adjust(c)
  local changed, n = findRows(c)
  if not changed then
    return refused(UNKNOWN_SKU, n)
  end
  for i = 1, n do
    local units = c[4 + 2 * i + 1]
    if units > 0 and changed[i].supplied > MAX_SUPPLIED - units then
      return refused(OVER_LIMIT, i)
    end
  end
  if not releaseDue(changed, n) then
    return nil
  end
  for i = 1, n do
    if changed[i].a + c[4 + 2 * i + 1] < 0 then
      return refused(SHORT, i, changed[i].a)
    end
  end
  for i = 1, n do
    local units = c[4 + 2 * i + 1]
    if units < 0 and changed[i].a - asideOf(changed[i]) + units < 0 then
      return busy(i)
    end
  end
  if isHeld(c, changed, n) then
    return plain(DONE)
  end
  local lines, left = {}, {}
  for i = 1, n do
    local row, units = changed[i], c[4 + 2 * i + 1]
    row.adjusted = row.adjusted + units
    if units > 0 then
      row.supplied = row.supplied + units
    end
    lines[i] = change(row, units, units, 0)
    left[i] = row.a
  end
  return remember(c, APPLIED, changed, n, lines, left)
end

-- The answer to a command whose id is taken.
local function again(c, op)
  whole(op)
  if op.verb < TOMBSTONE then
    local same = op.verb == c[1] and op.ttl == c[3] and op.target == c[4] and #c == 5 + 2 * op.n
    for i = 1, same and op.n or 0 do
      if op.skus[i] ~= c[4 + 2 * i] or op.units[i] ~= c[4 + 2 * i + 1] then
        same = false
        break
      end
    end
    -- Of a command over several shards the shards are content as well.
    local cart = cartOf(op.id)
    if cart then
      same = same and c.phase and sub(cart, -#c.shards - 1) == ':' .. c.shards
    else
      same = same and not c.phase
    end
    if not same then
      return plain(CONFLICT)
    end
  end
  if op.state == CANCELLED or op.state == ABANDONED then
    return plain(WAS_CANCELLED)
  elseif op.state == EXPIRED then
    return plain(WAS_EXPIRED)
  end
  return withLeft(REPLAYED, DONE, op.left)
end

local VERBS = { [DEDUCT] = take, [RESERVE] = take, [REFUND] = refund, [RESTOCK] = restock, [ADJUST] = adjust }

-- The answer where an attempt has the command's operation in hand, or has prepared this very part before.
local function meetUndecided(c, op)
  local u = findUndecided(c[2])
  local isOurs = u and c.phase == PREPARE and u[2] == c.attempt
  if u and u[1] == 'U' then
    return isOurs and plain(DONE) or busy()
  elseif c[1] ~= CONFIRM and c[1] ~= CANCEL then
    return nil
  elseif u then
    return isOurs and u[3] == c[1] and plain(DONE) or busy()
  end
  return op and not c.phase and cartOf(op.id) and busy() or nil
end

-- Commits or aborts what an attempt has prepared.
local function resolve(c, op)
  local verb, u = c[1], findUndecided(c[2])
  local isOurs = u and u[2] == c.attempt
  local nothing = plain(c.phase == COMMIT and UNKNOWN_TARGET or DONE)
  if verb == CONFIRM or verb == CANCEL then
    if not (isOurs and u[1] == 'P' and u[3] == verb) then
      -- Nothing else could end the operation while this was pending: where it has ended, this attempt did it.
      if op and op.state == (verb == CONFIRM and CONFIRMED or CANCELLED) then
        return withNames(REPLAYED, verb == CONFIRM and DONE or WAS_CANCELLED, whole(op), op.endLeft or {})
      end
      return nothing
    end
    local result = plain(DONE)
    if c.phase == COMMIT then
      -- Still pending meanwhile, so that it does not expire.
      result = verb == CONFIRM and confirm(c, op) or verb == CANCEL and cancel(c, op)
    end
    if result then
      setUndecided(c[2], false)
    end
    return result or nil
  end
  if not (isOurs and u[1] == 'U') then
    local cart = op and cartOf(op.id)
    if cart and sub(cart, 1, #c.attempt + 1) == c.attempt .. ':' then
      return withLeft(REPLAYED, DONE, whole(op).left)
    end
    return nothing
  end
  if c.phase == COMMIT then
    -- What may be left to the next call comes before anything is let go of.
    local known, k = {}, 0
    for j = 6, #c, 2 do
      local row = findRow(c[j])
      if row then
        k = k + 1
        known[k] = row
      end
    end
    if not releaseDue(known, k) then
      return nil
    end
  end
  letGo(c[2], u)
  return c.phase == ABORT and plain(DONE) or VERBS[verb](c)
end

local function decide(c)
  local verb = c[1]
  local op = findOp(c[2])
  if op and isDue(op) then
    expire(op)
  end
  if c.phase == COMMIT or c.phase == ABORT then
    return resolve(c, op)
  end
  local met = (anyUndecided or anyCart) and meetUndecided(c, op)
  if met then
    return met
  elseif verb == CONFIRM then
    return confirm(c, op)
  elseif verb == CANCEL then
    return cancel(c, op)
  elseif verb == ABANDON then
    return abandon(c, op)
  elseif op then
    -- The duplicate check comes first, before any look at stock.
    return again(c, op)
  end
  return VERBS[verb](c)
end
