-- What every script of a gate that acknowledges by itself begins with, behind gate-common.lua.
--
-- Keys, beside those of gate-common.lua:
--   {NAME}:gate         more fields of the hash:
--       ack      'gate': this gate acknowledges by itself
--       entries  entries in the stream: another number there, and something was lost or added by other hands
--       backlog  commands in them
--       done     the last entry that is settled
--       turn     the turn of the process that takes the stream to the store, by the store: what an earlier one still does is not taken
--   {NAME}:gate:stream  stream: every command that the store has not decided yet, in the order in which it will. Fields of an
--                       entry: one a command, 'a' (its caller was told that it is done) or 'w' (its caller waits), with the command
--   {NAME}:gate:taken   hash: SKU -> units that the commands in the stream want; '' -> epoch, so that a loss is noticed
--   {NAME}:gate:v:ENTRY hash: number of a command -> what the store answered; for a minute, for its caller
--   {NAME}:gate:carry   hash: entry.number -> command that a process had acknowledged and hands over to the epoch that is being begun, whichever
--                       comes to be; '' -> that epoch, and the run_id of the server on which it is being begun
--
-- What may be sold of a SKU is what its copy shows less what is taken. Copies show what the store had when the entries up to
-- 'done' were settled, or more lately; taking units out of 'taken' and showing the store's row without them is one script.

local STREAM, TAKEN, CARRY = GATE .. ':stream', GATE .. ':taken', GATE .. ':carry'

-- The gate's fields, or nil when it does not sell: closed, of another epoch, or damaged.
local function selling(epoch, ...)
  local gate = fields(GATE, 'run', 'epoch', 'ack', 'entries', 'last', ...)
  if not (gate and gate[1] and gate[1] == run() and gate[2] == epoch and gate[3] == 'gate') then
    return nil
  end
  local length = redis.pcall('XLEN', STREAM)
  if type(length) ~= 'number' or text(length) ~= gate[4] or redis.pcall('HGET', TAKEN, '') ~= epoch or redis.pcall('GETBIT', IDS, gate[5]) ~= 1 then
    return nil
  end
  return gate
end
